"""Training clips from raw videos: each face that is followed becomes a folder of numbered pictures.

They are cut by the same code and convention as the faces of a timeline, and the convention is noted beside them in
`face_crop.json`: a model trained on them carries it in its processor, and judges faces that are cut alike.
"""

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .batch import VIDEO_ERRORS, find_videos
from .detection import find_faces
from .faces import Face, FaceCrop, FaceDetector
from .scorers import FACE_CROP_FILE
from .tables import file_stamp, only_run, read_table, write_table, write_whole
from .tracks import FaceTracker, follow_faces
from .video import DamagedVideoError, Footage, TimedFrame

CONVENTION = FACE_CROP_FILE
INDEX = "crops.csv"
STAMPS = "crops.files.json"
INDEX_COLUMNS = ("video", "clip", "track", "start_s", "end_s", "num_frames", "mean_side", "reason")
JPEG_QUALITY = 95


@dataclass
class FaceClip:
    """A track of a video, or a piece of it, cut out.

    Args:
        folder: Folder of its pictures, named by their frame's number in the video.
        track: Its id in the video.
        start_s: Time of its first picture in seconds.
        end_s: Time of its last picture.
        num_frames: Number of pictures.
        sum_of_sides: Sum of the sides of the face's boxes, in pixels of the video.
        piece: Number of the piece, from 0; None for a whole track.
    """

    folder: Path
    track: int
    start_s: float
    end_s: float
    num_frames: int = 0
    sum_of_sides: float = 0.0
    piece: int | None = None

    @property
    def name(self) -> str:
        """Suffix of the video's name: track and piece."""
        return f"{self.track}" if self.piece is None else f"{self.track}_{self.piece}"


def write_crops(
    paths: Iterable[str | os.PathLike],
    output: str | os.PathLike,
    crop: FaceCrop,
    detector: FaceDetector,
    *,
    tracker: Callable[[], FaceTracker] = FaceTracker,
    detect_fps: float | None = None,
    min_s: float = 0.5,
    main_face: bool = False,
    clip_s: float | None = None,
) -> Iterator[tuple[str, list[FaceClip], str | None]]:
    """Cut the faces of videos out as training clips.

    A video `DIR/happy/a.mp4` of a folder `DIR` becomes the folders `happy/a_1`, `happy/a_2`, … of `output`, one for
    each face: the layout that `clip_folder` of dataset_scripts reads. `crops.csv` lists where each comes from; videos
    that it has are not read again unless their file has changed, so the same call resumes after an interruption.

    Args:
        paths: See `find_videos`.
        output: Folder to write, or to add to.
        crop: The convention.
        detector: Finds the faces.
        tracker: Makes the tracker of a video.
        detect_fps: See `find_faces`.
        min_s: Seconds from the first to the last picture that a clip must have.
        main_face: Keep only the face of a video that fills most over time, for videos labelled as a whole.
        clip_s: Cut the faces of long takes into pieces of this many seconds, `a_1_0`, `a_1_1`, …; None for one clip.

    Yields:
        Each video when it is done, its clips, and why it could not be read, or not to its end.

    Raises:
        ValueError: For numbers out of range; a folder with clips of another convention, or that another run is
            writing; two videos that would become one clip; some videos in class folders and some in none, whose clips
            `clip_folder` would refuse.
    """
    if not min_s >= 0 or not (detect_fps is None or detect_fps > 0):
        raise ValueError(f"min_s={min_s} must be at least 0, detect_fps={detect_fps} more than 0 or None.")
    if clip_s is not None and not clip_s > min_s:
        raise ValueError(f"clip_s={clip_s} must be more than min_s={min_s}, or None for whole takes.")
    output = Path(output)
    places = _places([os.fspath(path) for path in paths], output)
    _note_convention(output / CONVENTION, crop)
    with only_run(output / ".lock", output):
        stamps = _read_stamps(output / STAMPS)
        done = _forget_changed(output, _videos_done(output / INDEX), stamps)
        for video, place in places.items():
            if video in done:
                continue
            stamps[video] = file_stamp(video)
            cutting = _Cutting(output / ".unfinished", crop, clip_s)
            reason = cutting.cut(video, detector, tracker(), detect_fps)
            kept = cutting.kept(min_s, main_face)
            for clip in kept:
                _move_clip(clip, place.with_name(f"{place.name}_{clip.name}"))
            write_whole(output / STAMPS, json.dumps(stamps))
            _note_clips(output, video, kept, reason)
            yield video, kept, reason
        shutil.rmtree(output / ".unfinished", ignore_errors=True)


def _move_clip(clip: FaceClip, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)  # left by a run that ended before recording it
    clip.folder = clip.folder.rename(folder)


