"""Rows of many videos as one table on disk, by one process or many, in one go or several."""

import csv
import hashlib
import json
import logging
import os
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import av
from accelerate.state import PartialState
from tqdm import tqdm

from .rows import Row, Timeline, columns
from .video import stop_on_interrupt, video_duration

if sys.platform != "win32":
    import fcntl

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".ogv", ".mxf"),
    *(".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob", ".gif"),
)
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")

# What one bad video may raise without stopping the others. Anything else is a fault of the program, and stops it.
VIDEO_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, av.error.FFmpegError)

# Processes wait for the slowest at the end. torch.distributed would give up after minutes.
PATIENCE = timedelta(days=30)

TWO_DEATHS = (
    "Twice, the process ended without a word while it read this video: it was killed, or ran out of memory, or the "
    "video makes the decoder crash."
)

ERROR_COLUMNS: dict[str, type] = {"video": str, "reason": str, "rows": int}

Record = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableSummary:
    """What `write_timelines` did.

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
    """The videos that these paths mean: videos, addresses, folders of videos, and text files that list such, by line.

    Returns:
        Paths and addresses as given, each once; in folders, at any depth, files ending as `VIDEO_SUFFIXES`, sorted.
        Paths that don't exist are kept, so that their error is found with the others.

    Raises:
        ValueError: For a folder or a list without a video.
    """
    videos: list[str] = []
    for each in paths:
        path = os.fspath(each)
        found = [path]
        if "://" not in path and Path(path).is_dir():
            files = sorted(Path(path).rglob("*"))
            found = [str(f) for f in files if f.suffix.lower() in VIDEO_SUFFIXES and not f.name.startswith(".")]
            found = [file for file in found if Path(file).is_file()]
        elif path.endswith(".txt") and Path(path).is_file():
            found = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if not found:
            raise ValueError(f"{path} has no video: expected files ending as {' '.join(VIDEO_SUFFIXES)}.")
        videos += found
    return list(dict.fromkeys(videos))


def write_timelines(
    paths: Iterable[str | os.PathLike], timeline: Timeline, output: str | os.PathLike, progress: bool | None = None
) -> TableSummary:
    """Write the rows of many videos as one table: CSV, JSON Lines or Parquet, by the suffix of `output`.

    Videos that the table has already are not read again. Each video has a file of its own in the folder
    `{output}.parts` until all are done, complete or not there: after an interruption the same call goes on where it
    was. Under `accelerate launch` each process takes its share of the videos; all see the same folder, and the main
    one joins the parts. One bad video does not stop the rest: it goes to a table of errors beside, and is tried again
    by the next call. A damaged one has its rows up to the damage in the table, and its reason in that of errors. One
    that twice took its process with it (out of memory, a fault of the decoder) is an error, too, in the third call.

    Args:
        paths: Videos as paths and addresses, see `find_videos`.
        timeline: What reads them.
        output: Where to write. Beside it appear its `.errors.csv`, if need be, and its `.settings.json`.
        progress: Whether to show seconds of video done, their rate and the time left; by default in a terminal.

    Raises:
        ValueError: For another suffix, a table that other settings made, one that this function did not make, or one
            that another run is writing.
        RuntimeError: For processes that don't know of each other.
    """
    videos = list(dict.fromkeys(os.fspath(path) for path in paths))
    state = _join_processes(timeline)
    table = _Table(Path(output), timeline)
    table.refuse_other_settings()
    with only_run(table.lock, table.output) if state.is_main_process else nullcontext():
        state.wait_for_everyone()  # until it is known that this is the only run
        num_skipped = _write_missing(table, timeline, videos, state, progress)
    asked = set(videos)
    failed = {record["video"] for record in read_table(table.errors)} & asked
    states = Counter(record["state"] for record in read_table(table.output) if record["video"] in asked)
    return TableSummary(table.output, table.errors, len(videos), num_skipped, len(failed), dict(states))


def _join_processes(timeline: Timeline) -> PartialState:
    """Meet the other processes of `accelerate launch`, and take the GPU that is this one's.

    Without being told `cpu`, accelerate takes a process on a machine without GPU for the only one: each would then
    read all videos, and write over the others' parts.
    """
    model = timeline.scorer.model
    state = PartialState(cpu=model.device.type == "cpu", timeout=PATIENCE)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise RuntimeError(
            f"{started} processes were started, but accelerate knows of {state.num_processes}: each would read all "
            "videos. Was a PartialState made before, without cpu=True on a machine without GPU?"
        )
    if started > 1 and model.device.type != "cpu":
        model.to(state.device)  # type: ignore[arg-type]
    return state


def _write_missing(
    table: "_Table", timeline: Timeline, videos: Sequence[str], state: PartialState, progress: bool | None
) -> int:
    """Read what the table has not, this process its share, and join all; how many videos it had."""
    done = table.videos_done()
    # What a process died of comes last: should it die again, it keeps no other video from its turn.
    todo = sorted((video for video in videos if video not in done), key=table.num_deaths)
    state.wait_for_everyone()  # nobody has begun: all see the same videos to be done
    if state.is_main_process:
        table.begin()
    state.wait_for_everyone()
    own = todo[state.process_index :: state.num_processes]
    show = sys.stderr.isatty() if progress is None else progress
    with _Progress(own, show and state.is_local_main_process) as bar:
        for video in own:
            error = _write_part(table, timeline, video, bar)
            bar.next_video(failed=error)
    state.wait_for_everyone()
    if state.is_main_process:
        table.join_parts(videos)
    state.wait_for_everyone()
    return len(videos) - len(todo)


def _write_part(table: "_Table", timeline: Timeline, video: str, bar: "_Progress") -> bool:
    """Write one video's rows, or why there are none or not all; whether there was an error."""
    part, error_file = table.part(video), table.part(video).with_suffix(".error.json")
    num_rows = 0
    reason: str | None = TWO_DEATHS
    if table.num_deaths(video) < 2:
        num_rows, reason = _write_unfinished(table.unfinished(video), timeline, video, bar)
    # The error first: rows that are there are taken for all there is to know.
    if reason is not None:
        _write_whole(error_file, to_json({"video": video, "reason": reason, "rows": num_rows}))
    else:
        error_file.unlink(missing_ok=True)
    if num_rows:
        table.unfinished(video).replace(part)
    else:
        table.unfinished(video).unlink(missing_ok=True)
    return reason is not None


