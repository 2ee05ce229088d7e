"""The ``stt`` command: arguments in, calls out. What a command needs is imported when it runs."""

import argparse
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from .timeline import Row, Timeline

PICTURES = (".png", ".svg", ".pdf")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stt COMMAND …``.

    Returns:
        The exit status, whose meaning each command's help states; wrong usage exits with 2.
    """
    parser = argparse.ArgumentParser(prog="stt", description="Facial expressions in video.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, help_text) in COMMANDS.items():
        commands.add_parser(name, help=help_text, add_help=False)
    args, rest = parser.parse_known_args(argv)
    try:
        return COMMANDS[args.command][0](rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads the output has enough, as in 'stt timeline … | head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it ends
        return 141


def verify(argv: Sequence[str]) -> int:
    """``stt verify SET DIR``: 0 where numbers from this copy are comparable with papers, 1 where they are not."""
    from dataset_scripts.verify import verify

    parser, options = _verify_parser(argv)
    args = parser.parse_args(argv)
    try:
        report = verify(
            args.set,
            args.data_dir,
            configurations=args.configuration,
            deep=args.deep,
            progress=sys.stderr.isatty(),
            **{name: value for name, value in vars(args).items() if name in options},
        )
        print(report)
        if args.json:
            from .training.results import write_results

            write_results(args.json, report.to_dict())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return int(report.comparable is False)


def _verify_parser(argv: Sequence[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of ``stt verify``, and the options of the builder of the set that ``argv`` names."""
    from dataset_scripts import BUILDERS
    from dataset_scripts.verify import config_class, own_options

    parser = argparse.ArgumentParser(
        prog="stt verify",
        description="Check your copy of a data set: the lists against what is published, and every clip on disk.",
        epilog="Exit status: 0 where no check failed, 1 where numbers would not be comparable with papers, 2 for "
        "wrong usage. 'stt verify SET --help' shows the options of a set.",
    )
    sets = parser.add_subparsers(dest="set", metavar="SET", required=True, help=", ".join(sorted(BUILDERS)))
    own: list[str] = []
    for name in BUILDERS:
        each = sets.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter)
        each.add_argument("data_dir", metavar="DIR", help="folder of your copy")
        each.add_argument("--json", metavar="FILE", help="write the report as JSON, too")
        each.add_argument("--deep", action="store_true", help="decode every frame: takes long")
        each.add_argument(
            "--configuration",
            nargs="+",
            metavar="NAME",
            help="such as fold_1; by default all that counts are published of, else all that this copy comes in",
        )
        if name in argv:  # so that only the builder that is asked for is imported
            config = config_class(name)
            each.description = inspect.getdoc(config)
            # What becomes of missing clips is no question here: they are reported.
            types = {option: hint for option, hint in own_options(config).items() if option != "missing"}
            own += types
            for option, hint in types.items():
                each.add_argument(f"--{option}", default=argparse.SUPPRESS, **_argument(hint))
    return parser, own


def timeline(argv: Sequence[str]) -> int:
    """``stt timeline VIDEO…``: 0 where all videos were read to their end, 1 where one was not."""
    parser = _timeline_parser()
    args = parser.parse_args(argv)
    if args.output is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        parser.error("several processes write one table: --output FILE is needed.")
    if (args.chart or args.annotate) and (args.output or len(args.videos) > 1):
        parser.error("--chart and --annotate picture one video, whose rows are printed: --output is another run.")
    if args.chart:
        _refuse_picture(parser, "--chart", Path(args.chart))
    with _errors_told(parser):
        from .timeline import Timeline, find_videos

        options = ("window_s", "stride_s", "min_face_share", "batch_size", "detector", "detect_fps", "device")
        reader = Timeline(
            args.model,
            dtype=args.dtype,
            thumbnails=args.chart is not None,
            **{name: getattr(args, name) for name in options},
        )
        videos = find_videos(args.videos)
        if args.output:
            return _write_rows(reader, videos, args.output)
        return _print_rows(reader, videos, args.jsonl, args.chart, args.annotate)


