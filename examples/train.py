"""Train STT on one fold of a data set, choose an epoch on validation, score it once on the test fold.

    accelerate launch examples/train.py --dataset dfew --data_dir DFEW --fold 1 --output_dir runs/dfew_fold_1

All options have defaults, those of the recipe of the paper's authors as far as it is known, written out in
recipes/dfew.yaml. `--recipe FILE` reads others from such a file; options on the command line win over it. Works in one
process or many; `--bf16 True` saves memory; `--resume_from_checkpoint last` resumes an interrupted run. Writes the
model, its checkpoints, results.json and confusion.png.
"""

from modeling_stt.processes import end_with_launcher, run_program

if __name__ == "__main__":
    end_with_launcher()  # before the imports that take seconds: the launcher may be killed meanwhile

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from dataset_scripts import BUILDERS, configurations, load_dataset
from dataset_scripts.clip_folder import ClipFolderConfig, scan_folder
from dataset_scripts.rendered_faces import MARKER as SYNTHETIC_MARKER
from dataset_scripts.verify import config_class, own_options, verify
from modeling_stt.timeline import FaceCrop
from modeling_stt.timeline.crops import CONVENTION
from modeling_stt.training import FoldRows, FoldRun, TrainingImages, match_images, run_fold
from modeling_stt.training.data import (
    builder_options,
    check_dataset,
    choose_configuration,
    describe_verification,
    lies_in_marked_tree,
    split_rows,
)
from modeling_stt.training.options import RunArguments, fold_protocol, parse_arguments, read_augment, read_object
from modeling_stt.training.report import report_fold
from modeling_stt.training.start import build_model, describe_start, note_face_crop, warn_of_learning_rate


def train(arguments: Sequence[str]) -> FoldRun:
    """Run one fold as the command line says."""
    run, args = parse_arguments(arguments, __doc__)
    set_seed(args.seed)

    augment = read_augment(run)

    # The data: one process prepares them, the others read what it left in the cache.
    check_dataset(run, BUILDERS)
    configuration = choose_configuration(run, configurations(run.dataset))
    options = builder_options(run, own_options(config_class(run.dataset)))
    with args.main_process_first(desc="preparing the data set"):
        rows = load_rows(run, configuration, options)
        images = load_images(run, rows.class_names)
        is_verified = run.verify_data and args.process_index == 0
        verification = verify_rows(run, configuration, options) if is_verified else None

    # The model: a new one, or a trained one with a head for the classes of the data.
    model, processor = build_model(run, rows.class_names)
    note_face_crop(processor, read_face_crop(run))
    warn_of_learning_rate(run, args)

    # Training, choice of the epoch, test, results.json.
    finished = run_fold(
        model,
        processor,
        rows,
        args,
        fold_protocol(run),
        augment=augment,
        images=images,
        verification=verification,
        about={
            "dataset": run.dataset,
            "data_options": options,
            "face_crop": processor.face_crop,
            "synthetic": lies_in_marked_tree(rows.train[0], SYNTHETIC_MARKER),
            "fold": run.fold,
            "subset": None if run.fold is None else run.configuration,
            "configuration": configuration,
            "data_dir": str(Path(run.data_dir).expanduser().resolve()),
            "start": describe_start(run, model),
        },
    )
    if args.process_index == 0:
        report_fold(finished, Path(str(args.output_dir)))
    return finished


def load_rows(run: RunArguments, configuration: str, options: dict[str, Any]) -> FoldRows:
    """Load the rows of the fold from the copy on disk; errors in that copy end the program with a message."""
    try:
        rows: Any = load_dataset(run.dataset, configuration, data_dir=run.data_dir, **options)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return split_rows(run.dataset, rows)


def load_images(run: RunArguments, class_names: Sequence[str]) -> TrainingImages | None:
    """List the images to train on beside the clips: those of `train`, or all where there are no splits."""
    if run.image_dir is None:
        return None
    try:
        config = ClipFolderConfig(data_dir=run.image_dir, images=True, classes=run.image_classes)
        found = scan_folder(config.root, images=True, classes=config.class_of_folder())
        rows = [
            {"clip_id": image.clip_id, "label": image.class_name, "frames": [image.path]}
            for image in found
            if image.split in (None, "train")
        ]
        return TrainingImages(match_images(rows, class_names), run.image_share, str(config.root))
    except (OSError, ValueError) as error:
        raise SystemExit(f"--image_dir, --image_classes or --image_share: {error}") from error


def verify_rows(run: RunArguments, configuration: str, options: dict[str, Any]) -> dict[str, Any]:
    """Check whether scores on this copy can be compared with papers, for results.json."""
    report = verify(run.dataset, run.data_dir, configurations=[configuration], **options)
    return describe_verification(report.comparable, report.checks)


def read_face_crop(run: RunArguments) -> dict[str, Any] | None:
    """Read how the faces were cropped, from a given file or the one that `stt crop` left with the clips."""
    file = Path(run.data_dir).expanduser() / CONVENTION if run.face_crop is None else Path(run.face_crop)
    if run.face_crop is None and not file.is_file():
        return None
    return FaceCrop.from_dict(read_object("face_crop", file.read_text(encoding="utf-8"))).to_dict()


if __name__ == "__main__":
    run_program(train)