def _write_unfinished(path: Path, timeline: Timeline, video: str, bar: "_Progress") -> tuple[int, str | None]:
    """Write one video's rows as they come; how many there are, and why there are none or not all."""
    num_rows = 0
    try:
        # Line by line, so that it can be watched.
        with path.open("w", buffering=1) as file, stop_on_interrupt(video) as stop:
            try:
                for row in timeline(video, stop=stop):
                    file.write(to_json(row.to_dict(timeline.class_names)) + "\n")
                    num_rows += 1
                    bar.advance(row)
            except VIDEO_ERRORS as error:
                return num_rows, str(error) or type(error).__name__
    except BaseException:
        path.unlink(missing_ok=True)  # it is interrupted; where it stays behind, the process died
        raise
    return num_rows, None


@contextmanager
def only_run(lock: Path, output: Path) -> Iterator[None]:
    """Hold a lock file while `output` is written. The system lets go of it when the process ends, however it ends.

    Where there are no such locks, as on Windows, another run is not noticed.

    Raises:
        ValueError: Where another run holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    with _open_locked(lock, output) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if _is_at(lock, file):
                lock.unlink()


def _open_locked(lock: Path, output: Path) -> TextIO:
    while True:
        file = lock.open("a+")
        if not _can_lock(file, output):
            with file:
                file.seek(0)
                raise ValueError(
                    f"Another run is writing {output} ({file.read()}): wait for its end, or name another output."
                )
        if _is_at(lock, file):
            return file
        file.close()  # the run before removed it, at its end, when it was not ours yet


def _can_lock(file: TextIO, output: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see that no other run writes it, too.", output, error.strerror)
    return True


def _is_at(path: Path, file: TextIO) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


class _Table:
    """The files of one output."""

    def __init__(self, output: Path, timeline: Timeline) -> None:
        if output.suffix not in TABLE_SUFFIXES:
            raise ValueError(f"{output} must end in one of {', '.join(TABLE_SUFFIXES)}: the suffix tells the format.")
        self.output = output
        self.errors = output.with_suffix(".errors.csv")
        self.settings_file = output.with_suffix(".settings.json")
        self.parts = output.with_name(output.name + ".parts")
        self.lock = output.with_name(output.name + ".lock")  # beside the parts: they are removed while it is held
        self.kinds = columns(timeline.class_names)
        self.settings = json.loads(to_json(timeline.settings()))  # rounded as it is when it is read again

    def refuse_other_settings(self) -> None:
        """Refuse to add rows to a table that was made otherwise: one could not tell them apart."""
        if not self.settings_file.is_file():
            if self.output.exists():
                raise ValueError(
                    f"{self.output} is there without {self.settings_file.name}, so it is not known how it was made: "
                    "name another output, or remove it."
                )
            return
        before = json.loads(self.settings_file.read_text())
        other = {name for name in before.keys() | self.settings if before.get(name) != self.settings.get(name)}
        if other:
            told = "; ".join(
                f"{name}: {before.get(name)} then, {self.settings.get(name)} now" for name in sorted(other)
            )
            raise ValueError(f"{self.output} was made with other settings ({told}): name another output.")

    def videos_done(self) -> set[str]:
        """Videos in the table, or in a finished part of it."""
        finished = self.parts.glob("*.jsonl") if self.parts.is_dir() else ()
        done = {next(read_table(part))["video"] for part in finished}
        return done | {record["video"] for record in read_table(self.output)}

    def begin(self) -> None:
        """Note how the run before, if there was one, ended, and how the rows are made."""
        self.parts.mkdir(exist_ok=True)
        for file in self.parts.glob("*.unfinished"):
            first = file.with_suffix(".died")
            file.replace(file.with_suffix(".died_again") if first.exists() else first)
        _write_whole(self.settings_file, to_json(self.settings, indent=2))

    def part(self, video: str) -> Path:
        """Where the rows of a video lie until all are joined."""
        return self.parts / (hashlib.sha256(os.fsencode(video)).hexdigest()[:32] + ".jsonl")

    def unfinished(self, video: str) -> Path:
        """Where they lie while the video is being read."""
        return self.part(video).with_suffix(".unfinished")

    def num_deaths(self, video: str) -> int:
        """How many runs ended without a word while they read this video; 2 is the most that is counted."""
        return sum(self.part(video).with_suffix(f".{mark}").exists() for mark in ("unfinished", "died", "died_again"))

    def join_parts(self, videos: Sequence[str]) -> None:
        """Add the parts to the tables of rows and errors, in the order of the videos, and remove them."""
        order = {self.part(video).stem: index for index, video in enumerate(videos)}
        files = sorted(self.parts.iterdir(), key=lambda f: (order.get(f.name.partition(".")[0], len(order)), f.name))
        joined = {record["video"] for record in read_table(self.output)}  # and then interrupted
        parts = [file for file in files if file.suffix == ".jsonl" and next(read_table(file))["video"] not in joined]
        rows = chain.from_iterable(map(read_table, parts))
        write_table(self.output, self.kinds, chain(read_table(self.output), rows))
        new = [json.loads(file.read_text()) for file in files if file.name.endswith(".error.json")]
        tried = {record["video"] for record in new} | {next(read_table(part))["video"] for part in parts}
        errors = [record for record in read_table(self.errors) if record["video"] not in tried] + new
        if errors:
            write_table(self.errors, ERROR_COLUMNS, errors)
        else:
            self.errors.unlink(missing_ok=True)
        shutil.rmtree(self.parts)


def read_table(path: Path) -> Iterator[Record]:
    """The records of a CSV (as strings or None), JSON Lines or Parquet file one by one; none of a missing file."""
    if not path.is_file():
        return
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        return
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        if path.suffix == ".csv":
            for record in csv.DictReader(file):
                yield {name: value or None for name, value in record.items()}
        else:
            yield from map(json.loads, file)


def write_table(path: Path, kinds: dict[str, type], records: Iterable[Record]) -> None:
    """Write records as CSV, JSON Lines or Parquet, by the suffix; the file appears when it is complete."""
    unfinished = path.with_name(path.name + ".unfinished")
    if path.suffix == ".parquet":
        _write_parquet(unfinished, kinds, iter(records))
    else:
        with unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            if path.suffix == ".csv":
                writer = csv.DictWriter(file, list(kinds), lineterminator="\n")
                writer.writeheader()
                writer.writerows(records)
            else:
                file.writelines(to_json(record) + "\n" for record in records)
    unfinished.replace(path)


def _write_whole(path: Path, text: str) -> None:
    """Write a text file that is there with all of its text, or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def _write_parquet(path: Path, kinds: dict[str, type], records: Iterator[Record]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(records, 4096)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def to_json(record: Record, indent: int | None = None) -> str:
    """A record as JSON, numbers rounded to six digits."""
    record = {name: round(value, 6) if isinstance(value, float) else value for name, value in record.items()}
    return json.dumps(record, indent=indent, allow_nan=False)


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
