"""Frames with their times, one after the other and in constant memory: of files, cameras, streams and iterators."""

import logging
import signal
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np

from ..video_reading_stt import ANY_METADATA, IMAGE_SUFFIXES, VideoReader, open_source, read_packets

# What FFmpeg calls these cameras; other systems' (avfoundation, dshow) are missing from PyAV's packages.
CAMERAS = "/dev/video"
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
REMOTE_SCHEMES = ("http", "https")

# Seconds of silence after which an address is given up.
SILENCE_S = 15.0

# A smaller step back in time means a misplaced frame, which is skipped; a larger one means that the clock restarted.
CLOCK_RESTART_S = 1.0


Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class TimedFrame(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        time_s: Seconds on the container's own clock, which need not start at 0; of cameras and live addresses, since
            their first frame. Always larger than the frame's before.
        image: `(H, W, 3)` uint8 RGB, upright.
        duration_s: Seconds that it stays, where the container says so; otherwise 0.
        dropped: Frames since the one before that could not be given: damaged ones, and of live sources those that
            came faster than they were taken.
    """

    time_s: float
    image: np.ndarray
    duration_s: float = 0.0
    dropped: int = 0


class DamagedVideoError(ValueError):
    """A video is damaged or ended too early. Raised after all of its readable frames were given."""


Source = str | PathLike | Iterable[tuple[float, np.ndarray]] | Iterable[TimedFrame]


def read_frames(source: Source, live: bool | None = None) -> Iterator[TimedFrame]:
    """Give the frames of a video one by one; only the one at hand is in memory.

    Frames are turned as the file's display matrix says. Damaged frames, and those predicted from them up to the next
    keyframe, are left out and counted in the next frame's `dropped`.

    Args:
        source: A file; an http(s) address of one, which is read as it is needed; a camera, `/dev/video0`; a live
            address such as `rtsp://…`, see `LIVE_SCHEMES`; or an iterable of `(time in seconds, frame)`, frames as
            `(H, W, 3)` uint8 RGB, times growing.
        live: True if frames arrive at their own pace. A thread then receives them, and frames that are not taken in
            time are dropped and counted (`drop_late`). By default, cameras and live addresses are live.

    Yields:
        The frames in time order.

    Raises:
        FileNotFoundError: For a missing file or camera.
        ValueError: For a file that is not a video, or has no video stream or no frame, and for items of an iterable
            that are not such frames; it is named.
        DamagedVideoError: After the last frame of a file that is cut short or damaged to its end, or of a connection
            that broke.
    """
    if not isinstance(source, str | PathLike):
        frames = _check_frames(source)
        return drop_late(frames) if live else frames
    name = fspath(source)
    frames = FrameReader(name).frames()
    return drop_late(frames) if (is_live(name) if live is None else live) else frames


class Footage:
    """The frames of a video, up to its end, its damage or a stop; what went wrong is raised by `finish`.

    So the stages that take frames from it end normally, and first give all that was seen.

    Args:
        source: See `read_frames`, as for `live`.
        stop: Once it is set, the frame at hand is the last.
        ahead: Frames that are read ahead, in a thread; not of live sources, which have a thread anyway.
        min_step_s: Least seconds from one frame to the next. Frames that come sooner are passed over and counted in
            the next one's `dropped`.

    Attributes:
        num_frames: Frames given so far.
        num_dropped: Frames missing between them.
    """

    def __init__(
        self,
        source: "Source",
        live: bool | None = None,
        stop: threading.Event | None = None,
        ahead: int = 0,
        min_step_s: float = 0.0,
    ) -> None:
        live = is_live(source) if live is None else live
        self.frames = read_frames(source, live)
        if ahead and not live:
            self.frames = in_thread(self.frames, ahead)
        self.stop = threading.Event() if stop is None else stop
        self.min_step_s = min_step_s
        self.num_frames = self.num_dropped = 0
        self.damage: DamagedVideoError | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        last_s, passed_over = -np.inf, 0
        try:
            for frame in self.frames:
                if frame.time_s < last_s + self.min_step_s:
                    passed_over += 1 + frame.dropped
                    continue
                frame = frame._replace(dropped=frame.dropped + passed_over)
                last_s, passed_over = frame.time_s, 0
                self.num_frames, self.num_dropped = self.num_frames + 1, self.num_dropped + frame.dropped
                yield frame
                if self.stop.is_set():
                    return
        except DamagedVideoError as error:
            self.damage = error

    def finish(self, name: str) -> None:
        """Report what is missing from the frames, once all that was seen has been used.

        Raises:
            DamagedVideoError: If the video is damaged or ended too early.
        """
        if self.num_dropped:
            logger.warning(
                "%s: %d of %d frames dropped: damaged ones, and those that came faster than they could be used.",
                *(name, self.num_dropped, self.num_frames + self.num_dropped),
            )
        if self.damage is not None:
            raise self.damage


def is_live(source: Any) -> bool:
    """Return whether this is the address of a camera or of a live stream."""
    return isinstance(source, str) and (source.startswith(CAMERAS) or _scheme(source) in LIVE_SCHEMES)


@contextmanager
def stop_on_interrupt(source: Any) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets for a live source, instead of KeyboardInterrupt; a second Ctrl-C raises that."""
    stop = threading.Event()
    if not is_live(source) or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def video_duration(source: Any) -> float:
    """Duration in seconds that a file's header states; 0 if it states none, for live sources and for bad files."""
    if not isinstance(source, str | PathLike) or is_live(source):
        return 0.0
    try:
        with FrameReader(fspath(source)).open() as (container, _):
            return (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, ValueError):
        return 0.0


def drop_late(frames: Iterator[TimedFrame], max_waiting: int = 8) -> Iterator[TimedFrame]:
    """Take in frames as they come, in a thread; where more than `max_waiting` wait, the oldest is dropped.

    Every dropped frame is counted in `dropped` of the frame given next, so that none is lost in silence.
    """
    return in_thread(frames, max_waiting, lambda late, frame: frame._replace(dropped=frame.dropped + late.dropped + 1))


def in_thread(
    items: Iterator[Item], max_waiting: int, merge: Callable[[Item, Item], Item] | None = None
) -> Iterator[Item]:
    """Prefetch items in a thread.

    While `max_waiting` items are waiting, the thread waits, too; or, given `merge`, it merges the oldest item into the
    one after it. Errors of `items` are raised here, after the items before them. The thread ends with the iterator.
    """
    waiting: deque[Item] = deque()
    ended: list[BaseException | None] = []
    changed, stopped = threading.Condition(), threading.Event()

    def hand_over(item: Item) -> None:
        with changed:
            if merge is None:
                changed.wait_for(lambda: len(waiting) < max_waiting or stopped.is_set())
            waiting.append(item)
            if merge is not None and len(waiting) > max_waiting:
                late = waiting.popleft()
                waiting[0] = merge(late, waiting[0])
            changed.notify_all()

    def take_in() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                hand_over(item)
                if stopped.is_set():
                    return
        except BaseException as raised:  # any error: if it were lost in this thread, the other would wait forever
            error = raised
        with changed:
            ended.append(error)
            changed.notify_all()

    threading.Thread(target=take_in, name="timeline, running ahead", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                item = waiting.popleft()
                changed.notify_all()
            yield item
        if ended[0] is not None:
            raise ended[0]
    finally:
        with changed:
            stopped.set()
            changed.notify_all()


class FrameReader(VideoReader):
    """The frames of one file, camera or address, in one pass."""

    def __init__(self, address: str) -> None:
        self.is_live = is_live(address)
        self.is_remote = _scheme(address) in REMOTE_SCHEMES
        self.timeout = SILENCE_S if self.is_remote else None
        if address.startswith(CAMERAS) and not Path(address).exists():
            raise FileNotFoundError(f"There is no camera {address}.")
        if Path(address).is_dir():
            raise ValueError(f"{address} is a folder: expected one video.")
        if Path(address).suffix.lower() in IMAGE_SUFFIXES and not self.is_remote:
            raise ValueError(
                f"{address} is a picture: a timeline needs a video. Pictures of one film, numbered in time order, "
                "become one with 'ffmpeg -framerate 25 -i %d.jpg film.mp4'; a folder of cropped faces is a clip for "
                "'stt predict --clip'."
            )
        super().__init__(address if self.is_live or self.is_remote else open_source(address), address)

    def frames(self) -> Iterator[TimedFrame]:
        """See `read_frames`."""
        try:
            with self._open_any() as (container, stream):
                yield from self._timed_frames(container, stream)
        except av.error.FFmpegError as error:
            what = f"{self.name} cannot be read as a video ({error.strerror})."
            if self.is_live or self.is_remote:
                raise ValueError(f"{what} Check the address, and whether it plays elsewhere.") from error
            raise ValueError(
                f"{what} If it plays elsewhere, re-encode it; if not, it is damaged, cut short, or not a video at all."
            ) from error

    @contextmanager
    def _open_any(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        if not self.is_live:
            with self.open() as opened:
                yield opened
            return
        camera = "v4l2" if self.name.startswith(CAMERAS) else None
        # Over UDP, FFmpeg's default, packets go missing on all but the best networks.
        options = {"rtsp_transport": "tcp"} if self.name.startswith("rtsp") else {}
        with av.open(self.name, format=camera, options=options, timeout=SILENCE_S, **ANY_METADATA) as container:
            if not container.streams.video:
                raise ValueError(f"{self.name} sends no video.")
            self.begin(container, container.streams.video[0])
            yield container, container.streams.video[0]

    def _timed_frames(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[TimedFrame]:
        clock = _Clock(stream, self.frame_time, from_zero=self.is_live)
        packets = _Packets(container, stream)
        dropped = num_frames = 0
        damaged = False
        for packet in packets:
            try:
                decoded = self.decode(packet)
            except av.error.FFmpegError:
                decoded = []
                damaged = True
                dropped += 1
            for frame in decoded:
                time_s = clock.read(frame)
                # Damage spreads to the frames that are predicted from it, and those are not marked.
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                if damaged or time_s is None:
                    dropped += 1
                    continue
                yield TimedFrame(time_s, self.to_rgb(frame), clock.duration(frame), dropped)
                num_frames += 1
                dropped = 0
        if not num_frames:
            raise ValueError(f"{self.name} has a video stream but no frame that can be shown.")
        self._refuse_damage(container, stream, packets, dropped)

    def _refuse_damage(
        self, container: av.container.InputContainer, stream: av.VideoStream, packets: "_Packets", dropped: int
    ) -> None:
        """Raise an error for what is missing at the end, if anything."""
        if packets.error is not None:
            raise DamagedVideoError(f"{self.name} broke off at {packets.end_s:.2f} s: {packets.error.strerror}.")
        try:
            self.refuse_cut_short(container, stream, packets.ends, packets.longest_step)
        except ValueError as error:
            raise DamagedVideoError(str(error)) from error
        if dropped:
            lost = "frame" if dropped == 1 else f"{dropped} frames"
            raise DamagedVideoError(f"{self.name} is damaged: its last {lost} cannot be shown.")


class _Packets:
    """The packets of a container's video, keeping account of where its streams end.

    Attributes:
        ends: Seconds at which each stream ends, by its index, as far as it was read.
        longest_step: Times of the two successive packets of the video that are farthest apart, in its time base.
        error: What stopped the reading, if it was not the end.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.container, self.stream = container, stream
        self.ends: dict[int, float] = defaultdict(float)
        self.longest_step = [0, 0]
        self.error: av.error.FFmpegError | None = None

    @property
    def end_s(self) -> float:
        return self.ends[self.stream.index]

    def __iter__(self) -> Iterator[av.Packet]:
        ticks = {stream.index: float(stream.time_base or 0) for stream in self.container.streams}
        last: int | None = None
        try:
            for packet in read_packets(self.container):
                index = packet.stream_index
                if packet.pts is not None:
                    end_s = (packet.pts + (packet.duration or 0)) * ticks[index]
                    self.ends[index] = max(end_s, self.ends[index])
                if index != self.stream.index:
                    continue
                if packet.dts is not None:
                    if last is not None and packet.dts - last > self.longest_step[1] - self.longest_step[0]:
                        self.longest_step = [last, packet.dts]
                    last = packet.dts
                yield packet
        except av.error.FFmpegError as error:
            self.error = error


class _Clock:
    """Times of a stream's frames in seconds, from `VideoReader.frame_time`, made strictly increasing."""

    def __init__(
        self, stream: av.VideoStream, time_of: Callable[[av.VideoFrame], float | None], from_zero: bool
    ) -> None:
        rate = stream.average_rate or stream.guessed_rate
        self.step_s = float(1 / rate) if rate else 0.04
        self.time_base = float(stream.time_base or 0)
        self.time_of, self.from_zero = time_of, from_zero
        self.offset_s = 0.0
        self.last_s: float | None = None

    def read(self, frame: av.VideoFrame) -> float | None:
        """Return the frame's time; None for a frame whose time does not lie after the one before."""
        stamp = self.time_of(frame)
        if self.last_s is None:
            if self.from_zero and stamp is not None:
                self.offset_s = -stamp
            self.last_s = 0.0 if stamp is None else stamp + self.offset_s
            return self.last_s
        following_s = self.last_s + self.step_s
        time_s = following_s if stamp is None else stamp + self.offset_s
        if time_s <= self.last_s - CLOCK_RESTART_S:
            self.offset_s += following_s - time_s
            time_s = following_s
        if time_s <= self.last_s:
            return None
        self.last_s = time_s
        return time_s

    def duration(self, frame: av.VideoFrame) -> float:
        """Seconds that a frame is shown, as far as the container says."""
        return self.step_s if frame.time is None else (frame.duration or 0) * self.time_base


def _check_frames(source: Iterable[Any]) -> Iterator[TimedFrame]:
    """Frames of an iterable as `TimedFrame`s, or an error for what is not such a frame."""
    last = -np.inf
    for index, item in enumerate(source):
        frame = TimedFrame(*item) if isinstance(item, tuple) and len(item) in (2, 4) else TimedFrame(np.nan, item)
        image = frame.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            got = f"{type(image).__name__} {getattr(image, 'shape', '')} {getattr(image, 'dtype', '')}"
            raise ValueError(f"Frame {index} should be (seconds, array (H, W, 3) of uint8), got {got}.")
        if not last < frame.time_s < np.inf:
            raise ValueError(f"Frame {index} is timed {frame.time_s} s, after one of {last} s: times must grow.")
        last = frame.time_s
        yield frame._replace(image=image.copy())  # a camera may write the next picture into the same array


def _scheme(address: str) -> str:
    scheme, mark, _ = address.partition("://")
    return scheme.lower() if mark else ""
