"""Train and evaluate STT on every fold of a data set, and combine the folds: mean ± spread, all test clips pooled.

    accelerate launch examples/cross_validate.py --dataset dfew --data_dir DFEW --output_dir runs/dfew

Takes all options of train.py (`python examples/train.py --help`) and runs each fold as train.py would alone, into
fold_1, fold_2 … of the output folder. The same command resumes after an interruption: finished folds are kept if they
were run with the same options, data and code, and refused otherwise; an interrupted fold resumes from its last
checkpoint. `--folds 1 2` runs only these folds, and includes those that are finished already; `--configuration
compound` takes MAFW's folds of compound emotions. Writes results.json and confusion.png and prints a table; each
states how many folds it covers, which are missing, and how epochs were chosen.
"""

from modeling_stt.processes import end_with_launcher, run_program

if __name__ == "__main__":
    end_with_launcher()  # before the imports that take seconds: the launcher may be killed meanwhile

from collections.abc import Sequence
from pathlib import Path

from accelerate.utils import release_memory

from dataset_scripts import BUILDERS, configurations, folds
from modeling_stt.training import CrossValidation, summarize_folds
from modeling_stt.training.data import check_dataset
from modeling_stt.training.folds import check_folds, fold_folder, folds_to_visit, parse_folds, read_fold_results
from modeling_stt.training.options import parse_arguments
from modeling_stt.training.report import report_folds
from train import train


def cross_validate(arguments: Sequence[str]) -> CrossValidation | None:
    """Run folds as the command line says, and report them together; None in all processes but the main one."""
    chosen, options = parse_folds(arguments, __doc__)
    run, args = parse_arguments(options)
    if args.resume_from_checkpoint not in (None, "last"):
        raise SystemExit("--resume_from_checkpoint is not needed: each fold resumes from its own last checkpoint.")

    # The folds that the data set has, of the kind asked for.
    check_dataset(run, BUILDERS)
    known, output_dir = folds(run.dataset, run.configuration), Path(str(args.output_dir))
    check_folds(run, known, configurations(run.dataset))

    # Each is trained as train.py would alone; finished ones are taken as they are.
    for fold in folds_to_visit(output_dir, known, chosen):
        folder = fold_folder(output_dir, fold)
        train([*options, f"--fold={fold}", f"--output_dir={folder}", "--resume_from_checkpoint=last"])
        release_memory()  # before the next fold's model comes

    if args.process_index != 0:
        return None
    summary = summarize_folds(read_fold_results(output_dir, known), known)
    report_folds(summary, output_dir)
    return summary


if __name__ == "__main__":
    run_program(cross_validate)
