"""Rows of many videos as one table on disk, by one process or many, in one run or several."""

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import chain, groupby
from pathlib import Path
from threading import Event
from typing import Any

import av
from accelerate.state import PartialState
from tqdm import tqdm

from ..loading import ModelError
from .pipeline import Timeline
from .rows import Row, columns
from .scorers import ModelScorer
from .segments import SMOOTH_S, segments, summarize
from .tables import (
    TABLE_SUFFIXES,
    Record,
    file_stamp,
    is_text,
    only_run,
    read_table,
    to_json,
    write_table,
    write_whole,
)
from .video import stop_on_interrupt, video_duration

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ogv", ".mxf"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob", ".gif"),
)

# Errors of a single bad video, which do not stop the others. Any other error is a bug and stops the program.
VIDEO_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, av.error.FFmpegError)

# Processes wait for the slowest at the end. torch.distributed would give up after minutes.
PATIENCE = timedelta(days=30)

TWO_DEATHS = (
    "The process crashed twice while it read this video: it was killed, or ran out of memory, or the video makes the "
    "decoder crash."
)

ERROR_COLUMNS: dict[str, type] = {"video": str, "reason": str, "rows": int}

SEGMENT_COLUMNS: dict[str, type] = {"video": str, "track": int, "start_s": float, "end_s": float, "name": str}
SEGMENT_COLUMNS |= {"is_label": bool, "mean_score": float, "peak_s": float}

ReadRows = Callable[[str, Event], Iterator[Row]]


@dataclass(frozen=True)
class TableSummary:
    """Result of `write_timelines`.

    Args:
        output: The table.
        errors: The table of errors, with the columns "video", "reason" and "rows", how many rows there are
            nevertheless; it is only there if there were any.
        num_videos: Videos asked for.
        num_skipped: Of these, videos that were in the table already.
        num_errors: Of these, videos in the table of errors.
        states: How many rows of these videos are in each state.
    """

    output: Path
    errors: Path
    num_videos: int
    num_skipped: int
    num_errors: int
    states: dict[str, int]


