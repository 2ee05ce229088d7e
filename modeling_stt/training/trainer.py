"""The Trainer of STT: transformers' own, with the compact loss, exact however a batch is split."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, PredictionOutput, TrainOutput

from ..modeling_stt import STTForVideoClassification, STTVideoClassifierOutput
from ..video_processing_stt import STTVideoProcessor
from .arguments import STTTrainingArguments
from .calibration import reset_calibration
from .clips import ClipAugment, ClipDataset
from .images import ClipsAndImages, MixedSampler, TrainingImages, image_classes, is_image
from .lora import has_adapters
from .losses import ClassMeans, class_weights, compact_softmax_cross_entropy
from .metrics import compute_metrics
from .results import RESULTS_FILE
from .sampler import ClipSampler, SamplerEpoch
from .weights import read_weights

MEANS_FILE = "class_means.safetensors"  # in a checkpoint, of the compact loss that needs class means

# Rows of a data set, with the columns that ClipDataset reads.
Rows: TypeAlias = datasets.Dataset | Sequence[Mapping[str, Any]]


class STTTrainer(Trainer):
    """Trains [`STTForVideoClassification`] on clips with the compact softmax cross entropy.

    One optimizer step takes the mean loss of all clips of the global batch, however it is split into processes and
    accumulation steps; padding of the last batch does not count. (The features of a clip can still depend on the
    split: see `STTTrainingArguments.batch_norm`.) Evaluation counts every clip once, and logs `loss` (the training
    loss over the evaluated clips), `war`, `uar`, `recall_<class>`, `intra_distance` and `inter_distance`.

    Args:
        model: The model; its `id2label` names the classes.
        args: The arguments.
        train_dataset: Rows of a data set, as `load_dataset(…, split="train")` gives them, which are augmented as the
            recipe does; or a [`ClipDataset`] of one's own. Drawn by a [`ClipSampler`].
        eval_dataset: Rows or clips without augmentation, or several such data sets by name.
        images: Images to train on beside the clips, through a head of their own, which is no longer part of the model
            when `train` returns; it is kept in checkpoints, so that a run resumes with it. They are augmented and
            weighted against imbalance as the clips are; the compact loss leaves them out.
        kwargs: All other arguments of transformers' `Trainer`. `processing_class` is the [`STTVideoProcessor`] that
            makes clips of rows, and is saved with every checkpoint; by default that of the training clips.
            `compute_metrics` gives the scores above by default.

    Raises:
        TypeError: For rows without a `processing_class`, and data sets that are neither rows nor a [`ClipDataset`].
        ValueError: For clips whose classes are not those of the model, in its order; for several GPUs in one process;
            for several processes that don't know of each other; for `batch_norm="sync"` over processes on CPUs; and
            for FSDP2 with a torch before 2.11.
    """

    args: STTTrainingArguments

    def __init__(
        self,
        model: STTForVideoClassification,
        args: STTTrainingArguments,
        train_dataset: Rows | ClipDataset | None = None,
        eval_dataset: Rows | Dataset | dict[str, Rows | Dataset] | None = None,
        images: TrainingImages | None = None,
        **kwargs: Any,
    ) -> None:
        class_names, processor = model.config.class_names, kwargs.get("processing_class")
        augment = ClipAugment()
        train_dataset = _as_clips(
            "train_dataset", train_dataset, processor, labels=class_names, augment=augment, seed=args.seed
        )
        if isinstance(eval_dataset, dict):
            eval_dataset = {k: _as_clips(k, rows, processor, labels=class_names) for k, rows in eval_dataset.items()}
        else:
            eval_dataset = _as_clips("eval_dataset", eval_dataset, processor, labels=class_names)
        if train_dataset is not None:
            kwargs.setdefault("processing_class", train_dataset.processor)
        kwargs.setdefault("compute_metrics", compute_metrics(class_names))
        freeze_backbone(model, args)
        self.images = images
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset if images is None else self._mix(train_dataset, images, model),
            eval_dataset=eval_dataset,
            compute_loss_func=self._batch_loss,
            **kwargs,
        )
        self.class_weight = self.image_class_weight = None
        if train_dataset is not None:
            self.class_weight = class_weights(train_dataset.label_ids, len(class_names), args.class_weighting)
        if isinstance(self.train_dataset, ClipsAndImages):
            of_images = self.train_dataset.images.label_ids
            self.image_class_weight = class_weights(of_images, len(class_names), args.class_weighting)
        self.class_means = None
        if args.compact_weight and args.compact_loss == "running_means":
            self.class_means = ClassMeans(len(class_names), model.config.hidden_size)
            self.add_callback(_EndOfStep(self.class_means))
        self._prepare_devices()

    def _mix(
        self, clips: ClipDataset | None, images: TrainingImages, model: STTForVideoClassification
    ) -> ClipsAndImages:
        """Put images beside the clips, and make their head."""
        if clips is None:
            raise ValueError("images are trained on beside clips: give train_dataset, too.")
        names = model.config.class_names
        rows = ClipDataset(images.rows, clips.processor, augment=clips.augment, seed=clips.seed, labels=names)
        self.image_classifier = nn.Linear(model.config.hidden_size, len(names))
        model._init_weights(self.image_classifier)
        return ClipsAndImages(clips, rows)

    def _prepare_devices(self) -> None:
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > self.args.world_size:
            raise ValueError(
                f"{started} processes were started, but each would train alone, as one of {self.args.world_size}. "
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
                    f"torch {torch.__version__} gives other results under FSDP2 than without (seen with 2.7 and 2.8, "
                    "not with 2.11): install torch 2.11 or later, or use ddp.yaml, which suffices for STT's sizes."
                )
            # FSDP's own policy would convert the batch norms' weights to bfloat16 but not their statistics, which
            # torch refuses. Autocast, which accelerate puts around the model anyway, keeps norms in float32.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None

    def _batch_loss(
        self,
        outputs: STTVideoClassifierOutput,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of this part of the global batch; transformers adds up the parts and has counted their labels."""
        if num_items_in_batch is not None and labels.ndim == 2:
            # transformers has counted all numbers of every clip with soft labels.
            num_items_in_batch = num_items_in_batch / labels.shape[1]
        assert outputs.logits is not None and outputs.pooler_output is not None and self.model is not None
        logits: torch.Tensor = outputs.logits
        features: torch.Tensor = outputs.pooler_output
        image_loss: torch.Tensor | float = 0.0
        if self.images is not None and self.model.training:
            assert num_items_in_batch is not None  # transformers counts the labels of all training batches
            chosen = is_image(labels, logits.shape[1])
            image_loss = self._image_loss(features[chosen], labels[chosen], num_items_in_batch)
            logits, features, labels = logits[~chosen], features[~chosen], labels[~chosen]
            labels = labels if labels.ndim == 1 else labels[:, : logits.shape[1]]
        if self.class_means is not None and self.model.training:
            self.class_means.add(features, labels)
        return self._loss(logits, features, labels, num_items_in_batch) + image_loss

    def _image_loss(self, features: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the images' own head; zero, but part of the graph, where a micro-batch has no image."""
        model: Any = self._whole_model()
        head = model.image_classifier
        logits = head(features)
        return compact_softmax_cross_entropy(
            logits,
            features,
            head.weight,
            image_classes(labels, logits.shape[1]),
            compact_weight=0.0,
            label_smoothing=self.args.label_smoothing_factor,
            class_weight=self.image_class_weight,
            num_items=num_items,
        )

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
            self._whole_model().classifier.weight.to(logits.device),
            labels,
            compact_weight=self.args.compact_weight,
            compact_loss=self.args.compact_loss,
            class_means=self.class_means,
            label_smoothing=self.args.label_smoothing_factor,
            class_weight=self.class_weight,
            num_items=num_items,
        )

    def _whole_model(self) -> STTForVideoClassification:
        """The model, with the parameters outside the blocks gathered where FSDP2 has sharded them."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if isinstance(model, FSDPModule):
            model.unshard()  # does nothing where they are gathered already
        return model

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As in transformers, after the model's temperature and threshold, fitted to other weights, are reset."""
        model: Any = self.model
        reset_calibration(model.config)
        if self.images is None:
            return super().train(*args, **kwargs)
        # Part of the model while it trains: processes then average its gradients, and checkpoints hold it.
        model.image_classifier = self.image_classifier.to(self.args.device)
        try:
            return super().train(*args, **kwargs)
        finally:
            del model.image_classifier

    def compute_loss(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, which puts the whole model into training mode; frozen modules are taken out of it."""
        if self.args.freeze_backbone:
            self.accelerator.unwrap_model(model).stt.backbone.eval()
        if self.args.batch_norm == "frozen":
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return super().compute_loss(model, *args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in transformers; `eval_dataset` may be rows, or several data sets by name."""
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self._clips_of(name, each) for name, each in eval_dataset.items()}
        elif not isinstance(eval_dataset, str):  # the name of one that the Trainer has
            eval_dataset = self._clips_of("eval_dataset", eval_dataset)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As in transformers; `test_dataset` may be rows."""
        clips: Any = self._clips_of("test_dataset", test_dataset)
        return super().predict(clips, *args, **kwargs)

    def _clips_of(self, name: str, dataset: Any) -> ClipDataset | None:
        model: Any = self.model
        processor: Any = self.processing_class
        return _as_clips(name, dataset, processor, labels=model.config.class_names)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in transformers, but the loss is the mean over clips; its own is a mean over batches, some padded.

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
        """Copy the main process's batch-norm statistics to all: each process has seen other clips in training."""
        if self.args.world_size > 1:
            assert self.model is not None
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    for statistic in module.buffers():
                        torch.distributed.broadcast(statistic, src=0)

    def _load_best_model(self) -> None:
        """As in transformers, but refuse a missing or incomplete model: transformers warns and goes on with the last.

        Its own would also pass over the weights of frame encoders, see `_save`.
        """
        best = Path(self.state.best_model_checkpoint or "")
        if not best.is_dir():
            raise FileNotFoundError(
                f"{best} is not on this machine. Several machines need an output_dir that they share: copy the "
                'checkpoints to one, and start again with resume_from_checkpoint="last".'
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_weights(best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As in transformers, but every weight must be there."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_weights(Path(resume_from_checkpoint), model)

    def _load_weights(self, checkpoint: Path, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        assert model is not None
        weights = read_weights(checkpoint)
        if not weights:
            raise ValueError(f"{checkpoint} holds no weights in safetensors files: name a whole checkpoint.")
        if weights.keys() != model.state_dict().keys():
            differing = sorted(weights.keys() ^ model.state_dict().keys())
            raise ValueError(
                f"{checkpoint} does not hold the weights of this training's model: {len(differing)} differ, such as "
                f"{', '.join(differing[:3])}. Resume with the options and the version that it was started with."
            )
        model.load_state_dict(weights)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in transformers, but checkpoints name weights as the model does.

        `save_pretrained` writes those of frame encoders by older names, which `from_pretrained` translates and the
        Trainer does not: it would resume without them. Finished models keep the older names, for other versions.
        Under FSDP2 transformers would save torch's code with a model whose class torch has replaced.
        """
        if isinstance(self.model, FSDPModule):
            sharded, own = type(self.model), STTForVideoClassification
            sharded.__module__, sharded.__name__ = own.__module__, own.__name__
        model: Any = self.model
        folder = Path(output_dir or str(self.args.output_dir))
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            with _own_names(model):
                super()._save(output_dir, state_dict)
        else:
            super()._save(output_dir, state_dict)

    def create_model_card(self, *args: Any, model_name: str | None = None, **kwargs: Any) -> None:
        """Write the card as README.md of the output folder, in place of transformers' generic one.

        It is generated from results.json if there is one (see `run_fold`); otherwise it claims no result. Of
        transformers' arguments only `model_name` is used: everything else is known.
        """
        if self.is_world_process_zero():
            _hub_room().write_trainer_card(self, model_name or Path(str(self.args.output_dir)).absolute().name)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Publish the output folder: one with results.json as `stt publish` does, any other as transformers does.

        Returns:
            The [`Publication`] of a folder with results.json, else what transformers returns.
        """
        token = token or self.args.hub_token
        private = bool(self.args.hub_private_repo if private is None else private)
        if self.is_world_process_zero() and (Path(str(self.args.output_dir)) / RESULTS_FILE).is_file():
            options = {"message": commit_message, "token": token, "private": private}
            revision = revision or self.args.hub_revision
            return _hub_room().publish(str(self.args.output_dir), self._repo_id(token), revision=revision, **options)
        return super().push_to_hub(commit_message, blocking, token, revision, private, **kwargs)

    def _repo_id(self, token: str | None) -> str:
        name = self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name
        return name if "/" in name else f"{HfApi(token=token).whoami()['name']}/{name}"

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.class_means is not None and self.args.should_save:
            save_file(self.class_means.state_dict(), Path(output_dir) / MEANS_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.class_means is not None and checkpoint is not None:
            self.class_means.load_state_dict(load_file(Path(checkpoint) / MEANS_FILE))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> ClipSampler | MixedSampler:
        sampler = self._make_sampler(self.train_dataset if train_dataset is None else train_dataset)
        self.callback_handler.pop_callback(SamplerEpoch)
        self.add_callback(SamplerEpoch(sampler))
        return sampler

    def _make_sampler(self, drawn_from: Any) -> ClipSampler | MixedSampler:
        args = self.args
        multiple_of = self._train_batch_size * args.world_size if args.world_size > 1 else 1
        seed = args.seed if args.data_seed is None else args.data_seed
        options: dict[str, Any] = {"seed": seed, "class_balanced": args.class_balanced_sampler}
        if isinstance(drawn_from, ClipsAndImages):
            assert self.images is not None
            clips = ClipSampler(drawn_from.clips.label_ids, **options)
            images = ClipSampler(drawn_from.images.label_ids, **options)
            return MixedSampler(clips, images, self.images.exact_share, multiple_of)
        assert isinstance(drawn_from, ClipDataset)
        return ClipSampler(drawn_from.label_ids, multiple_of=multiple_of, **options)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All parameters: the recipe's SGD decays biases and norms too, which transformers would leave out."""
        return [name for name, _ in model.named_parameters()]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in transformers, with the frame encoder's own learning rate (`backbone_learning_rate`)."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        rate = self.args.backbone_learning_rate
        if rate is None or not is_new:
            return optimizer
        trained: Any = self.model if model is None else model
        backbone = {id(weight) for name, weight in trained.named_parameters() if "stt.backbone." in f".{name}"}
        for group in list(optimizer.param_groups):
            parts = {own: [w for w in group["params"] if (id(w) in backbone) == own] for own in (True, False)}
            group["params"] = parts[False]
            if parts[True]:
                optimizer.add_param_group({**group, "params": parts[True], "lr": rate})
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As in transformers, but a constant rate decays in steps of epochs (`lr_decay_epochs`)."""
        args = self.args
        if self.lr_scheduler is None and args.lr_scheduler_type == "constant" and args.lr_decay_epochs:
            assert self.optimizer is not None
            draws = len(self._make_sampler(self.train_dataset))
            batches = math.ceil(draws / (self._train_batch_size * args.world_size))
            updates = math.ceil(batches / args.gradient_accumulation_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.StepLR(  # type: ignore[assignment]
                optimizer or self.optimizer, args.lr_decay_epochs * updates, gamma=args.lr_decay_factor
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)


class _EndOfStep(TrainerCallback):
    """Updates the class means when all micro-batches of a step are done."""

    def __init__(self, class_means: ClassMeans) -> None:
        self.class_means = class_means

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.class_means.end_step(args.device)


@contextmanager
def _own_names(model: PreTrainedModel) -> Iterator[None]:
    """Let `save_pretrained`, which transformers calls without options, write weights by the model's own names."""
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.save_pretrained


def _hub_room() -> ModuleType:
    """Import `modeling_stt.hub` only when needed: it imports this package, so an import above would be circular."""
    return import_module(f"{__package__.rpartition('.')[0]}.hub")


def freeze_backbone(model: STTForVideoClassification, args: STTTrainingArguments) -> None:
    """Leave the frame encoder out of training where the arguments say so.

    Raises:
        ValueError: For an encoder with adapters, which would be frozen too.
    """
    if not args.freeze_backbone:
        return
    if has_adapters(model):
        raise ValueError(
            "freeze_backbone=True would freeze the adapters of lora_rank as well. They leave the encoder's own "
            "weights as they are, too: choose one of the two."
        )
    model.stt.backbone.requires_grad_(False)


def _as_clips(
    name: str, dataset: Any, processor: STTVideoProcessor | None, *, labels: list[str], **options: Any
) -> ClipDataset | None:
    """Make a `ClipDataset` of rows; one that is there already must have the model's classes."""
    if dataset is None:
        return None
    if isinstance(dataset, ClipDataset):
        if dataset.class_names is not None and list(dataset.class_names) != labels:
            raise ValueError(
                f"{name} has the classes {list(dataset.class_names)}, the model has {labels}. Give "
                "ClipDataset(labels=…) the model's, or make the model with those of the data."
            )
        return dataset
    if isinstance(dataset, Mapping) or not isinstance(dataset, datasets.Dataset | Sequence):
        raise TypeError(
            f"{name} is a {type(dataset).__name__}; expected rows such as load_dataset(…, split="
            f'"{name.removesuffix("_dataset")}") gives, or a ClipDataset.'
        )
    if processor is None:
        raise TypeError(
            f"{name} is a {type(dataset).__name__} of rows: give processing_class=STTVideoProcessor(…), which makes "
            "clips of them, or a ClipDataset."
        )
    return ClipDataset(dataset, processor, labels=labels, **options)
