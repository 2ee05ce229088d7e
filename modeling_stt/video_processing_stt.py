"""Video processor of STT: files, folders and arrays to clips. Travels with every checkpoint: imports nothing of ours.

Which frames of a clip are looked at is decided in one place, `sample_frame_indices`; only those are decoded.
"""

import io
import os
import re
import urllib.request
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tvF
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    is_pil_image,
)
from transformers.processing_utils import VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor, BatchFeature
from transformers.video_utils import VideoMetadata, make_batched_metadata

# torchvision's operator, not its function, whose warning takes a thirtieth of a small JPEG's time: 0.29 announces that
# its image decoders will go. Then Pillow takes their place: the same pixels, in half as much time again. (In WebP,
# Pillow alone heeds a photograph's orientation.)
DECODE_IMAGE: Any = getattr(torch.ops.image, "decode_image", None)
RGB = 3  # torchvision's number for it

# What frames on disk are known by. torchvision reads the first four; the others are here to be refused by name, lest a
# list of them be taken for a batch of videos.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# FFmpeg's names of containers of recorded video, and of sound, which is then refused for having no video. Its other
# readers would draw a text file as a video, or follow a playlist to other files.
CONTAINERS = (
    "mov,matroska,avi,gif,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,flv,asf,ogg,ivf,nut,mxf,dv,rm,mp3,wav,flac,aac"
)

# Decoding and converting start no threads: FFmpeg waits for its threads when it cleans up, and waits forever where it
# does so in a forked worker of a DataLoader. More workers are the way to decode in parallel. PyAV before 17 has no
# `threads`, and converts in one.
_PYAV = int(av.__version__.split(".")[0])
ONE_THREAD: dict[str, Any] = {"threads": 1} if _PYAV >= 17 else {}

# A title in another encoding than UTF-8 is no reason to refuse a video. PyAV 19 takes it, and has no such option.
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if _PYAV < 19 else {}

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
    first frame only, which is no longer a clip). Where `frames_per_segment` does not divide `num_frames`, segments
    have one frame.

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
        phase = num_available // 2 if rng is None else rng.integers(num_available)
        return (np.arange(num_frames) * num_available + phase) // num_frames
    if num_frames % frames_per_segment:
        frames_per_segment = 1
    num_segments = num_frames // frames_per_segment
    num_starts = num_available - frames_per_segment + 1
    if rng is None:
        starts = (2 * np.arange(num_segments) + 1) * num_starts // (2 * num_segments)
    else:
        bounds = np.arange(num_segments + 1) * num_starts // num_segments
        starts = rng.integers(bounds[:-1], bounds[1:])
    # Three or more consecutive frames may reach beyond the next segment's first.
    return np.sort((starts[:, None] + np.arange(frames_per_segment)).reshape(-1))


def list_frame_files(folder: str | os.PathLike) -> list[Path]:
    """The image files of a clip's folder in time order: by the last integer of their names (9.jpg before 10.jpg).

    Hidden files (macOS leaves `._1.jpg`) and files that are no images are passed over.

    Raises:
        FileNotFoundError: For a missing folder.
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
    names = [os.fspath(file) for file in files]
    # By turns, reading and decoding cost a twentieth more: each finds the processor's caches full of the other.
    contents = {name: _read_file(name) for name in dict.fromkeys(names)}
    frames = {name: _decode_image(name, data) for name, data in contents.items()}
    return _stack_frames([frames[name] for name in names])


def _read_file(name: str) -> torch.Tensor:
    """A file's bytes, `(N,)` uint8."""
    with io.FileIO(name) as opened:  # np.fromfile takes three times as long, 4 % of decoding a small JPEG
        return torch.from_numpy(np.frombuffer(bytearray(opened.read()), dtype=np.uint8))


