"""A trained model in its folder, and the results that it is said to have: are they its own?"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..configuration_stt import STTConfig
from ..training.cross_validation import CrossValidation, summarize_folds
from ..training.metrics import score_counts
from ..training.protocol import RESULTS_FILE
from ..training.results import differences
from ..training.weights import hash_weights, read_weights
from ..video_processing_stt import STTVideoProcessor

MODEL_CODE = ("configuration_stt.py", "modeling_stt.py", "video_processing_stt.py", "video_reading_stt.py")
PROCESSOR_FILE = "video_preprocessor_config.json"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")

# Fields of results.json that are not compared with the configuration and the processor: facts of the run, and what
# may be added after training.
_NOT_COMPARED = ("num_parameters", "transformers_version", "face_crop")


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: weights of one fold, and what was measured of them.

    Args:
        root: The folder of the run; of a cross-validation, the one that holds its folds.
        folder: Where the weights lie.
        results: results.json of these weights.
        config: Configuration of the model.
        processor: What makes its clips.
        cross_validation: What all folds come to; None for a run that stands alone.
        picture: Picture of the confusion matrix, where there is one.
        fold_files: Number of each fold of a cross-validation → its results.json.
    """

    root: Path
    folder: Path
    results: dict[str, Any]
    config: STTConfig
    processor: STTVideoProcessor
    cross_validation: CrossValidation | None = None
    picture: Path | None = None
    fold_files: dict[int, Path] = field(default_factory=dict)


def read_run(folder: str | os.PathLike, fold: int | None = None) -> TrainedRun:
    """Read a folder of train.py or cross_validate.py, and refuse it where its parts don't belong together.

    Args:
        folder: What `--output_dir` was.
        fold: Of a cross-validation, the fold whose weights are meant; by default its first.

    Returns:
        [`TrainedRun`].

    Raises:
        FileNotFoundError: For a missing folder, results, weights, configuration, processor or code.
        ValueError: For results that contradict themselves, are of other weights, classes or settings than those that
            lie there, hold numbers that are not finite, or don't say of which weights they are; weights in pickles.
    """
    folder = Path(folder)
    told = read_results(folder)
    if "per_fold" not in told:
        if fold not in (None, told.get("fold")):
            raise ValueError(f"{folder} holds a run of fold {told.get('fold')}, not of fold {fold}.")
        return _with_weights(folder, folder, told)
    summary, files = _read_folds(folder, told)
    fold = min(files) if fold is None else fold
    if fold not in files:
        raise ValueError(f"{folder} has no finished fold {fold}, only {', '.join(map(str, files))}.")
    return _with_weights(folder, files[fold].parent, summary.fold_results[fold], summary, files)


def read_results(folder: Path) -> dict[str, Any]:
    """The results.json of a folder.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: For one that is no run's, holds numbers that are not finite, or scores that its own confusion
            matrix doesn't come to.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {RESULTS_FILE}: only what was scored can be published. examples/train.py and "
            "examples/cross_validate.py write it when they finish."
        )

    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{path} holds {number}, which is no result: find out what went wrong in that run.")

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    try:
        told = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, parse_float=finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    scores = "pooled" if isinstance(told, dict) and "per_fold" in told else "test"
    if not isinstance(told, dict) or told.get("format") != 1 or scores not in told:
        raise ValueError(f"{path} is not of a run: expected what train.py or cross_validate.py write, format 1.")
    _check_scores(path, told, told[scores])
    return told


def _check_scores(path: Path, told: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Refuse scores that are not those of their confusion matrix."""
    counted = score_counts(scores["confusion_matrix"], told["classes"]).to_dict()
    wrong = [name for name, value in counted.items() if not _alike(scores.get(name), value)]
    if wrong:
        raise ValueError(
            f"{path} contradicts itself: {wrong[0]} is {scores.get(wrong[0])} there, and {counted[wrong[0]]} by its "
            "confusion matrix. Publish results as they were written."
        )


