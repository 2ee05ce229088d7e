"""The model card, generated from results.json with card_template.md; it claims nothing beyond that file."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from .redaction import redact
from .run import TrainedRun

TEMPLATE = Path(__file__).with_name("card_template.md")
_RESEARCH_ONLY = "Its owners share it for research only, under an agreement; no part may be redistributed."


@dataclass(frozen=True)
class Source:
    """A data set on a card: name, home page, terms of use. `restricted` terms bind the users of the weights, too."""

    name: str
    url: str
    licence: str = _RESEARCH_ONLY
    restricted: bool = True


# By the names of dataset_scripts.
SOURCES = {
    "afew": Source("AFEW", "https://cs.anu.edu.au/few/AFEW.html"),
    "clip_folder": Source("The publisher's own clips", "", "The publisher states their terms.", True),
    "crema_d": Source(
        "CREMA-D",
        "https://github.com/CheyneyComputerScience/CREMA-D",
        "Open Database License 1.0, its contents under the Database Contents License 1.0.",
    ),
    "dfew": Source("DFEW", "https://dfew-dataset.github.io"),
    "ferv39k": Source("FERV39k", "https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html"),
    "mafw": Source("MAFW", "https://mafw-database.github.io/MAFW"),
    "ravdess": Source(
        "RAVDESS", "https://zenodo.org/records/1188976", "CC BY-NC-SA 4.0: not for commercial use, share alike."
    ),
}


def make_card(run: TrainedRun, repo_id: str) -> str:
    """Generate the text of a run's card, README.md of its repository.

    Args:
        run: The run to publish.
        repo_id: `user/name` on the Hub.

    Raises:
        ValueError: For results of an unknown data set, or without a value that the card reports.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    try:
        facts = _facts(run) | {"repo_id": repo_id}
        return template.render(facts, metadata=card_metadata(run, repo_id).to_yaml())
    except (jinja2.UndefinedError, KeyError) as error:
        raise ValueError(f"results.json of {run.folder} lacks a value that the card reports: {error}.") from error


def card_metadata(run: TrainedRun, repo_id: str) -> ModelCardData:
    """Metadata of a run's card: task, tags, licence, and its scores as `model-index`."""
    results, source = run.results, _source(run.results)
    free = results["synthetic"] or not source.restricted
    licence: dict[str, Any] = (
        {"license": "apache-2.0"} if free else {"license": "other", "license_name": f"terms-of-{_slug(source)}"}
    )
    if not free and source.url:
        licence["license_link"] = source.url
    index: dict[str, Any] = {"model-index": eval_results_to_model_index(repo_id.split("/")[-1], _eval_results(run))}
    return ModelCardData(
        **licence,
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["stt", "facial-expression-recognition", "synthetic-faces" if results["synthetic"] else _slug(source)],
        co2_eq_emissions=_emissions(run),
        **index,
    )


def benchmark_entries(run: TrainedRun, benchmark: str) -> list[EvalResultEntry]:
    """Scores in the Hub's own evaluation format, for `.eval_results/`.

    Args:
        run: The run to publish.
        benchmark: Name of the data set on the Hub that keeps the leaderboard, with the tasks `war` and `uar`.

    Raises:
        ValueError: For scores that cannot be compared with those of papers: on synthetic faces, on data that were not
            checked or differ from the published ones, or of some folds only.
    """
    results, summary = run.results, run.cross_validation
    comparable = summary.comparable if summary else (results.get("verification") or {}).get("comparable")
    if results["synthetic"] or not comparable:
        raise ValueError(
            f"These scores are not a result on {benchmark}: they were measured on "
            f"{'synthetic faces' if results['synthetic'] else 'data that are not known to be those of papers'}."
        )
    if results["fold"] is not None and (summary is None or summary.missing):
        raise ValueError(f"A result on {benchmark} needs all folds: run examples/cross_validate.py to its end.")
    scores = {"war": summary.war.mean, "uar": summary.uar.mean} if summary else results["test"]
    notes = _sentence_of_protocol(results)
    return [
        EvalResultEntry(dataset_id=benchmark, task_id=name, value=_per_cent(scores[name]), notes=notes)
        for name in ("war", "uar")
    ]


