"""Loading of trained models: all code that uses a trained model loads it here, as a whole or not at all.

`from_pretrained` silently replaces missing weights with random ones. That is right before training and wrong
everywhere else, where the answers would be noise. The functions below raise `ModelError` instead.
"""

import json
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import logging as transformers_logging

from .configuration_stt import STTConfig
from .modeling_stt import STTForVideoClassification
from .video_processing_stt import STTVideoProcessor

VIDEO, IMAGE = "ForVideoClassification", "ForImageClassification"
LFS_POINTER = b"version https://git-lfs"

# What transformers raises for a folder or repository that cannot be loaded. ImportError, which names the package to
# install, passes through.
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError)

# torch's names of the instructions that multiply bfloat16 on x86 and Arm.
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2", "bf16", "sve_bf16")
_VECTOR_INSTRUCTIONS = ("avx2", "avx512_f", "neon", "sve")

logger = logging.getLogger(__name__)


class ModelError(ValueError):
    """A model cannot answer: it could not be loaded as a whole, or it gives scores that are not probabilities."""


def load_model(
    name: str | PathLike,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    new_head: bool = False,
) -> tuple[PreTrainedModel, Any]:
    """Load a trained classifier with its processor, in evaluation mode.

    An STT is loaded by this package's own code. Other models are accepted if their configuration names an architecture
    `…ForVideoClassification` or `…ForImageClassification`.

    Args:
        name: Folder of a saved model, or its name on the Hub.
        dtype: Precision of the weights, such as `"bfloat16"`; float32 by default.
        device: Where the model runs; left on the CPU by default. See `choose_device`.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Run the Python code that the repository carries. Only for repositories whose code has been
            read; name the `revision` that was read.
        attn_implementation: Attention back-end, such as `"eager"`; transformers' choice by default.
        new_head: Accept an STT without a classifier and give it a new head, which must be trained. A warning says so.

    Returns:
        The model and its processor: a video processor, or for image classifiers an image processor.

    Raises:
        ModelError: For a model that does not exist, is of another type, or has missing, damaged or non-finite
            weights. The message names the folder and what is wrong with it.
        ValueError: For a device that this machine lacks.
        ImportError: For a model that needs a package which is not installed.
    """
    target = None if device is None else choose_device(device)
    if dtype in (torch.bfloat16, "bfloat16"):
        warn_of_slow_bfloat16(target.type if target else "cpu")
    name = fspath(name)
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    options |= _locate(name, revision)
    config = _load_config(name, trust_remote_code, **options)
    kind = model_kind(config, name, may_lack_head=new_head)
    if isinstance(config, STTConfig):
        model_class: Any = STTForVideoClassification
        processor = _attempt(name, STTVideoProcessor.from_pretrained, **options)
    else:
        options["trust_remote_code"] = trust_remote_code
        model_class = AutoModelForVideoClassification if kind == VIDEO else AutoModelForImageClassification
        processor = _load_processor(name, kind, **options)
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    model = load_weights(
        model_class, name, may_be_missing=("classifier.",) if new_head else (), dtype=dtype or torch.float32, **options
    )
    if target is not None:
        model = model.to(target)  # type: ignore[arg-type]
    return model.eval(), processor


