"""Reading of videos: files, folders of images, addresses and bytes to frames. Travels with every checkpoint.

Imports nothing of this project. `read_video_frames` and `read_frame_files` decode only the frames that are asked for;
`VideoReader` is what they and the timeline share.
"""

import io
import os
import re
import urllib.request
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from transformers.video_utils import VideoMetadata

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
    return stack_frames([frames[name] for name in names])


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
        return VideoReader(open_source(file), str(name)).read(choose)
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{name} cannot be read as a video ({error.strerror}). If it plays elsewhere, re-encode it; if not, it is "
            "damaged, cut short, or no video at all."
        ) from error


def open_source(file: VideoFile) -> str | BinaryIO:
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
        return stack_frames([torch.from_numpy(self.images[index]).permute(2, 0, 1) for index in indices])


class VideoReader:
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
    def open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        """Open the source and give its container and its first video stream, cover pictures not counted.

        Raises:
            ValueError: For a source without a video stream, or one whose codec PyAV lacks.
            av.error.FFmpegError: For what is not a video.
        """
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
        with self.open() as (container, stream):
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
            self.refuse_cut_short(container, stream, ends, known)
            # AVI stores no presentation times; those that FFmpeg makes up are wrong where B-frames change the order.
            ordered = container.format.name != "avi" or not stream.codec_context.has_b_frames
            return _Scan(
                num_frames=len(times),
                times=known,
                entries=_find_entries(known, keyframes) if ordered else [],
                fps=_measure_fps(stream, known),
            )

    def refuse_cut_short(
        self, container: av.container.InputContainer, stream: av.VideoStream, ends: dict[int, float], times: list[int]
    ) -> None:
        """Compare the end of the packets with the length that the header promises.

        Args:
            container: As `open` gives it.
            stream: As `open` gives it.
            ends: Seconds at which each stream's packets end, by its index.
            times: Presentation times of the frames, ascending, in the stream's time base: a last frame may stay long.

        Raises:
            ValueError: For a file that ends earlier than promised.
        """
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
        return metadata, choose_frames(choose, metadata, self.name)

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
        with self.open() as (container, stream):
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
                        frames.add(index, self.to_rgb(frame))
        return frames if len(frames.images) == len(chosen) else None

    def _decode_all(self, chosen: set[int]) -> tuple[_DecodedFrames, int]:
        """Decode everything: the chosen frames, and how many frames there are."""
        frames = _DecodedFrames(len(chosen))
        num_frames = 0
        damaged = False
        with self.open() as (container, stream):
            for frame in container.decode(stream):
                # Damage spreads to the frames that are predicted from it, and those are not marked.
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if num_frames in chosen:
                    if damaged:
                        raise ValueError(
                            f"{self.name} is damaged at frame {num_frames}: copy it again from its source."
                        )
                    frames.add(num_frames, self.to_rgb(frame))
                num_frames += 1
        return frames, num_frames

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
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


def choose_frames(choose: ChooseFrames | None, metadata: VideoMetadata, name: str = "the video") -> list[int]:
    """Ask which frames to read, all without `choose`, check the answer and note it in the metadata."""
    available = metadata.total_num_frames
    if available < 1:
        raise ValueError(f"No frame can be had of {name}: at least one is needed.")
    indices = np.asarray(range(available) if choose is None else choose(metadata), dtype=np.int64)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= available:
        raise ValueError(f"{name} has frames 0 to {available - 1}, of which {indices.tolist()} were chosen.")
    metadata.frames_indices = indices.tolist()
    return metadata.frames_indices


def stack_frames(frames: list[torch.Tensor]) -> torch.Tensor:
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


__all__ = [
    "CONTAINERS",
    "IMAGE_SUFFIXES",
    "ONE_THREAD",
    "ChooseFrames",
    "VideoFile",
    "VideoReader",
    "choose_frames",
    "list_frame_files",
    "open_source",
    "read_frame_files",
    "read_video_frames",
    "stack_frames",
]