def _decode_image(name: str, data: torch.Tensor) -> torch.Tensor:
    """An image file's bytes to `(3, H, W)` uint8 RGB, turned as its EXIF orientation says."""
    try:
        if DECODE_IMAGE is None:
            return _decode_by_pillow(data)
        frame = DECODE_IMAGE.default(data, RGB, True)
    except (RuntimeError, OSError, SyntaxError, Image.DecompressionBombError) as error:  # but the first, Pillow's
        reason = re.sub(r"^.*\.cpp:\d+, ", "", str(error).splitlines()[0])
        raise ValueError(f"{name} ({len(data)} bytes) is not a readable image: {reason}") from error
    # PNG has 16 bits too.
    return frame if frame.dtype == torch.uint8 else tvF.to_dtype(frame, torch.uint8, scale=True)


def _decode_by_pillow(data: torch.Tensor) -> torch.Tensor:
    with Image.open(io.BytesIO(data.numpy().tobytes()), formats=("JPEG", "PNG", "WEBP")) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_video_frames(file: VideoFile, choose: ChooseFrames | None = None) -> tuple[torch.Tensor, VideoMetadata]:
    """Decode the chosen frames of a video file, and little else.

    The file is first scanned without decoding, for the times of its frames: containers often don't know how many they
    hold. Then only the stretches from the last keyframe before a chosen frame to that frame are decoded. Where the
    decoder contradicts the scan, all frames are decoded instead, so that the result is that of decoding everything
    first. Of H.264 in mp4, mov and mkv, frames that are not chosen and that no other is predicted from are passed
    over. Frames are turned and mirrored as the file's display matrix says.

    Args:
        file: Path, http(s) address, bytes or binary file of a video (mp4, avi, mkv, webm, mov, … see `CONTAINERS`).
            Cover pictures don't count as video; of several videos the first is read.
        choose: Gets the metadata, `total_num_frames` counted, and returns the indices of the frames to decode; None
            for all. It is asked a second time where the count had to be corrected.

    Returns:
        Frames `(T, 3, H, W)` uint8 RGB, in the order of the indices, and the metadata with `frames_indices` set.

    Raises:
        FileNotFoundError: For a missing file.
        ValueError: For a file that is no video, has no video stream or no frame, or is damaged or cut short, and for
            an address that cannot be fetched; it is named.
    """
    name = file if isinstance(file, str | os.PathLike) else getattr(file, "name", "the video given as bytes")
    try:
        return _VideoReader(_open_source(file), str(name)).read(choose)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name} cannot be read as a video ({error.strerror}). If it plays elsewhere, re-encode it; if not, it is "
            "damaged, cut short, or no video at all."
        ) from error


def _open_source(file: VideoFile) -> str | BinaryIO:
    """What PyAV is to open: a file's address, or a binary file."""
    if isinstance(file, bytes):
        return io.BytesIO(file)
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{getattr(file, 'name', 'The file')} is open as text: open videos with mode 'rb'.")
    if not isinstance(file, str | os.PathLike):
        return file if file.seekable() else io.BytesIO(file.read())
    path = os.fspath(file)
    if path.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(path, timeout=30) as response:
                return io.BytesIO(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise ValueError(f"{path} cannot be fetched ({error}): download it yourself and give its path.") from error
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no video file or folder of frames {path}.")
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes): copy it again from its source.")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"You may not read {path}: its permissions, or its folder's, forbid it.")
    return f"file:{path}"  # keeps FFmpeg from reading "take:1.mp4" as an address


class _Scan(NamedTuple):
    """What the packets of a video stream tell without decoding.

    Attributes:
        num_frames: Packets that hold a frame to be shown.
        times: Presentation times of these frames, ascending, in the stream's time base; empty if any is unknown.
        entries: Where decoding can start, ascending: for each keyframe, the index of the first frame to be had from
            there on and the position of the keyframe's packet. Empty where frames can't be found by their times.
        fps: Frames a second, measured where the times are known.
    """

    num_frames: int
    times: list[int]
    entries: list[tuple[int, int]]
    fps: float | None


