"""STT: facial expressions in video, on the Hugging Face stack.

Importing this package makes STT known to the Auto classes of transformers: saved models then load with
`AutoModelForVideoClassification.from_pretrained` and `pipeline("video-classification")` without `trust_remote_code`.
The import itself is light: torch and transformers are loaded when a name of this package is first used, and STT is
registered as soon as the Auto classes are loaded, whether before or after this import.
"""

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_stt import DFEW_CLASSES, STTConfig
    from .modeling_stt import STTForVideoClassification, STTModel, STTModelOutput, STTVideoClassifierOutput
    from .video_processing_stt import STTVideoProcessor, sample_frame_indices

__version__ = "0.1.0.dev0"

__all__ = [
    "DFEW_CLASSES",
    "STTConfig",
    "STTForVideoClassification",
    "STTModel",
    "STTModelOutput",
    "STTVideoClassifierOutput",
    "STTVideoProcessor",
    "sample_frame_indices",
]

_HOMES = {
    "configuration_stt": ("DFEW_CLASSES", "STTConfig"),
    "modeling_stt": ("STTForVideoClassification", "STTModel", "STTModelOutput", "STTVideoClassifierOutput"),
    "video_processing_stt": ("STTVideoProcessor", "sample_frame_indices"),
}
_AUTO_CLASSES = "transformers.models.auto.configuration_auto"


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Make STT known to the Auto classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor

    from .configuration_stt import STTConfig
    from .modeling_stt import STTForVideoClassification, STTModel
    from .video_processing_stt import STTVideoProcessor

    AutoConfig.register(STTConfig.model_type, STTConfig, exist_ok=True)
    AutoModel.register(STTConfig, STTModel, exist_ok=True)
    AutoModelForVideoClassification.register(STTConfig, STTForVideoClassification, exist_ok=True)
    AutoVideoProcessor.register(STTConfig, STTVideoProcessor, exist_ok=True)


class _RegisterOnce(MetaPathFinder, threading.local):
    """Register STT when the import that loaded the Auto classes is over.

    Modules of transformers import each other in circles, and ours need several of them. So registration waits for the
    outermost import of the two packages in this thread to end, when no module of theirs is half loaded.
    """

    depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find modules of the two packages as Python does, and watch them being executed."""
        if not fullname.startswith(("transformers.", f"{__name__}.")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._watch(execute, module)  # type: ignore[method-assign]
        return spec

    def _watch(self, execute: Any, module: ModuleType) -> None:
        self.depth += 1
        try:
            execute(module)
        finally:
            self.depth -= 1
        if self.depth == 0 and _AUTO_CLASSES in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            _register()


if _AUTO_CLASSES in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterOnce())
