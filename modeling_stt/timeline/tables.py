"""Tables on disk: CSV, JSON Lines and Parquet, by their suffix; and stamps of the files that they were made from."""

import csv
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
CSV_LIMIT = 2**24  # characters of a field

Record = dict[str, Any]


def read_table(path: Path) -> Iterator[Record]:
    """Give the records of a table one by one, those of CSV as text or None; nothing for a missing file."""
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
            csv.field_size_limit(CSV_LIMIT)
            for record in csv.DictReader(file):
                yield {name: value or None for name, value in record.items()}
        else:
            yield from map(json.loads, file)


def write_table(path: Path, kinds: dict[str, type], records: Iterable[Record]) -> None:
    """Write records as a table; the file appears when it is complete."""
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


def write_whole(path: Path, text: str) -> None:
    """Write a text file that appears with all of its text."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8", errors="surrogateescape")
    unfinished.replace(path)


def to_json(record: Record, indent: int | None = None) -> str:
    """Return a record as JSON, numbers rounded to six digits."""
    record = {name: round(value, 6) if isinstance(value, float) else value for name, value in record.items()}
    return json.dumps(record, indent=indent, allow_nan=False)


def is_text(name: str) -> bool:
    """Return whether a name of a file is text, which Parquet needs, and not bytes in another encoding than UTF-8."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace") == name


def file_stamp(video: str) -> list[int] | None:
    """Size in bytes and time of change in nanoseconds of a file, to detect its replacement; None if not a file."""
    try:
        state = Path(video).stat()
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]


@contextmanager
def only_run(lock: Path, output: Path) -> Iterator[None]:
    """Hold a lock file while `output` is written. The system releases it when the process ends, however it ends.

    Raises:
        ValueError: If another run holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_name(lock.name + "ed_by")  # on Windows, a locked file cannot be read
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        who = holder.read_text("utf-8") if holder.is_file() else "an unknown process"
        raise ValueError(
            f"Another run is writing {output} ({who}): wait for its end, or name another output."
        ) from error
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        with suppress(OSError):  # on Windows it can only be removed when it is released, which filelock does
            lock.unlink()
        held.release()


def _write_parquet(path: Path, kinds: dict[str, type], records: Iterator[Record]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(records, 4096)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
