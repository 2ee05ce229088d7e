"""``verify``: check that numbers from this copy of a data set can be compared with those of papers.

It knows no data set: lists, facts and a data set's own checks come from its ``ClipSource``. Every listed clip is
examined once on disk, however many folds it is in.
"""

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

from PIL import Image
from tqdm import tqdm

from . import builder_class
from .clip_files import (
    BROKEN_PICTURE,
    IMAGE_SUFFIXES,
    LFS_POINTER,
    NUMBERS,
    ClipBuilder,
    ClipConfig,
    Listed,
    count_video_frames,
    list_frames,
    open_video,
    own_options,
    read_packets,
    shown,
)
from .rendered_faces import MARKER

Outcome: TypeAlias = Literal["ok", "warning", "failed"]

__all__ = ["Check", "Report", "config_class", "own_options", "verify"]

ASKED = ("num_frames", "num_short_clips", "classes", "published")  # keys of ``describe`` that request checks
SHORT = 16  # frames that the models of the field sample from a clip
NUM_WORKERS = 8  # threads: on two cores as fast as any number, on a network disk much faster than few
MAX_CLASS_COLUMNS = 12  # more classes (MAFW's 43 compound ones) are counted in the JSON only
END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # entropy-coded data of a JPEG never holds its end marker
TAIL = 1024  # bytes at a picture's end that may follow the mark: cameras and downloaders pad
BOXES = b"ftyp moov mdat free skip wide uuid moof mfra sidx styp".split()  # of MP4, MOV
PROBE = 1 << 16  # bytes of a video that are compared at its start, middle and end


# --- The report -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One question asked of a copy.

    Attributes:
        name: the question.
        outcome: ``failed`` where numbers would not be comparable with papers, ``warning`` where they may be.
        text: the numbers, and the first few offenders.
        configurations: which configurations this is about.
    """

    name: str
    outcome: Outcome
    text: str
    configurations: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Result of ``verify``; equal for equal copies, since it holds no times.

    Attributes:
        dataset: key of ``BUILDERS``.
        data_dir: absolute path of the copy.
        configurations: those looked at.
        options: options of the builder that were given.
        deep: true if every frame was decoded.
        sources: configuration → its source's ``describe()``.
        counts: configuration → split → class → number of listed clips.
        published: as ``counts``, where something is published.
        num_frames: ``min``, ``median`` and ``max`` frames of a clip, and how many have under 16 (``short``).
        picture_sizes: ``width×height`` → number of clips, read from the probed frames or the video.
        checks: in the order in which they were made.
    """

    dataset: str
    data_dir: str
    configurations: list[str]
    options: dict[str, Any]
    deep: bool
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    published: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    num_frames: dict[str, float] = field(default_factory=dict)
    picture_sizes: dict[str, int] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def comparable(self) -> bool | None:
        """False if a check failed, True if none did, None if none did and nothing is published to compare with."""
        if any(check.outcome == "failed" for check in self.checks):
            return False
        return True if self.published else None

    @property
    def verdict(self) -> str:
        """``comparable`` in words."""
        outcomes = Counter(check.outcome for check in self.checks)
        numbers = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("failed", "warning") if outcomes[outcome])
        papers = bool(builder_class(self.dataset).PUBLISHED)  # own clips are in none
        text = {
            True: "Numbers from this copy are comparable with papers",
            False: "Numbers from this copy are NOT comparable with papers" if papers else "These clips have faults",
            None: "Nothing failed, and nothing is published to compare with",
        }[self.comparable]
        return f"{text}{numbers and ': '}{numbers}."

    def to_dict(self) -> dict[str, Any]:
        """All of it in values that JSON has."""
        return {**asdict(self), "comparable": self.comparable, "verdict": self.verdict}

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        head = f"{self.dataset} in {self.data_dir}: {', '.join([_span(self.configurations), *options])}"
        lines = [head, *_columns(_facts(self)), ""]
        if self.counts:
            lines += [*_columns(_count_rows(self)), ""]
        lines += _columns([[check.outcome, check.name, self._text(check)] for check in self.checks])
        return "\n".join([*lines, "", self.verdict])

    def _text(self, check: Check) -> str:
        """A check's text, with the configurations that it is about unless these are all."""
        every = list(check.configurations) == self.configurations
        return check.text if every else f"{_span(check.configurations)}: {check.text}"


