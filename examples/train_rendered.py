"""Make the weights that the package ships, from rendered people alone: `make weights`.

    python examples/train_rendered.py --output_dir runs/rendered --people 2500

Renders clips of people, pre-trains the backbone on their single frames, whose expression and action units the renderer
knows, and trains STT on the clips of fold 1 with recipes/rendered.yaml; `--output_dir/stt` is then a run like any
other. The people of validation and test are in neither training. Started again, it resumes where it was interrupted.
Options that are not listed here go to train.py: `--bf16 True` is faster on CPUs and GPUs that compute in bfloat16.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts import load_dataset
from dataset_scripts.rendered_faces import add_truth, write_rendered_dfew
from dataset_scripts.rendered_faces.motion import HIDDEN, SHOWN
from modeling_stt import STTConfig
from modeling_stt.timeline import FaceCrop
from modeling_stt.timeline.crops import CONVENTION
from modeling_stt.training.frames import WEIGHTS_FILE, FrameRecipe, load_frames, pretrain_backbone
from modeling_stt.training.options import RunArguments, parse_arguments, read_augment, read_object
from modeling_stt.training.protocol import split_validation
from train import train

RECIPE = Path(__file__).parent / "recipes" / "rendered.yaml"
CLIPS_PER_PERSON = 4
SIZE = 80  # larger than the model's frames: the random crop in training then enlarges nothing
MARGIN = -0.05  # closer than FaceCrop's own: of 64 px, the face has 47 from ear to ear instead of 35
FRAMES_PER_SECOND = 4  # the 8 frames of a clip are then the 2 seconds of a timeline's window


def make_weights(arguments: Sequence[str]) -> None:
    """Render, pre-train and train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write, or to resume in")
    parser.add_argument("--people", type=int, default=2500, help=f"people, of {CLIPS_PER_PERSON} clips each")
    parser.add_argument("--frame_epochs", type=int, default=6, help="passes over the single frames")
    parser.add_argument("--workers", type=int, help="processes that render (default: all cores)")
    own, rest = parser.parse_known_args(arguments)
    faces, backbone, stt = (own.output_dir / name for name in ("faces", "backbone", "stt"))
    options = [f"--recipe={RECIPE}", f"--data_dir={faces}", f"--output_dir={stt}", *rest]
    run, args = parse_arguments(options)
    config = STTConfig(**read_object("model_config", run.model_config))

    render(faces, own.people, config, args.seed, own.workers)
    recipe = FrameRecipe(epochs=own.frame_epochs, style_mixing=0.5, averaging=0.999, seed=args.seed, bf16=args.bf16)
    pretrain(faces, backbone, config, run, recipe)
    options.append(f"--backbone_weights={backbone / WEIGHTS_FILE}")
    train([*options, *(["--resume_from_checkpoint=last"] if stt.is_dir() else [])])


def render(folder: Path, people: int, config: STTConfig, seed: int, workers: int | None) -> None:
    """Render the clips unless that has been done, and note how their faces are cut out."""
    if (folder / CONVENTION).is_file():
        return
    write_rendered_dfew(
        folder,
        num_clips=CLIPS_PER_PERSON * people,
        clips_per_person=CLIPS_PER_PERSON,
        num_frames=config.num_frames,
        image_size=SIZE,
        frames_per_second=FRAMES_PER_SECOND,
        margin=MARGIN,
        balance="footage",
        seed=seed,
        num_workers=workers,
        videos=False,
    )
    # Written last: a tree without it was not finished.
    (folder / CONVENTION).write_text(json.dumps(FaceCrop(size=config.image_size, margin=MARGIN).to_dict()) + "\n")


def pretrain(faces: Path, folder: Path, config: STTConfig, run: RunArguments, recipe: FrameRecipe) -> None:
    """Train the backbone on the frames that train.py trains on, and report on those that it validates on."""
    if (folder / WEIGHTS_FILE).is_file():
        return
    rows = load_dataset("dfew", f"fold_{run.fold}", data_dir=faces, split="train")
    rows = add_truth(rows, faces, ["expression", "level", "action_units"])
    parts = split_validation(rows["clip_id"], rows["label"], run.validation_fraction)
    seen, held_out = (
        load_frames(rows.select(part), config.class_names, config.image_size, HIDDEN, SHOWN) for part in parts
    )
    pretrain_backbone(config, seen, folder, read_augment(run), recipe, held_out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_weights(sys.argv[1:])
