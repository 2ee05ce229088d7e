"""Video processor of STT: videos of all forms to clips. This file travels with every checkpoint.

`sample_frame_indices` alone decides which frames of a clip are used; `video_reading_stt.py` decodes only those.
"""

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor
from transformers.configuration_utils import PreTrainedConfig
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    is_pil_image,
)
from transformers.processing_utils import VideosKwargs
from transformers.utils import TensorType, logging
from transformers.video_processing_utils import BaseVideoProcessor, BatchFeature
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .video_reading_stt import (
    IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    ChooseFrames,
    choose_frames,
    is_animation,
    list_frame_files,
    read_frame_files,
    read_video_frames,
    stack_frames,
)


def sample_frame_indices(
    num_available: int,
    num_frames: int = 16,
    frames_per_segment: int = 2,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Choose the frames of a clip: "dynamic sampling", 8 segments of 2 consecutive frames by default.

    The clip is cut into `num_frames / frames_per_segment` equal segments. The consecutive frames start at each
    segment's centre in testing, and anywhere in the segment in training. Segments cover the whole clip. (Former-DFER's
    code, where the rule comes from, rounds their length down in training and never sees a clip's last frames.)

    A clip of fewer than `num_frames` frames repeats its frames evenly, in time order (ours: the origin repeats the
    first frame only, which makes a still picture). If `frames_per_segment` does not divide `num_frames`, segments
    have one frame.

    Args:
        num_available: Frames in the clip, at least 1.
        num_frames: Frames wanted.
        frames_per_segment: Consecutive frames taken from each segment.
        rng: Draws the starts in training. None takes the centres, deterministically.

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


# Width over height of frames, by that of the model's, from which on they are warned of: data sets' faces are about
# square; the frames of films, 4:3 and longer, are not.
MAX_STRETCH = 1.25

logger = logging.get_logger(__name__)


class STTVideoProcessorKwargs(VideosKwargs, total=False):
    """Keyword arguments of [`STTVideoProcessor`] beyond those of every video processor."""

    frames_per_segment: int | None


class STTVideoProcessor(BaseVideoProcessor):
    r"""
    Turns videos into clips: reads, samples, resizes and rescales them.

    A video is any of: the path (`str` or `Path`) of a video file or of a folder of numbered images, or an http(s)
    address; a list of image paths in time order; bytes or a binary file; an array or tensor `(T, H, W, 3)` or
    `(T, 3, H, W)`; a list of frames (PIL images or arrays). A list of videos, of any forms, makes a batch.

    Arrays hold values from 0 to 255, as integers or floats, in 1, 3 or 4 (RGBA) channels. Floats from 0 to 1 need
    `do_rescale=False` and are refused otherwise: divided by 255, they would be black.

    Args:
        size: `{"height": 112, "width": 112}` px. Frames are squeezed to it, not cropped, as in Former-DFER's code.
        num_frames: Frames of a clip, 16; None for all.
        frames_per_segment: Consecutive frames taken of each of the `num_frames / frames_per_segment` segments, 2.
        do_sample_frames: Sample frames by `sample_frame_indices`; otherwise all frames are read.
        fps: If given, takes this many frames per second instead of `num_frames`, by the same rule.
        do_rescale: Divide by 255; on. [`STTModel`] reads values in [0, 1].
        do_normalize: Normalise by `image_mean` and `image_std` after that; off, as in Former-DFER's code. Turn it on
            for a backbone that was trained so; the defaults are ImageNet's.
        face_crop: How the faces of the training clips were cropped, as `FaceCrop.to_dict()` of `modeling_stt.timeline`
            gives it, so that a timeline crops faces in the same way; None if unknown. The processor itself does not
            crop faces.
        kwargs: Other settings as in [`~transformers.BaseVideoProcessor`]. On call, `video_metadata` gives the fps of
            arrays and image folders; files have their own.

    Returns:
        On call, `{"pixel_values": (B, T, 3, H, W) float32}` with `return_tensors="pt"`; a list of clips without.

    Raises:
        FileNotFoundError: On call, for a missing file.
        ValueError: On call, for something that is not a video, a damaged or truncated video, and values out of range.

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
    face_crop: dict[str, Any] | None = None
    valid_kwargs = STTVideoProcessorKwargs  # type: ignore[assignment]
    model_input_names = ["pixel_values"]  # noqa: RUF012

    @classmethod
    def get_video_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the processor's settings; older checkpoints have `face_crop` in the model's configuration instead.

        Arguments, results and errors are those of [`~transformers.BaseVideoProcessor.from_pretrained`].
        """
        settings, unused = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "face_crop" not in settings and not Path(pretrained_model_name_or_path).is_file():
            with suppress(OSError):  # a processor may lie in a folder without a model
                config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
                settings["face_crop"] = config.get("face_crop")
        return settings, unused

    @classmethod
    def from_encoder(cls, name: str | os.PathLike, **settings: Any) -> "STTVideoProcessor":
        """Make a processor with the size, mean and standard deviation of a frame encoder's own image processor.

        Args:
            name: Folder of a vision model of transformers, or its name on the Hub.
            settings: Other settings, or ones that replace the encoder's, such as `size` and `num_frames`.

        Raises:
            OSError: For a folder or name without an image processor.
        """
        own = AutoImageProcessor.from_pretrained(name)
        if timm := getattr(own, "data_config", None):
            return cls(**(_timm_settings(timm) | settings))
        size = own.crop_size if getattr(own, "do_center_crop", False) else own.size
        side = size.get("height") or size.get("shortest_edge")
        found = {
            "size": {"height": side, "width": size.get("width") or side},
            "resample": own.resample,
            "do_normalize": own.do_normalize,
            "image_mean": own.image_mean,
            "image_std": own.image_std,
        }
        return cls(**(found | settings))

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: int | float | None = None,
        frames_per_segment: int | None = None,
        rng: np.random.Generator | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Choose the frames to read by `sample_frame_indices`; arguments that are not given are the processor's.

        Raises:
            ValueError: For `fps` if the metadata has no frame rate.
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
            video: One video in any of the forms that the class lists.
            rng: Draws the frames for training; None takes the segments' centres.

        Returns:
            `(num_frames, 3, H, W)` RGB, uint8 (float32 for arrays of floats).

        Raises:
            FileNotFoundError: For a missing file or folder.
            ValueError: For a video that cannot be read; the message names it.
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
        """Read a video's frames, all or the chosen ones, and metadata; `metadata` is for videos without their own."""
        if isinstance(video, str | os.PathLike) and Path(video).is_dir():
            video = list_frame_files(video)
        elif _is_frame_file(video) and is_animation(video):
            return read_video_frames(video, choose)
        elif _is_frame(video) or _is_frame_file(video):
            video = [video]
        if _is_file(video):
            return read_video_frames(video, choose)
        metadata = replace(metadata) if metadata else VideoMetadata(total_num_frames=len(video))
        if metadata.total_num_frames != len(video):
            raise ValueError(f"The metadata says {metadata.total_num_frames} frames, the video has {len(video)}.")
        indices = choose_frames(choose, metadata)
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
        if kwargs.get("do_resize"):
            for video in videos:
                _warn_of_squeezing(video, kwargs["size"])
        clips = super()._preprocess(videos, return_tensors=None, **kwargs)["pixel_values_videos"]
        shapes = {tuple(clip.shape) for clip in clips}
        if return_tensors is not None and len(shapes) > 1:
            raise ValueError(
                f"Clips of different shapes {sorted(shapes)} don't make one batch: leave do_sample_frames and "
                "do_resize on, or process them one by one."
            )
        return BatchFeature(data={"pixel_values": clips}, tensor_type=return_tensors)


def _timm_settings(data: dict[str, Any]) -> dict[str, Any]:
    """Settings of the processor from those of timm's transforms."""
    _, height, width = data["input_size"]
    return {
        "size": {"height": height, "width": width},
        "resample": getattr(PILImageResampling, data["interpolation"].upper()),
        "do_normalize": True,
        "image_mean": data["mean"],
        "image_std": data["std"],
    }


def _warn_of_squeezing(video: torch.Tensor, size: Any) -> None:
    """Warn, once for each size, of frames that can hardly be those of a clip that is cropped to one face."""
    if not (size["height"] and size["width"]):  # resizing by one edge keeps the shape
        return
    height, width = video.shape[-2:]
    stretch = width / height * size["height"] / size["width"]
    if max(stretch, 1 / stretch) > MAX_STRETCH:
        logger.warning_once(  # type: ignore[attr-defined]  # transformers adds it
            f"Frames of {width} × {height} px are squeezed to the model's {size['width']} × {size['height']}. A model "
            "that was trained on cropped faces misreads whole frames: find the faces with 'stt timeline', or crop "
            "them with 'stt crop'."
        )


def _is_file(video: Any) -> bool:
    return isinstance(video, str | os.PathLike | bytes) or hasattr(video, "read")


def _is_frame(video: Any) -> bool:
    return is_pil_image(video) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 3)


