"""Scorers give probabilities to windows: an STT, any video or image classifier of transformers, or a function.

Windows overlap, and so do the frames that the sampling rule picks of them. What a model computes of one face in one
frame is kept with that face (`Sighting.memo`), so that it is computed once however many windows look at it.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from ..configuration_stt import DFEW_CLASSES
from ..loading import IMAGE, ModelError, choose_device, class_names_of, load_model, model_kind
from ..modeling_stt import STTForVideoClassification
from ..video_processing_stt import STTVideoProcessor, sample_frame_indices
from .detection import find_function
from .faces import FaceCrop
from .windows import Sighting, Window

FACE_CROP_FILE = (
    "face_crop.json"  # the crop of a model's training, beside it or beside the clips that it is trained on
)

# Faces that go through a backbone or an image model at once, to bound its memory.
FACES_AT_ONCE = 64

# Pictures of a window that an image model judges: the first frames of STT's eight segments, so that windows that
# overlap by half share half of them.
IMAGES_A_WINDOW = 8

CANONICAL = (*DFEW_CLASSES, "contempt")
_SPELLINGS = {
    "happy": "happiness happily joy joyful hap",
    "sad": "sadness sadly",
    "neutral": "neutrality neu normal",
    "angry": "anger ang",
    "surprise": "surprised suprise suprised sur surprised_face",
    "disgust": "disgusted dis",
    "fear": "fearful fea scared afraid",
    "contempt": "contemptuous con",
}
_CANONICAL_OF = {word: name for name, words in _SPELLINGS.items() for word in (name, *words.split())}

Function = Callable[[np.ndarray], Sequence[float]]
_FUNCTION_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

logger = logging.getLogger(__name__)


class Scorer(Protocol):
    """Gives probabilities to windows.

    Attributes:
        name: What is said of it in settings and reports: a folder, a name on the Hub, a function's name.
        class_names: Names of the classes in the order of the scores.
        crop: How faces are to be cut out for it.
        min_score: Least highest probability of an answer that counts, by its own calibration; None if unknown.
    """

    name: str
    class_names: list[str]
    crop: FaceCrop
    min_score: float | None

    @property
    def dtype(self) -> str:
        """Precision, such as `"float32"`."""
        ...

    def scores(self, windows: Sequence[Window]) -> np.ndarray:
        """Return a probability for each window and class, `(windows, K)`; windows have at least one crop."""
        ...


class ModelScorer:
    """Base of the scorers that run a model of transformers.

    Args:
        model: The classifier; it is set to evaluation.
        processor: Its processor.
        crop: How faces are cut out for it.
        num_frames: Frames that it looks at in a window.
        frames_per_segment: See `sample_frame_indices`.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, crop: FaceCrop, num_frames: int, frames_per_segment: int
    ) -> None:
        self.model, self.processor, self.crop = model.eval(), processor, crop
        self.num_frames, self.frames_per_segment = num_frames, frames_per_segment
        self.name = str(model.config._name_or_path)
        self.class_names = class_names_of(model.config)
        self.min_score: float | None = getattr(model.config, "min_score", None)

    @property
    def dtype(self) -> str:
        """Precision of the model's weights."""
        return str(self.model.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def scores(self, windows: Sequence[Window]) -> np.ndarray:
        """See [`Scorer`]."""
        return self.logits(windows).softmax(dim=-1).numpy()

    def logits(self, windows: Sequence[Window]) -> torch.Tensor:
        """Return the model's logits for the clip of each window, `(windows, K)` float32 on the CPU."""
        raise NotImplementedError

    def sample(self, window: Window) -> list[Sighting]:
        """Return the sightings that the sampling rule picks of those with a crop.

        Raises:
            ValueError: For a window without a crop.
        """
        seen = [sighting for sighting in window.sightings if sighting.crop is not None]
        return [seen[i] for i in sample_frame_indices(len(seen), self.num_frames, self.frames_per_segment)]

    def _run(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Logits of what a processor made; the inputs have the names that the processor gave them."""
        device, dtype = self.model.device, self.model.dtype
        moved = {n: v.to(device, dtype if v.is_floating_point() else v.dtype) for n, v in inputs.items()}
        return self.model(**moved).logits


class STTScorer(ModelScorer):
    """An STT, whose backbone sees each face once.

    Args:
        model: The classifier.
        processor: Its processor, which scales the crops.
        crop: How faces are cut out for it; by default as its processor says.
        share_maps: Reuse the backbone's map of a face in the next window that contains it. Turn it off to compare: the
            logits are the same.

    Raises:
        ValueError: For a processor that makes frames of another size than the model's.
    """

    model: STTForVideoClassification

    def __init__(
        self,
        model: STTForVideoClassification,
        processor: STTVideoProcessor,
        crop: FaceCrop | None = None,
        share_maps: bool = True,
    ) -> None:
        config, size = model.config, processor.size
        own_grid = config.feature_grid(config.image_size, config.image_size)
        if config.feature_grid(size["height"], size["width"]) != own_grid:
            raise ValueError(
                f"The processor makes frames of {size['height']}×{size['width']} px, the model was made for "
                f"{config.image_size}×{config.image_size}: load both from the same folder."
            )
        crop = FaceCrop(size=config.image_size) if crop is None else crop
        super().__init__(model, processor, crop, config.num_frames, processor.frames_per_segment)
        self.share_maps = share_maps

    @torch.inference_mode()
    def logits(self, windows: Sequence[Window]) -> torch.Tensor:
        """See [`ModelScorer`]."""
        clips = [self.sample(window) for window in windows]
        if not clips:
            return torch.empty(0, self.model.num_labels)
        sightings = [sighting for clip in clips for sighting in clip]
        if not self.share_maps:
            pixels = self.pixels(sightings).unflatten(0, (len(clips), -1))
            return self.model(pixels.to(self.model.device)).logits.float().cpu()
        self._fill_feature_maps(sightings)
        maps = torch.stack([sighting.memo for sighting in sightings])  # type: ignore[misc]
        maps = maps.contiguous(memory_format=torch.channels_last).unflatten(0, (len(clips), -1))
        return self.model(feature_maps=maps).logits.float().cpu()

    def pixels(self, sightings: Sequence[Sighting]) -> torch.Tensor:
        """Return the crops as the model reads them, `(len(sightings), 3, H, W)` float32."""
        crops = np.stack([sighting.crop for sighting in sightings])  # type: ignore[misc]
        return self.processor(crops, do_sample_frames=False, return_tensors="pt")["pixel_values"][0]

    def _fill_feature_maps(self, sightings: list[Sighting]) -> None:
        for batch in _without_memo(sightings):
            maps = self.model.stt.encode_frames(self.pixels(batch).to(self.model.device))
            for sighting, feature_map in zip(batch, maps, strict=True):
                sighting.memo = feature_map.clone()  # a view would keep the whole batch in memory


class VideoScorer(ModelScorer):
    """A video classifier of transformers, such as VideoMAE, TimeSformer, ViViT or V-JEPA 2.

    It gets as many frames of a window as its configuration says, evenly spread.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, crop: FaceCrop) -> None:
        num_frames = getattr(model.config, "num_frames", None) or getattr(model.config, "frames_per_clip", None)
        num_frames = num_frames or getattr(processor, "num_frames", None)
        if not num_frames:
            raise ModelError(
                f"{model.config._name_or_path}: neither the configuration nor the processor says how many frames "
                f"{type(model).__name__} takes (num_frames)."
            )
        super().__init__(model, processor, crop, num_frames, frames_per_segment=1)

    @torch.inference_mode()
    def logits(self, windows: Sequence[Window]) -> torch.Tensor:
        """See [`ModelScorer`]."""
        clips = [np.stack([s.crop for s in self.sample(window)]) for window in windows]  # type: ignore[misc]
        if "VideoProcessor" in type(self.processor).__name__:
            inputs = self.processor(clips, do_sample_frames=False, return_tensors="pt")
        else:  # of releases that had image processors for videos
            inputs = self.processor([list(clip) for clip in clips], return_tensors="pt")
        return self._run(inputs).float().cpu()


class ImageScorer(ModelScorer):
    """An image classifier of transformers, such as ViT: the mean of its probabilities over frames of the window."""

    def __init__(self, model: PreTrainedModel, processor: Any, crop: FaceCrop) -> None:
        super().__init__(model, processor, crop, 2 * IMAGES_A_WINDOW, frames_per_segment=2)

    def sample(self, window: Window) -> list[Sighting]:
        """See [`ModelScorer`]: the first frame of each segment."""
        return super().sample(window)[::2]

    @torch.inference_mode()
    def scores(self, windows: Sequence[Window]) -> np.ndarray:
        """See [`Scorer`]."""
        clips = [self.sample(window) for window in windows]
        for batch in _without_memo([sighting for clip in clips for sighting in clip]):
            inputs = self.processor([sighting.crop for sighting in batch], return_tensors="pt")
            answers = self._run(inputs).float().softmax(dim=-1).cpu()
            for sighting, answer in zip(batch, answers, strict=True):
                sighting.memo = answer.clone()
        means = [torch.stack([s.memo for s in clip]).mean(dim=0) for clip in clips]  # type: ignore[misc]
        return torch.stack(means).numpy()


class FunctionScorer:
    """A function from the crops of a window to probabilities.

    Args:
        function: Takes the crops `(T, S, S, 3)` uint8 RGB of one window, all that show the face in time order, and
            returns a probability for each class.
        class_names: Names of the classes, in that order; by default its attribute `class_names`.
        crop: How faces are cut out for it; by default its attribute `face_crop`, or as `FaceCrop` says.

    Raises:
        ValueError: For a function without names of classes.
    """

    min_score: float | None = None
    dtype = "float64"

    def __init__(self, function: Function, class_names: Sequence[str] = (), crop: FaceCrop | None = None) -> None:
        self.function = function
        self.class_names = list(class_names or getattr(function, "class_names", ()))
        self.crop: FaceCrop = crop or getattr(function, "face_crop", None) or FaceCrop()
        named: Any = function if hasattr(function, "__qualname__") else type(function)
        self.name = f"{named.__module__}:{named.__qualname__}"
        if not self.class_names:
            raise ValueError(
                f"The function {self.name} does not name its classes: give class_names, or set its attribute "
                "class_names."
            )

    def scores(self, windows: Sequence[Window]) -> np.ndarray:
        """See [`Scorer`]."""
        answers = []
        for window in windows:
            answer = np.asarray(self.function(np.stack([s.crop for s in window.sightings if s.crop is not None])))
            if answer.shape != (len(self.class_names),):
                raise ModelError(
                    f"{self.name} returned an array of shape {answer.shape}: expected a probability for each of "
                    f"{', '.join(self.class_names)}."
                )
            answers.append(answer.astype(float))
        return np.stack(answers)


def load_scorer(
    model: str | PathLike | PreTrainedModel | Function,
    processor: Any = None,
    *,
    class_names: Sequence[str] = (),
    face_crop: FaceCrop | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Scorer:
    """Make the scorer of a model.

    Args:
        model: Folder or name on the Hub of a trained STT or of another video or image classifier; one that is loaded;
            or a function, see [`FunctionScorer`], or the name of one as `"module:function"`.
        processor: The processor of a loaded model; needed, and only taken, with one.
        class_names: Names of a function's classes, if it has no attribute `class_names`; only taken with a function.
        face_crop: How to cut faces out; by default as the model says, or a `face_crop.json` in its folder.
        device: Where the model runs; by default a GPU if there is one, or where a loaded model is.
        options: For `load_model`.

    Raises:
        ModelError: As `load_model`.
        ImportError: For the name of a function in a module that does not exist.
        ValueError: For a loaded model without processor, a function without names, or either if not needed.
    """
    if isinstance(model, str) and _FUNCTION_NAME.fullmatch(model) and not Path(model).exists():
        model = find_function(model, "model")
    if callable(model) and not isinstance(model, PreTrainedModel):
        return FunctionScorer(model, class_names, face_crop)
    if class_names:
        raise ValueError("class_names are for a function as model; other models name their own classes.")
    if isinstance(model, PreTrainedModel):
        if processor is None:
            raise ValueError("A loaded model needs its processor: give processor=….from_pretrained(…).")
        name = str(model.config._name_or_path)
        if device is not None:
            model = model.to(choose_device(device))  # type: ignore[arg-type]
    else:
        if processor is not None:
            raise ValueError(f"The processor of {model} is loaded with it: give one only with a loaded model.")
        name = fspath(model)  # type: ignore[arg-type]
        model, processor = load_model(name, device=choose_device(device), **options)
    assert isinstance(model, PreTrainedModel)
    scorer = _scorer_of(model, processor, name, face_crop)
    scorer.name = name
    if meaningless := [each for each in scorer.class_names if each.startswith("LABEL_")]:
        logger.warning("%s does not name its classes (%s): its card may say what they mean.", name, meaningless[0])
    return scorer


def canonical_names(class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Map names of classes to one spelling, `CANONICAL`.

    Returns:
        The names, and those that have no canonical spelling, or whose spelling another class has already; they are
        kept as they are.
    """
    names: list[str] = []
    unmapped: list[str] = []
    for name in class_names:
        canonical = _CANONICAL_OF.get(name.strip().lower().replace(" ", "_"))
        if canonical is None or canonical in names:
            unmapped.append(name)
        names.append(name if name in unmapped else canonical)  # type: ignore[arg-type]
    return names, unmapped


def trained_on_synthetic(name: str) -> bool:
    """Return whether the results or the configuration in a model's folder say that its faces were synthetic."""
    for file in (Path(name) / "results.json", Path(name) / "config.json"):
        try:
            if json.loads(file.read_text("utf-8")).get("synthetic"):
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _scorer_of(model: PreTrainedModel, processor: Any, name: str, crop: FaceCrop | None) -> ModelScorer:
    if isinstance(model, STTForVideoClassification):
        size = model.config.image_size
        return STTScorer(model, processor, crop or _known_crop(processor, name, size))
    is_image = model_kind(model.config, name) == IMAGE
    crop = crop or _known_crop(processor, name, _input_side(processor))
    return (ImageScorer if is_image else VideoScorer)(model, processor, crop)


def _known_crop(processor: Any, name: str, size: int) -> FaceCrop:
    """The crop of a model's training: its processor's, or that of a file in its folder; else the default one."""
    file = Path(name) / FACE_CROP_FILE
    settings = getattr(processor, "face_crop", None)
    if settings is None and file.is_file():
        settings = json.loads(file.read_text("utf-8"))
    if settings is not None:
        return FaceCrop.from_dict({"size": size} | settings)
    crop = FaceCrop(size=size)
    logger.warning(
        "The model does not say how its training faces were cropped (face_crop): they are cut as %s. Where that "
        "differs from the training, scores suffer.",
        crop,
    )
    return crop


def _input_side(processor: Any) -> int:
    """Pixels of the square that a processor resizes pictures to, before it cuts out their centre."""
    size = processor.size
    sides = [getattr(size, key, None) or size.get(key) for key in ("shortest_edge", "height", "width")]
    sides = [side for side in sides if side]
    return int(max(sides)) if sides else FaceCrop.size


def _without_memo(sightings: Sequence[Sighting]) -> list[list[Sighting]]:
    """Sightings that the model has not seen yet, each once, in batches."""
    new = list({id(sighting): sighting for sighting in sightings if sighting.memo is None}.values())
    return [new[first : first + FACES_AT_ONCE] for first in range(0, len(new), FACES_AT_ONCE)]
