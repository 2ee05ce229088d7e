"""Video processor of STT: files, folders and arrays to clips. Travels with every checkpoint: imports nothing of ours.

Which frames of a clip are looked at is decided in one place, `sample_frame_indices`; only those are decoded.
"""

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor, BatchFeature
from transformers.video_utils import VideoMetadata, make_batched_metadata, make_batched_videos

# What torchvision decodes.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

VideoFile = str | os.PathLike | bytes | BinaryIO
ChooseFrames = Callable[[VideoMetadata], np.ndarray]


def sample_frame_indices(
    num_available: int,
    num_frames: int = 16,
    frames_per_segment: int = 2,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Which frames of a clip STT looks at: "dynamic sampling", 8 segments of 2 consecutive frames by default.

    The clip is cut into `num_frames / frames_per_segment` equal segments. For testing the consecutive frames start at
    each segment's centre, for training anywhere in the segment. Segments cover the whole clip; Former-DFER's code, the
    origin of the rule, rounds their length down in training and never sees a clip's last frames.

    A clip of fewer than `num_frames` frames repeats its frames evenly, in time order (ours: the origin repeats the
    first frame only, which is no longer a clip). Where `frames_per_segment` does not divide `num_frames`, segments have
    one frame.

    Args:
        num_available: Frames in the clip, at least 1.
        num_frames: Frames wanted.
        frames_per_segment: Consecutive frames taken of each segment.
        rng: Draws the starts, for training. None for the centres, deterministic.

    Returns:
        `(num_frames,)` int64, never decreasing, all in [0, `num_available`).

    Raises:
        ValueError: For a clip without frames, or numbers below 1.
    """
    if num_available < 1:
        raise ValueError(f"A clip of {num_available} frames cannot be sampled: it needs at least one.")
    if num_frames < 1 or frames_per_segment < 1:
        raise ValueError(f"num_frames={num_frames} and frames_per_segment={frames_per_segment} must be at least 1.")
    if num_available < num_frames:
        phase = 0.5 if rng is None else rng.random()
        return ((np.arange(num_frames) + phase) * num_available / num_frames).astype(np.int64)
    if num_frames % frames_per_segment:
        frames_per_segment = 1
    num_segments = num_frames // frames_per_segment
    num_starts = num_available - frames_per_segment + 1
    if rng is None:
        starts = ((np.arange(num_segments) + 0.5) * num_starts / num_segments).astype(np.int64)
    else:
        bounds = np.arange(num_segments + 1) * num_starts // num_segments
        starts = rng.integers(bounds[:-1], bounds[1:])
    return (starts[:, None] + np.arange(frames_per_segment)).reshape(-1)


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The image files of a clip's folder in time order: by the last integer of their names (9.jpg before 10.jpg).

    Hidden files (macOS leaves `._1.jpg`) and files that are no images are passed over.

    Raises:
        ValueError: For no image at all, an image without a number in its name, or two with the same number.
    """
    files = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise ValueError(f"{folder} has no frames: expected images ({', '.join(IMAGE_SUFFIXES)}) named by number.")
    by_number: dict[int, Path] = {}
    for file in files:
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            raise ValueError(f"{file} has no number in its name, so its place in time is unknown: rename the frames.")
        if other := by_number.get(int(numbers[-1])):
            raise ValueError(f"{other} and {file.name} carry the same frame number: which comes first is unknown.")
        by_number[int(numbers[-1])] = file
    return [by_number[number] for number in sorted(by_number)]


def read_frame_files(files: Sequence[str | os.PathLike]) -> torch.Tensor:
    """Decode image files, each once, to one tensor.

    Args:
        files: Paths in time order, repeats allowed.

    Returns:
        `(T, 3, H, W)` uint8 RGB. Frames of another size than the first's are resized to it.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For no file, or one that is not a readable image; it is named.
    """
    frames: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(os.fspath(file) for file in files):
        data = np.fromfile(file, dtype=np.uint8)
        try:
            frames[file] = decode_image(torch.from_numpy(data), ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file} ({len(data)} bytes) is not a readable image: {reason}") from error
    return _stack_frames([frames[os.fspath(file)] for file in files])


def read_video_frames(file: VideoFile, choose: ChooseFrames) -> tuple[torch.Tensor, VideoMetadata]:
    """Decode the chosen frames of a video file, and little else.

    The file is first scanned without decoding, for the times of its frames: containers often don't know how many they
    hold. Then decoding starts at the last keyframe before each chosen frame and stops at the last one. Where a
    container gives no usable times, all frames are decoded instead, with the same result. Rotation metadata is applied.

    Args:
        file: Path, bytes or a seekable binary file of anything that FFmpeg reads (mp4, avi, mkv, webm, mov, …).
        choose: Gets the metadata, `total_num_frames` counted, and returns the indices of the frames to decode.

    Returns:
        Frames `(T, 3, H, W)` uint8 RGB, in the order of the indices, and the metadata with `frames_indices` set.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For a file that is no video, has no video stream or no frame, or is damaged; it is named.
    """
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else "the video given as bytes"
    source: Any = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with av.open(os.fspath(source) if isinstance(source, os.PathLike) else source) as container:
            return _VideoReader(container, str(name)).read(choose)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no video file {name}.") from error
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name} cannot be read as a video ({error.strerror}). If it plays elsewhere, re-encode it; if not, it is "
            "damaged, cut short, or no video at all."
        ) from error


