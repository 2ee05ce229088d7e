"""STT: facial expressions in video, on the Hugging Face stack.

Importing this package makes STT known to the Auto classes of transformers: saved models then load by
`AutoModelForVideoClassification.from_pretrained` and `pipeline("video-classification")` without `trust_remote_code`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor

from .configuration_stt import DFEW_CLASSES, STTConfig
from .modeling_stt import STTForVideoClassification, STTModel, STTModelOutput, STTVideoClassifierOutput
from .video_processing_stt import STTVideoProcessor, sample_frame_indices

AutoConfig.register(STTConfig.model_type, STTConfig, exist_ok=True)
AutoModel.register(STTConfig, STTModel, exist_ok=True)
AutoModelForVideoClassification.register(STTConfig, STTForVideoClassification, exist_ok=True)
AutoVideoProcessor.register(STTConfig, STTVideoProcessor, exist_ok=True)

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
