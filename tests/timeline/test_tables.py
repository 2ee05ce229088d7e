"""Thousands of videos: none is lost, none is read twice, and one that is bad does not stop the rest."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from helpers.face_videos import NAMES, make_timeline, scene, write_sound, write_video
from modeling_stt.loading import ModelError
from modeling_stt.timeline import batch, video
from modeling_stt.timeline.batch import find_videos, write_timelines
from modeling_stt.timeline.rows import columns
from modeling_stt.timeline.tables import read_table, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good videos, one in a folder below; one cut short; four that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "below").mkdir()
    write_video(folder / "a.mp4", scene("happy", "", seconds=2))
    write_video(folder / "b.mkv", scene("sad", "angry", seconds=3))
    write_video(folder / "below" / "c.mp4", scene("", "", seconds=2))
    write_video(folder / "cut.mp4", scene("sad", "happy", seconds=4), container_options={"movflags": "faststart"})
    cut = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(cut[: len(cut) * 7 // 10])
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    write_sound(folder / "sound.mp4")
    (folder / "notes.md").write_text("not looked at")
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are read."""
    names: list[str] = []
    read = batch._write_part

    def count(table, reader, video, bar):
        names.append(Path(video).name)
        return read(table, reader, video, bar)

    monkeypatch.setattr(batch, "_write_part", count)
    return names


def names(records) -> list[str]:
    return list(dict.fromkeys(Path(record["video"]).name for record in records))


