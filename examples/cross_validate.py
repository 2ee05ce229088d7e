"""Train and score STT on every fold of a data set, and put the folds together: mean ± spread, all test clips pooled.

    accelerate launch examples/cross_validate.py --dataset dfew --data_dir DFEW --output_dir runs/dfew

Takes all options of train.py (`python examples/train.py --help`) and runs each fold as train.py would alone, into
fold_1, fold_2 … of the output folder. The same command goes on after an interruption: a finished fold is kept if it
was run with the same options, data and code, else refused; an interrupted one resumes from its last checkpoint.
`--folds 1 2` runs some folds only, and takes in those that were finished before; `--configuration compound` takes
MAFW's folds of compound emotions. Writes results.json and confusion.png
and prints a table; each says how many folds it is of, which are missing, and how epochs were chosen.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from accelerate.utils import release_memory

import dataset_scripts
from modeling_stt.training import CrossValidation, summarize_folds
from modeling_stt.training.protocol import RESULTS_FILE, RUN_FILE
from modeling_stt.training.results import write_results
from train import RunArguments, check_dataset, draw, parse_arguments, run_program, train


def parse_folds(arguments: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """The folds to run, None for all, and the options that are train.py's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--folds", type=int, nargs="+", help="Run these folds only. Default: all that the set has.")
    own, options = parser.parse_known_args(arguments)
    if any(word.split("=")[0] == "--fold" for word in options):
        raise SystemExit("--fold is train.py's: say which folds to run by --folds, or leave it out to run them all.")
    return own.folds, options


def folds_of(run: RunArguments) -> list[int]:
    """The folds that the data set has, of the kind that `--configuration` names."""
    check_dataset(run.dataset)
    folds = dataset_scripts.folds(run.dataset, run.configuration)
    if not folds:
        known = ", ".join(dataset_scripts.configurations(run.dataset))
        raise SystemExit(
            f"There are no folds {run.configuration}_fold_1, … of {run.dataset}, which comes as {known}."
            if run.configuration
            else f"{run.dataset} has no folds but one fixed split: run it by examples/train.py."
        )
    return folds


def folds_to_visit(output_dir: Path, known: Sequence[int], chosen: Sequence[int] | None) -> list[int]:
    """Folds to run or take in: finished, then interrupted ones, for those may be refused before days of training."""
    if unknown := sorted(set(chosen or []) - set(known)):
        raise SystemExit(f"--folds {unknown[0]}: this data set has the folds {', '.join(map(str, known))}.")
    if (output_dir / RUN_FILE).is_file():
        raise SystemExit(f"{output_dir} holds a run of train.py: choose another --output_dir.")

    def lacks(fold: int, file: str) -> bool:
        return not (fold_folder(output_dir, fold) / file).is_file()

    visited = [fold for fold in known if fold in (chosen or known) or not lacks(fold, RESULTS_FILE)]
    return sorted(visited, key=lambda fold: (lacks(fold, RESULTS_FILE), lacks(fold, RUN_FILE), fold))


def fold_folder(output_dir: Path, fold: int) -> Path:
    """Where a fold is run."""
    return output_dir / f"fold_{fold}"


def cross_validate(arguments: Sequence[str]) -> CrossValidation | None:
    """Run folds as the command line says, and report what they come to; None in all processes but the main one."""
    chosen, options = parse_folds(arguments)
    run, args = parse_arguments(options)
    if args.resume_from_checkpoint not in (None, "last"):
        raise SystemExit("--resume_from_checkpoint is not needed: each fold goes on from its own last checkpoint.")
    known, output_dir = folds_of(run), Path(str(args.output_dir))
    for fold in folds_to_visit(output_dir, known, chosen):
        folder = fold_folder(output_dir, fold)
        train([*options, f"--fold={fold}", f"--output_dir={folder}", "--resume_from_checkpoint=last"])
        release_memory()  # before the next fold's model comes
    if args.process_index != 0:
        return None
    finished = {fold: fold_folder(output_dir, fold) / RESULTS_FILE for fold in known}
    results = {fold: json.loads(path.read_text("utf-8")) for fold, path in finished.items() if path.is_file()}
    summary = summarize_folds(results, known)
    report(summary, output_dir)
    return summary


def report(summary: CrossValidation, output_dir: Path) -> None:
    """Write and print what the folds come to, and draw their confusion matrix."""
    write_results(output_dir / RESULTS_FILE, summary.to_dict())
    print(f"\n{summary}")
    draw(summary.pooled.confusion_matrix, summary.pooled.class_names, output_dir, summary.title)


if __name__ == "__main__":
    run_program(cross_validate)