def _alike(told: Any, counted: Any) -> bool:
    if isinstance(counted, list):
        return isinstance(told, list) and len(told) == len(counted) and all(map(_alike, told, counted))
    if isinstance(counted, float):
        return isinstance(told, int | float) and math.isclose(told, counted, abs_tol=1e-9)
    return told == counted


def _read_folds(folder: Path, told: dict[str, Any]) -> tuple[CrossValidation, dict[int, Path]]:
    """The folds of a cross-validation, which must come to what its results.json says."""
    files = {fold: folder / f"fold_{fold}" / RESULTS_FILE for fold in told["finished_folds"]}
    results = {fold: read_results(path.parent) for fold, path in files.items()}
    summary = summarize_folds(results, sorted([*told["finished_folds"], *told["missing_folds"]]))
    counted = json.loads(json.dumps(summary.to_dict()))
    if counted != told:
        differing = [name for name in counted.keys() | told.keys() if counted.get(name) != told.get(name)]
        raise ValueError(
            f"{folder / RESULTS_FILE} is not what its folds come to: it differs in {', '.join(sorted(differing))}. "
            "Run cross_validate.py once more with the same options: it takes finished folds as they are."
        )
    return summary, files


def _with_weights(
    root: Path,
    folder: Path,
    results: dict[str, Any],
    summary: CrossValidation | None = None,
    fold_files: dict[int, Path] | None = None,
) -> TrainedRun:
    for name in ("config.json", PROCESSOR_FILE, *MODEL_CODE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: expected the folder of a run, as train.py leaves it.")
    config, processor = STTConfig.from_pretrained(folder), STTVideoProcessor.from_pretrained(folder)
    _check_settings(folder, results, config, processor)
    _check_weights(folder, results)
    picture = root / "confusion.png"
    return TrainedRun(
        root, folder, results, config, processor, summary, picture if picture.is_file() else None, fold_files or {}
    )


def _check_settings(folder: Path, results: dict[str, Any], config: STTConfig, processor: STTVideoProcessor) -> None:
    """Refuse a configuration or a processor that is not the one that was scored: classes swapped, frames cut else."""
    model, clips = (
        {key: value for key, value in results[part].items() if key not in _NOT_COMPARED}
        for part in ("model", "processor")
    )
    there = {"classes": results["classes"], "model": model, "processor": clips}
    own_model, own_clips = config.to_dict(), json.loads(processor.to_json_string())
    here = {
        "classes": config.class_names,
        "model": {key: own_model.get(key) for key in model},
        "processor": {key: own_clips.get(key) for key in clips},
    }
    if differing := differences(there, here):
        raise ValueError(
            f"{folder / RESULTS_FILE} is of another model than the one beside it: they differ in "
            f"{'; '.join(differing)}, there being the results. Publish a run as it was left."
        )


def _check_weights(folder: Path, results: dict[str, Any]) -> None:
    """Refuse weights that are not those that were scored, not finite, or in a format that runs code when read."""
    weights = read_weights(folder)
    if not weights:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        found = f"; {', '.join(pickles)} may run any code when read, so such files are not published" * bool(pickles)
        raise FileNotFoundError(f"{folder} has no model.safetensors{found}. Save the model by save_pretrained.")
    told = results.get("sha256_of_weights")
    if told is None:
        raise ValueError(
            f"{folder / RESULTS_FILE} does not say which weights its scores are of (sha256_of_weights), so nobody can "
            "tell whether they are of these. Runs write it since version 0.1; run the training again."
        )
    if told != (found := hash_weights(weights)):
        raise ValueError(
            f"{folder / RESULTS_FILE} is of other weights than those beside it: SHA-256 {told[:12]}… was scored, "
            f"{found[:12]}… lies there."
        )
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"The weights in {folder} are not finite ({broken[0]}): that run went wrong.")