def _span(names: Sequence[str]) -> str:
    """Names of configurations, shortened: ``fold_1 … fold_5``."""
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows as aligned lines; the last column is left as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _facts(report: Report) -> list[list[str]]:
    """Facts, a line each; values that differ between configurations are joined."""
    values: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for source in report.sources.values():
        for key, value in source.items():
            if key in ASKED:
                continue
            values.setdefault(key, {}).update(dict.fromkeys(map(str, value if isinstance(value, list) else [value])))
    root = f"{report.data_dir}{os.sep}"
    rows = [[f"  {key}", shown(text.removeprefix(root) for text in texts)] for key, texts in values.items() if texts]
    if report.num_frames:
        text = "min {min:g}, median {median:g}, max {max:g}; {short:g} clips under 16".format(**report.num_frames)
        rows.append(["  frames per clip", text])
    if report.picture_sizes:
        sizes = [f"{size} ({count} clips)" for size, count in report.picture_sizes.items()]
        rows.append(["  picture sizes", shown(sizes)])
    return rows


def _count_rows(report: Report) -> list[list[str]]:
    """A table of the clips per class, a line a split; ``12/489`` where 12 are listed and 489 published."""
    classes = {tuple(counts) for splits in report.counts.values() for counts in splits.values()}
    columns = list(classes.pop()) if len(classes) == 1 else []
    columns = columns if len(columns) <= MAX_CLASS_COLUMNS else []
    rows = [["  clips", *columns, "all"]]
    for name, splits in report.counts.items():
        for split, counts in splits.items():
            wanted = report.published.get(name, {}).get(split, counts)
            pairs = [(counts[each], wanted.get(each, 0)) for each in columns]
            pairs.append((sum(counts.values()), sum(wanted.values())))
            cells = [f"{found}" if found == other else f"{found}/{other}" for found, other in pairs]
            rows.append([f"  {name} {split}", *cells])
    return rows


# --- A clip on disk -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A clip on disk.

    Attributes:
        num_frames: frames counted.
        sizes: sizes of its pictures, ``width×height``: of the first, middle and last frame (all with ``deep``).
        odd: what is odd about its pictures, or empty: face crops are square and of one size, and with ``deep`` a video
            decodes to as many frames as its packets show.
        content: equal for equal contents; empty where the clip could not be read.
        problem: name of the check that it fails, or empty.
        text: the fault, with the file's name.
    """

    num_frames: int = 0
    sizes: tuple[str, ...] = ()
    odd: str = ""
    content: str = ""
    problem: str = ""
    text: str = ""


class _BrokenClipError(Exception):
    """A clip that fails the check ``problem``."""

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(text)
        self.problem = problem


def look_at(path: str | None, deep: bool = False) -> Clip:
    """Count and probe a clip: a folder of frames, an image or a video.

    Faults on disk raise no error: they become the clip's ``problem``.
    """
    try:
        if path is None:
            raise _BrokenClipError("clips on disk", "")
        if Path(path).is_dir():
            return _look_at_folder(path, deep)
        if path.lower().endswith(IMAGE_SUFFIXES):
            data = Path(path).read_bytes()
            size = "{}×{}".format(*_picture_size(data, path, deep))
            return Clip(1, (size,), content=hashlib.blake2b(data, digest_size=16).hexdigest())
        return _look_at_video(path, deep)
    except _BrokenClipError as error:
        return Clip(problem=error.problem, text=shown([error]))
    except FileNotFoundError:
        return Clip(problem="clips on disk", text=f"{path} is gone")
    except OSError as error:  # of the file system: no right to read, input/output error
        return Clip(problem="readable", text=f"{path}: {error.strerror}")


def _look_at_folder(folder: str, deep: bool) -> Clip:
    try:
        names = list_frames(folder)
    except ValueError as error:
        raise _BrokenClipError("frame order", str(error)) from error
    if not names:
        raise _BrokenClipError("empty clips", f"{folder} has no frame")
    _refuse_mixed_names(folder, names)
    with os.scandir(folder) as entries:
        num_bytes = {entry.name: entry.stat().st_size for entry in entries}
    if void := [name for name in names if not num_bytes[name]]:
        raise _BrokenClipError("readable", f"{len(void)} frames of {folder} are empty files ({shown(void)})")
    content = hashlib.blake2b(repr([num_bytes[name] for name in names]).encode(), digest_size=16)
    sizes = []
    for place in range(len(names)) if deep else sorted({0, len(names) // 2, len(names) - 1}):
        data = Path(f"{folder}{os.sep}{names[place]}").read_bytes()
        sizes.append(_picture_size(data, f"{folder}/{names[place]}", deep))
        content.update(data)
    texts = tuple(dict.fromkeys(f"{width}×{height}" for width, height in sizes))
    odd = " and ".join(texts) if len(texts) > 1 or sizes[0][0] != sizes[0][1] else ""
    return Clip(len(names), texts, odd, content.hexdigest())


def _refuse_mixed_names(folder: str, names: Sequence[str]) -> None:
    """Refuse frames that differ in more than their number: copies, ``1_2 (3).jpg``, or frames of another clip."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        stem = name.rpartition(".")[0]
        *_, number = NUMBERS.finditer(stem)
        kinds.setdefault(stem[: number.start()] + stem[number.end() :], []).append(name)
    if len(kinds) > 1:
        usual, *others = sorted(kinds.values(), key=len, reverse=True)
        text = f"{folder} has {shown(chain(*others))} among frames like {usual[0]}"
        raise _BrokenClipError("frame order", text + ": copies, or of another clip?")


