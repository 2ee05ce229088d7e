"""`stt timeline`: what goes in and out, exit status included; what it calls is tested beside."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.face_videos import NAMES, make_timeline, save_model, scene, write_sound, write_video
from modeling_stt import cli
from modeling_stt.timeline import video
from modeling_stt.timeline.rows import columns
from modeling_stt.timeline.tables import read_table
from modeling_stt.timeline.video import read_frames

ROOT = Path(__file__).parents[2]
DETECTOR = ["--detector", "helpers.face_videos:find_halves"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", scene("happy", "", seconds=3))
    write_video(folder / "b.mp4", scene("", "", seconds=2))
    return folder


def run(*arguments) -> int:
    return cli.main(["timeline", *map(str, arguments)])


def test_rows_are_printed_for_people(model, folder, capsys):
    assert run(folder, "--model", model, *DETECTOR) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(folder / "a.mp4")
    assert lines[1].split() == ["start", "end", "face", "expression"]
    start, end, face, expression, *_ = lines[2].split()
    assert (start, end, face) == ("0.00", "2.00", "1")
    assert expression in NAMES
    assert lines[4:] == [str(folder / "b.mp4"), lines[1], "      0.00      2.00     –  no face"]


def test_rows_are_printed_for_programs(model, folder, capsys):
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, "--jsonl", "--stride_s", "2") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["start_s"], r["end_s"], r["state"]) for r in records] == [(0, 2, "face"), (2, 3, "face")]
    assert list(records[0]) == list(columns(NAMES))


def test_rows_are_written_and_gone_on_with(model, folder, tmp_path, capsys):
    output = tmp_path / "rows.csv"
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, "--output", output) == 0
    assert capsys.readouterr().out == f"{output}: 2 rows (2 face) of 1 video\n"
    bad = write_sound(tmp_path / "sound.mp4")
    assert run(folder, bad, "--model", model, *DETECTOR, "--output", output) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{output}: 3 rows (2 face, 1 no face) of 3 videos",
        "1 of these was there already",
        f"1 could not be read, or not to the end: see {tmp_path / 'rows.errors.csv'}",
    ]
    assert [Path(record["video"]).name for record in read_table(output)] == ["a.mp4", "a.mp4", "b.mp4"]


def test_a_bad_video_is_told_and_the_others_printed(model, folder, tmp_path, capsys):
    bad = write_sound(tmp_path / "sound.mp4")
    assert run(bad, folder / "b.mp4", "--model", model, *DETECTOR) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(f"{bad} has no video stream")  # the name once
    assert out.endswith("no face\n")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_options_reach_the_timeline(model, folder, tmp_path, dtype):
    output = tmp_path / "rows.jsonl"
    options = ["--window_s", "1", "--stride_s", "0.5", "--min_face_share", "0.7", "--detect_fps", "12.5"]
    options += ["--batch_size", "2", "--dtype", dtype, "--device", "cpu"]
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, "--output", output, *options) == 0
    settings = json.loads((tmp_path / "rows.settings.json").read_text())
    expected = {"window_s": 1.0, "stride_s": 0.5, "min_face_share": 0.7, "detect_fps": 12.5, "dtype": dtype}
    assert settings | expected == settings
    assert settings["detector"] == "find_halves"
    assert len(list(read_table(output))) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stride_s", "3"], "cannot be cut"),
        (["--detector", "haar"], "Unknown detector 'haar'"),
        (["--detector", "no_such_module:find"], "No module named 'no_such_module'"),
        (["--detector", "helpers.face_videos:find"], "no function 'find' in helpers.face_videos"),
        (["--detector", "missing.onnx"], "missing.onnx"),
        (["--output", "rows.xlsx"], "must end in one of"),
        (["--detect_fps", "0"], "must be more than 0"),
    ],
)
def test_wrong_usage_is_told(model, folder, options, message, capsys):
    with pytest.raises(SystemExit) as exit:
        run(folder, "--model", model, *DETECTOR, *options)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_many_processes_need_a_table(model, folder, monkeypatch, capsys):
    """Each would print the rows of all videos."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        run(folder, "--model", model)
    assert "--output FILE is needed" in capsys.readouterr().err


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parents[1])]),
    }


def test_who_has_read_enough_ends_it_quietly(model, folder):
    """`stt timeline … | head` was told of a broken pipe, as a fault of the video and as wrong usage."""
    command = [sys.executable, "-m", "modeling_stt.cli", "timeline", str(folder), "--model", str(model), *DETECTOR]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--stride_s", "0.1"], stdout=pipe, stderr=pipe, env=environment()) as reading:
        assert reading.stdout is not None and reading.stderr is not None
        reading.stdout.readline()
        reading.stdout.close()
        told = reading.stderr.read().decode()
    assert (reading.returncode, "pipe" in told) == (141, False), told


