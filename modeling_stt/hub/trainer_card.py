"""The card of a model that was trained with `STTTrainer` but not by `run_fold`: it claims no result."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..training.results import RESULTS_FILE
from ..training.trainer import STTTrainer
from .card import TEMPLATE, make_card
from .run import read_run

_TEXT = """---
{metadata}
---

# {name}

An STT (Spatio-Temporal Transformer, arXiv 2205.04749) that classifies facial expressions in clips cropped to one face.

> **No result is claimed.** The model was trained with `STTTrainer` alone. How its evaluation clips were chosen, and
> whether they chose the model, is not recorded. `run_fold` and `examples/train.py` set test clips apart and record it.

- **Classes**, in the order of the logits: {classes}.
- **Clips trained on:** {num_clips}.
- **Trained for:** {trained}.
- **Loss:** cross entropy + {compact_weight:g} × the compact term `{compact_loss}`.
- **Optimiser:** {optim}, learning rate {learning_rate:g}.
- **Parameters:** {num_parameters:,}.

## Last evaluation

{evaluation}

## {prohibited}
"""


def write_trainer_card(trainer: STTTrainer, repo_id: str) -> Path:
    """Write the card of a trained model as README.md of the output folder.

    A folder with results.json gets the card that is generated from it; any other gets one that claims no result.

    Args:
        trainer: Trainer that has trained and saved its model in the output folder.
        repo_id: `user/name` on the Hub.
    """
    folder = Path(str(trainer.args.output_dir))
    text = make_card(read_run(folder), repo_id) if (folder / RESULTS_FILE).is_file() else _unscored(trainer, repo_id)
    card = folder / "README.md"
    card.write_text(text, encoding="utf-8")
    return card


def _unscored(trainer: STTTrainer, repo_id: str) -> str:
    args, config = trainer.args, trainer.accelerator.unwrap_model(trainer.model).config
    tags = ["stt", "facial-expression-recognition"]
    metadata = ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=tags)
    clips: Any = trainer.train_dataset
    sections = TEMPLATE.read_text(encoding="utf-8").split("\n## ")
    return _TEXT.format(
        metadata=metadata.to_yaml(),
        name=repo_id.split("/")[-1],
        classes=", ".join(f"{i} {name}" for i, name in enumerate(config.class_names)),
        num_clips="not recorded" if clips is None else len(clips),
        trained=f"{trainer.state.epoch or 0:g} epochs, {trainer.state.global_step} steps",
        compact_weight=args.compact_weight,
        compact_loss=args.compact_loss,
        optim=getattr(args.optim, "value", args.optim),
        learning_rate=args.learning_rate,
        num_parameters=trainer.accelerator.unwrap_model(trainer.model).num_parameters(),
        evaluation=_last_evaluation(trainer),
        prohibited=next(section for section in sections if section.startswith("Prohibited uses")).rstrip(),
    )


def _last_evaluation(trainer: STTTrainer) -> str:
    evaluations = [entry for entry in trainer.state.log_history if "eval_war" in entry]
    if not evaluations:
        return "The model was not evaluated."
    last = evaluations[-1]
    scores = {name.upper(): 100 * last[f"eval_{name}"] for name in ("war", "uar")}
    shown = ", ".join(f"{name} {value:.2f} %" for name, value in scores.items())
    return f"On the evaluation clips that were given to the Trainer, after epoch {json.dumps(last['epoch'])}: {shown}."
