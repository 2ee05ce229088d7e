"""Command line: `python -m dataset_scripts.rendered_faces`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import FRAMES_PER_SECOND
from .world import MARGIN
from .writer import BALANCES, write_rendered_dfew


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `write_rendered_dfew`."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.rendered_faces",
        description="Write rendered moving faces in DFEW's on-disk layout. For a sheet of faces see "
        "`python -m dataset_scripts.rendered_faces.sheets --help`.",
    )
    parser.add_argument("root", type=Path, help="folder to write; new, empty, or written by this program before")
    parser.add_argument("--people", type=int, default=100, help="people in the splits (default: 100)")
    parser.add_argument("--clips_per_person", type=int, default=5, help="clips of each, on average (default: 5)")
    parser.add_argument("--num_frames", type=int, nargs="+", default=[40], help="frames a clip, or lowest and highest")
    parser.add_argument("--size", type=int, default=112, help="width and height in pixels (default: 112)")
    parser.add_argument("--fps", type=float, default=FRAMES_PER_SECOND, help="frames a second (default: 25)")
    parser.add_argument("--margin", type=float, default=MARGIN, help="of the cut around a face, a share of its side")
    parser.add_argument("--balance", choices=BALANCES, default="neutral", help="shares of the classes")
    parser.add_argument("--order_only", action="store_true", help="fear is surprise backwards and nothing else")
    parser.add_argument("--plain", action="store_true", help="strong expressions in clean, frontal pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")
    parser.add_argument("--no_videos", dest="videos", action="store_false", help="write no Clip/original/*.mp4")
    options = parser.parse_args(arguments)
    if len(options.num_frames) > 2:
        parser.error(f"--num_frames takes one number, or the lowest and the highest, not {len(options.num_frames)}")
    try:
        root = write_rendered_dfew(
            options.root,
            num_clips=options.people * options.clips_per_person,
            clips_per_person=options.clips_per_person,
            num_frames=(options.num_frames[0], options.num_frames[-1]),
            image_size=options.size,
            frames_per_second=options.fps,
            margin=options.margin,
            balance=options.balance,
            order_only=options.order_only,
            plain=options.plain,
            seed=options.seed,
            num_workers=options.workers,
            videos=options.videos,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"Rendered faces (no real person, no DFEW data) are in {root}")


if __name__ == "__main__":
    main()