def _timeline_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stt timeline",
        description="Who shows which expression when: faces of videos, followed over time and judged by a model.",
        epilog="Exit status: 0 where all videos were read to their end, 1 where one could not be read or is damaged, "
        "2 for wrong usage, 130 for Ctrl-C; a camera or stream is ended by it, with status 0. Many videos are shared "
        "out over processes by 'accelerate launch -m modeling_stt.cli timeline …'; the same command goes on after an "
        "interruption.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="file, folder of files, text file that lists some, http address, "
        "camera (/dev/video0) or live address (rtsp://…)")  # fmt: skip
    add("--model", required=True, help="folder of a trained STT, or its name on the Hub")
    add("--output", metavar="FILE", help="table to write or go on with: .csv, .jsonl or .parquet; else rows are "
        "printed as they come")  # fmt: skip
    add("--jsonl", action="store_true", help="print rows as JSON Lines")
    add("--chart", metavar="FILE", help=f"draw the rows of one video over time: {', '.join(PICTURES)}")
    add("--annotate", metavar="FILE", help="write one video with boxes and labels burnt in: .mp4, .mov or .mkv")
    _add_windows(parser)
    add("--min_face_share", type=float, default=0.5, help="least share of a window's frames with the face (0.5)")
    add("--batch_size", type=int, default=8, help="windows that go through the model at once (default: 8)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the model; "
        "bfloat16 is faster on CPUs that know it, and on GPUs")  # fmt: skip
    add("--device", help="such as cuda:1 or cpu; by default a GPU if there is one")
    _add_detector(parser)
    return parser


def crop(argv: Sequence[str]) -> int:
    """``stt crop VIDEO…``: 0 where all videos were read to their end, 1 where one was not."""
    parser = _crop_parser()
    args = parser.parse_args(argv)
    num_videos = num_clips = num_errors = 0
    with _errors_told(parser):
        from .timeline import FaceCrop, load_detector, write_crops

        convention = FaceCrop(margin=args.margin, align=args.align, size=args.size, min_side=args.min_side)
        options = {name: getattr(args, name) for name in ("detect_fps", "min_s", "main_face")}
        detector = load_detector(args.detector)
        for video, clips, reason in write_crops(args.videos, args.output, convention, detector, **options):
            seconds = ", ".join(f"{clip.start_s:.2f} to {clip.end_s:.2f} s" for clip in clips)
            print(f"{video}: {_count(len(clips), 'face')}" + (f" ({seconds})" if clips else ""), flush=True)
            if reason is not None:
                print(_told_of(video, reason), file=sys.stderr)
            num_videos, num_clips, num_errors = num_videos + 1, num_clips + len(clips), num_errors + bool(reason)
    counts = f"{_count(num_clips, 'clip')} of {_count(num_videos, 'video')}"
    print(f"{args.output}: {counts}, {num_errors} not read, or not to the end")
    return int(num_errors > 0)


def _crop_parser() -> argparse.ArgumentParser:
    from .timeline.faces import FaceCrop

    usual = FaceCrop()
    parser = argparse.ArgumentParser(
        prog="stt crop",
        description="Make training clips of raw videos: every face that is followed becomes a folder of numbered "
        "pictures, cut as 'stt timeline' cuts faces. A video DIR/<class>/<video> becomes OUTPUT/<class>/<video>_0 and "
        "so on, which the data set clip_folder reads; training notes the way of cutting in the model's configuration.",
        epilog="Exit status: 0 where all videos were read to their end, 1 where one could not be read or is damaged, "
        "2 for wrong usage. The same command goes on after an interruption.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="file, folder of files, or text file that lists some")
    add("--output", required=True, metavar="DIR", help="folder to write, or to go on with")
    add("--main_face", action="store_true", help="keep one face of each video, the one that fills most over time")
    add("--min_s", type=float, default=0.5, help="least seconds of a clip (default: 0.5)")
    add("--size", type=int, default=usual.size, help=f"side of a picture in pixels (default: {usual.size})")
    add("--margin", type=float, default=usual.margin, help="what is added around a face, as a share of its side "
        f"(default: {usual.margin})")  # fmt: skip
    add("--align", action=argparse.BooleanOptionalAction, default=usual.align, help="turn faces upright")
    add("--min_side", type=int, default=usual.min_side, help="pixels that a face must have in its video "
        f"(default: {usual.min_side})")  # fmt: skip
    _add_detector(parser)
    return parser


def explain(argv: Sequence[str]) -> int:
    """``stt explain VIDEO``: 0 where the picture was written."""
    parser = _explain_parser()
    args = parser.parse_args(argv)
    _refuse_picture(parser, "--output", args.output)
    if args.clip and (args.at is not None or args.track is not None):
        parser.error("--clip explains all of a clip that shows one face: it goes with neither --at nor --track.")
    with _errors_told(parser):
        from .loading import load_model
        from .timeline import Timeline, draw_explanation, explain_clip
        from .timeline import explain as explain_window_of

        model, processor = load_model(args.model, attn_implementation="eager")  # no other gives its weights
        if args.clip:
            explanation = explain_clip(args.video, model, processor)
        else:
            options = {name: getattr(args, name) for name in ("window_s", "stride_s", "detector", "detect_fps")}
            reader = Timeline(model, processor=processor, **options)
            explanation = explain_window_of(args.video, reader, at_s=args.at, track=args.track)
        draw_explanation(explanation).savefig(args.output)
    print(f"{explanation.name}: {explanation.label} {explanation.scores[explanation.label]:.2f}; see {args.output}")
    return 0


def _explain_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stt explain",
        description="Draw what the model attends to in a window of a video: where in its frames, and in which frames. "
        "Attention is no cause: it tells where the model looks, not why it answers so.",
    )
    add = parser.add_argument
    add("video", metavar="VIDEO", help="file, or http address of one; with --clip a folder of frames, too")
    add("--model", required=True, help="folder of a trained STT, or its name on the Hub")
    add("--output", required=True, type=Path, metavar="FILE", help=f"picture to write: {', '.join(PICTURES)}")
    add("--at", type=float, metavar="SECONDS", help="moment of the video; by default the first with a face")
    add("--track", type=int, metavar="N", help="whose face, by the number in the rows of 'stt timeline'; by default "
        "the largest")  # fmt: skip
    add("--clip", action="store_true", help="VIDEO is cropped to one face, as those of data sets: explain all of it")
    _add_windows(parser)
    _add_detector(parser)
    return parser