class _DecodedFrames:
    """Frames `(H, W, 3)` uint8 by index, each copied, when it has been decoded, to where the clip is to lie.

    Were they put together at the end, they would need twice the memory, and the time that it takes to get it.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.images: dict[int, np.ndarray] = {}
        self.block = np.empty(0, dtype=np.uint8)

    def add(self, index: int, image: np.ndarray) -> None:
        if not self.images:
            self.block = np.empty((self.num_frames, *image.shape), dtype=np.uint8)
        if image.shape == self.block.shape[1:]:
            place = self.block[len(self.images)]
            place[:] = image
            image = place
        self.images[index] = image

    def clip(self, indices: list[int]) -> torch.Tensor:
        """The frames of these indices, `(T, 3, H, W)`, those of another size than the first's resized to it."""
        if list(self.images) == indices and all(image.base is self.block for image in self.images.values()):
            return torch.from_numpy(self.block).permute(0, 3, 1, 2)
        return _stack_frames([torch.from_numpy(self.images[index]).permute(2, 0, 1) for index in indices])


class _VideoReader:
    """The video stream of one file, which is opened anew for every pass: seek() may miss the beginning (MPEG-TS)."""

    timeout: float | None = None  # seconds of silence after which a source is given up

    def __init__(self, source: str | BinaryIO, name: str) -> None:
        self.source = source
        self.name = name
        self.display_matrix: list[list[int]] | None = None  # of the first frame

    def read(self, choose: ChooseFrames | None) -> tuple[torch.Tensor, VideoMetadata]:
        """See `read_video_frames`."""
        scan = self._scan()
        metadata, indices = self._choose(choose, scan.num_frames, scan.fps)
        frames = None
        with suppress(av.error.InvalidDataError):  # whether it is damage shows when all is decoded
            frames = self._decode_from_keyframes(scan, set(indices)) if scan.entries else None
        if frames is None:
            frames, num_frames = self._decode_all(set(indices))
            if num_frames != scan.num_frames:
                metadata, indices = self._choose(choose, num_frames, scan.fps)
                frames, _ = self._decode_all(set(indices))
        clip = frames.clip(indices)
        metadata.height, metadata.width = clip.shape[-2:]
        return clip, metadata

    @contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        if not isinstance(self.source, str):
            self.source.seek(0)
        options = {"format_whitelist": CONTAINERS}
        with av.open(
            self.source, mode="r", container_options=options, timeout=self.timeout, **_ANY_METADATA
        ) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                found = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
                raise ValueError(f"{self.name} has no video stream (found: {', '.join(sorted(found)) or 'nothing'}).")
            decoder = streams[0].codec_context
            if decoder is None:
                raise ValueError(
                    f"{self.name} is encoded in a way that PyAV cannot decode: re-encode it, say to H.264."
                )
            decoder.thread_count = 1  # see ONE_THREAD
            yield container, streams[0]

    def _scan(self) -> _Scan:
        times: list[int | None] = []
        keyframes: list[tuple[int | None, int]] = []
        ends: dict[int, float] = defaultdict(float)
        position = 0
        with self._open() as (container, stream):
            ticks = {stream.index: float(stream.time_base or 0) for stream in container.streams}
            for packet in container.demux():
                if packet.size == 0:
                    continue  # the mark of a stream's end
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * ticks[packet.stream_index]
                    ends[packet.stream_index] = max(end, ends[packet.stream_index])
                if packet.stream_index != stream.index:
                    continue
                if packet.is_keyframe:
                    keyframes.append((packet.pts, position))
                if not packet.is_discard:  # what an edit list cuts off is decoded but not shown
                    times.append(packet.pts)
                position += 1
            known = sorted(time for time in times if time is not None)
            if len(known) < len(times):
                known = []
            self._refuse_cut_short(container, stream, ends, known)
            # AVI stores no presentation times; those that FFmpeg makes up are wrong where B-frames change the order.
            ordered = container.format.name != "avi" or not stream.codec_context.has_b_frames
            return _Scan(
                num_frames=len(times),
                times=known,
                entries=_find_entries(known, keyframes) if ordered else [],
                fps=_measure_fps(stream, known),
            )

    def _refuse_cut_short(
        self, container: av.container.InputContainer, stream: av.VideoStream, ends: dict[int, float], times: list[int]
    ) -> None:
        """Compare where the packets end (seconds, by stream) with the length that the header promises."""
        end, tick = ends[stream.index], float(stream.time_base or 0)
        promised = 0.0  # by other containers
        if container.format.name == "avi":
            promised = stream.frames * tick  # its duration is FFmpeg's guess from what is there
        elif "mp4" in container.format.name:
            promised = ((stream.start_time or 0) + (stream.duration or 0)) * tick
        elif "matroska" in container.format.name:
            end = max(ends.values(), default=0.0)
            promised = (container.duration or 0) / av.time_base
        longest_step = max((after - before for before, after in pairwise(times)), default=0) * tick
        if promised - end > max(0.1, 2 * longest_step):
            raise ValueError(
                f"{self.name} is cut short: its header promises {promised:.2f} s, it ends at {end:.2f} s. Copy it "
                "again from its source, or re-encode what is left of it."
            )

    def _choose(
        self, choose: ChooseFrames | None, num_frames: int, fps: float | None
    ) -> tuple[VideoMetadata, list[int]]:
        duration = num_frames / fps if fps else None
        metadata = VideoMetadata(total_num_frames=num_frames, fps=fps, duration=duration, video_backend="pyav")
        return metadata, _choose_frames(choose, metadata, self.name)

    def _decode_from_keyframes(self, scan: _Scan, chosen: set[int]) -> _DecodedFrames | None:
        """Decode the chosen frames, each from the keyframe before it on.

        Returns:
            The frames, or None where the decoder contradicts the scan: what comes out of it is not, one by
            one, what the packets announced.
        """
        index_of: dict[int | None, int] = {time: index for index, time in enumerate(scan.times)}
        starts: dict[int, set[int]] = defaultdict(set)
        for index in chosen:
            entry = bisect_right(scan.entries, index, key=itemgetter(0)) - 1
            starts[scan.entries[entry][1]].add(index)
        first_index = {position: index for index, position in scan.entries}
        frames = _DecodedFrames(len(chosen))
        due: set[int] = set()
        first = following = 0
        passed_over: set[int] = set()
        with self._open() as (container, stream):
            length_size = _h264_length_size(stream.codec_context)
            for position, packet in enumerate(container.demux(stream)):
                if position in starts:
                    if not due:
                        stream.codec_context.flush_buffers()
                        first = following = first_index[position]
                    due |= starts.pop(position)
                if not due and not starts:
                    break
                if not due:
                    continue
                if (shown := index_of.get(packet.pts, -1)) not in due and _is_leaf(packet, length_size):
                    passed_over.add(shown)
                    continue
                for frame in packet.decode():
                    index = index_of.get(frame.pts, -1)
                    if 0 <= index < first:
                        continue  # shown before the keyframe, it leans on the group of pictures before
                    while following in passed_over:
                        following += 1
                    if index != following or frame.is_corrupt:
                        return None
                    following += 1
                    if index in due:
                        due.remove(index)
                        frames.add(index, self._to_rgb(frame))
        return frames if len(frames.images) == len(chosen) else None

    def _decode_all(self, chosen: set[int]) -> tuple[_DecodedFrames, int]:
        """Decode everything: the chosen frames, and how many frames there are."""
        frames = _DecodedFrames(len(chosen))
        num_frames = 0
        damaged = False
        with self._open() as (container, stream):
            for frame in container.decode(stream):
                # Damage spreads to the frames that are predicted from it, and those are not marked.
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if num_frames in chosen:
                    if damaged:
                        raise ValueError(
                            f"{self.name} is damaged at frame {num_frames}: copy it again from its source."
                        )
                    frames.add(num_frames, self._to_rgb(frame))
                num_frames += 1
        return frames, num_frames

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame to `(H, W, 3)` uint8, turned and mirrored as the file's display matrix says."""
        if self.display_matrix is None:  # not for every frame: those that are asked for it are long in being freed
            data: Any = frame.side_data.get("DISPLAYMATRIX")
            matrix = np.frombuffer(data, np.int32) if data else np.eye(3, dtype=np.int32)
            self.display_matrix = matrix.reshape(3, 3)[:2, :2].tolist()
        image = frame.to_ndarray(format="rgb24", **ONE_THREAD)
        # Where the picture's x and y axes point to on the screen; only quarter turns and mirrorings are told apart.
        (x_to_x, x_to_y), (y_to_x, y_to_y) = self.display_matrix
        if abs(x_to_y) > abs(x_to_x):
            image, x_to_x, y_to_y = image.transpose(1, 0, 2), y_to_x, x_to_y
        return np.ascontiguousarray(image[:: -1 if y_to_y < 0 else 1, :: -1 if x_to_x < 0 else 1])


