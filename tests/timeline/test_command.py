"""`stt timeline`: what goes in and out, exit status included; what it calls is tested beside."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from helpers.face_videos import NAMES, make_timeline, save_model, scene, write_sound, write_video
from modeling_stt import cli
from modeling_stt.timeline import video
from modeling_stt.timeline.faces import FaceCrop
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


def test_rows_are_written_and_a_second_run_resumes(model, folder, tmp_path, capsys):
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


def test_a_bad_video_is_reported_and_the_others_are_printed(model, folder, tmp_path, capsys):
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
def test_wrong_usage_is_reported(model, folder, options, message, capsys):
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


def test_a_reader_that_closes_the_pipe_ends_it_quietly(model, folder):
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
    """A file that stays unfinished counts as a crash, and after two the video would not be read again."""
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
    monkeypatch.setattr(video, "is_live", lambda source: isinstance(source, str))
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
        (["a.mp4", "b.mp4", "--chart", "x.png"], "need exactly one video"),
        ([".", "--annotate", "x.mp4"], "need exactly one video, got 2"),
        (["a.mp4", "--output_dir", "d", "--chart", "x.png"], "a report of each video"),
        (["a.mp4", "--output_dir", "d", "--annotate", "x.mp4"], "give --annotate without a file"),
        (["a.mp4", "--annotate"], "--annotate needs a FILE to write, unless --output_dir is given"),
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


def test_a_missing_file_prints_no_head(model, folder, capsys):
    """The head of a table stood above the reason that there is none."""
    assert run("missing.mp4", "--model", model, *DETECTOR) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "missing.mp4" in err


def test_segments_and_a_summary_of_each_person(model, folder, capsys):
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, "--segments") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["start", "end", "face", "expression"]
    assert lines[-1].startswith("person 1, 0.0 to 3.0 s: ")
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, "--segments", "--jsonl") == 0
    parts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (parts[0]["start_s"], parts[-1]["end_s"], parts[0]["track"]) == (0, 3, 1)


def test_one_pass_makes_everything(model, folder, tmp_path, capsys):
    names = {"--output": "t.csv", "--chart": "c.png", "--annotate": "w.mp4", "--report": "r.html"}
    files = [text for option, name in names.items() for text in (option, tmp_path / name)]
    assert run(folder / "a.mp4", "--model", model, *DETECTOR, *files, "--segments") == 0
    assert {"t.csv", "t.segments.csv", "t.summary.csv", "c.png", "w.mp4", "r.html"} <= set(os.listdir(tmp_path))
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "person 1" in page and "data:image/png;base64," in page and "An expression is not an emotion" in page
    assert model.name in page and str(model) not in page, "the page is for other people, who have not this folder"
    assert "://" not in page, "the page needs no other file"  # base64 may spell any word, but has no colon
    assert "2 rows (2 face) of 1 video" in capsys.readouterr().out


def test_a_folder_gets_a_report_of_each_video_and_an_index(model, folder, tmp_path, capsys):
    out, videos = tmp_path / "out", Path(shutil.copytree(folder, tmp_path / "videos"))
    (videos / "text #1.mp4").write_text("not a video")
    for _ in range(2):  # the second time, nothing is read again
        assert run(videos, "--model", model, *DETECTOR, "--output_dir", out, "--segments", "--annotate") == 1
    names = {f"{stem}.{suffix}" for stem in ("a", "b") for suffix in ("html", "png", "annotated.mp4")}
    tables = {f"rows.{kind}" for kind in ("csv", "errors.csv", "segments.csv", "settings.json", "summary.csv")}
    assert set(os.listdir(out)) == names | tables | {"index.html"}
    assert len(list(read_frames(str(out / "a.annotated.mp4")))) == len(list(read_frames(str(folder / "a.mp4"))))
    index = (out / "index.html").read_text("utf-8")
    assert {f'href="{name}"' for name in names} <= set(re.findall(r'href="[^"]*"', index))
    assert "person 1, 0.0 to 3.0 s" in index and "Nobody is seen." in index
    assert "text #1.mp4 cannot be read as a video" in index and str(videos) not in index
    assert "2 of these were there already" in capsys.readouterr().out


def test_files_that_an_earlier_run_did_not_make_are_missed(model, folder, tmp_path, capsys):
    """The table has the video, so that it is not read again; its annotated video was silently not there."""
    for more in ([], ["--annotate"]):
        assert run(folder / "b.mp4", "--model", model, *DETECTOR, "--output_dir", tmp_path / "out", *more) == 0
    assert "1 video (such as " in (said := capsys.readouterr().out) and "had been read before, without all" in said


def test_own_labels_are_compared_with_rows(model, folder, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("start,end,label\n0,1.5,happy\n1.5,3,sadness\n")
    arguments = [str(folder / "a.mp4"), str(tmp_path / "labels.csv"), "--model", str(model), *DETECTOR]
    assert cli.main(["score", *arguments, "--json", str(tmp_path / "score.json")]) == 0
    out = capsys.readouterr().out
    assert "2 windows with scores and a label" in out and "always 'happy'" in out
    assert json.loads((tmp_path / "score.json").read_text())["scores"]["num_clips"] == 2


@pytest.mark.parametrize("encoding", ["cp437", "cp932", "ascii"])
def test_output_streams_that_are_not_utf8_get_what_they_can_show(model, folder, tmp_path, encoding):
    """A dash, or the name of the video, ended the run or lost its report."""
    video = tmp_path / "größe 高.mp4"
    video.write_bytes((folder / "b.mp4").read_bytes())
    command = [sys.executable, "-m", "modeling_stt.cli", "timeline", str(video), "--model", str(model), *DETECTOR]
    done = subprocess.run(command, capture_output=True, env=environment() | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"no face" in done.stdout


def test_a_detector_in_the_current_folder_is_found(model, folder, tmp_path):
    (tmp_path / "my_module.py").write_text("from helpers.face_videos import find_halves as find_faces\n")
    program = "import sys; sys.path.pop(0); from modeling_stt.cli import main; sys.exit(main())"  # as `stt` runs
    command = [sys.executable, "-c", program, "timeline", str(folder / "b.mp4"), "--model", str(model)]
    command += ["--detector", "my_module:find_faces"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no face" in done.stdout


def test_help_and_wrong_usage_load_no_torch(model):
    """They took five to eight seconds."""
    program = "import sys; from modeling_stt.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    program += "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    for arguments in (["--help"], ["timeline", "--help"], ["crop", "x"], ["explain"], ["score", "--help"], ["what"]):
        command = [sys.executable, "-c", program, *arguments]
        assert subprocess.run(command, capture_output=True, env=environment()).returncode == 0, arguments


def test_the_crops_defaults_are_those_of_the_convention(monkeypatch):
    seen = {}
    monkeypatch.setattr("modeling_stt.timeline.write_crops", lambda *args, **options: seen.update(crop=args[2]) or ())
    assert cli.main(["crop", "x", "--output", "y", *DETECTOR]) == 0
    assert seen["crop"] == FaceCrop()


def test_the_crop_can_be_changed(model, folder, tmp_path):
    (tmp_path / "crop.json").write_text('{"margin": 0.4, "align": false, "size": 99, "min_side": 20}')
    options = ["--face_crop", tmp_path / "crop.json", "--margin", "0.2", "--output", tmp_path / "t.csv"]
    assert run(folder / "b.mp4", "--model", model, *DETECTOR, *options) == 0
    crop = json.loads((tmp_path / "t.settings.json").read_text())["face_crop"]
    assert crop == {"margin": 0.2, "align": False, "size": 40, "min_side": 20}


@pytest.mark.parametrize("command", ["timeline", "explain", "score"])
def test_a_model_that_was_not_loaded_as_a_whole_does_not_answer(model, folder, tmp_path, capsys, command):
    (tmp_path / "labels.csv").write_text("start,end,label\n0,1.5,happy\n")
    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.1" not in k}, broken / "model.safetensors", {"format": "pt"}
    )
    more = {"explain": ["--output", str(tmp_path / "x.png")], "score": [str(tmp_path / "labels.csv")]}
    with pytest.raises(SystemExit) as exit:
        cli.main([command, str(folder / "a.mp4"), *more.get(command, []), "--model", str(broken)])
    assert exit.value.code == 2
    assert "broken: " in (err := capsys.readouterr().err) and "are missing" in err