@contextmanager
def _errors_told(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End with what the command cannot do, and why, by the parser. A pipe that nobody reads any more is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def _refuse_picture(parser: argparse.ArgumentParser, option: str, file: Path) -> None:
    """End where a picture cannot be written, before anything is read for it."""
    if not file.parent.is_dir():
        parser.error(f"{option} {file}: there is no folder {file.parent}.")
    if not os.access(file.parent, os.W_OK):
        parser.error(f"{option} {file}: you may not write to the folder {file.parent}.")
    if file.suffix.lower() not in PICTURES:
        parser.error(f"{option} {file} must end in one of {', '.join(PICTURES)}: the suffix tells the format.")


def _add_windows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--window_s", type=float, default=2.0, help="seconds that are judged at once (default: 2)")
    add("--stride_s", type=float, default=1.0, help="seconds from one such window to the next (default: 1)")


def _add_detector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detector", default="default", metavar="NAME", help="what finds faces: default; an .onnx "
        "file of a larger RetinaFace; or module:function, your own")  # fmt: skip
    parser.add_argument("--detect_fps", type=float, metavar="N", help="look for faces in N frames a second only, and "
        "place them between (default: look in every frame)")  # fmt: skip


def _write_rows(reader: "Timeline", videos: Sequence[str], output: str) -> int:
    """Rows of all videos to a table, what was done to standard output."""
    from accelerate.state import PartialState

    from .processes import end_with_launcher
    from .timeline import write_timelines

    # Launchers end the others by SIGTERM when one process died, terminals by SIGHUP when they are closed. Neither is a
    # death: what is being read is put away.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup's is SIG_IGN
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    end_with_launcher()
    summary = write_timelines(videos, reader, output)
    processes = PartialState()
    if processes.is_main_process:
        states = ", ".join(f"{number} {state}" for state, number in sorted(summary.states.items()))
        rows = f"{_count(sum(summary.states.values()), 'row')} ({states or 'none'})"
        print(f"{output}: {rows} of {_count(summary.num_videos, 'video')}")
        if summary.num_skipped:
            print(f"{summary.num_skipped} of these {'was' if summary.num_skipped == 1 else 'were'} there already")
        if summary.num_errors:
            print(f"{summary.num_errors} could not be read, or not to the end: see {summary.errors}")
    if processes.num_processes > 1:
        processes.wait_for_everyone()
        processes.destroy_process_group()  # without which gloo's threads now and then abort a process at its end
    return int(processes.is_main_process and summary.num_errors > 0)


def _print_rows(
    reader: "Timeline", videos: Sequence[str], as_json: bool, chart: str | None = None, annotated: str | None = None
) -> int:
    """Rows of all videos to standard output, reasons of those that could not be read to standard error.

    With `chart` or `annotated`, files to be written, there must be one video.
    """
    from .timeline import draw_timeline, write_annotated_video
    from .timeline.batch import VIDEO_ERRORS
    from .timeline.tables import to_json
    from .timeline.video import stop_on_interrupt

    if len(videos) > 1 and (chart or annotated):
        raise ValueError(f"--chart and --annotate picture one video, got {len(videos)}.")
    failures = 0
    kept: list[Row] = []
    for video in videos:
        with stop_on_interrupt(video) as stop:
            rows = write_annotated_video(video, reader, annotated) if annotated else reader(video, stop=stop)
            if not as_json:
                print(f"{video}\n{'start':>10}{'end':>10}{'face':>6}  expression")
            try:
                for row in rows:
                    print(to_json(row.to_dict(reader.class_names)) if as_json else _describe(row), flush=True)
                    if chart:
                        kept.append(row)
            except BrokenPipeError:
                raise
            except VIDEO_ERRORS as error:
                failures += 1
                print(_told_of(video, str(error)), file=sys.stderr)
    if chart and kept:  # of a damaged video, what there was of it
        draw_timeline(kept, reader.class_names).savefig(chart)
    return int(failures > 0)