def _h264_length_size(decoder: av.VideoCodecContext) -> int:
    """In how many bytes the units of an H.264 packet tell their length; 0 for other codecs and ways of packing."""
    header = decoder.extradata or b""
    return (header[4] & 3) + 1 if decoder.name == "h264" and len(header) > 4 and header[0] == 1 else 0


def _is_leaf(packet: av.Packet, length_size: int) -> bool:
    """Whether an H.264 packet holds a picture that no other is predicted from (nal_ref_idc 0), and nothing else.

    Leaving it out changes no other picture: the standard (ITU-T H.264, 7.4.1) allows no reference to it. Slices, and
    remarks such as timing, are all that may be in it; whatever is not understood makes it no leaf.
    """
    slices, remarks = {1}, {6, 9, 12}
    data = bytes(packet)
    kinds = set()
    place = 0
    while length_size and place + length_size < len(data):
        unit = place + length_size
        header = data[unit]
        kinds.add(header & 31 if header >> 5 == 0 else -1)
        place = unit + int.from_bytes(data[place:unit], "big")
    return place == len(data) and bool(kinds & slices) and kinds <= slices | remarks


def _find_entries(times: list[int], keyframes: list[tuple[int | None, int]]) -> list[tuple[int, int]]:
    """Keyframes as (time, position) to `_Scan.entries`: none where times are unknown, not unique or out of order."""
    entries = [(bisect_left(times, time), position) for time, position in keyframes if time is not None]
    starts_with_keyframe = bool(entries) and entries[0][0] == 0
    unique = len(set(times)) == len(times) > 0
    return entries if starts_with_keyframe and unique and entries == sorted(entries) else []


