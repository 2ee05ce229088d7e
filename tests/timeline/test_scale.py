"""Many videos under two processes that are killed midway and started again: no row is lost, none is there twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.face_videos import make_timeline, save_model, scene, write_video
from modeling_stt.timeline import FaceTracker
from modeling_stt.timeline.batch import find_videos, write_timelines
from modeling_stt.timeline.tables import read_table

ROOT = Path(__file__).parents[2]
NUM_VIDEOS = 24


def workers_of(launcher: int) -> list[int]:
    """The processes that a launcher started. They are in sessions of their own, and outlive it where it is killed."""
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def test_a_killed_run_of_two_processes_resumes(tmp_path):
    """SIGKILL takes launcher and processes at once, as a machine that is switched off does."""
    model = save_model(tmp_path / "model")
    (tmp_path / "videos").mkdir()
    for n, halves in enumerate([("happy", ""), ("sad", "angry")]):
        write_video(tmp_path / f"{n}.mp4", scene(*halves, seconds=6))
    for n in range(NUM_VIDEOS):
        shutil.copy(tmp_path / f"{n % 2}.mp4", tmp_path / "videos" / f"{n:02d}.mp4")
    (tmp_path / "videos" / "zero.mp4").touch()
    output = tmp_path / "rows.csv"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
    command += ["--config_file", str(ROOT / "examples/accelerate/cpu.yaml"), "-m", "modeling_stt.cli", "timeline"]
    command += [str(tmp_path / "videos"), "--model", str(model), "--output", str(output)]
    command += ["--detector", "helpers.face_videos:find_halves"]
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    parts = tmp_path / "rows.csv.parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.jsonl"))) < 4 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.01)
    for pid in (killed.pid, *workers_of(killed.pid)):
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    assert not output.exists()
    num_done = len(list(parts.glob("*.jsonl")))
    assert 4 <= num_done < NUM_VIDEOS
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert f"1 could not be read, or not to the end: see {tmp_path / 'rows.errors.csv'}" in resumed.stdout
    assert f"{num_done} of these were there already" in resumed.stdout
    one = make_timeline(model=model, processor=None, tracker=FaceTracker)
    write_timelines(find_videos([tmp_path / "videos"]), one, tmp_path / "one.csv")
    assert output.read_text() == (tmp_path / "one.csv").read_text()
    assert len({r["video"] for r in read_table(output)}) == NUM_VIDEOS