class _VideoReader:
    """One open video stream."""

    def __init__(self, container: av.container.InputContainer, name: str) -> None:
        if not container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"
            raise ValueError(f"{name} has no video stream (found: {kinds}).")
        self.container = container
        self.name = name
        self.stream = container.streams.video[0]
        self.stream.thread_type = "AUTO"

    def read(self, choose: ChooseFrames) -> tuple[torch.Tensor, VideoMetadata]:
        times, keyframes = self._scan()
        frames: dict[int, torch.Tensor] = {}
        if times is not None:
            metadata, indices = self._choose(choose, len(times))
            frames = self._decode_at(times, keyframes, sorted(set(indices.tolist())))
        if times is None or len(frames) < len(set(indices.tolist())):
            # Times are missing, or those of the packets are not those of the frames: count frames by decoding them.
            metadata, indices = self._choose(choose, sum(1 for _ in self._decode_from_start()))
            wanted = set(indices.tolist())
            frames = {i: _to_tensor(frame) for i, frame in enumerate(self._decode_from_start()) if i in wanted}
        return _stack_frames([frames[i] for i in indices.tolist()]), metadata

    def _choose(self, choose: ChooseFrames, num_available: int) -> tuple[VideoMetadata, np.ndarray]:
        if num_available == 0:
            raise ValueError(f"{self.name} holds no frame that can be decoded.")
        if self.stream.frames > num_available:
            raise ValueError(
                f"{self.name} is cut short: its header promises {self.stream.frames} frames, {num_available} are there. "
                "Copy it again from its source, or re-encode what is left of it."
            )
        rate = self.stream.average_rate or self.stream.guessed_rate
        fps = float(rate) if rate else None
        metadata = VideoMetadata(
            total_num_frames=num_available,
            fps=fps,
            width=self.stream.codec_context.width,
            height=self.stream.codec_context.height,
            duration=num_available / fps if fps else None,
            video_backend="pyav",
        )
        indices = np.asarray(choose(metadata), dtype=np.int64)
        metadata.frames_indices = indices.tolist()
        return metadata, indices

    def _scan(self) -> tuple[list[int] | None, list[int]]:
        """Presentation times of all frames, sorted (None if any is unknown), and those of the keyframes."""
        times, keyframes = [], []
        for packet in self.container.demux(self.stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                return None, []
            times.append(packet.pts)
            if packet.is_keyframe:
                keyframes.append(packet.pts)
        return sorted(times), sorted(keyframes)

    def _decode_at(self, times: list[int], keyframes: list[int], indices: list[int]) -> dict[int, torch.Tensor]:
        """Decode the frames of these indices, starting anew at a keyframe wherever that leaves frames out."""
        index_of = {times[i]: i for i in indices}
        groups: dict[int, list[int]] = {}
        for i in indices:
            groups.setdefault(int(np.searchsorted(keyframes, times[i], side="right")), []).append(i)
        frames: dict[int, torch.Tensor] = {}
        for group, members in groups.items():
            start = keyframes[group - 1] if group else times[0]
            for frame in self._decode_from(start):
                if frame.pts in index_of:
                    frames[index_of[frame.pts]] = _to_tensor(frame)
                if frame.pts is not None and frame.pts >= times[members[-1]]:
                    break
        return frames

    def _decode_from(self, time: int) -> Iterator[av.VideoFrame]:
        self.container.seek(time, stream=self.stream, backward=True)
        yield from self.container.decode(self.stream)

    def _decode_from_start(self) -> Iterator[av.VideoFrame]:
        self.container.seek(self.stream.start_time or 0, stream=self.stream, backward=True)
        yield from self.container.decode(self.stream)


def _to_tensor(frame: av.VideoFrame) -> torch.Tensor:
    """A decoded frame, turned as its metadata says, as `(3, H, W)` uint8 RGB."""
    image = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _stack_frames(frames: list[torch.Tensor]) -> torch.Tensor:
    """Frames `(3, H, W)` to `(T, 3, H, W)`, those of another size than the first's resized to it."""
    if not frames:
        raise ValueError("A clip needs at least one frame; this one has none.")
    size = list(frames[0].shape[-2:])
    return torch.stack([f if list(f.shape[-2:]) == size else tvF.resize(f, size, antialias=True) for f in frames])


class STTVideoProcessorKwargs(VideosKwargs, total=False):
    """Keyword arguments of [`STTVideoProcessor`] beyond those of every video processor."""

    frames_per_segment: int | None


class STTVideoProcessor(BaseVideoProcessor):
    r"""
    Makes clips of videos: reads, samples, resizes and rescales.

    A video is any of: the path (`str` or `Path`) of a video file or of a folder of numbered images; a list of image
    paths in time order; bytes or a binary file; an array or tensor `(T, H, W, 3)` or `(T, 3, H, W)`; a list of frames
    (PIL images or arrays). A list of videos makes a batch.

    Args:
        size: `{"height": 112, "width": 112}` px. Frames are squeezed to it, not cropped, as in Former-DFER's code.
        num_frames: Frames of a clip, 16.
        frames_per_segment: Consecutive frames taken of each of the `num_frames / frames_per_segment` segments, 2.
        do_sample_frames: Whether to sample (`sample_frame_indices`); otherwise all frames are read.
        fps: Where given, takes that many frames a second instead of `num_frames`.
        do_rescale: Whether to divide by 255; on. [`STTModel`] reads values in [0, 1].
        do_normalize: Whether to normalise by `image_mean` and `image_std` after that; off, as in Former-DFER's code.
            Turn it on for a backbone trained so: the defaults are ImageNet's.
        kwargs: All else as in [`~transformers.BaseVideoProcessor`].

    Returns:
        On call, `{"pixel_values": (B, T, 3, H, W) float32}` with `return_tensors="pt"`; a list of clips without.

    Example:

    ```python
    >>> import numpy as np
    >>> from modeling_stt import STTVideoProcessor

    >>> clip = np.zeros((40, 256, 256, 3), dtype=np.uint8)
    >>> STTVideoProcessor()(clip, return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 16, 3, 112, 112])
    ```
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 112, "width": 112}  # noqa: RUF012 (transformers' own form; instances get copies)
    crop_size = {"height": 112, "width": 112}  # noqa: RUF012
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = False
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = 16
    frames_per_segment = 2
    valid_kwargs = STTVideoProcessorKwargs
    model_input_names = ["pixel_values"]  # noqa: RUF012

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        frames_per_segment: int | None = None,
        rng: np.random.Generator | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Indices of the frames to read, see `sample_frame_indices`; arguments not given are the processor's.

        Raises:
            ValueError: For `fps` where the metadata has no frame rate to relate it to.
        """
        num_available = metadata.total_num_frames
        fps = fps if fps is not None else self.fps
        num_frames = num_frames or self.num_frames
        if fps is not None:
            if metadata is None or metadata.fps is None:
                raise ValueError(f"fps={fps} asks for frames by time, but the video's own fps is not in its metadata.")
            num_frames = max(1, int(num_available / metadata.fps * fps))
        return sample_frame_indices(num_available, num_frames, frames_per_segment or self.frames_per_segment, rng)

    def read_clip(self, video: Any, rng: np.random.Generator | None = None) -> torch.Tensor:
        """Read one video's sampled frames as they are, before any resizing.

        Args:
            video: One video in any of the forms told at the class.
            rng: Draws the frames for training; None takes the segments' centres.

        Returns:
            `(num_frames, 3, H, W)` uint8 RGB.

        Raises:
            FileNotFoundError: For a missing file or folder.
            ValueError: For a video that cannot be read; it is named.
        """
        frames, _ = self._read(video, partial(self.sample_frames, rng=rng))
        return self._prepare_input_videos([frames], do_convert_rgb=self.do_convert_rgb)[0]

    def fetch_videos(
        self, video_url_or_urls: Any, sample_indices_fn: ChooseFrames | None = None
    ) -> tuple[torch.Tensor, VideoMetadata] | list:
        """Read a video, or a list of them, with PyAV (transformers' own would ask for torchcodec and FFmpeg)."""
        if isinstance(video_url_or_urls, list):
            return list(zip(*[self._read(video, sample_indices_fn) for video in video_url_or_urls], strict=True))
        return self._read(video_url_or_urls, sample_indices_fn)

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any,
        do_sample_frames: bool | None = None,
        sample_indices_fn: ChooseFrames | None = None,
    ) -> tuple[list[torch.Tensor], list[VideoMetadata]]:
        choose = sample_indices_fn if do_sample_frames else None
        batch = _as_batch(videos)
        known = make_batched_metadata(batch, video_metadata) if video_metadata is not None else [None] * len(batch)
        if len(known) != len(batch):
            raise ValueError(f"{len(batch)} videos came with metadata for {len(known)}.")
        read = [self._read(video, choose, metadata) for video, metadata in zip(batch, known, strict=True)]
        return [frames for frames, _ in read], [metadata for _, metadata in read]

    def _read(
        self, video: Any, choose: ChooseFrames | None, metadata: VideoMetadata | None = None
    ) -> tuple[torch.Tensor, VideoMetadata]:
        """One video's frames, all or the chosen ones, and its metadata."""
        choose = choose or (lambda metadata: np.arange(metadata.total_num_frames))
        if isinstance(video, str | os.PathLike) and Path(video).is_dir():
            video = list_frame_files(video)
        if isinstance(video, str | os.PathLike | bytes) or hasattr(video, "read"):
            return read_video_frames(video, choose)
        if len(video) == 0:
            raise ValueError("A video without frames cannot be read: at least one is needed.")
        if metadata is None or metadata.total_num_frames != len(video):
            fps = None if metadata is None else metadata.fps
            metadata = VideoMetadata(total_num_frames=len(video), fps=fps)
        indices = choose(metadata)
        metadata.frames_indices = indices.tolist()
        if _is_frame_files(video):
            return read_frame_files([video[i] for i in indices]), metadata
        video = make_batched_videos(video)[0]
        return video[torch.from_numpy(indices)] if isinstance(video, torch.Tensor) else video[indices], metadata

    def _preprocess(
        self, videos: list[torch.Tensor], return_tensors: str | TensorType | None = None, **kwargs: Any
    ) -> BatchFeature:
        clips = super()._preprocess(videos, return_tensors=None, **kwargs)["pixel_values_videos"]
        shapes = {tuple(clip.shape) for clip in clips}
        if return_tensors is not None and len(shapes) > 1:
            raise ValueError(
                f"Clips of different shapes {sorted(shapes)} don't make one batch: leave do_sample_frames and do_resize "
                "on, or process them one by one."
            )
        return BatchFeature(data={"pixel_values": clips}, tensor_type=return_tensors)