def load_weights(
    model_class: Any, name: str | PathLike, *, may_be_missing: Sequence[str] = (), **options: Any
) -> PreTrainedModel:
    """Call `from_pretrained`, and refuse a model whose missing weights it would fill with random numbers.

    Args:
        model_class: Class of the model, or an Auto class.
        name: Folder, or name on the Hub.
        may_be_missing: Prefixes of names of weights that may be missing. A warning names those that are.
        options: For `from_pretrained`.

    Raises:
        ModelError: For weights that are missing, of other shapes, damaged, or not finite.
    """
    with _quiet_transformers():
        model, info = _attempt(
            fspath(name),
            model_class.from_pretrained,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    missing = sorted(info["missing_keys"])
    new = [key for key in missing if key.startswith(tuple(may_be_missing))]
    missing = [key for key in missing if key not in new]
    if missing:
        unexpected = _first(sorted(info["unexpected_keys"]))
        raise ModelError(
            f"{name}: {len(missing)} weights of {type(model).__name__} are missing ({_first(missing)}); the file has "
            f"others instead ({unexpected}). The answers would be noise: save the whole model again, or name another."
        )
    if info["mismatched_keys"]:
        shapes = _first(
            [f"{key} {tuple(got)} for {tuple(want)}" for key, got, want in sorted(info["mismatched_keys"])]
        )
        raise ModelError(f"{name}: weights have other shapes than the configuration says: {shapes}.")
    if new:
        logger.warning("%s has no %s: it is new, and must be trained before it answers.", name, _first(new))
    _refuse_non_finite(model, name)
    return model


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Get the device of this name, by default a GPU if there is one.

    Raises:
        ValueError: For a name that torch does not know, or a device that this machine lacks.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is unknown to torch: expected a name such as 'cpu' or 'cuda:1'."
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: torch finds no GPU here; leave it out, or say 'cpu'.")
    try:
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used on this machine ({reason}): say 'cpu'.") from error
    return chosen


@cache  # once is enough
def warn_of_slow_bfloat16(device_type: str) -> None:
    """Warn if bfloat16 is requested on a CPU without instructions for it, where it is far slower than float32.

    Older releases of torch don't report the instructions of a CPU; with them there is no warning.

    Args:
        device_type: As in `torch.device.type`; other devices than `"cpu"` pass.
    """
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return
    has = torch.cpu.get_capabilities()
    if not any(has.get(name) for name in _BFLOAT16_INSTRUCTIONS):
        logger.warning(
            "bfloat16 is emulated on this CPU and many times slower than float32: %s (%s) has %s, nothing for "
            "bfloat16. Use float32, or a GPU.",
            has.get("cpu_name", "the CPU"),
            has.get("architecture", "unknown architecture"),
            ", ".join(name for name in _VECTOR_INSTRUCTIONS if has.get(name)) or "no vector instructions",
        )


def model_kind(config: PreTrainedConfig, name: str, may_lack_head: bool = False) -> str:
    """Find out if a model classifies videos or images, `VIDEO` or `IMAGE`, by the architecture in its configuration.

    Raises:
        ModelError: For an architecture that classifies neither.
    """
    architectures = config.architectures or []
    if config.model_type == "timm_wrapper":  # whose configurations on the Hub name timm's architectures
        return IMAGE
    for kind in (VIDEO, IMAGE):
        if any(architecture.endswith(kind) for architecture in architectures):
            return kind
    if isinstance(config, STTConfig) and (may_lack_head or not architectures):
        return VIDEO
    found = ", ".join(architectures) or f"no architecture, model type {config.model_type!r}"
    raise ModelError(
        f"{name} holds {found}. Expected a trained STT, or a classifier of transformers whose config.json names an "
        f"architecture that ends in {VIDEO} or {IMAGE}."
    )


def refuse_non_finite_scores(scores: torch.Tensor | np.ndarray, name: str, dtype: str = "") -> None:
    """Refuse answers of a model that are not numbers.

    Raises:
        ModelError: For NaN and infinity. The message blames the model, named here, and its precision, if it is given.
    """
    if not np.isfinite(np.asarray(scores)).all():
        raise ModelError(
            f"{name} answers NaN or infinity{dtype and f', in {dtype}'}: its weights are damaged, or its precision is "
            "too small for it. No video is to blame."
        )


def class_names_of(config: PreTrainedConfig) -> list[str]:
    """Names of a model's classes in the order of its logits."""
    return [name for _, name in sorted((int(i), name) for i, name in (config.id2label or {}).items())]


def _locate(name: str, revision: str | None) -> dict[str, Any]:
    """Options for loading that avoid half a minute of retries for a name on the Hub if there is no network."""
    if Path(name).exists():
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"{name} has no config.json: expected the folder of a saved model.")
        return {}
    missing = f"There is no folder {name}, and from the Hub it could not be loaded"
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(f"{missing}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # whatever the network's client raises: an earlier download may be in the cache
        logger.debug("The Hub does not answer: %s", error)
        return {"local_files_only": True}
    return {}


def _load_config(name: str, trust_remote_code: bool, **options: Any) -> PreTrainedConfig:
    settings, _ = _attempt(name, PreTrainedConfig.get_config_dict, **options)
    if settings.get("model_type") == STTConfig.model_type:
        return _attempt(name, STTConfig.from_pretrained, **options)
    return _attempt(name, AutoConfig.from_pretrained, trust_remote_code=trust_remote_code, **options)


def _load_processor(name: str, kind: str, **options: Any) -> Any:
    """Load the processor of a transformers model, even if its file names a class of an earlier release."""
    if kind == VIDEO:
        try:
            return AutoVideoProcessor.from_pretrained(name, **options)
        except (OSError, ValueError):  # files of video models that were saved with an image processor
            return _attempt(name, AutoImageProcessor.from_pretrained, **options)
    try:
        return AutoImageProcessor.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        options.pop("trust_remote_code", None)
        settings, _ = _attempt(name, ImageProcessingMixin.get_image_processor_dict, **options)
        old = str(settings.get("image_processor_type"))
        current = getattr(transformers, old.replace("FeatureExtractor", "ImageProcessor"), None)
        if current is None or not old.endswith("FeatureExtractor"):
            raise ModelError(f"{name}: its image processor cannot be loaded: {error}") from error
        return _attempt(name, current.from_pretrained, **options)


def _attempt(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """Call one of transformers' loaders, and name the model in its errors."""
    try:
        return load(name, **options)
    except _LOAD_ERRORS as error:
        if isinstance(error, ModelError):
            raise
        if pointers := _lfs_pointers(name):
            raise ModelError(
                f"{name}: {', '.join(pointers)} is a pointer of Git LFS, not the file itself: run 'git lfs pull' "
                "there, or download the model by 'hf download'."
            ) from error
        if Path(name).exists():
            raise ModelError(f"{name} cannot be loaded: {_reason(error)}") from error
        raise ModelError(
            f"There is no folder {name}, and from the Hub it could not be loaded: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, SafetensorError):
        return f"its weights are damaged or cut short ({error}). Copy them again from their source."
    if isinstance(error, json.JSONDecodeError):
        return f"a JSON file in it is damaged ({error})."
    return str(error).strip() or type(error).__name__


def _lfs_pointers(name: str) -> list[str]:
    files = sorted(Path(name).iterdir()) if Path(name).is_dir() else []
    small = [file for file in files if file.is_file() and file.stat().st_size < 1024]
    return [file.name for file in small if file.read_bytes().startswith(LFS_POINTER)]


def _refuse_non_finite(model: PreTrainedModel, name: str | PathLike) -> None:
    bad = [
        key for key, value in model.state_dict().items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        raise ModelError(
            f"{name}: {len(bad)} weights are not finite ({_first(bad)}), so every answer would be NaN. The training "
            "diverged, or the file is damaged: name another checkpoint."
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' report of missing weights: an error replaces it."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _first(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more if names else "none"
