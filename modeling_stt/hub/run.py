"""Reading of a finished run, with checks that its results belong to its weights, classes and settings."""

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
_NOT_COMPARED = ("num_parameters", "transformers_version", "face_crop", "temperature", "min_score", "logit_bias")


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: the weights of one fold and their results.

    Args:
        root: Folder of the run; for a cross-validation, the folder that contains its folds.
        folder: Folder of the weights.
        results: results.json of these weights.
        config: Configuration of the model.
        processor: Processor that makes its clips.
        cross_validation: Summary of all folds; None for a single run.
        picture: Picture of the confusion matrix, if it exists.
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
    """Read a folder of train.py or cross_validate.py, and refuse one whose parts do not belong together.

    Args:
        folder: The `--output_dir` of the run.
        fold: Fold of a cross-validation whose weights are meant; the first one by default.

    Returns:
        [`TrainedRun`].

    Raises:
        FileNotFoundError: For a missing folder, results, weights, configuration, processor or code.
        ValueError: For results that contradict themselves, belong to other weights, classes or settings than the
            folder's, contain a number that is not finite, or do not name their weights; for weights in pickles.
    """
    folder = Path(folder)
    results = read_results(folder)
    if "per_fold" not in results:
        if fold not in (None, results.get("fold")):
            raise ValueError(f"{folder} contains a run of fold {results.get('fold')}, not of fold {fold}.")
        return _with_weights(folder, folder, results)
    summary, files = _read_folds(folder, results)
    fold = min(files) if fold is None else fold
    if fold not in files:
        raise ValueError(f"{folder} has no finished fold {fold}, only {', '.join(map(str, files))}.")
    return _with_weights(folder, files[fold].parent, summary.fold_results[fold], summary, files)


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results.json of a folder.

    Raises:
        FileNotFoundError: If there is no such folder, or it has none.
        ValueError: If it is not of a run, contains a number that is not finite, or scores that its own confusion
            matrix does not give.
    """
    path = folder / RESULTS_FILE
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: give the output folder of a training.")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {RESULTS_FILE}: only an evaluated model can be published. examples/train.py and "
            "examples/cross_validate.py write it when they finish."
        )

    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{path} contains {number}, which is not a result: find out what went wrong in that run.")

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, parse_float=finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    scores = "pooled" if isinstance(results, dict) and "per_fold" in results else "test"
    if not isinstance(results, dict) or results.get("format") != 1 or scores not in results:
        raise ValueError(f"{path} is not of a run: expected the format 1 of train.py or cross_validate.py.")
    _check_scores(path, results, results[scores])
    return results


def _check_scores(path: Path, results: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Refuse scores that are not those of their confusion matrix."""
    counted = score_counts(scores["confusion_matrix"], results["classes"]).to_dict()
    wrong = [name for name, value in counted.items() if not _alike(scores.get(name), value)]
    if wrong:
        raise ValueError(
            f"{path} contradicts itself: {wrong[0]} is {scores.get(wrong[0])} there, and {counted[wrong[0]]} by its "
            "confusion matrix. Publish results as they were written."
        )


def _alike(written: Any, counted: Any) -> bool:
    if isinstance(counted, list):
        return isinstance(written, list) and len(written) == len(counted) and all(map(_alike, written, counted))
    if isinstance(counted, float):
        return isinstance(written, int | float) and math.isclose(written, counted, abs_tol=1e-9)
    return written == counted


def _read_folds(folder: Path, written: dict[str, Any]) -> tuple[CrossValidation, dict[int, Path]]:
    """Read the folds of a cross-validation; their summary must be what its results.json contains."""
    files = {fold: folder / f"fold_{fold}" / RESULTS_FILE for fold in written["finished_folds"]}
    results = {fold: read_results(path.parent) for fold, path in files.items()}
    summary = summarize_folds(results, sorted([*written["finished_folds"], *written["missing_folds"]]))
    counted = json.loads(json.dumps(summary.to_dict()))
    if counted != written:
        differing = [name for name in counted.keys() | written.keys() if counted.get(name) != written.get(name)]
        raise ValueError(
            f"{folder / RESULTS_FILE} is not the summary of its folds: it differs in {', '.join(sorted(differing))}. "
            "Run cross_validate.py once more with the same options: it reuses finished folds."
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
            raise FileNotFoundError(f"{folder} has no {name}: expected the output folder of train.py.")
    config, processor = STTConfig.from_pretrained(folder), STTVideoProcessor.from_pretrained(folder)
    _check_settings(folder, results, config, processor)
    _check_weights(folder, results)
    picture = root / "confusion.png"
    return TrainedRun(
        root, folder, results, config, processor, summary, picture if picture.is_file() else None, fold_files or {}
    )


def _check_settings(folder: Path, results: dict[str, Any], config: STTConfig, processor: STTVideoProcessor) -> None:
    """Refuse settings other than those evaluated, such as reordered classes or different frame sampling."""
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
            f"{'; '.join(differing)}, where 'there' means the results. Publish a run as training left it."
        )


def _check_weights(folder: Path, results: dict[str, Any]) -> None:
    """Refuse weights other than those evaluated, not finite, or in a format that runs code when read."""
    weights = read_weights(folder)
    if not weights:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        found = f"; {', '.join(pickles)} may run any code when read, so they are not published" * bool(pickles)
        raise FileNotFoundError(f"{folder} has no model.safetensors{found}. Save the model with save_pretrained.")
    evaluated = results.get("sha256_of_weights")
    if evaluated is None:
        raise ValueError(
            f"{folder / RESULTS_FILE} does not name the weights of its scores (sha256_of_weights), so they may be of "
            "others. Runs write it since version 0.1; run the training again."
        )
    if evaluated != (found := hash_weights(weights)):
        raise ValueError(
            f"{folder / RESULTS_FILE} is of other weights than those beside it: SHA-256 {evaluated[:12]}… was "
            f"evaluated, {found[:12]}… lies there."
        )
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"The weights in {folder} are not finite ({broken[0]}): that run went wrong.")
