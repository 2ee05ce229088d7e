"""Output folders of train.py and cross_validate.py, made without training: small models, fixed scores."""

import json
from pathlib import Path
from typing import Any

from helpers.models import NAMES, make_processor, make_scorer
from modeling_stt import STTForVideoClassification, STTVideoProcessor
from modeling_stt.training import hash_weights, summarize_folds
from modeling_stt.training.metrics import score_counts
from modeling_stt.training.plots import plot_confusion_matrix
from modeling_stt.training.results import write_results

COUNTS = {1: [[8, 1, 1], [2, 5, 0], [0, 1, 2]], 2: [[6, 3, 1], [1, 6, 0], [1, 1, 1]]}
ENVIRONMENT = {
    **{"python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1", "transformers": "5.23.0", "datasets": "5.2.0"},
    **{"accelerate": "1.15.0", "av": "18.1.0", "numpy": "2.4.6", "sha256_of_code": "0123", "git_sha": None},
    **{"platform": "Linux", "processor": "Some CPU", "num_cpus": 8, "gpus": ["Some GPU"], "num_processes": 1},
    "command": "/home/jane/stt/examples/train.py --data_dir=/home/jane/DFEW --output_dir=runs/dfew_fold_1",
}


def make_results(model: STTForVideoClassification, processor: STTVideoProcessor, fold: int) -> dict[str, Any]:
    """Make the results.json of a fold with invented scores."""
    test = score_counts(COUNTS[fold], NAMES).to_dict() | {"loss": 0.8, "intra_distance": 0.3, "inter_distance": 0.9}
    part = {name: sum(row) for name, row in zip(NAMES, COUNTS[fold], strict=True)}
    whole = {"happy": 40, "sad": 30, "angry": 12}
    train = {name: whole[name] - part[name] for name in NAMES}
    epoch = {"epoch": 3.0, "step": 30, "evaluation": None}
    return {
        **{"format": 1, "dataset": "dfew", "data_options": {}, "synthetic": False, "fold": fold},
        **{"configuration": f"fold_{fold}", "data_dir": "/home/jane/my data/DFEW", "classes": NAMES},
        "start": {"model": None, "backbone_weights": None, "sha256_of_weights": None},
        "clips": {
            name: {"per_class": counts, "sha256_of_ids": f"{name} {fold}"}
            for name, counts in (("train", train), ("test", part))
        },
        "model": json.loads(json.dumps(model.config.to_diff_dict())) | {"num_parameters": model.num_parameters()},
        "processor": json.loads(processor.to_json_string()),
        "protocol": {
            **{"selection": "last", "selection_means": "last epoch, on the whole training fold"},
            **{"select_by": None, "validation_fraction": None},
        },
        "recipe": {
            **{"compact_weight": 0.1, "class_weighting": "none", "num_train_epochs": 3.0, "optim": "sgd"},
            **{"optim_args": "momentum=0.9", "learning_rate": 0.01, "lr_scheduler_type": "constant"},
            **{"weight_decay": 0.0001, "seed": 42, "clips_per_step": 32},
            "augment": {"scale": [0.08, 1.0], "ratio": [0.75, 1.33], "flip_probability": 0.5},
        },
        "environment": ENVIRONMENT,
        "verification": {"comparable": True, "failed": [], "warning": []},
        **{"selected": epoch, "last": epoch, "test": test, "train_seconds": 1234.5 + fold, "history": []},
        "sha256_of_weights": hash_weights(model),
    }


def write_run(folder: Path, fold: int = 1, **changes: Any) -> Path:
    """Write the output folder of train.py."""
    model, processor = make_scorer(fold), make_processor()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_results(folder / "results.json", make_results(model, processor, fold) | changes)
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-30").mkdir()
    (folder / "checkpoint-30" / "model.safetensors").write_bytes(b"of another epoch")
    plot_confusion_matrix(COUNTS[fold], NAMES, folder / "confusion.png")
    return folder


def write_folds(folder: Path, **changes: Any) -> Path:
    """Write the output folder of cross_validate.py after two of five folds."""
    results = {}
    for fold in COUNTS:
        written = write_run(folder / f"fold_{fold}", fold, **changes) / "results.json"
        results[fold] = json.loads(written.read_text())
    write_results(folder / "results.json", summarize_folds(results, range(1, 6)).to_dict())
    return folder


def change_results(folder: Path, **changes: Any) -> None:
    """Write other values into a results.json, right or wrong."""
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