def _picture_size(data: bytes, path: str, decode: bool) -> tuple[int, int]:
    """Width and height of a picture that is whole, by its end mark or, with ``decode``, by reading all of it."""
    if data.startswith(LFS_POINTER):
        raise _BrokenClipError("Git LFS", path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if END_MARKS.get(str(image.format), b"") not in data[-TAIL:]:
                raise _BrokenClipError("readable", f"{path} is cut off")
            if decode:
                image.load()
            return image.size
    except BROKEN_PICTURE as error:
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else error
        raise _BrokenClipError("readable", f"{path} is broken ({reason})") from error


def _look_at_video(path: str, deep: bool) -> Clip:
    num_bytes = Path(path).stat().st_size
    content = hashlib.blake2b(f"{num_bytes}".encode(), digest_size=16)
    with Path(path).open("rb") as file:
        for start in sorted({0, max(0, num_bytes // 2 - PROBE // 2), max(0, num_bytes - PROBE)}):
            file.seek(start)
            content.update(data := file.read(PROBE))
            if data.startswith(LFS_POINTER) and not start:
                raise _BrokenClipError("Git LFS", path)
        if not num_bytes:
            raise _BrokenClipError("readable", f"{path} is an empty file")
        if (end := _end_of_boxes(file)) > num_bytes:
            raise _BrokenClipError("readable", f"{path} is cut off: {num_bytes} of {end} bytes")
    try:
        num_frames = count_video_frames(path)
        with open_video(path) as (container, stream):
            packets = read_packets(container, stream)
            num_decoded = sum(len(packet.decode()) for packet in packets) if deep else num_frames
    except ValueError as error:
        raise _BrokenClipError("readable", str(error)) from error
    # Packed B-frames leave out frames on purpose, so that this is not a fault by itself.
    odd = f"{num_decoded} of {num_frames} frames decoded" if num_decoded != num_frames else ""
    return Clip(num_frames, (f"{stream.width}×{stream.height}",), odd, content.hexdigest())


def _end_of_boxes(file: io.BufferedReader) -> int:
    """Length of an MP4 or MOV by its boxes' sizes, more than its own size if truncated; 0 for other formats."""
    end = 0
    while True:
        file.seek(end)
        header = file.read(16)
        size = int.from_bytes(header[8:] if header[:4] == b"\0\0\0\1" else header[:4], "big")
        if header[4:8] not in BOXES or size < 8:  # a size of 0 reaches to the file's end
            return end
        end += size


# --- The checks -----------------------------------------------------------------------------------------------------

# Name of the check that a clip's problem fails → text for clips without and for clips with this problem.
PROBLEMS = {
    "clips on disk": ("are on disk", "are not on disk"),
    "Git LFS": ("are files of their own", "are pointers that Git LFS left in place of the clip (run git lfs pull)"),
    "empty clips": ("have frames", "have no frame"),
    "readable": ("can be read", "cannot be read"),
    "frame order": ("have frames in a known order", "have frames whose order cannot be known"),
}
ODDITIES = {
    "motion": ("no clip has one frame only", "clips have one frame only"),
    "pictures": ("no clip has pictures of several sizes, or faces not square", "clips have odd pictures"),
}


def _check(
    name: str, about: Iterable[str], bad: Sequence[str], good_text: str, bad_text: str, outcome: Outcome = "failed"
) -> Check:
    """Make a check that is ok if nothing is ``bad``, and otherwise names the first few."""
    if not bad:
        return Check(name, "ok", good_text, tuple(about))
    return Check(name, outcome, f"{bad_text}: {shown(bad)}", tuple(about))


def _check_synthetic(builder: type[ClipBuilder], report: Report) -> Iterator[Check]:
    """Report a tree of synthetic faces, whatever its counts are."""
    top = Path(report.data_dir)
    if marked := next((folder for folder in (top, *top.parents) if (folder / MARKER).is_file()), None):
        outcome: Outcome = "failed" if builder.PUBLISHED else "warning"
        text = f"these are synthetic faces, as {marked / MARKER} says"
        yield Check("real faces", outcome, text, tuple(report.configurations))


def _check_counts(report: Report) -> Iterator[Check]:
    """Clips per class and split against the published numbers."""
    pairs = {
        f"{name} {split} {each}": (report.counts[name].get(split, {}).get(each, 0), published[split].get(each, 0))
        for name, published in report.published.items()
        for split in published
        for each in published[split] | report.counts[name].get(split, {})
    }
    bad = [f"{what} {found} (published {other})" for what, (found, other) in pairs.items() if found != other]
    good_text = f"all {len(pairs)} numbers of clips per class and split are the published ones"
    bad_text = f"{len(bad)} of {len(pairs)} numbers of clips per class and split are not the published ones"
    if not report.published:
        return  # as the verdict says
    yield _check("counts", report.published, bad, good_text, bad_text)
    if others := [name for name in report.counts if name not in report.published]:
        yield Check("counts", "warning", "nothing is published to compare with", tuple(others))


def _check_splits(name: str, listed: Listed) -> Check:
    """Find clips that are listed twice, in one split or in two."""
    seen = Counter(row["clip_id"] for rows in listed.values() for row in rows)
    twice = [clip_id for clip_id, times in seen.items() if times > 1]
    return _check("splits", [name], twice, "no clip is listed twice", f"{len(twice)} clips are listed twice")


def _check_folds(listed: dict[str, Listed], known: Iterable[str]) -> Iterator[Check]:
    """Check that the test sides of a set's folds are disjoint and, if all folds exist, cover all of its clips."""
    series: dict[str, list[str]] = {}
    for name in known:
        if re.search(r"fold_\d+$", name):
            series.setdefault(name.rpartition("_")[0], []).append(name)
    for names in series.values():
        tests = {
            name: {row["clip_id"] for row in listed[name]["test"]} for name in names if "test" in listed.get(name, {})
        }
        if len(tests) < 2:
            continue
        everything = {row["clip_id"] for name in tests for rows in listed[name].values() for row in rows}
        twice = {clip_id for one, other in combinations(tests.values(), 2) for clip_id in one & other}
        whole = len(tests) == len(names)
        never = everything - set().union(*tests.values()) if whole else set()
        bad = [f"{clip_id} in several" for clip_id in sorted(twice)]
        bad += [f"{clip_id} in none" for clip_id in sorted(never)]
        good_text = f"{len(tests)} test folds are disjoint" + whole * f" and cover all {len(everything)} clips"
        yield _check("test folds", tests, bad, good_text, f"{len(tests)} test folds overlap or leave clips out")


def _check_duplicates(listed: dict[str, Listed], clips: dict[str, Clip]) -> Check:
    """Clips of equal content in two splits: a warning, because the published lists would have them, too."""
    same: dict[str, list[str]] = {}
    for clip_id, clip in clips.items():
        if clip.content:
            same.setdefault(clip.content, []).append(clip_id)
    places = [{row["clip_id"]: split for split, rows in splits.items() for row in rows} for splits in listed.values()]
    bad = [
        " = ".join(group[:2]) + (f" = {len(group) - 2} more" if len(group) > 2 else "")
        for group in same.values()
        if any(len({place[clip_id] for clip_id in group if clip_id in place}) > 1 for place in places)
    ]
    good_text, bad_text = (
        "no clip has the content of a clip of another split",
        f"{len(bad)} contents lie in two splits",
    )
    return _check("duplicates", listed, bad, good_text, bad_text, "warning")


def _check_clips(clips: dict[str, Clip], about: Iterable[str], still: bool) -> Iterator[Check]:
    """Check that every listed clip exists and is whole, with its frames in order."""
    about = tuple(about)
    for name, (good, bad) in PROBLEMS.items():
        such = [clip.text or clip_id for clip_id, clip in clips.items() if clip.problem == name]
        numbers = f"{len(such)} of {len(clips)}"
        yield _check(name, about, such, f"all {len(clips)} clips {good}", f"{numbers} clips {bad}")
    oddities = {
        "motion": [clip_id for clip_id, clip in clips.items() if clip.num_frames == 1],
        "pictures": [f"{clip_id} {clip.odd}" for clip_id, clip in clips.items() if clip.odd],
    }
    for name, (good, bad) in ODDITIES.items():
        if name != "motion" or not still:
            yield _check(name, about, oddities[name], good, f"{len(oddities[name])} {bad}", "warning")


def _check_num_frames(name: str, source: dict[str, Any], clips: dict[str, Clip]) -> Iterator[Check]:
    """Check the numbers of frames that the set's builder expects, over the readable clips of a configuration."""
    counts = {clip_id: clip.num_frames for clip_id, clip in clips.items() if not clip.problem}
    if wanted := source.get("num_frames"):
        bad = [f"{clip_id} {count}" for clip_id, count in counts.items() if count != wanted]
        good_text = f"all clips have {wanted} frames"
        yield _check("frames per clip", [name], bad, good_text, f"{len(bad)} clips do not have {wanted} frames")
    if (wanted := source.get("num_short_clips")) is not None:
        short = [f"{clip_id} {count}" for clip_id, count in counts.items() if count < SHORT]
        outcome: Outcome = "ok" if len(short) == wanted else "warning"
        text = f"{len(short)} clips have fewer than {SHORT} frames, published {wanted}"
        yield Check("short clips", outcome, text + (f": {shown(short)}" if short else ""), (name,))


# --- All of it ------------------------------------------------------------------------------------------------------


def verify(
    name: str,
    data_dir: str | Path,
    *,
    configurations: Sequence[str] | None = None,
    deep: bool = False,
    progress: bool = True,
    num_workers: int | None = None,
    **options: Any,
) -> Report:
    """Check a copy of a data set: lists against what is published, and every listed clip on disk.

    Args:
        name: a key of ``BUILDERS``.
        data_dir: folder of the copy.
        configurations: such as ``["fold_1"]``; by default all with published counts, or otherwise all that this copy
            has.
        deep: decode every frame, instead of probing the first, middle and last of each clip.
        progress: show a progress bar on stderr.
        num_workers: threads that look at clips; by default 8.
        **options: options of the data set's configuration, such as ``frames="16f"``.

    Returns:
        The report; a copy that cannot even be opened gives one as well, with the reason as a failed check.

    Raises:
        KeyError: ``name`` is not in this folder.
        ValueError: unknown configurations or options.
    """
    builder = builder_class(name)
    known = {config.name: config for config in builder.BUILDER_CONFIGS}
    data_dir = os.path.abspath(Path(data_dir).expanduser())  # noqa: PTH100  # resolve() would follow links
    names = list(configurations or builder.PUBLISHED or known)
    configs = [_configured(known, each, data_dir, options) for each in names]
    if not (configurations or builder.PUBLISHED):
        configs = _those_of_this_copy(configs)
        names = [config.name for config in configs]
    given = {option: options[option] for option in own_options(builder.BUILDER_CONFIG_CLASS) if option in options}
    report = Report(name, data_dir, names, given, deep)
    opened: list[Check] = []
    listed = {config.name: rows for config in configs if (rows := _open(builder, config, report, opened))}
    paths = {row["clip_id"]: row["path"] for splits in listed.values() for rows in splits.values() for row in rows}
    paths = dict(sorted(paths.items()))
    clips = dict(zip(paths, _look_at_all(list(paths.values()), deep, progress, num_workers), strict=True))
    _measure(report, clips)
    checks = [*_check_synthetic(builder, report), *_check_counts(report), *opened]
    if listed:
        still = all(source.get("num_frames") == 1 for source in report.sources.values())
        checks += [*_check_folds(listed, known), *_check_clips(clips, listed, still)]
        checks.append(_check_duplicates(listed, clips))
    for each, splits in listed.items():
        members = {row["clip_id"] for rows in splits.values() for row in rows}
        own = {clip_id: clip for clip_id, clip in clips.items() if clip_id in members}
        checks.extend(_check_num_frames(each, report.sources[each], own))
    return replace(report, checks=_merged(checks))


def config_class(name: str) -> type[ClipConfig]:
    """The class of a data set's configurations; KeyError for a name that is not in this folder."""
    return builder_class(name).BUILDER_CONFIG_CLASS


def _configured(known: dict[str, Any], name: str, data_dir: str, options: dict[str, Any]) -> ClipConfig:
    """A configuration with its options, checked."""
    if name not in known:
        raise ValueError(f"There is no configuration {name!r}, only {', '.join(known)}.")
    own = own_options(type(known[name]))
    if unknown := sorted(set(options) - own.keys()):
        raise ValueError(f"There is no option {', '.join(unknown)}, only {', '.join(own)}.")
    config = replace(known[name], data_dir=data_dir, **options)
    config.check()
    return config


def _those_of_this_copy(configs: list[ClipConfig]) -> list[ClipConfig]:
    """The configurations whose source opens; if none does, the first, whose report then says why.

    A folder of one's own clips has either splits of its own or folds.
    """
    there = []
    for config in configs:
        with suppress(OSError, ValueError):
            config.open_source()
            there.append(config)
    return there or configs[:1]


def _open(builder: type[ClipBuilder], config: ClipConfig, report: Report, checks: list[Check]) -> Listed | None:
    """Read a configuration's lists and check them; None, with a failed check, if they cannot be read."""
    try:
        source = config.open_source()
        listed, about, own = source.listed_clips(), source.describe(), source.check()
    except (OSError, ValueError) as error:
        checks.append(Check("source", "failed", shown([error]), (config.name,)))
        return None
    report.sources[config.name] = about
    classes = about.get("classes", builder.CLASS_NAMES)
    numbers = {split: Counter(row["label"] for row in rows) for split, rows in listed.items()}
    report.counts[config.name] = {
        split: {name: number[label] for label, name in enumerate(classes)} for split, number in numbers.items()
    }
    if published := about.get("published", builder.PUBLISHED.get(config.name)):
        report.published[config.name] = published
    checks.append(_check_splits(config.name, listed))
    checks.extend(Check(name, "ok" if passed else "failed", text, (config.name,)) for name, passed, text in own)
    return listed


def _look_at_all(paths: list[str | None], deep: bool, progress: bool, num_workers: int | None) -> list[Clip]:
    """``look_at`` over all clips, in threads: they wait for the disk, and PyAV and Pillow decode side by side."""
    look: Callable[[str | None], Clip] = partial(look_at, deep=deep)
    with ThreadPoolExecutor(num_workers or NUM_WORKERS) as pool:
        bar = tqdm(pool.map(look, paths), total=len(paths), desc="clips", unit="", disable=not progress)
        return list(bar)


def _measure(report: Report, clips: dict[str, Clip]) -> None:
    """Frames per clip and picture sizes, over the clips that can be read."""
    counts = [clip.num_frames for clip in clips.values() if not clip.problem]
    if counts:
        short = sum(count < SHORT for count in counts)
        report.num_frames.update(min=min(counts), median=median(counts), max=max(counts), short=short)
    sizes = Counter(size for clip in clips.values() for size in clip.sizes)
    report.picture_sizes.update(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _merged(checks: Iterable[Check]) -> list[Check]:
    """Merge checks that say the same about several configurations; their names keep their order."""
    merged: dict[tuple[str, Outcome, str], list[str]] = {}
    places = {name: place for place, name in enumerate(dict.fromkeys(check.name for check in checks))}
    for check in checks:
        merged.setdefault((check.name, check.outcome, check.text), []).extend(check.configurations)
    both = [Check(name, outcome, text, tuple(about)) for (name, outcome, text), about in merged.items()]
    return sorted(both, key=lambda check: places[check.name])