def find_videos(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Expand paths into videos: paths of videos, addresses, folders of videos, and text files that list any of these.

    A list has one path or address a line, in UTF-8, UTF-16 or Windows-1252, in quotes or not; lines that begin with
    `#` are comments, unless there is such a file.

    Returns:
        Paths and addresses as given, each once; in folders, at any depth and through links, files ending as
        `VIDEO_SUFFIXES`, sorted. Paths that don't exist are kept, so that their error is found with the others.

    Raises:
        ValueError: For a folder or a list without a video.
    """
    videos: list[str] = []
    for each in paths:
        path = os.fspath(each)
        found = [path]
        if "://" not in path and Path(path).is_dir():
            found = sorted(_videos_below(path), key=Path)
        elif path.lower().endswith(".txt") and Path(path).is_file():
            found = _listed(Path(path).read_bytes())
        if not found:
            raise ValueError(f"{path} has no video: expected files ending as {' '.join(VIDEO_SUFFIXES)}.")
        videos += found
    return list(dict.fromkeys(videos))


def _videos_below(folder: str) -> Iterator[str]:
    """Videos of a folder and those below; links to folders are followed, each folder is searched once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and path.is_file():
                yield str(path)


def _listed(content: bytes) -> list[str]:
    """The entries of a list of videos."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        lines = content.decode("utf-16").splitlines()
    else:
        # Line by line, because file names may be in any encoding. Names that are not found may be in Windows-1252.
        lines = [_decode_name(line) for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    names = [line.strip() for line in lines if line.strip()]
    names = [name for name in names if not name.startswith("#") or Path(name).exists()]
    quoted = [len(name) > 1 and name[0] == name[-1] and name[0] in "\"'" for name in names]
    return [name[1:-1] if is_quoted else name for name, is_quoted in zip(names, quoted, strict=True)]


def _decode_name(line: bytes) -> str:
    name = os.fsdecode(line)
    if is_text(name) or Path(name.strip()).exists():
        return name
    return line.decode("cp1252", "surrogateescape")


def write_timelines(
    paths: Iterable[str | os.PathLike],
    timeline: Timeline,
    output: str | os.PathLike,
    progress: bool | None = None,
    read: ReadRows | None = None,
) -> TableSummary:
    """Write the rows of many videos as one table: CSV, JSON Lines or Parquet, by the suffix of `output`.

    Videos that the table has already are not read again, unless their file has changed since. Until all videos are
    done, each has a file of its own in the folder `{output}.parts`, either complete or absent: after an interruption
    the same call resumes. Under `accelerate launch` each process takes its share of the videos; all see the same
    folder, and the main one joins the parts. A bad video does not stop the others: it goes to a separate table of
    errors and is tried again by the next call. A damaged video has its rows up to the damage in the table, and its
    reason in the table of errors. A video that crashed its process twice (out of memory, a fault of the decoder) is
    recorded as an error by the third call.

    Args:
        paths: Videos as paths and addresses, see `find_videos`.
        timeline: Reads them.
        output: File to write. Beside it appear its `.errors.csv`, if need be, and its `.settings.json`.
        progress: Show seconds of video done, their rate and the time left; by default in a terminal.
        read: Gives the rows of a video, for a caller that does more with them; by default `timeline` itself.

    Raises:
        ValueError: For another suffix, a table that other settings made, one that this function did not make, or one
            that another run is writing.
        ModelError: If the model's scores are not probabilities.
        RuntimeError: For processes that don't know of each other.
    """
    videos = list(dict.fromkeys(os.fspath(path) for path in paths))
    read = read or (lambda video, stop: timeline(video, stop=stop))
    state = _join_processes(timeline)
    table = _Table(Path(output), timeline)
    table.refuse_other_settings()
    with only_run(table.lock, table.output) if state.is_main_process else nullcontext():
        state.wait_for_everyone()  # until it is known that this is the only run
        num_skipped = _write_missing(table, read, videos, state, progress)
    asked = set(videos)
    failed = {record["video"] for record in read_table(table.errors)} & asked
    states = Counter(record["state"] for record in read_table(table.output) if record["video"] in asked)
    return TableSummary(table.output, table.errors, len(videos), num_skipped, len(failed), dict(states))


def write_segments(table: Path, class_names: Sequence[str], smooth_s: float = SMOOTH_S) -> tuple[Path, Path]:
    """Write the segments and the summaries of the rows of a table beside it, in its format.

    Returns:
        The two tables: `….segments…`, a line for each segment of a video, and `….summary…`, a line for each track.
    """
    parts: list[Record] = []
    summaries: list[Record] = []
    for video, records in groupby(read_table(table), key=lambda record: record["video"]):
        found = segments([Row.from_dict(record, class_names) for record in records], smooth_s)
        parts += [{"video": video, **asdict(part)} for part in found]
        for each in summarize(found):
            seconds = {f"seconds_{name}": each.seconds.get(name, 0.0) for name in class_names}
            times = {name: getattr(each, name) for name in ("track", "start_s", "end_s", "unsure_s", "unseen_s")}
            summaries.append({"video": video, **times, **seconds})
    files = table.with_suffix(f".segments{table.suffix}"), table.with_suffix(f".summary{table.suffix}")
    write_table(files[0], SEGMENT_COLUMNS, parts)
    kinds: dict[str, type] = {"video": str, "track": int}
    kinds |= dict.fromkeys(("start_s", "end_s", "unsure_s", "unseen_s"), float)
    write_table(files[1], kinds | {f"seconds_{name}": float for name in class_names}, summaries)
    return files


def _join_processes(timeline: Timeline) -> PartialState:
    """Join the other processes of `accelerate launch`, and move the model to this one's GPU.

    Without `cpu=True`, accelerate treats each process on a machine without GPU as the only one: each would then read
    all videos and overwrite the others' parts.
    """
    model = timeline.scorer.model if isinstance(timeline.scorer, ModelScorer) else None
    on_cpu = model is None or model.device.type == "cpu"
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise RuntimeError(
            f"{started} processes were started, but accelerate knows of {state.num_processes}: each would read all "
            "videos. Was a PartialState made before, without cpu=True on a machine without GPU?"
        )
    if started > 1 and model is not None and not on_cpu:
        model.to(state.device)  # type: ignore[arg-type]
    return state


def _write_missing(
    table: "_Table", read: ReadRows, videos: Sequence[str], state: PartialState, progress: bool | None
) -> int:
    """Read what the table has not, this process its share, and join all; return how many videos it had."""
    done = table.videos_done()
    # Videos that crashed their process come last, so that another crash keeps no other video from being read.
    todo = sorted((video for video in videos if video not in done), key=lambda video: table.part(video).num_deaths)
    state.wait_for_everyone()  # before any process begins, so that all see the same videos to be done
    if state.is_main_process:
        table.begin()
    state.wait_for_everyone()
    own = todo[state.process_index :: state.num_processes]
    show = sys.stderr.isatty() if progress is None else progress
    with _Progress(own, show and state.is_local_main_process) as bar:
        for video in own:
            bar.next_video(failed=_write_part(table, read, video, bar))
    state.wait_for_everyone()
    if state.is_main_process:
        table.join_parts(videos)
    state.wait_for_everyone()
    return len(videos) - len(todo)


def _write_part(table: "_Table", read: ReadRows, video: str, bar: "_Progress") -> bool:
    """Write one video's rows, or why there are none or not all; return whether there was an error."""
    part = table.part(video)
    stamp = file_stamp(video)  # of the file that is about to be read
    num_rows, reason = 0, None
    if table.output.suffix == ".parquet" and not is_text(video):
        reason = "Its name is not UTF-8, which Parquet cannot hold: write .csv or .jsonl, or rename it."
    elif part.num_deaths == 2:
        reason = TWO_DEATHS
    else:
        num_rows, reason = _write_unfinished(table, read, video, bar)
    part.finish(video, stamp, num_rows, reason)
    return reason is not None


def _write_unfinished(table: "_Table", read: ReadRows, video: str, bar: "_Progress") -> tuple[int, str | None]:
    """Write one video's rows as they come; return how many there are, and why there are none or not all."""
    path, num_rows = table.part(video).unfinished, 0
    try:
        # Line by line, so that it can be watched.
        with path.open("w", buffering=1) as file, stop_on_interrupt(video) as stop:
            try:
                for row in read(video, stop):
                    file.write(to_json(row.to_dict(table.class_names)) + "\n")
                    num_rows += 1
                    bar.advance(row)
            except ModelError:
                raise  # no video is to blame
            except VIDEO_ERRORS as error:
                return num_rows, str(error) or type(error).__name__
    except BaseException:
        path.unlink(missing_ok=True)  # an interruption removes it; a file that is left marks a crash
        raise
    return num_rows, None


class _Part:
    """The files of one video, until those of all videos are joined.

    Attributes:
        rows: Its rows, once all are written.
        unfinished: Its rows while it is read.
        error: Reason for missing rows.
        stamp: The stamp of the video's file when it was read.
    """

    def __init__(self, stem: Path) -> None:
        self.rows = stem.with_suffix(".jsonl")
        self.unfinished = stem.with_suffix(".unfinished")
        self.error = stem.with_suffix(".error.json")
        self.stamp = stem.with_suffix(".stamp.json")
        self._deaths = stem.with_suffix(".died"), stem.with_suffix(".died_again")

    @property
    def num_deaths(self) -> int:
        """Number of runs that crashed while they read the video, up to 2."""
        return min(2, sum(mark.exists() for mark in (self.unfinished, *self._deaths)))

    def record_death(self) -> None:
        """Take the rows that a crash left as the mark of it."""
        first, second = self._deaths
        self.unfinished.replace(second if first.exists() else first)

    def finish(self, video: str, stamp: list[int] | None, num_rows: int, reason: str | None) -> None:
        """Record what came of the video: once its rows exist, it counts as done, so all else is written before."""
        if reason is not None:
            write_whole(self.error, to_json({"video": video, "reason": reason, "rows": num_rows}))
        else:
            self.error.unlink(missing_ok=True)
        write_whole(self.stamp, to_json({"video": video, "stamp": stamp}))
        if num_rows:
            self.unfinished.replace(self.rows)
        else:
            self.unfinished.unlink(missing_ok=True)


class _Table:
    """The files of one output.

    Its settings file holds what decides the contents of rows and, under "videos", the stamp of each video's file when
    it was read.
    """

    def __init__(self, output: Path, timeline: Timeline) -> None:
        if output.suffix not in TABLE_SUFFIXES:
            raise ValueError(f"{output} must end in one of {', '.join(TABLE_SUFFIXES)}: the suffix gives the format.")
        self.output = output
        self.errors = output.with_suffix(".errors.csv")
        self.settings_file = output.with_suffix(".settings.json")
        self.parts = output.with_name(output.name + ".parts")
        self.lock = output.with_name(output.name + ".lock")  # beside the parts: they are removed while it is held
        self.class_names = list(timeline.class_names)
        self.kinds = columns(self.class_names)
        self.settings = json.loads(to_json(timeline.settings()))  # rounded as it is when it is read again

    def refuse_other_settings(self) -> None:
        """Refuse to add rows to a table that was made with other settings: rows of both kinds would look alike."""
        if not self.settings_file.is_file():
            if self.output.exists():
                raise ValueError(
                    f"{self.output} is there without {self.settings_file.name}, so it is not known how it was made: "
                    "name another output, or remove it."
                )
            return
        before = self._read_settings()
        before.pop("videos", None)
        other = {name for name in before.keys() | self.settings if before.get(name) != self.settings.get(name)}
        if other:
            changes = "; ".join(
                f"{name}: {before.get(name)} then, {self.settings.get(name)} now" for name in sorted(other)
            )
            raise ValueError(f"{self.output} was made with other settings ({changes}): name another output.")

    def videos_done(self) -> set[str]:
        """Return the videos in the table or in a finished part of it whose files have not changed since."""
        finished = self.parts.glob("*.jsonl") if self.parts.is_dir() else ()
        done = {next(read_table(part))["video"] for part in finished}
        done |= {record["video"] for record in read_table(self.output)}
        return done - self._changed(done)

    def begin(self) -> None:
        """Record the crashes of the previous run, if any, and the settings of this one."""
        self.parts.mkdir(exist_ok=True)
        for file in self.parts.glob("*.unfinished"):
            _Part(file).record_death()
        self._write_settings(self._stamps())

    def part(self, video: str) -> _Part:
        """Give the files of a video, which exist until all videos are joined."""
        return _Part(self.parts / hashlib.sha256(os.fsencode(video)).hexdigest()[:32])

    def join_parts(self, videos: Sequence[str]) -> None:
        """Add the parts to the tables of rows and errors, in the order of the videos, and remove them.

        The stamps are written last. If this is interrupted before, the joined rows have older stamps than their parts,
        which then replace them again.
        """
        parts = self._parts_in_order(videos)
        rows = [part.rows for part in parts if part.rows.exists()]
        errors = [json.loads(part.error.read_text()) for part in parts if part.error.exists()]
        records = [json.loads(part.stamp.read_text()) for part in parts if part.stamp.exists()]
        stamps = {record["video"]: record["stamp"] for record in records}

        read = {next(read_table(file))["video"] for file in rows}
        # Rows of a file that was replaced, and then could not be read, are not its rows any more.
        before = self._stamps()
        replaced = {video for video, stamp in stamps.items() if before.get(video) not in (None, stamp)}
        kept = (record for record in read_table(self.output) if record["video"] not in read | replaced)
        write_table(self.output, self.kinds, chain(kept, chain.from_iterable(map(read_table, rows))))

        tried = read | stamps.keys() | {record["video"] for record in errors}
        self._write_errors([each for each in read_table(self.errors) if each["video"] not in tried] + errors)
        self._write_settings(before | stamps)
        shutil.rmtree(self.parts)

    def _parts_in_order(self, videos: Sequence[str]) -> list[_Part]:
        """The parts on disk in the order of the videos, then those that an earlier run left of other videos."""
        order = {self.part(video).rows.stem: index for index, video in enumerate(videos)}
        stems = {file.name.partition(".")[0] for file in self.parts.iterdir()}
        return [
            _Part(self.parts / stem) for stem in sorted(stems, key=lambda stem: (order.get(stem, len(order)), stem))
        ]

    def _write_errors(self, errors: list[Record]) -> None:
        if errors:
            write_table(self.errors, ERROR_COLUMNS, errors)
        else:
            self.errors.unlink(missing_ok=True)

    def _changed(self, videos: Iterable[str]) -> set[str]:
        """Those of these videos whose files are others than when they were read."""
        stamps = self._stamps()
        for file in self.parts.glob("*.stamp.json") if self.parts.is_dir() else ():
            record = json.loads(file.read_text())
            stamps[record["video"]] = record["stamp"]
        return {v for v in videos if stamps.get(v) is not None and file_stamp(v) not in (None, stamps[v])}

    def _stamps(self) -> dict[str, list[int] | None]:
        return self._read_settings().get("videos", {}) if self.settings_file.is_file() else {}

    def _write_settings(self, stamps: dict[str, list[int] | None]) -> None:
        write_whole(self.settings_file, to_json(self.settings | {"videos": stamps}, indent=2))

    def _read_settings(self) -> dict[str, Any]:
        return json.loads(self.settings_file.read_text("utf-8"))


class _Progress:
    """A bar of the seconds of video done; videos whose length is unknown add to both ends."""

    def __init__(self, videos: Sequence[str], show: bool) -> None:
        self.lengths = [video_duration(video) for video in videos] if show else [0.0] * len(videos)
        self.bar = tqdm(total=round(sum(self.lengths)) or None, unit="s of video", disable=not show, smoothing=0.05)
        self.index = self.num_errors = 0
        self.before_s = self.now_s = 0.0  # seconds done: of the videos before this one, and with it
        self.start_s: float | None = None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, row: Row) -> None:
        """Note a row of the video at hand."""
        self.start_s = row.start_s if self.start_s is None else self.start_s
        self._set(max(self.now_s, self.before_s + row.end_s - self.start_s))

    def next_video(self, failed: bool) -> None:
        """Note that a video is done, however long it was said to be."""
        length_s = self.lengths[self.index]
        self._set(self.before_s + length_s if length_s else self.now_s)
        self.before_s, self.start_s = self.now_s, None
        self.index += 1
        self.num_errors += failed
        self.bar.set_postfix_str(f"{self.index} of {len(self.lengths)} videos, {self.num_errors} with errors")

    def _set(self, seconds: float) -> None:
        self.now_s = seconds
        self.bar.update(round(seconds) - self.bar.n)