def _facts(run: TrainedRun) -> dict[str, Any]:
    """Values for the template; tokens and folders of the training machine are removed."""
    results, summary = redact(run.results), run.cross_validation
    processor = run.processor.to_dict()
    folds = summary.fold_results if summary else {results["fold"]: results}
    return {
        **{name: results[name] for name in ("classes", "synthetic", "fold", "protocol", "recipe", "clips")},
        **{name: results[name] for name in ("environment", "data_options", "start")},
        "num_parameters": results["model"]["num_parameters"],
        "config": run.config,
        "processor": processor,
        "segments": -(-run.config.num_frames // processor["frames_per_segment"]),
        "face_crop": run.processor.face_crop,
        "data": _source(results),
        "dataset_name": _dataset_name(results),
        "comparable": summary.comparable if summary else (results["verification"] or {}).get("comparable"),
        "folds": results["fold"] is not None,
        "rows": [_row(fold, measured) for fold, measured in folds.items()],
        "cross_validation": summary,
        "pooled": summary.pooled if summary else None,
        "scored": summary.pooled.to_dict() if summary else results["test"],
        "picture": run.picture is not None,
        "sentence_of_protocol": _sentence_of_protocol(results),
        "sentence_of_verification": _sentence_of_verification(results["verification"]),
        "hardware": _hardware(results["environment"]),
        "training_time": _training_time(list(folds.values())),
        "carbon": _carbon(run),
        "calibration": results.get("calibration"),
        "audit": results.get("audit"),
        "images": results.get("images"),
    }


def _row(fold: int | None, results: Mapping[str, Any]) -> dict[str, Any]:
    test = results["test"]
    part = results["configuration"] if fold is None else fold
    epochs = f"{results['selected']['epoch']:g} of {results['last']['epoch']:g}"
    return {name: test[name] for name in ("war", "uar", "recalls", "num_clips")} | {"name": part, "epoch": epochs}


def _source(results: Mapping[str, Any]) -> Source:
    if results["dataset"] not in SOURCES:
        raise ValueError(f"The data set {results['dataset']} is unknown: add it to SOURCES of modeling_stt.hub.card.")
    return SOURCES[results["dataset"]]


def _slug(source: Source) -> str:
    return source.name.lower().replace("'", "").replace(" ", "-")


def _dataset_name(results: Mapping[str, Any]) -> str:
    name = " ".join(filter(None, [_source(results).name, results.get("subset")]))
    if results["synthetic"]:
        return f"synthetic faces in the layout of {name} (rendered; no data of {name})"
    comparable = (results["verification"] or {}).get("comparable")
    return f"a copy of {name} that differs from the one that papers report on" if comparable is False else name


def _eval_results(run: TrainedRun) -> list[EvalResult]:
    """Scores of the weights' own fold and, for a cross-validation, the mean of the folds, under different names."""
    results, summary = run.results, run.cross_validation
    how = ", epoch chosen on the test fold" if results["protocol"]["selection"] == "test" else ""
    measured = [(results["configuration"], "", results["test"]["war"], results["test"]["uar"])]
    if summary:
        measured.append(
            (summary.coverage, f", mean of {summary.war.num_folds} folds", summary.war.mean, summary.uar.mean)
        )
    return [
        EvalResult(
            task_type="video-classification",
            task_name="Facial expression recognition",
            # Scores on synthetic faces never carry the name of the data set whose layout the faces have.
            dataset_type="synthetic-faces" if results["synthetic"] else results["dataset"],
            dataset_name=_dataset_name(results),
            dataset_config=part,
            dataset_split="test",
            metric_type=kind,
            metric_name=f"{name}{of_folds}{how} (%)",
            metric_value=_per_cent(value),
        )
        for part, of_folds, war, uar in measured
        for kind, name, value in (("accuracy", "WAR", war), ("recall", "UAR", uar))
    ]


def _per_cent(share: float) -> float:
    return round(100 * share, 2)


def _sentence_of_protocol(results: Mapping[str, Any]) -> str:
    protocol = results["protocol"]
    by = f" (by {protocol['select_by'].upper()})" if protocol["select_by"] else ""
    return f"Epoch: {protocol['selection_means']}{by}."


def _sentence_of_verification(verification: Mapping[str, Any] | None) -> str:
    if verification is None:
        return "not made."
    outcome = {
        True: "the data are those that papers report on.",
        False: "the data are **not** those that papers report on.",
        None: "no published figures exist to compare with.",
    }[verification["comparable"]]
    return " ".join([outcome, *(f"{text}." for text in verification.get("failed", []))])


def _hardware(environment: Mapping[str, Any]) -> str:
    machine = f"{environment['processor']}, {environment['num_cpus']} cores"
    gpus, processes = environment["gpus"], environment["num_processes"]
    hardware = f"{', '.join(gpus)}; {machine}" if gpus else f"{machine}, no GPU"
    return hardware + (f"; {processes} processes" if processes > 1 else "")


def _training_time(folds: list[Mapping[str, Any]]) -> str:
    seconds = [results["train_seconds"] for results in folds]
    if None in seconds:
        return "unknown: the run was interrupted and resumed"
    duration = f"{sum(seconds) / 60:.1f} minutes" if sum(seconds) < 7200 else f"{sum(seconds) / 3600:.1f} hours"
    return duration + (f" for {len(seconds)} folds" if len(seconds) > 1 else "")


def _emissions(run: TrainedRun) -> dict[str, Any] | None:
    """Grams of CO2 equivalent as estimated by codecarbon (`--report_to codecarbon`); None if it did not run."""
    file = run.folder / "emissions.csv"
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))  # a resumed run has several
    grams = round(1000 * sum(float(row["emissions"]) for row in rows), 2)
    return {"emissions": grams, "source": "codecarbon", "geographical_location": rows[-1].get("country_name")}


def _carbon(run: TrainedRun) -> str:
    emissions = _emissions(run)
    if emissions is None:
        return "not measured"
    place = emissions["geographical_location"]
    return f"{emissions['emissions']:g} g CO₂ equivalent, estimated by codecarbon{f' in {place}' if place else ''}"
