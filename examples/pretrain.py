"""Pre-train a frame encoder on clips without labels, by reconstructing the pixels of hidden patches.

    stt crop films/ --output crops/
    accelerate launch examples/pretrain.py --clips crops --output_dir runs/encoder
    accelerate launch examples/train.py --backbone runs/encoder --dataset dfew --data_dir DFEW --fold 1 --output_dir …

Every folder of pictures below `--clips` is a clip, as `stt crop` writes them; names of classes are ignored. The same
90 % of the patches are hidden in all frames of a clip. The encoder is any vision model of transformers that STT's
blocks run on; by default a small ViT for 112 px. Other options are those of transformers' Trainer;
`--resume_from_checkpoint last` resumes. `train.py --backbone` loads `--output_dir`.
"""

from modeling_stt.processes import end_with_launcher, run_program

if __name__ == "__main__":
    end_with_launcher()  # before the imports that take seconds: the launcher may be killed meanwhile

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, HfArgumentParser, TrainingArguments, ViTImageProcessor, set_seed
from transformers.trainer_utils import get_last_checkpoint

from modeling_stt import STTVideoProcessor
from modeling_stt.training import ClipAugment, ClipDataset
from modeling_stt.training.masked import MaskedEncoder, MaskedTrainer, TubeClips, list_clips, save_encoder
from modeling_stt.training.options import read_object

# 16 × 16 px patches at 112 px give the paper's 7 × 7 positions.
SMALL_VIT = (
    '{"model_type": "vit", "image_size": 112, "patch_size": 16, "hidden_size": 384, "num_hidden_layers": 12, '
    '"num_attention_heads": 6, "intermediate_size": 1536}'
)


@dataclass
class PretrainArguments:
    """Clips, encoder, and what is hidden."""

    clips: str = field(metadata={"help": "Folder of folders of pictures, as `stt crop` writes them."})
    encoder_config: str = field(
        default=SMALL_VIT, metadata={"help": "Configuration of the encoder as JSON, with model_type."}
    )
    frames_per_clip: int = field(default=4, metadata={"help": "Frames drawn from a clip at a time."})
    hidden_share: float = field(default=0.9, metadata={"help": "Share of the patches that is hidden."})
    smallest_crop: float = field(default=0.5, metadata={"help": "Smallest share of a frame that the crop keeps."})


def pretrain(arguments: Sequence[str]) -> MaskedTrainer:
    """Pre-train as the command line says, and save the encoder."""
    kinds: Any = (PretrainArguments, TrainingArguments)
    own, args = HfArgumentParser(kinds, description=__doc__).parse_args_into_dataclasses(list(arguments))[:2]
    args.remove_unused_columns = False
    set_seed(args.seed)

    try:
        model = MaskedEncoder(AutoConfig.for_model(**read_object("encoder_config", own.encoder_config)))
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise SystemExit(f"--encoder_config {own.encoder_config}: {error}") from error
    sampling: dict[str, Any] = {"num_frames": own.frames_per_clip, "frames_per_segment": 1}
    size = {"height": model.side, "width": model.side}
    processor = STTVideoProcessor(size=size, do_normalize=True, **sampling)
    clips = ClipDataset(
        list_clips(Path(own.clips)), processor, augment=ClipAugment(scale=(own.smallest_crop, 1.0)), seed=args.seed
    )
    tubes = TubeClips(clips, model.grid**2, own.hidden_share)

    trainer = MaskedTrainer(model, args, tubes)
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir) if resume == "last" else resume)
    if trainer.is_world_process_zero():
        images = ViTImageProcessor(size=size, image_mean=processor.image_mean, image_std=processor.image_std)
        save_encoder(model, images, Path(args.output_dir))
    return trainer


if __name__ == "__main__":
    run_program(pretrain)