def test_videos_of_folders_lists_and_addresses(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder / 'a.mp4'}\n\nrtsp://camera/1\n")
    found = find_videos([folder, tmp_path / "list.txt", "missing.mp4"])
    assert [Path(v).name for v in found] == [
        *("a.mp4", "b.mkv", "c.mp4", "cut.mp4", "sound.mp4", "text.mp4", "zero.mp4", "1", "missing.mp4"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no video"):
        find_videos([tmp_path / "empty"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_one_bad_video_never_stops_the_rest(folder, tmp_path, suffix):
    output = tmp_path / f"rows{suffix}"
    summary = write_timelines([*find_videos([folder]), "missing.mp4"], make_timeline(), output)
    assert names(read_table(output)) == ["a.mp4", "b.mkv", "c.mp4", "cut.mp4"]
    errors = {Path(record["video"]).name: record for record in read_table(tmp_path / "rows.errors.csv")}
    assert sorted(errors) == ["cut.mp4", "missing.mp4", "sound.mp4", "text.mp4", "zero.mp4"]
    assert "no video stream" in errors["sound.mp4"]["reason"]
    assert "There is no video" in errors["missing.mp4"]["reason"]
    assert int(errors["cut.mp4"]["rows"]) == sum(Path(r["video"]).name == "cut.mp4" for r in read_table(output)) > 1
    assert (summary.num_videos, summary.num_skipped, summary.num_errors) == (8, 0, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [output.name, "rows.errors.csv", "rows.settings.json"]
    )


def test_the_three_formats_hold_the_same(folder, tmp_path):
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_timelines(
            [str(folder / "a.mp4"), str(folder / "below" / "c.mp4")], make_timeline(), tmp_path / f"t{suffix}"
        )
    lines = list(read_table(tmp_path / "t.jsonl"))
    assert list(read_table(tmp_path / "t.parquet")) == lines
    texts = [{k: None if v is None else str(v) for k, v in record.items()} for record in lines]
    assert list(read_table(tmp_path / "t.csv")) == texts
    assert [field.name for field in pq.read_schema(tmp_path / "t.parquet")] == list(columns(NAMES))
    assert lines[0]["state"] == "face"
    assert lines[-1] | {"video": ""} == dict.fromkeys(columns(NAMES)) | {
        **{"video": "", "start_s": 0.0, "end_s": 2.0, "state": "no face", "face_share": 0.0},
        **{"frames_dropped": 0, "faces_left_out": 0},
    }


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_is_in_the_table_is_not_read_again(folder, tmp_path, suffix, reads):
    output = tmp_path / f"rows{suffix}"
    first = [str(folder / name) for name in ("a.mp4", "cut.mp4", "zero.mp4")]
    write_timelines(first, make_timeline(), output)
    before = list(read_table(output))
    reads.clear()
    summary = write_timelines([*first, str(folder / "b.mkv")], make_timeline(), output)
    assert reads == ["zero.mp4", "b.mkv"]  # what gave no rows may have been mended
    after = list(read_table(output))
    assert after[: len(before)] == before
    assert names(after) == ["a.mp4", "cut.mp4", "b.mkv"]
    assert names(read_table(tmp_path / "rows.errors.csv")) == ["cut.mp4", "zero.mp4"]
    assert (summary.num_skipped, summary.num_errors) == (2, 2)


def test_a_video_that_was_mended_leaves_the_table_of_errors(folder, tmp_path):
    file = tmp_path / "v.mp4"
    file.touch()
    output = tmp_path / "rows.csv"
    assert write_timelines([file], make_timeline(), output).num_errors == 1
    assert list(read_table(output)) == []
    file.write_bytes((folder / "a.mp4").read_bytes())
    assert write_timelines([file], make_timeline(), output).num_errors == 0
    assert not (tmp_path / "rows.errors.csv").exists()
    assert names(read_table(output)) == ["v.mp4"]


def test_an_interrupted_run_resumes_where_it_was(folder, tmp_path, reads):
    """Killed in the middle of its second video: the first is kept, the half-written one is read again."""
    videos = [str(folder / name) for name in ("a.mp4", "b.mkv", "below/c.mp4")]
    interrupted = make_timeline()
    whole = list(interrupted(videos[1]))
    read = interrupted.__class__.__call__

    class Interrupted(interrupted.__class__):
        def __call__(self, video, *args, **kwargs):
            rows = read(self, video, *args, **kwargs)
            if video == videos[1]:
                yield next(rows)
                raise KeyboardInterrupt
            yield from rows

    interrupted.__class__ = Interrupted
    output = tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt):
        write_timelines(videos, interrupted, output)
    assert not output.exists()
    reads.clear()
    write_timelines(videos, make_timeline(), output)
    assert sorted(reads) == ["b.mkv", "c.mp4"]
    rows = list(read_table(output))
    assert names(rows) == ["a.mp4", "b.mkv", "c.mp4"]
    assert sum(record["video"] == videos[1] for record in rows) == len(whole)
    assert not list(tmp_path.glob("*.parts"))


def test_a_live_source_that_is_stopped_keeps_its_rows(tmp_path, monkeypatch):
    """Ctrl-C ends a camera: what was seen until then is in the table, the last seconds included."""
    monkeypatch.setattr(video, "is_live", lambda source: isinstance(source, str))
    camera = make_timeline()
    read = camera.__class__.__call__

    def frames():
        for n, image in enumerate(scene("sad", "", seconds=60)):
            if n == 90:
                os.kill(os.getpid(), signal.SIGINT)
            if n >= 90:
                time.sleep(0.01)
            yield n / 25, image

    class Camera(camera.__class__):
        def __call__(self, source, **options):
            return read(self, frames(), source, **options)

    camera.__class__ = Camera
    on_interrupt = signal.getsignal(signal.SIGINT)
    summary = write_timelines(["rtsp://camera"], camera, tmp_path / "rows.csv")
    rows = list(read_table(tmp_path / "rows.csv"))
    assert summary.states == {"face": len(rows)}
    assert 3.2 <= float(rows[-1]["end_s"]) < 30  # a few frames are decoded ahead of those that are looked at
    assert signal.getsignal(signal.SIGINT) is on_interrupt


def test_rows_of_other_settings_are_not_mixed_in(folder, tmp_path):
    output = tmp_path / "rows.csv"
    write_timelines([str(folder / "a.mp4")], make_timeline(), output)
    before = output.read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(window_s: 2\.0 then, 1\.0 now\)"):
        write_timelines([str(folder / "b.mkv")], make_timeline(window_s=1.0), output)
    (tmp_path / "rows.settings.json").unlink()
    with pytest.raises(ValueError, match=r"rows\.csv is there without rows\.settings\.json"):
        write_timelines([str(folder / "b.mkv")], make_timeline(), output)
    assert output.read_bytes() == before
    with pytest.raises(ValueError, match=r"must end in one of \.csv, \.jsonl, \.parquet"):
        write_timelines([str(folder / "b.mkv")], make_timeline(), tmp_path / "rows.xlsx")


def test_settings_with_many_digits_are_recognised_as_the_same(folder, tmp_path):
    """Written with six digits, they were refused as others' by the next call."""
    for name in ("a.mp4", "b.mkv"):
        write_timelines([folder / name], make_timeline(window_s=2 / 3, stride_s=1 / 3), tmp_path / "rows.csv")
    assert names(read_table(tmp_path / "rows.csv")) == ["a.mp4", "b.mkv"]


def test_a_video_named_twice_is_read_once(folder, tmp_path, reads):
    write_timelines([folder / "a.mp4", str(folder / "a.mp4")], make_timeline(), tmp_path / "rows.csv")
    assert reads == ["a.mp4"]


@pytest.mark.parametrize("place", ["rows joined", "error half written"])
def test_a_run_that_ends_while_it_writes_loses_and_doubles_nothing(folder, tmp_path, place, monkeypatch):
    """Killed after the table was written, but before its parts were removed; or in the middle of a reason."""
    videos = [folder / "a.mp4", folder / "zero.mp4"]
    output = tmp_path / "rows.csv"

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if place == "rows joined":
            patched.setattr(batch.shutil, "rmtree", die)
        else:
            patched.setattr(Path, "replace", lambda self, to: die() if "error" in self.name else os.replace(self, to))
        with pytest.raises(KeyboardInterrupt):
            write_timelines(videos, make_timeline(), output)
    write_timelines(videos, make_timeline(), output)
    write_timelines([folder / "a.mp4"], make_timeline(), tmp_path / "once.csv")
    assert output.read_text() == (tmp_path / "once.csv").read_text()
    assert names(read_table(tmp_path / "rows.errors.csv")) == ["zero.mp4"]
    assert not (tmp_path / "rows.csv.parts").exists()


def die_while_reading(video, videos, output, tmp_path, monkeypatch):
    """Leave on disk what a process leaves that is killed while it reads this video."""
    read, parts = batch._write_unfinished, output.with_name(output.name + ".parts")

    def die(table, reader, other, bar):
        if other != str(video):
            return read(table, reader, other, bar)
        table.part(other).unfinished.write_text("half a row")
        shutil.copytree(parts, tmp_path / "at death")
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(batch, "_write_unfinished", die)
        write_timelines(videos, make_timeline(), output)
    shutil.rmtree(parts)
    (tmp_path / "at death").rename(parts)


def test_a_video_that_crashed_its_process_comes_last_and_is_read_twice(folder, tmp_path, reads, monkeypatch):
    """A video that kills every process that reads it kept the table from being joined, for ever."""
    videos, output = [folder / "a.mp4", folder / "b.mkv", folder / "below" / "c.mp4"], tmp_path / "rows.csv"
    for expected in (["a.mp4"], ["b.mkv", "c.mp4", "a.mp4"]):
        die_while_reading(videos[0], videos, output, tmp_path, monkeypatch)
        assert reads == expected
        reads.clear()
    summary = write_timelines(videos, make_timeline(), output)
    assert names(read_table(output)) == ["b.mkv", "c.mp4"]
    [error] = read_table(tmp_path / "rows.errors.csv")
    assert (Path(error["video"]).name, error["reason"], error["rows"]) == ("a.mp4", batch.TWO_DEATHS, "0")
    assert (summary.num_skipped, summary.num_errors) == (2, 1)
    write_timelines(videos, make_timeline(), output)  # as all errors, it is tried again
    assert names(read_table(output)) == ["b.mkv", "c.mp4", "a.mp4"]
    assert not (tmp_path / "rows.errors.csv").exists()


def test_an_interruption_is_not_a_crash(folder, tmp_path, monkeypatch):
    """A long video that was stopped twice, by Ctrl-C or SIGTERM, is still read by the next call."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(batch.Timeline, "__call__", interrupt)
            write_timelines([folder / "a.mp4"], make_timeline(), tmp_path / "rows.csv")
    assert write_timelines([folder / "a.mp4"], make_timeline(), tmp_path / "rows.csv").states == {"face": 1}


def test_two_runs_do_not_write_one_table(folder, tmp_path):
    """They took each other's parts away."""
    output = tmp_path / "rows.csv"
    second: list[str] = []

    class Watched(make_timeline().__class__):
        def __call__(self, *args, **kwargs):
            with pytest.raises(ValueError) as error:
                write_timelines([folder / "b.mkv"], make_timeline(), output)
            second.append(str(error.value))
            # Over NFS a removed file that is open stays as another, and its folder could not be removed.
            assert "rows.csv.lock" in os.listdir(tmp_path)
            yield from super().__call__(*args, **kwargs)

    first = make_timeline()
    first.__class__ = Watched
    write_timelines([folder / "a.mp4"], first, output)
    [told] = second
    assert told.startswith(f"Another run is writing {output} (process {os.getpid()} on ")
    assert names(read_table(output)) == ["a.mp4"]
    write_timelines([folder / "b.mkv"], make_timeline(), output)
    assert names(read_table(output)) == ["a.mp4", "b.mkv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.settings.json"]


def test_a_table_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("video\nold\n")

    def records():
        yield {"video": "new"}
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_table(path, {"video": str}, records())
    assert path.read_text() == "video\nold\n"


def test_names_with_commas_quotes_and_accents_survive(tmp_path):
    odd = 'a, "b" é\n.mp4'
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_table(tmp_path / f"t{suffix}", {"video": str}, [{"video": odd}])
        assert list(read_table(tmp_path / f"t{suffix}")) == [{"video": odd}]


def test_progress_shows_rate_and_time_left(folder, tmp_path, capsys):
    videos = [str(folder / "a.mp4"), str(folder / "b.mkv"), str(folder / "zero.mp4")]
    write_timelines(videos, make_timeline(), tmp_path / "rows.csv", progress=True)
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "5/5" in last
    assert "s of video/s" in last
    assert "3 of 3 videos, 1 with errors" in last


CONFIGURATION = str(Path(__file__).parents[2] / "examples" / "accelerate" / "cpu.yaml")
PROGRAM = """
import os
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.face_videos import make_timeline
from modeling_stt.timeline.batch import find_videos, write_timelines
summary = write_timelines(find_videos([{folder!r}]), make_timeline(), {output!r})
told = Path({output!r}).parent / f"summary{{os.environ['RANK']}}"
told.write_text(f"{{summary.num_videos}} {{summary.num_errors}}")
"""


def test_processes_share_the_videos_and_the_main_one_joins_their_rows(folder, tmp_path):
    """Two processes of `accelerate launch` write the table that one writes."""
    write_timelines(find_videos([folder]), make_timeline(), tmp_path / "one.csv")
    program = tmp_path / "program.py"
    here = str(Path(__file__).parents[1])
    program.write_text(PROGRAM.format(tests=here, folder=str(folder), output=str(tmp_path / "two.csv")))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGURATION, "--num_processes=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"summary{rank}").read_text() for rank in (0, 1)] == ["7 4", "7 4"]
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "one.csv").read_text()
    assert (tmp_path / "two.errors.csv").read_text() == (tmp_path / "one.errors.csv").read_text()


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    """Each would read all videos, and write over the others' rows."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, but accelerate knows of 1"):
        write_timelines(["a.mp4"], make_timeline(), tmp_path / "rows.csv")


def test_a_video_that_was_replaced_is_read_again(folder, tmp_path, reads):
    """A damaged video that was copied anew, or one replaced by a longer one, kept its old rows for ever."""
    file, output = tmp_path / "v.mp4", tmp_path / "rows.csv"
    for source, num_rows, num_errors in (("cut.mp4", 2, 1), ("a.mp4", 1, 0), ("b.mkv", 4, 0)):
        file.write_bytes((folder / source).read_bytes())
        summary = write_timelines([file, folder / "a.mp4"], make_timeline(), output)
        assert summary.num_errors == num_errors
        found = [record for record in read_table(output) if record["video"] == str(file)]
        assert len(found) >= num_rows
    assert reads.count("v.mp4") == 3
    assert reads.count("a.mp4") == 1
    file.write_text("no video any more")
    assert write_timelines([file, folder / "a.mp4"], make_timeline(), output).num_errors == 1
    assert names(read_table(output)) == ["a.mp4"], "the rows of the former file are gone"


def test_links_to_folders_are_followed_once(folder, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "linked").symlink_to(folder / "below", target_is_directory=True)
    (tmp_path / "all" / "again").symlink_to(tmp_path / "all", target_is_directory=True)
    assert [Path(v).name for v in find_videos([tmp_path / "all"])] == ["c.mp4"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_in_other_encodings_with_comments_and_quotes(tmp_path, encoding):
    for name in ("größe.mp4", "b c.mp4"):
        (tmp_path / name).touch()
    lines = ["# my videos", str(tmp_path / "größe.mp4"), "", f'"{tmp_path / "b c.mp4"}"']
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
    assert [Path(v).name for v in find_videos([tmp_path / "list.txt"])] == ["größe.mp4", "b c.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_parquet_and_a_name_that_is_not_utf8(folder, tmp_path):
    """All was read, then no table could be written, every time."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(folder / "a.mp4", odd)
    summary = write_timelines([odd, folder / "a.mp4"], make_timeline(), tmp_path / "rows.parquet")
    assert summary.num_errors == 1
    assert names(read_table(tmp_path / "rows.parquet")) == ["a.mp4"]
    [error] = read_table(tmp_path / "rows.errors.csv")
    assert "not UTF-8, which Parquet cannot hold" in error["reason"]
    assert write_timelines([odd], make_timeline(), tmp_path / "rows.csv").num_errors == 0


def test_a_model_that_answers_nan_stops_the_run_and_no_video_is_blamed(folder, tmp_path):
    reader = make_timeline()
    with torch.no_grad():
        reader.scorer.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="No video is to blame"):
        write_timelines([folder / "a.mp4", folder / "b.mkv"], reader, tmp_path / "rows.csv")
    assert not (tmp_path / "rows.errors.csv").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_segments_and_summaries_are_tables_beside(folder, tmp_path, suffix):
    output = tmp_path / f"rows{suffix}"
    write_timelines([folder / "a.mp4", folder / "b.mkv"], make_timeline(), output)
    parts, summaries = (list(read_table(file)) for file in batch.write_segments(output, NAMES))
    assert names(parts) == names(summaries) == ["a.mp4", "b.mkv"]
    assert [float(s["start_s"]) for s in summaries] == [0, 0, 0]
    assert sum(float(s["end_s"]) - float(s["start_s"]) for s in parts) == pytest.approx(2 + 3 + 3)