def _is_frame_files(video: Any) -> bool:
    """Whether this is one clip given as a list of its image files."""
    return isinstance(video, list | tuple) and all(
        isinstance(file, str | os.PathLike) and Path(file).suffix.lower() in IMAGE_SUFFIXES for file in video
    )


def _as_batch(videos: Any) -> list[Any]:
    """One video or many, in any of the forms told at `STTVideoProcessor`, to a list of videos."""
    if isinstance(videos, str | os.PathLike | bytes) or hasattr(videos, "read"):
        return [videos]
    if not isinstance(videos, list | tuple):
        return make_batched_videos(videos)
    if len(videos) == 0:
        raise ValueError("No video was given: the list is empty.")
    if _is_frame_files(videos):
        return [videos]
    batch: list[Any] = []
    for video in videos:
        is_file = isinstance(video, str | os.PathLike | bytes) or hasattr(video, "read")
        if is_file or _is_frame_files(video):
            batch.append(video)
        else:
            # Arrays, frames and nested lists of them: transformers tells a list of frames from a list of videos.
            return make_batched_videos(videos)
    return batch


STTVideoProcessor.register_for_auto_class()

__all__ = [
    "STTVideoProcessor",
    "list_frame_files",
    "read_frame_files",
    "read_video_frames",
    "sample_frame_indices",
]
