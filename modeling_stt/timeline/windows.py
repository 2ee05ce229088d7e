"""Windows: clips of one face cut from a longer video by seconds, and their scores.

Windows overlap, and so do the frames that the one sampling rule picks of them. What the backbone makes of a face in a
frame is kept with that face and computed once, however many windows look at it.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch

from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor, sample_frame_indices
from .video import TimedFrame

# Times are compared to the microsecond: a container's ticks don't add up exactly in binary seconds.
TICK_S = 1e-6

# Faces that go through the backbone at once, to bound its memory.
BACKBONE_BATCH = 64


@dataclass(eq=False)
class Sighting:
    """A tracked face in one frame.

    Args:
        time_s: The frame's time.
        box: Left, top, right, bottom in pixels of the frame.
        crop: The face's picture `(S, S, 3)` uint8 RGB; None for a face too small to be looked at.
        feature_map: What the backbone makes of the crop, `(C, h, w)`, once it was asked.
    """

    time_s: float
    box: tuple[float, float, float, float]
    crop: np.ndarray | None
    feature_map: torch.Tensor | None = None


@dataclass(frozen=True)
class Window:
    """A stretch of a video as far as one track is concerned, or nobody.

    Args:
        start_s: When it begins, on the clock of the video.
        end_s: When it ends. A frame of exactly that time belongs to it, as well as to the window that begins there.
        track: Id of the track; None where no track is.
        sightings: The track's face in the window's frames, in time order.
        num_frames: Frames of the window, with the face or without.
        dropped: Frames that are missing from it, see `TimedFrame.dropped`.
    """

    start_s: float
    end_s: float
    track: int | None = None
    sightings: list[Sighting] = field(default_factory=list)
    num_frames: int = 0
    dropped: int = 0

    @property
    def face_share(self) -> float:
        """Share of the window's frames that have the track's face, in [0, 1]."""
        return len(self.sightings) / self.num_frames if self.num_frames else 0.0


@dataclass
class _Track:
    first_s: float
    sightings: deque[Sighting] = field(default_factory=deque)
    has_ended: bool = False


class WindowCutter:
    """Cuts what is seen, frame by frame, into windows; keeps no more than the longest window's frames.

    Windows begin every `stride_s` from the first frame on, for all tracks alike. A window includes the frame at its
    very end: a regular video's windows of 2 s then have 51 frames at 25 fps, whose sampled frames, and so their
    backbone maps, coincide where windows overlap. With 50 frames half of them would miss each other by one.

    Args:
        length_s: Seconds of a window.
        stride_s: Seconds from one window's start to the next's; at most `length_s`, so that no second is left out.

    Raises:
        ValueError: For a length that is not positive, or a stride that is not, or is longer.
    """

    def __init__(self, length_s: float, stride_s: float) -> None:
        if not 0 < stride_s <= length_s < np.inf:
            raise ValueError(
                f"Windows of {length_s} s every {stride_s} s cannot be cut: expected 0 < stride ≤ length, or seconds "
                "of the video would be in no window."
            )
        self.length_s, self.stride_s = length_s, stride_s
        self._frames: deque[tuple[float, int]] = deque()
        self._tracks: dict[int, _Track] = {}
        self._first_s: float | None = None
        self._index = 0
        self._last = TimedFrame(0.0, np.empty(0))
        self._last_step_s = 0.0

    def add(self, frame: TimedFrame, sightings: Mapping[int, Sighting], ended: Sequence[int] = ()) -> list[Window]:
        """Take a frame's faces by track id, and the ids of tracks that ended with it.

        Returns:
            The windows that end before this frame, in the order of their time and track.
        """
        if self._first_s is None:
            self._first_s = frame.time_s
        else:
            self._last_step_s = frame.time_s - self._last.time_s
        windows = list(self._close_before(frame.time_s))
        self._last = frame._replace(image=self._last.image)  # the picture need not be kept
        self._frames.append((frame.time_s, frame.dropped))
        for track in self._tracks.keys() & set(ended):
            self._tracks[track].has_ended = True
        for track, sighting in sightings.items():
            self._tracks.setdefault(track, _Track(frame.time_s)).sightings.append(sighting)
        return windows

    def finish(self) -> list[Window]:
        """The windows that the video's end closes; the last one ends with the video."""
        if self._first_s is None:
            return []
        end_s = self._last.time_s + (self._last.duration_s or self._last_step_s)
        windows = list(self._close_before(end_s))
        if not self._index or self._start_s + self.length_s - self.stride_s < end_s - TICK_S:
            windows += self._cut(end_s, is_last=True)
        return windows

    @property
    def _start_s(self) -> float:
        return (self._first_s or 0.0) + self._index * self.stride_s

    def _close_before(self, time_s: float) -> Iterator[Window]:
        while self._start_s + self.length_s < time_s - TICK_S:
            if self._frames:
                yield from self._cut(self._start_s + self.length_s)
                self._index += 1
            else:
                # However long the gap, it is one window.
                start_s = self._start_s
                self._index += ceil((time_s - TICK_S - self.length_s - start_s) / self.stride_s)
                yield Window(start_s, self._start_s - self.stride_s + self.length_s)
            self._forget_before(self._start_s)

    def _cut(self, end_s: float, is_last: bool = False) -> Iterator[Window]:
        start_s = self._start_s
        dropped = [count for time_s, count in self._frames if time_s <= end_s + TICK_S]
        # A track that begins with the last frame begins with the next window. One without a sighting is lost for now.
        tracks = {
            id: [sighting for sighting in track.sightings if sighting.time_s <= end_s + TICK_S]
            for id, track in sorted(self._tracks.items())
            if dropped and (is_last or track.first_s < end_s - TICK_S)
        }
        for id, sightings in tracks.items():
            yield Window(start_s, end_s, id, sightings, len(dropped), sum(dropped))
        if not tracks:
            yield Window(start_s, end_s, None, [], len(dropped), sum(dropped))

    def _forget_before(self, time_s: float) -> None:
        while self._frames and self._frames[0][0] < time_s - TICK_S:
            self._frames.popleft()
        for id, track in list(self._tracks.items()):
            while track.sightings and track.sightings[0].time_s < time_s - TICK_S:
                track.sightings.popleft()
            if track.has_ended and not track.sightings:
                del self._tracks[id]