def _measure_fps(stream: av.VideoStream, times: list[int]) -> float | None:
    different = len(set(times))
    if different > 1 and stream.time_base:
        return float((different - 1) / ((times[-1] - times[0]) * stream.time_base))
    return float(stream.average_rate) if stream.average_rate else None


def _choose_frames(choose: ChooseFrames | None, metadata: VideoMetadata, name: str = "the video") -> list[int]:
    """Ask which frames to read, all without `choose`, check the answer and note it in the metadata."""
    available = metadata.total_num_frames
    if available < 1:
        raise ValueError(f"No frame can be had of {name}: at least one is needed.")
    indices = np.asarray(range(available) if choose is None else choose(metadata), dtype=np.int64)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= available:
        raise ValueError(f"{name} has frames 0 to {available - 1}, of which {indices.tolist()} were chosen.")
    metadata.frames_indices = indices.tolist()
    return metadata.frames_indices


def _stack_frames(frames: list[torch.Tensor]) -> torch.Tensor:
    """Frames `(C, H, W)` to `(T, C, H, W)`, those of another size than the first's resized to it."""
    if not frames:
        raise ValueError("A clip needs at least one frame; this one has none.")
    if len({frame.shape for frame in frames}) > 1:
        if len({frame.shape[0] for frame in frames}) > 1:
            raise ValueError(f"The frames of a clip differ in channels: {[frame.shape[0] for frame in frames]}.")
        size = list(frames[0].shape[-2:])
        frames = [f if list(f.shape[-2:]) == size else tvF.resize(f, size, antialias=True) for f in frames]
    # Decoders leave channels last in memory: stacking them so is a plain copy, and resizing is at its fastest.
    frames = [frame.permute(1, 2, 0) for frame in frames]
    if all(frame.dtype == torch.uint8 and frame.device.type == "cpu" for frame in frames):
        # numpy's memory has often been used before, torch's the system has to clear: a twelfth of reading JPEGs.
        clip = torch.from_numpy(np.stack([frame.numpy() for frame in frames]))
    else:
        clip = torch.stack(frames)
    return clip.permute(0, 3, 1, 2)