def _places(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Path of each video's clips, without what is added for track and piece."""
    folders = [Path(path) for path in paths if "://" not in path and Path(path).is_dir()]
    videos: dict[Path, str] = {}
    for video in find_videos(paths):
        folder = next((folder for folder in folders if Path(video).is_relative_to(folder)), Path(video).parent)
        place = output / Path(video).relative_to(folder).with_suffix("")
        if place in videos:
            raise ValueError(f"{videos[place]} and {video} would both become {place}: rename one of them.")
        videos[place] = video
    loose = [video for place, video in videos.items() if place.parent == output]
    if 0 < len(loose) < len(videos):
        names = ", ".join(loose[:5]) + (f" and {len(loose) - 5} more" if len(loose) > 5 else "")
        raise ValueError(
            f"Some videos lie in folders of classes, some in none ({names}); clips of the latter would have no class: "
            "move them into a class's folder, or cut them into another output."
        )
    return {video: place for place, video in videos.items()}


def _note_convention(file: Path, crop: FaceCrop) -> None:
    if file.parent.is_file():
        raise ValueError(f"{file.parent} is a file: name a folder to write.")
    if file.is_file():
        before = FaceCrop.from_dict(json.loads(file.read_text()))
        if before != crop:
            raise ValueError(f"{file.parent} has clips cut as {before}, not as {crop}: name another folder.")
    elif file.parent.is_dir() and any(file.parent.iterdir()):
        raise ValueError(f"{file.parent} is not empty and has no {CONVENTION}: name a new folder.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(crop.to_dict()) + "\n")


class _Cutting:
    """The clips of one video, cut into folders of an empty one."""

    def __init__(self, folder: Path, crop: FaceCrop, clip_s: float | None) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.crop, self.clip_s = folder, crop, clip_s
        self.clips: dict[tuple[int, int | None], FaceClip] = {}
        self.firsts_s: dict[int, float] = {}

    def cut(self, video: str, detector: FaceDetector, tracker: FaceTracker, detect_fps: float | None) -> str | None:
        """Cut all faces of a video out; return what was wrong with it."""
        try:
            footage = Footage(video)
            followed = follow_faces(find_faces(footage, detector, detect_fps), tracker)
            for number, (frame, faces, *_) in enumerate(followed, start=1):
                for track, face in faces.items():
                    if not self.crop.too_small(face):
                        self._add(number, frame, track, face)
            footage.finish(video)
        except DamagedVideoError as error:
            return str(error)
        except VIDEO_ERRORS as error:
            self.clips.clear()
            return str(error) or type(error).__name__
        return None

    def kept(self, min_s: float, main_face: bool) -> list[FaceClip]:
        """Return the clips that are long enough, of all faces or of the one that fills most over time."""
        sizes: Counter[int] = Counter()
        for clip in self.clips.values():
            sizes[clip.track] += round(clip.sum_of_sides)
        tracks = {track for track, _ in sizes.most_common(1 if main_face else None)}
        kept = [clip for clip in self.clips.values() if clip.end_s - clip.start_s >= min_s and clip.track in tracks]
        return sorted(kept, key=lambda clip: (clip.track, clip.piece or 0))

    def _add(self, number: int, frame: TimedFrame, track: int, face: Face) -> None:
        first_s = self.firsts_s.setdefault(track, frame.time_s)
        piece = None if self.clip_s is None else int((frame.time_s - first_s) / self.clip_s)
        if (track, piece) not in self.clips:
            clip = FaceClip(self.folder / f"{track}_{piece}", track, frame.time_s, frame.time_s, piece=piece)
            clip.folder.mkdir(parents=True)
            self.clips[track, piece] = clip
        clip = self.clips[track, piece]
        picture = Image.fromarray(self.crop(frame.image, face))
        picture.save(clip.folder / f"{number:06d}.jpg", quality=JPEG_QUALITY)
        clip.end_s = frame.time_s
        clip.num_frames += 1
        clip.sum_of_sides += face.side


def _read_stamps(file: Path) -> dict[str, list[int] | None]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _forget_changed(output: Path, done: set[str], stamps: dict[str, list[int] | None]) -> set[str]:
    """Remove the clips of videos whose files have changed since they were read; return the videos that have not."""
    changed = {v for v in done if stamps.get(v) is not None and file_stamp(v) not in (None, stamps[v])}
    if changed:
        rows = list(read_table(output / INDEX))
        for row in rows:
            if row["video"] in changed and row["clip"]:
                shutil.rmtree(output / row["clip"], ignore_errors=True)
        kept = [row for row in rows if row["video"] not in changed]
        write_table(output / INDEX, dict.fromkeys(INDEX_COLUMNS, str), kept)
    return done - changed


def _videos_done(index: Path) -> set[str]:
    """Videos that are in the index; those that could not be read are tried again."""
    return {row["video"] for row in read_table(index) if row["clip"] or not row["reason"]}


def _note_clips(output: Path, video: str, clips: Sequence[FaceClip], reason: str | None) -> None:
    """Add a video's clips to the index, at once; a video without any has a row without a clip."""
    index = output / INDEX
    rows: list[dict[str, object]] = [
        {
            "video": video,
            "clip": clip.folder.relative_to(output).as_posix(),
            "track": clip.track,
            "start_s": round(clip.start_s, 6),
            "end_s": round(clip.end_s, 6),
            "num_frames": clip.num_frames,
            "mean_side": round(clip.sum_of_sides / clip.num_frames, 1),
            "reason": reason,
        }
        for clip in clips
    ]
    is_new = not index.is_file()
    with index.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, INDEX_COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows or [{"video": video, "reason": reason}])
