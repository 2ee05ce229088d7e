"""Training clips from raw videos: each face that is followed becomes a folder of numbered pictures.

They are cut by the same code and convention as the faces of a timeline, and the convention is noted beside them in
`face_crop.json`: a model trained on them carries it in its processor, and judges faces that are cut alike.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .batch import VIDEO_ERRORS, find_videos
from .detection import find_faces
from .faces import FaceCrop, FaceDetector
from .tables import only_run, read_table
from .tracks import FaceTracker, follow_faces
from .video import DamagedVideoError, Footage

CONVENTION = "face_crop.json"
INDEX = "crops.csv"
INDEX_COLUMNS = ("video", "clip", "track", "start_s", "end_s", "num_frames", "mean_side", "reason")
JPEG_QUALITY = 95


@dataclass
class FaceClip:
    """A track of a video, cut out.

    Args:
        folder: Where its pictures are, named by their frame's number in the video.
        track: Its id in the video.
        start_s: When its first picture is shown.
        end_s: When its last one is.
        num_frames: How many there are.
        sum_of_sides: Of the face's boxes, in pixels of the video.
    """

    folder: Path
    track: int
    start_s: float
    end_s: float
    num_frames: int = 0
    sum_of_sides: float = 0.0


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
) -> Iterator[tuple[str, list[FaceClip], str | None]]:
    """Cut the faces of videos out, as clips to train on.

    A video `DIR/happy/a.mp4` of a folder `DIR` becomes the folders `happy/a_0`, `happy/a_1`, … of `output`, one for
    each face: the layout that `clip_folder` of dataset_scripts reads. `crops.csv` tells where each comes from; videos
    that it has are not read again, so the same call goes on after an interruption.

    Args:
        paths: See `find_videos`.
        output: Folder to write, or to go on with.
        crop: The convention.
        detector: What finds faces.
        tracker: Makes the tracker of a video.
        detect_fps: See `follow_faces`.
        min_s: Seconds from the first to the last picture that a clip must have.
        main_face: Keep only the face of a video that fills most over time, for videos labelled as a whole.

    Yields:
        Each video when it is done, its clips, and why it could not be read, or not to its end.

    Raises:
        ValueError: For numbers out of range; a folder that another convention was written to, or that another run is
            writing; two videos that would be one clip; videos in folders beside others in none, whose clips
            `clip_folder` would refuse.
    """
    if not min_s >= 0 or not (detect_fps is None or detect_fps > 0):
        raise ValueError(f"min_s={min_s} must be at least 0, detect_fps={detect_fps} more than 0 or None.")
    output = Path(output)
    places = _places([os.fspath(path) for path in paths], output)
    _note_convention(output / CONVENTION, crop)
    with only_run(output / ".lock", output):
        done = _videos_done(output / INDEX)
        for video, place in places.items():
            if video in done:
                continue
            clips, reason = _cut_video(video, output / ".unfinished", crop, detector, tracker(), detect_fps)
            kept = [clip for clip in clips if clip.end_s - clip.start_s >= min_s]
            kept = sorted(kept, key=lambda clip: -clip.sum_of_sides)[: 1 if main_face else None]
            for clip in sorted(kept, key=lambda clip: clip.track):
                folder = place.with_name(f"{place.name}_{clip.track}")
                folder.parent.mkdir(parents=True, exist_ok=True)
                if folder.exists():
                    shutil.rmtree(folder)  # of a run that ended before it could note it
                clip.folder = clip.folder.rename(folder)
            _note_clips(output, video, kept, reason)
            yield video, kept, reason
        shutil.rmtree(output / ".unfinished", ignore_errors=True)


def _places(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Where each video's clips go, less the number of their track."""
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
        told = ", ".join(loose[:5]) + (f" and {len(loose) - 5} more" if len(loose) > 5 else "")
        raise ValueError(
            f"Some videos lie in folders of classes, some in none ({told}); clips of the latter would have no class: "
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


def _cut_video(
    video: str, folder: Path, crop: FaceCrop, detector: FaceDetector, tracker: FaceTracker, detect_fps: float | None
) -> tuple[list[FaceClip], str | None]:
    """Cut all faces of a video out, each into a folder of its own in an empty one; and what was wrong with it."""
    shutil.rmtree(folder, ignore_errors=True)
    clips: dict[int, FaceClip] = {}
    try:
        footage = Footage(video)
        followed = follow_faces(find_faces(footage, detector, detect_fps), tracker)
        for number, (frame, faces, *_) in enumerate(followed, start=1):
            for track, face in faces.items():
                if crop.too_small(face):
                    continue
                if track not in clips:
                    clips[track] = FaceClip(folder / str(track), track, frame.time_s, frame.time_s)
                    clips[track].folder.mkdir(parents=True)
                clip = clips[track]
                picture = Image.fromarray(crop(frame.image, face))
                picture.save(clip.folder / f"{number:06d}.jpg", quality=JPEG_QUALITY)
                clip.end_s = frame.time_s
                clip.num_frames += 1
                clip.sum_of_sides += face.side
        footage.finish(video)
    except DamagedVideoError as error:
        return list(clips.values()), str(error)
    except VIDEO_ERRORS as error:
        return [], str(error) or type(error).__name__
    return list(clips.values()), None


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