class STTVideoProcessorKwargs(VideosKwargs, total=False):
    """Keyword arguments of [`STTVideoProcessor`] beyond those of every video processor."""

    frames_per_segment: int | None


class STTVideoProcessor(BaseVideoProcessor):
    r"""
    Makes clips of videos: reads, samples, resizes and rescales.

    A video is any of: the path (`str` or `Path`) of a video file or of a folder of numbered images, or an http(s)
    address; a list of image paths in time order; bytes or a binary file; an array or tensor `(T, H, W, 3)` or
    `(T, 3, H, W)`; a list of frames (PIL images or arrays). A list of videos, of any forms, makes a batch.

    Arrays hold values from 0 to 255, as integers or floats, in 1, 3 or 4 (RGBA) channels. Floats from 0 to 1 go in
    with `do_rescale=False`, and are refused without: divided by 255 they would be black.

    Args:
        size: `{"height": 112, "width": 112}` px. Frames are squeezed to it, not cropped, as in Former-DFER's code.
        num_frames: Frames of a clip, 16; None for all.
        frames_per_segment: Consecutive frames taken of each of the `num_frames / frames_per_segment` segments, 2.
        do_sample_frames: Whether to sample (`sample_frame_indices`); otherwise all frames are read.
        fps: Where given, takes that many frames a second instead of `num_frames`, by the same rule.
        do_rescale: Whether to divide by 255; on. [`STTModel`] reads values in [0, 1].
        do_normalize: Whether to normalise by `image_mean` and `image_std` after that; off, as in Former-DFER's code.
            Turn it on for a backbone trained so: the defaults are ImageNet's.
        kwargs: All else as in [`~transformers.BaseVideoProcessor`]. On call, `video_metadata` tells the fps of arrays
            and image folders; files have their own.

    Returns:
        On call, `{"pixel_values": (B, T, 3, H, W) float32}` with `return_tensors="pt"`; a list of clips without.

    Raises:
        FileNotFoundError: On call, for a missing file.
        ValueError: On call, for what is no video, for one that is damaged or cut short, and for values out of range.

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
    fps: float | None
    valid_kwargs = STTVideoProcessorKwargs  # type: ignore[assignment]
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
        num_frames = self.num_frames if num_frames is None else num_frames
        fps = self.fps if fps is None else fps
        frames_per_segment = self.frames_per_segment if frames_per_segment is None else frames_per_segment
        if fps is not None:
            if metadata.fps is None:
                raise ValueError(f"fps={fps} asks for frames by time: give the video's own fps in video_metadata.")
            num_frames = max(1, int(metadata.total_num_frames / metadata.fps * fps + 1e-6))
        if num_frames is None:
            return np.arange(metadata.total_num_frames)
        return sample_frame_indices(metadata.total_num_frames, num_frames, frames_per_segment, rng)

    def read_clip(self, video: Any, rng: np.random.Generator | None = None) -> torch.Tensor:
        """Read one video's sampled frames as they are, before any resizing.

        Args:
            video: One video in any of the forms told at the class.
            rng: Draws the frames for training; None takes the segments' centres.

        Returns:
            `(num_frames, 3, H, W)` RGB, uint8 (float32 for arrays of floats).

        Raises:
            FileNotFoundError: For a missing file or folder.
            ValueError: For a video that cannot be read; it is named.
        """
        frames, _ = self._read(video, partial(self.sample_frames, rng=rng))
        return self._prepare_input_videos([frames], do_convert_rgb=self.do_convert_rgb)[0]

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: ChooseFrames | None = None) -> Any:
        """Read a video, or a list of them, with PyAV (transformers' own would ask for torchcodec and FFmpeg)."""
        if _is_video(video_url_or_urls):
            return self._read(video_url_or_urls, sample_indices_fn)
        return list(zip(*[self._read(video, sample_indices_fn) for video in video_url_or_urls], strict=True))

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any,
        do_sample_frames: bool | None = None,
        sample_indices_fn: ChooseFrames | None = None,
    ) -> tuple[list[Any], list[VideoMetadata]]:
        batch = _as_batch(videos)
        known = make_batched_metadata(batch, video_metadata) if video_metadata is not None else [None] * len(batch)
        choose = sample_indices_fn if do_sample_frames else None
        read = [self._read(video, choose, metadata) for video, metadata in zip(batch, known, strict=True)]
        return [frames for frames, _ in read], [metadata for _, metadata in read]

    def _read(
        self, video: Any, choose: ChooseFrames | None, metadata: VideoMetadata | None = None
    ) -> tuple[Any, VideoMetadata]:
        """One video's frames, all or the chosen ones, and its metadata: a given one counts where files have none."""
        if isinstance(video, str | os.PathLike) and Path(video).is_dir():
            video = list_frame_files(video)
        elif _is_frame(video) or _is_frame_file(video):
            video = [video]
        if _is_file(video):
            return read_video_frames(video, choose)
        metadata = replace(metadata) if metadata else VideoMetadata(total_num_frames=len(video))
        if metadata.total_num_frames != len(video):
            raise ValueError(f"The metadata says {metadata.total_num_frames} frames, the video has {len(video)}.")
        indices = _choose_frames(choose, metadata)
        chosen = video[indices] if hasattr(video, "ndim") else [video[index] for index in indices]
        if not _is_frame_file(chosen[0]):
            return chosen, metadata
        frames = read_frame_files(chosen)
        metadata.height, metadata.width = frames.shape[-2:]
        return frames, metadata

    def _prepare_input_videos(
        self,
        videos: list[Any],
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: str | None = None,
    ) -> list[torch.Tensor]:
        clips = [_to_clip(video, input_data_format) for video in videos]
        return super()._prepare_input_videos(clips, do_convert_rgb, ChannelDimension.FIRST, device)

    def _preprocess(
        self, videos: list[torch.Tensor], return_tensors: str | TensorType | None = None, **kwargs: Any
    ) -> BatchFeature:
        if kwargs.get("do_rescale") and kwargs.get("rescale_factor") == 1 / 255:
            for video in videos:
                _refuse_other_ranges(video)
        clips = super()._preprocess(videos, return_tensors=None, **kwargs)["pixel_values_videos"]
        shapes = {tuple(clip.shape) for clip in clips}
        if return_tensors is not None and len(shapes) > 1:
            raise ValueError(
                f"Clips of different shapes {sorted(shapes)} don't make one batch: leave do_sample_frames and "
                "do_resize on, or process them one by one."
            )
        return BatchFeature(data={"pixel_values": clips}, tensor_type=return_tensors)