class WindowScorer:
    """Scores of windows by a model, many windows at a time.

    Args:
        model: The classifier; it is set to evaluation.
        processor: Its processor, which scales the crops.
        share_maps: Whether the backbone's map of a face is kept for the next window that looks at it. Off to compare:
            logits are the same.

    Raises:
        ValueError: For a processor that makes frames of another size than the model's.
    """

    def __init__(
        self, model: STTForVideoClassification, processor: STTVideoProcessor, share_maps: bool = True
    ) -> None:
        config, size = model.config, processor.size
        own_grid = config.feature_grid(config.image_size, config.image_size)
        if config.feature_grid(size["height"], size["width"]) != own_grid:
            raise ValueError(
                f"The processor makes frames of {size['height']}×{size['width']} px, the model was made for "
                f"{config.image_size}×{config.image_size}: load both from the same folder."
            )
        self.model = model.eval()
        self.processor = processor
        self.share_maps = share_maps

    @torch.inference_mode()
    def logits(self, windows: Sequence[Window]) -> torch.Tensor:
        """The model's answer to the clip of each window, `(windows, K)` float32 on the CPU.

        Raises:
            ValueError: For a window without a single crop.
        """
        clips = [self.sample(window) for window in windows]
        if not clips:
            return torch.empty(0, self.model.num_labels)
        sightings = [sighting for clip in clips for sighting in clip]
        if not self.share_maps:
            pixels = self.pixels(sightings).unflatten(0, (len(clips), -1))
            return self.model(pixels.to(self.model.device)).logits.float().cpu()
        self._fill_feature_maps(sightings)
        maps = torch.stack([sighting.feature_map for sighting in sightings])  # type: ignore[misc]
        maps = maps.contiguous(memory_format=torch.channels_last).unflatten(0, (len(clips), -1))
        return self.model(feature_maps=maps).logits.float().cpu()

    def sample(self, window: Window) -> list[Sighting]:
        """The sightings that the sampling rule picks of those with a crop: as many as the model's frames."""
        seen = [sighting for sighting in window.sightings if sighting.crop is not None]
        frames_per_segment = self.processor.frames_per_segment
        return [seen[i] for i in sample_frame_indices(len(seen), self.model.config.num_frames, frames_per_segment)]

    def pixels(self, sightings: Sequence[Sighting]) -> torch.Tensor:
        """The crops as the model reads them, `(len(sightings), 3, H, W)` float32."""
        crops = np.stack([sighting.crop for sighting in sightings])  # type: ignore[misc]
        return self.processor(crops, do_sample_frames=False, return_tensors="pt")["pixel_values"][0]

    def _fill_feature_maps(self, sightings: list[Sighting]) -> None:
        new = list({id(sighting): sighting for sighting in sightings if sighting.feature_map is None}.values())
        for first in range(0, len(new), BACKBONE_BATCH):
            batch = new[first : first + BACKBONE_BATCH]
            maps = self.model.stt.encode_frames(self.pixels(batch).to(self.model.device))
            for sighting, feature_map in zip(batch, maps, strict=True):
                sighting.feature_map = feature_map.clone()  # a view would keep the whole batch in memory
