"""The Trainer of STT: transformers' own, with the compact loss, exact however a batch is cut."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ..modeling_stt import STTForVideoClassification, STTVideoClassifierOutput
from .arguments import STTTrainingArguments
from .clips import ClipDataset
from .losses import class_weights, compact_softmax_cross_entropy
from .metrics import compute_metrics
from .sampler import ClipSampler


class STTTrainer(Trainer):
    """Trains [`STTForVideoClassification`] on a [`ClipDataset`] with the compact softmax cross entropy.

    One optimizer step takes the mean loss of all clips of the global batch, whatever its cutting into processes and
    accumulation steps, and fill-ups of the last batch don't count. (What a clip's features are can still depend on the
    cutting: see `STTTrainingArguments.batch_norm`.) Evaluation counts every clip once, and logs `loss` (that of
    training, over the evaluated clips), `war`, `uar`, `recall_<class>`, `intra_distance` and `inter_distance`.

    Args:
        model: The model; its `id2label` names the classes.
        args: The arguments.
        train_dataset: Clips with augmentation, drawn by a [`ClipSampler`].
        eval_dataset: Clips without, or several such data sets by name.
        kwargs: All else as in transformers' `Trainer`. `compute_metrics` and `processing_class` have defaults: the
            scores above, and the training clips' processor, which is saved with every checkpoint.

    Raises:
        TypeError: For a `train_dataset` that is no [`ClipDataset`].
        ValueError: For clips whose classes are not those of the model, in its order; for several GPUs in one process;
            for several processes that don't know of each other; for `batch_norm="sync"` over processes on CPUs; and
            for FSDP2 with a torch before 2.11.
    """

    args: STTTrainingArguments

    def __init__(
        self,
        model: STTForVideoClassification,
        args: STTTrainingArguments,
        train_dataset: ClipDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        **kwargs: Any,
    ) -> None:
        class_names = model.config.class_names
        if train_dataset is not None:
            if not isinstance(train_dataset, ClipDataset):
                raise TypeError(f"train_dataset is a {type(train_dataset).__name__}; expected a ClipDataset.")
            kwargs.setdefault("processing_class", train_dataset.processor)
        named = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
        for name, dataset in {"train_dataset": train_dataset, **named}.items():
            _check_class_names(name, dataset, class_names)
        kwargs.setdefault("compute_metrics", compute_metrics(class_names))
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_loss_func=self._batch_loss,
            **kwargs,
        )
        self.class_weight = None
        if train_dataset is not None:
            self.class_weight = class_weights(train_dataset.label_ids, len(class_names), args.class_weighting)
        self._prepare_devices()

    def _prepare_devices(self) -> None:
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > self.args.world_size:
            raise ValueError(
                f"{started} processes were started, and each would train alone: one of {self.args.world_size}. "
                "Without GPUs for them, add --use_cpu to train.py's options (use_cpu=True in the arguments)."
            )
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would weigh the loss wrongly. Start one process for each with "
                "`accelerate launch` or `torchrun`, or show this one a single GPU with CUDA_VISIBLE_DEVICES=0."
            )
        if self.args.batch_norm == "sync" and self.args.world_size > 1:
            if self.args.device.type == "cpu":
                raise ValueError('batch_norm="sync" works on GPUs only: use "frozen" or "batch" on CPUs.')
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if self.is_fsdp_enabled:
            if torch.__version__ < "2.11":
                raise ValueError(
                    f"torch {torch.__version__} trains to other numbers under FSDP2 than without (seen with 2.7 and "
                    "2.8, no more with 2.11): install torch 2.11 or later, or use ddp.yaml, which STT's sizes fit."
                )
            # Its own would turn the batch norms' weights to bfloat16 and leave their statistics, which torch refuses.
            # Autocast, which accelerate puts around the model in any case, keeps norms in float32, as without FSDP.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None

    def _batch_loss(
        self,
        outputs: STTVideoClassifierOutput,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of this part of the global batch; transformers adds up the parts and has counted their labels."""
        if num_items_in_batch is not None and labels.ndim == 2:
            # It has counted K numbers for every clip with soft labels.
            num_items_in_batch = num_items_in_batch / labels.shape[1]
        assert outputs.logits is not None and outputs.pooler_output is not None
        return self._loss(outputs.logits, outputs.pooler_output, labels, num_items_in_batch)

    def _loss(
        self,
        logits: torch.Tensor,
        features: torch.Tensor,
        labels: torch.Tensor,
        num_items: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return compact_softmax_cross_entropy(
            logits,
            features,
            self._classifier_weight().to(logits.device),
            labels,
            compact_weight=self.args.compact_weight,
            label_smoothing=self.args.label_smoothing_factor,
            class_weight=self.class_weight,
            num_items=num_items,
        )

    def _classifier_weight(self) -> torch.Tensor:
        """`(K, D)`: the rows of the classifier, whole also where FSDP2 has cut them up after the forward pass."""
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, FSDPModule):
            model.unshard()  # what the model holds besides its blocks; nothing happens where it is whole already
        return model.classifier.weight

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in transformers, after the model's temperature and threshold, fitted to other weights, are reset."""
        assert self.model is not None
        self.model.config.temperature, self.model.config.min_score = 1.0, None
        return super().train(*args, **kwargs)

    def compute_loss(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, which has just put the whole model into training mode; frozen batch norms leave it."""
        if self.args.batch_norm == "frozen":
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return super().compute_loss(model, *args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in transformers, but the loss is the mean over clips; its own is a mean over batches, some filled up.

        All processes evaluate the model that the main one saves.
        """
        self._share_batch_norm_statistics()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if output.metrics is not None and output.predictions is not None and output.label_ids is not None:
            arrays = [*output.predictions[:2], output.label_ids]  # logits, features, labels
            with torch.no_grad():
                loss = self._loss(*(torch.from_numpy(np.asarray(array)) for array in arrays))
            output.metrics[f"{metric_key_prefix}_loss"] = loss.item()
        return output

    def _share_batch_norm_statistics(self) -> None:
        """Give all processes what the main one's batch norms have seen: each has seen clips of its own in training."""
        if self.args.world_size > 1:
            assert self.model is not None
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    for statistic in module.buffers():
                        torch.distributed.broadcast(statistic, src=0)

    def _load_best_model(self) -> None:
        """As in transformers, but where it only warns, this machine would go on with the last model."""
        best = Path(self.state.best_model_checkpoint or "")
        if not best.is_dir():
            raise FileNotFoundError(
                f"{best} is not on this machine. Several machines need an output_dir that they share: copy the "
                'checkpoints to one, and start again with resume_from_checkpoint="last".'
            )
        super()._load_best_model()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in transformers, which would save torch's code with a model that FSDP2 has made of a class of its own."""
        if isinstance(self.model, FSDPModule):
            sharded, own = type(self.model), STTForVideoClassification
            sharded.__module__, sharded.__name__ = own.__module__, own.__name__
        super()._save(output_dir, state_dict)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> ClipSampler:
        clips = self.train_dataset if train_dataset is None else train_dataset
        assert isinstance(clips, ClipDataset)
        args = self.args
        sampler = ClipSampler(
            clips.label_ids,
            seed=args.seed if args.data_seed is None else args.data_seed,
            class_balanced=args.class_balanced_sampler,
            multiple_of=self._train_batch_size * args.world_size if args.world_size > 1 else 1,
        )
        self.callback_handler.pop_callback(_SamplerEpoch)
        self.add_callback(_SamplerEpoch(sampler))
        return sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All parameters: the recipe's SGD decays biases and norms too, which transformers would leave out."""
        return [name for name, _ in model.named_parameters()]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As in transformers, but a constant rate decays in steps of epochs (`lr_decay_epochs`)."""
        args = self.args
        if self.lr_scheduler is None and args.lr_scheduler_type == "constant" and args.lr_decay_epochs:
            assert isinstance(self.train_dataset, ClipDataset) and self.optimizer is not None
            batches = math.ceil(len(self.train_dataset) / (self._train_batch_size * args.world_size))
            updates = math.ceil(batches / args.gradient_accumulation_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.StepLR(  # type: ignore[assignment]
                optimizer or self.optimizer, args.lr_decay_epochs * updates, gamma=args.lr_decay_factor
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)


class _SamplerEpoch(TrainerCallback):
    """Tells the sampler its epoch. transformers does so too, but not in several processes resumed within an epoch."""

    def __init__(self, sampler: ClipSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


def _check_class_names(name: str, dataset: Dataset | None, class_names: list[str]) -> None:
    known = getattr(dataset, "class_names", None)
    if known is not None and list(known) != class_names:
        raise ValueError(
            f"{name} has the classes {list(known)}, the model has {class_names}. Give ClipDataset(labels=…) the "
            "model's, or make the model with those of the data."
        )