def _is_file(video: Any) -> bool:
    return isinstance(video, str | os.PathLike | bytes) or hasattr(video, "read")


def _is_frame(video: Any) -> bool:
    return is_pil_image(video) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 3)


def _is_frame_file(video: Any) -> bool:
    return isinstance(video, str | os.PathLike) and Path(video).suffix.lower() in IMAGE_SUFFIXES


def _is_video(video: Any) -> bool:
    """Whether this is one video in one of the forms told at `STTVideoProcessor`; a single frame is a short one."""
    if isinstance(video, list | tuple):
        return len(video) > 0 and (all(map(_is_frame, video)) or all(map(_is_frame_file, video)))
    return _is_file(video) or _is_frame(video) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 4)


def _as_batch(videos: Any) -> list[Any]:
    """One video or many, nested or not, to a list of videos."""
    if _is_video(videos):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor) and videos.ndim == 5:
        return list(videos)
    if isinstance(videos, list | tuple) and videos and not any(map(_is_frame, videos)):
        return [video for item in videos for video in _as_batch(item)]
    got = f"{type(videos).__name__} of shape {tuple(videos.shape)}" if hasattr(videos, "shape") else repr(videos)[:80]
    raise ValueError(
        f"Expected a video: the path of a video file or of a folder of images, a list of image paths, bytes, a binary "
        f"file, an array (T, H, W, 3) or (T, 3, H, W), or a list of frames; or a list of videos. Got {got}."
    )


