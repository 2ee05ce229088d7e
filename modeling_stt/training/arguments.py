"""Arguments of training; the defaults are the recipe of the authors' later code."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from ..loading import warn_of_slow_bfloat16
from .losses import COMPACT_LOSSES


@dataclass
class STTTrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments` with the loss of STT, and the recipe that its authors' later code uses.

    That recipe: SGD with momentum 0.9, learning rate 0.01 divided by ten every 40 epochs, weight decay 1e-4 on every
    parameter, no warm-up, no clipping, batches of 32, 100 epochs, seed 42. It drops the incomplete last batch of an
    epoch; here that batch is kept and weighted by its size. 32 is the batch of one process: divide it by the number of
    processes and of accumulation steps to keep to the recipe.

    Args:
        compact_weight: λ of the compact softmax cross entropy (0.1 is ours); 0 is plain cross entropy.
        compact_loss: Reading of its term; `modeling_stt.training.losses` describes them.
        class_weighting: Weights of the classes in the loss, `"none"`, `"inverse_sqrt"` or `"inverse"` of their number
            of clips, with mean 1 over the training set.
        class_balanced_sampler: Draw every class equally often instead.
        batch_norm: Statistics that the backbone's batch norms use in training. `"batch"`: those of the clips that a
            process has at hand, as usual; the result then depends on how a batch is split. `"sync"`: those of
            all processes (GPUs only); accumulation steps still count by themselves. `"frozen"`: the running
            statistics, which stay as they are, while scales and shifts still learn; the result is exact however a
            batch is split. For pretrained backbones.
        freeze_backbone: Leave the frame encoder as it is, batch norms' running statistics included, and train what
            follows. For pretrained encoders.
        backbone_learning_rate: Learning rate of the frame encoder if it differs from that of the rest. Schedules scale
            both in the same way.
        lr_decay_epochs: Number of epochs after which the learning rate is multiplied by `lr_decay_factor`, again and
            again; 0 for never. Applies to `lr_scheduler_type="constant"`, the default; other types are transformers'
            own.
        lr_decay_factor: See `lr_decay_epochs`.

    All else as in `TrainingArguments`. `label_smoothing_factor` smooths the cross entropy's part of the loss.

    Raises:
        ValueError: For options out of range or at odds with each other, and for those of `TrainingArguments` that
            would make the loss or the scores wrong.
    """

    compact_weight: float = field(
        default=0.1, metadata={"help": "Weight of the compact loss's distance terms; 0 is plain cross entropy."}
    )
    compact_loss: Literal["rows", "running_means"] = field(
        default="rows", metadata={"help": "Reading of the compact loss's term, see modeling_stt/training/losses.py."}
    )
    class_weighting: Literal["none", "inverse_sqrt", "inverse"] = field(
        default="none", metadata={"help": "Weigh classes in the loss by their number of clips."}
    )
    class_balanced_sampler: bool = field(
        default=False, metadata={"help": "Draw clips of every class equally often in training."}
    )
    batch_norm: Literal["batch", "sync", "frozen"] = field(
        default="batch",
        metadata={"help": "Statistics of batch norms: the process's batch, all processes, or the running statistics."},
    )
    freeze_backbone: bool = field(
        default=False, metadata={"help": "Leave the frame encoder as it is, and train what follows."}
    )
    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the frame encoder. Default: that of the rest."}
    )
    lr_decay_epochs: int = field(
        default=40, metadata={"help": "Decay a constant learning rate after each such number of epochs; 0 for never."}
    )
    lr_decay_factor: float = field(default=0.1, metadata={"help": "Factor of the learning rate at each decay."})

    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32
    num_train_epochs: float = 100
    optim: OptimizerNames | str = "sgd"
    optim_args: str | None = "momentum=0.9"
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.0
    lr_scheduler_type: SchedulerType | str = "constant"
    seed: int = 42

    logging_strategy: IntervalStrategy | str = "epoch"
    eval_strategy: IntervalStrategy | str = "epoch"
    save_strategy: SaveStrategy | str = "epoch"
    save_total_limit: int | None = 2
    # transformers would log the average so far in place of a loss that is not finite.
    logging_nan_inf_filter: bool = False
    # STT uses all its parameters for every clip; to look for unused ones costs time at every step.
    ddp_find_unused_parameters: bool | None = False
    # A clip's columns are not the model's arguments.
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        """Convert values as transformers does, and refuse those that contradict each other."""
        super().__post_init__()
        # Options of `accelerate launch` count, and must be in the results, as if they had been given here.
        self.bf16, self.fp16 = (self.mixed_precision == name for name in ("bf16", "fp16"))
        if self.bf16:
            warn_of_slow_bfloat16(self.device.type)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # avoids torch's warning that no accelerator is found
        self._check_ranges()
        if self.class_balanced_sampler and self.class_weighting != "none":
            raise ValueError(
                f"class_balanced_sampler and class_weighting={self.class_weighting!r} would correct the imbalance "
                "twice: choose one."
            )
        if self.dataloader_drop_last:
            raise ValueError(
                "dataloader_drop_last=True would leave clips out of evaluation too. Leave it off: an incomplete last "
                "batch is weighted by its size."
            )
        if not self.average_tokens_across_devices:
            raise ValueError(
                "average_tokens_across_devices=False would weight clips differently in each process: leave it on."
            )
        if self.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} is not for clips: STTTrainer draws them by "
                "its ClipSampler."
            )

    def _check_ranges(self) -> None:
        if self.compact_weight < 0:
            raise ValueError(f"compact_weight={self.compact_weight} must be at least 0.")
        if not 0 <= self.label_smoothing_factor <= 1:
            raise ValueError(f"label_smoothing_factor={self.label_smoothing_factor} must lie in [0, 1].")
        if self.lr_decay_epochs < 0 or self.lr_decay_factor <= 0:
            raise ValueError(
                f"lr_decay_epochs={self.lr_decay_epochs} must be at least 0, and lr_decay_factor="
                f"{self.lr_decay_factor} above 0."
            )
        if self.backbone_learning_rate is not None and (self.backbone_learning_rate < 0 or self.freeze_backbone):
            raise ValueError(
                f"backbone_learning_rate={self.backbone_learning_rate} must be at least 0, and cannot be combined "
                "with freeze_backbone."
            )
        for name, choices in {
            "compact_loss": COMPACT_LOSSES,
            "class_weighting": ("none", "inverse_sqrt", "inverse"),
            "batch_norm": ("batch", "sync", "frozen"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose one of {choices}.")