def _is_frame_file(video: Any) -> bool:
    pictures = IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES
    return isinstance(video, str | os.PathLike) and Path(video).suffix.lower() in pictures


def _is_video(video: Any) -> bool:
    """Recognise one video in a form that `STTVideoProcessor` lists; a single frame counts as a short video."""
    if isinstance(video, list | tuple):
        return len(video) > 0 and (all(map(_is_frame, video)) or all(map(_is_frame_file, video)))
    return _is_file(video) or _is_frame(video) or (isinstance(video, np.ndarray | torch.Tensor) and video.ndim == 4)


def _as_batch(videos: Any) -> list[Any]:
    """Turn one video or many, nested or not, into a list of videos."""
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
    """Convert a video's frames, an array or a list of frames, to `(T, C, H, W)` uint8 (float32 for floats)."""
    if isinstance(video, list | tuple):
        return stack_frames([_to_pixels(frame, input_data_format) for frame in video])
    return _to_pixels(video, input_data_format)


def _to_pixels(frames: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """Convert an image or array `(…, H, W, C)` or `(…, C, H, W)` to `(…, C, H, W)`, uint8 or float32; C is 1, 3 or 4.

    If the shape is ambiguous, `input_data_format` decides; without it, channels are taken to come first.
    """
    if is_pil_image(frames) and not frames.mode.startswith(("I", "F")):  # whose values are not bytes
        frames = frames.convert("RGBA" if frames.has_transparency_data else "RGB")
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
    """Refuse floats that a division by 255 does not bring to [0, 1]: such clips would be black or noise, unnoticed."""
    if not clip.is_floating_point():
        return
    low, high = (value.item() for value in clip.aminmax())
    if not (0 <= low <= high <= 255) or 0 < high <= 1:  # NaN is refused too
        raise ValueError(
            f"Frames of floats from {low:.3g} to {high:.3g} cannot be divided by 255: give values from 0 to 255, or "
            "pass do_rescale=False where they are scaled already."
        )


STTVideoProcessor.register_for_auto_class()

__all__ = ["STTVideoProcessor", "sample_frame_indices"]