def _to_clip(video: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """A video's frames, as an array or a list of frames, to `(T, C, H, W)` uint8 (float32 for floats)."""
    if isinstance(video, list | tuple):
        return _stack_frames([_to_pixels(frame, input_data_format) for frame in video])
    return _to_pixels(video, input_data_format)


def _to_pixels(frames: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """An image or array `(…, H, W, C)` or `(…, C, H, W)` to `(…, C, H, W)`, uint8 or float32; C is 1, 3 or 4.

    Where the shape leaves open which it is, `input_data_format` decides; without it, channels come first.
    """
    if is_pil_image(frames) and not frames.mode.startswith(("RGB", "I", "F")):  # the latter two are no bytes
        frames = frames.convert("RGB")
    if not isinstance(frames, torch.Tensor):
        frames = np.array(frames)
    axes = [axis for axis in (-3, -1) if frames.ndim > 2 and frames.shape[axis] in (1, 3, 4)]
    dtype = str(frames.dtype).removeprefix("torch.")
    if not axes or 0 in frames.shape or not dtype.startswith(("uint", "int", "float", "bfloat")):
        raise ValueError(
            "Expected frames as arrays (H, W, 3) or (3, H, W) of integers from 0 to 255 or of floats; got shape "
            f"{tuple(frames.shape)}, {dtype}."
        )
    channels_last = input_data_format is not None and ChannelDimension(input_data_format) == ChannelDimension.LAST
    pixels = torch.as_tensor(frames).movedim(axes[-1 if channels_last else 0], -3)
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.is_floating_point() and pixels.shape[-3] == 4:
        raise ValueError(f"Frames of four channels are taken for RGBA and must be uint8, got {dtype}.")
    if pixels.is_floating_point():
        return pixels.float()
    if not 0 <= pixels.long().min() <= pixels.long().max() <= 255:
        raise ValueError(f"Expected integers from 0 to 255, got {dtype} beyond them: scale the frames to 8 bits.")
    return pixels.to(torch.uint8)


def _refuse_other_ranges(clip: torch.Tensor) -> None:
    """Refuse floats that dividing by 255 does not bring to [0, 1]: such clips come out black, or as noise, unseen."""
    if not clip.is_floating_point():
        return
    low, high = (value.item() for value in clip.aminmax())
    if not (0 <= low <= high <= 255) or 0 < high <= 1:  # NaN is refused too
        raise ValueError(
            f"Frames of floats from {low:.3g} to {high:.3g} cannot be divided by 255: give values from 0 to 255, or "
            "pass do_rescale=False where they are scaled already."
        )


STTVideoProcessor.register_for_auto_class()

__all__ = [
    "STTVideoProcessor",
    "list_frame_files",
    "read_frame_files",
    "read_video_frames",
    "sample_frame_indices",
]