def test_ctrl_c_while_a_file_is_read_is_its_own_status(model, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_stt.timeline.Timeline.__call__", interrupt)
    assert run(folder, "--model", model, *DETECTOR) == 130


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_closed_terminal_and_a_launchers_signal_leave_nothing_unfinished(model, folder, tmp_path, monkeypatch, name):
    """What stays unfinished is taken for a death, and after two the video would not be read again."""
    number = getattr(signal, name)

    def end(*_, **__):
        os.kill(os.getpid(), number)
        yield from ()

    monkeypatch.setattr("modeling_stt.timeline.Timeline.__call__", end)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            run(folder, "--model", model, "--output", tmp_path / "rows.csv", *DETECTOR)
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert (tmp_path / "rows.csv.parts").is_dir() and not list(tmp_path.rglob("*.unfinished"))
    assert not (tmp_path / "rows.csv.lock").exists()


def test_ctrl_c_ends_a_live_source_with_its_last_rows(model, monkeypatch, capsys):
    monkeypatch.setattr(video, "is_live", lambda source: True)
    frames = [(n / 25, image) for n, image in enumerate(scene("happy", "", seconds=30))]
    read = make_timeline().__class__.__call__

    def camera():
        for n, frame in enumerate(frames):
            if n == 60:
                os.kill(os.getpid(), signal.SIGINT)
            if n >= 60:
                threading.Event().wait(0.01)
            yield frame

    monkeypatch.setattr(
        "modeling_stt.timeline.Timeline.__call__", lambda self, source, **options: read(self, camera(), **options)
    )
    assert run("rtsp://camera", "--model", model, *DETECTOR) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert float(last[0]) >= 1
    assert 2.0 <= float(last[1]) < 20  # a few frames are decoded ahead of those that are looked at


def test_processes_of_accelerate_launch_share_the_videos(model, folder, tmp_path):
    output = tmp_path / "rows.csv"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
    launch += ["--config_file", str(ROOT / "examples/accelerate/cpu.yaml"), "-m", "modeling_stt.cli", "timeline"]
    command = [*launch, str(folder), "--model", str(model), "--output", str(output), *DETECTOR]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{output}: 3 rows (2 face, 1 no face) of 2 videos\n"
    assert run(folder, "--model", model, "--output", tmp_path / "one.csv", *DETECTOR) == 0
    assert output.read_text() == (tmp_path / "one.csv").read_text()


def test_one_video_is_pictured_while_its_rows_are_printed(model, folder, tmp_path, capsys):
    video, chart, annotated = folder / "a.mp4", tmp_path / "chart.svg", tmp_path / "w.mp4"
    assert run(video, "--model", model, *DETECTOR) == 0
    plain = capsys.readouterr().out
    assert run(video, "--model", model, "--chart", chart, "--annotate", annotated, *DETECTOR) == 0
    assert capsys.readouterr().out == plain
    assert "<svg" in chart.read_text()
    assert len(list(read_frames(annotated))) == len(list(read_frames(video)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "b.mp4", "--chart", "x.png"], "are of one video"),
        ([".", "--annotate", "x.mp4"], "are of one video, got 2"),
        (["a.mp4", "--output_dir", "d", "--chart", "x.png"], "a report of each video"),
        (["a.mp4", "--report", "x.pdf"], "x.pdf must end in one of .html"),
        (["a.mp4", "--chart", "nowhere/x.png"], "no folder nowhere"),
        (["a.mp4", "--chart", "x.xyz"], "x.xyz must end in one of .png, .svg, .pdf"),
        (["a.mp4", "--annotate", "x.avi"], "x.avi must end in one of"),
        (["a.mp4", "--annotate", "a.mp4"], "a.mp4 is the video itself"),
    ],
)
def test_pictures_that_cannot_be_are_refused_before_anything_is_read(
    model, folder, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as error:
        run(*arguments, "--model", model, *DETECTOR)
    assert error.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


@pytest.mark.parametrize("option", ["--chart=x.png", "--annotate=x.mp4"])
def test_where_one_may_not_write_it_is_said_before_anything_is_read(model, folder, monkeypatch, capsys, option):
    """The chart was found out to be lost when all was read; the video was blamed, and the sound."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    with pytest.raises(SystemExit) as error:
        run("a.mp4", "--model", model, *DETECTOR, option)
    assert error.value.code == 2
    out, err = capsys.readouterr()
    assert "may not write" in err
    assert out == ""