def _describe(row: "Row") -> str:
    """A row as a line: seconds, face, and the two likeliest expressions or why there are none."""
    scores = sorted((row.scores or {}).items(), key=lambda score: -score[1])[:2]
    text = ", ".join(f"{name} {score:.2f}" for name, score in scores) or row.state
    text += f" ({_count(row.frames_dropped, 'frame')} dropped)" if row.frames_dropped else ""
    return f"{row.start_s:10.2f}{row.end_s:10.2f}{'–' if row.track is None else row.track:>6}  {text}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _told_of(video: str, reason: str) -> str:
    """A reason with the name of its video, which most have."""
    return reason if video in reason else f"{video}: {reason}"


def _argument(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of a type such as ``bool``, ``int | None`` or ``tuple[str, ...]``."""
    [kind, *_] = [each for each in get_args(hint) if each is not type(None)] or [hint]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) in (tuple, list):
        return {"nargs": "+", "type": kind}
    return {"type": kind}


def publish(argv: Sequence[str]) -> int:
    """``stt publish DIR USER/NAME``: 0 where the model was published, 1 where the Hub refused."""
    from .hub import publish as publish_model

    parser = argparse.ArgumentParser(
        prog="stt publish",
        description="Publish a trained model on the Hugging Face Hub, with its card, in one commit.",
        epilog="Log in first by 'hf auth login', or set HF_TOKEN. A README.md in DIR is published in place of the "
        "card that is made of results.json, if it claims nothing else.",
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of examples/train.py or cross_validate.py")
    parser.add_argument("repo_id", metavar="USER/NAME", help="where to publish it, such as user/stt-dfew")
    parser.add_argument("--revision", help="branch to commit to, by default main")
    parser.add_argument("--fold", type=int, help="of a cross-validation: whose weights; by default the first fold's")
    parser.add_argument("--benchmark", help="data set on the Hub that keeps a leaderboard with tasks war and uar")
    _add_publishing(parser)
    return _publish(parser, publish_model, argv)


def publish_space(argv: Sequence[str]) -> int:
    """``stt publish-space USER/NAME --model USER/MODEL``: 0 where the Space was published, 1 where the Hub refused."""
    from .hub import publish_space as publish_app

    parser = argparse.ArgumentParser(
        prog="stt publish-space", description="Publish the Space that shows a model in the browser, in one commit."
    )
    parser.add_argument("repo_id", metavar="USER/NAME", help="where to publish it, such as user/stt-demo")
    parser.add_argument("--model", required=True, metavar="USER/MODEL", help="name of the model on the Hub")
    parser.add_argument("--app", metavar="FILE", help="the app, by default examples/app.py of the checkout")
    _add_publishing(parser)
    return _publish(parser, publish_app, argv)


def _add_publishing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--private", action="store_true", help="if the repository is made, make it private")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="list what would go up, without any network")


def _publish(parser: argparse.ArgumentParser, publishing: Callable[..., Any], argv: Sequence[str]) -> int:
    from .hub import PublishError

    args = parser.parse_args(argv)
    try:
        publication = publishing(**vars(args))
    except PublishError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(publication)
    if publication.url:
        print(f"Published: {publication.url}")
    else:
        card = publication.write(tempfile.mkdtemp(prefix="stt-publish-"), only_generated=True)
        print(f"Dry run: nothing was sent. The card: {card}")
    return 0


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "crop": (crop, "training clips of raw videos, cut to the face as timeline cuts them"),
    "timeline": (timeline, "who shows which expression when: videos, folders, cameras in, rows with seconds out"),
    "explain": (explain, "where and when the model attends to a face, as a picture"),
    "publish": (publish, "publish a trained model on the Hugging Face Hub"),
    "publish-space": (publish_space, "publish the page that shows a model in the browser, as a Space"),
    "verify": (verify, "check your copy of a data set against what is published of it"),
}


if __name__ == "__main__":
    sys.exit(main())
