"""The ``stt`` command: parses arguments and calls the package. Each command imports what it needs when it runs."""

import argparse
import inspect
import io
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from .timeline import Row, Timeline
    from .timeline.outputs import FolderOutputs, Outputs

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
    for stream in (sys.stdout, sys.stderr):
        # A name or a dash that the terminal's encoding lacks must not end a run whose work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return COMMANDS[args.command][0](rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader closed the pipe, as in 'stt timeline … | head'
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
            help="such as fold_1; by default all with published counts, or otherwise all that this copy has",
        )
        if name in argv:  # so that only the builder that is asked for is imported
            config = config_class(name)
            each.description = inspect.getdoc(config)
            # The option `missing` has no meaning here: missing clips are reported.
            types = {option: hint for option, hint in own_options(config).items() if option != "missing"}
            own += types
            for option, hint in types.items():
                each.add_argument(f"--{option}", default=argparse.SUPPRESS, **_argument(hint))
    return parser, own


def timeline(argv: Sequence[str]) -> int:
    """``stt timeline VIDEO…``: 0 where all videos were read to their end, 1 where one was not."""
    parser = _timeline_parser()
    args = parser.parse_args(argv)
    _check_timeline(parser, args)
    with _errors_as_usage(parser):
        from .timeline import find_videos
        from .timeline.outputs import Outputs

        videos = find_videos(args.videos)
        pictured = args.chart or args.annotate is not None or args.report
        if pictured and len(videos) > 1 and not args.output_dir:
            parser.error(
                f"--chart, --annotate and --report need exactly one video, got {len(videos)}: --output_dir DIR makes "
                "them for each."
            )
        reader = _make_reader(args, thumbnails=bool(args.chart or args.report or args.output_dir))
        outputs = Outputs(args.chart, args.annotate, args.report, args.smooth_s)
        if args.output_dir:
            return _write_folder(reader, videos, args)
        if args.output:
            return _write_rows(reader, videos, args, outputs)
        return _print_rows(reader, videos, args, outputs)


def _timeline_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stt timeline",
        description="Find out who shows which expression when: a model judges the faces of videos over time.",
        epilog="Exit status: 0 where all videos were read to their end, 1 where one could not be read or is damaged, "
        "2 for wrong usage, 130 for Ctrl-C, which ends a camera or stream with status 0. To share many videos among "
        "processes, run 'accelerate launch -m modeling_stt.cli timeline …'; the same command resumes after an "
        "interruption.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="file, folder of files, text file that lists some, http address, "
        "camera (/dev/video0) or live address (rtsp://…)")  # fmt: skip
    _add_model(parser)
    results = parser.add_argument_group("results", "Without --output or --output_dir, rows are printed as they come.")
    add = results.add_argument
    add("--output", type=Path, metavar="FILE", help="table to write or to add to: .csv, .jsonl or .parquet")
    add("--output_dir", type=Path, metavar="DIR", help="folder to write or to add to: a table of all videos, a chart "
        "and a report of each, index.html, and with --annotate the videos with boxes")  # fmt: skip
    add("--jsonl", action="store_true", help="print JSON Lines")
    add("--segments", action="store_true", help="give segments (stretches of one label) and a summary of each person "
        "instead of windows; with --output, in additional tables")  # fmt: skip
    add(
        "--smooth_s", type=float, default=2.0, help="seconds over which segments are smoothed; 0 for none (default: 2)"
    )
    add("--chart", type=Path, metavar="FILE", help=f"draw the rows of one video over time: {', '.join(PICTURES)}")
    add("--annotate", nargs="?", type=Path, const=Path(), metavar="FILE", help="write one video with boxes and labels "
        "burnt in: .mp4, .mov or .mkv; with --output_dir each video, and FILE is left out")  # fmt: skip
    add("--report", type=Path, metavar="FILE.html", help="write one HTML page of one video: chart, summary, segments, "
        "settings")  # fmt: skip
    _add_windows(parser)
    _add_answers(parser)
    _add_crop_options(parser)
    _add_detector(parser)
    return parser


def _check_timeline(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit on wrong usage before anything is loaded."""
    table = args.output or args.output_dir
    if table is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        parser.error("several processes write one table: --output FILE is needed.")
    if args.output and args.output_dir:
        parser.error("--output_dir writes a table of its own: leave out --output.")
    if args.output_dir:
        if args.chart or args.report or args.annotate not in (None, Path()):
            parser.error(
                "--output_dir makes a chart and a report of each video: leave out --chart and --report, and give "
                "--annotate without a file."
            )
        return
    if args.annotate == Path():
        parser.error("--annotate needs a FILE to write, unless --output_dir is given.")
    if args.chart:
        _refuse_picture(parser, "--chart", args.chart)
    if args.report:
        _refuse_file(parser, "--report", args.report, (".html", ".htm"))
    if args.annotate:
        _refuse_file(parser, "--annotate", args.annotate, (".mp4", ".mov", ".mkv"))


def score(argv: Sequence[str]) -> int:
    """``stt score VIDEO LABELS.csv``: 0 where the rows were compared with the labels."""
    parser = argparse.ArgumentParser(
        prog="stt score",
        description="Compare a model's answers for a video with your own labels, and with always answering the most "
        "common label: is the model any good on your footage?",
        epilog="LABELS.csv has the header 'start,end,label' and a line for each labelled stretch, in seconds; an "
        "optional column 'track' names a track that 'stt timeline' shows.",
    )
    parser.add_argument("video", metavar="VIDEO", help="file, or http address of one")
    parser.add_argument("labels_file", type=Path, metavar="LABELS.csv", help="your labels")
    _add_model(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    _add_windows(parser)
    _add_answers(parser)
    _add_crop_options(parser)
    _add_detector(parser)
    args = parser.parse_args(argv)
    with _errors_as_usage(parser):
        from .timeline.agreement import compare, read_labels
        from .timeline.tables import to_json

        labelled = read_labels(args.labels_file)
        reader = _make_reader(args)
        agreement = compare(reader(args.video), labelled, reader.class_names)
        print(f"{args.video}, {reader.note()}\n{agreement}")
        if args.json:
            args.json.write_text(to_json(agreement.to_dict(), indent=2) + "\n", "utf-8")
    return 0


def _make_reader(args: argparse.Namespace, thumbnails: bool = False) -> "Timeline":
    """The timeline that the options ask for."""
    import json

    from .timeline import FaceCrop, Timeline

    options = ["window_s", "stride_s", "min_face_share", "batch_size", "detector", "detect_fps", "device", "dtype"]
    options += ["labels", "revision", "trust_remote_code", "min_score", "baseline"]
    reader = Timeline(args.model, thumbnails=thumbnails, **{name: getattr(args, name) for name in options})
    crop = reader.crop
    if args.face_crop:
        crop = replace(FaceCrop.from_dict(json.loads(args.face_crop.read_text("utf-8"))), size=crop.size)
    changes = {name: value for name in ("margin", "align") if (value := getattr(args, name)) is not None}
    reader.scorer.crop = replace(crop, **changes)
    return reader


def crop(argv: Sequence[str]) -> int:
    """``stt crop VIDEO…``: 0 where all videos were read to their end, 1 where one was not."""
    parser = _crop_parser()
    args = parser.parse_args(argv)
    num_videos = num_clips = num_errors = 0
    with _errors_as_usage(parser):
        from .timeline import FaceCrop, load_detector, write_crops

        convention = FaceCrop(margin=args.margin, align=args.align, size=args.size, min_side=args.min_side)
        options = {name: getattr(args, name) for name in ("detect_fps", "min_s", "main_face", "clip_s")}
        detector = load_detector(args.detector)
        for video, clips, reason in write_crops(args.videos, args.output, convention, detector, **options):
            seconds = ", ".join(f"{clip.start_s:.2f} to {clip.end_s:.2f} s" for clip in clips)
            things = "clip" if args.clip_s else "face"
            print(f"{video}: {_count(len(clips), things)}" + (f" ({seconds})" if clips else ""), flush=True)
            if reason is not None:
                print(_with_name(video, reason), file=sys.stderr)
            num_videos, num_clips, num_errors = num_videos + 1, num_clips + len(clips), num_errors + bool(reason)
    counts = f"{_count(num_clips, 'clip')} of {_count(num_videos, 'video')}"
    print(f"{args.output}: {counts}, {num_errors} not read, or not to the end")
    return int(num_errors > 0)


def _crop_parser() -> argparse.ArgumentParser:
    # The defaults are FaceCrop's, repeated because importing it would load torch for a page of help; a test compares.
    parser = argparse.ArgumentParser(
        prog="stt crop",
        description="Cut training clips of faces out of raw videos, in the way a timeline of the trained model will. "
        "Each face becomes a folder of JPEGs; DIR/happy/a.mp4 gives OUTPUT/happy/a_1, a_2, … for clip_folder.",
        epilog="Exit status: 0 where all videos were read to their end, 1 where one was not, 2 for wrong usage.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="file, folder of files, or text file that lists some")
    add("--output", required=True, metavar="DIR", help="folder to write, or to add to")
    add("--main_face", action="store_true", help="keep only the face of each video that fills most of it over time")
    add("--min_s", type=float, default=0.5, help="seconds that a clip must last (default: 0.5)")
    add("--clip_s", type=float, metavar="S", help="cut long takes into clips of S seconds (default: one clip a face)")
    add("--size", type=int, default=112, help="side of a picture in pixels (default: 112)")
    add("--margin", type=float, default=0.1, help="what is added around a face, as a share of its side (default: 0.1)")
    add("--align", action=argparse.BooleanOptionalAction, default=True, help="turn faces upright")
    add("--min_side", type=int, default=32, help="pixels that a face must have in its video (default: 32)")
    _add_detector(parser)
    return parser


def explain(argv: Sequence[str]) -> int:
    """``stt explain VIDEO``: 0 where the picture was written."""
    parser = _explain_parser()
    args = parser.parse_args(argv)
    _refuse_picture(parser, "--output", args.output)
    if args.clip and (args.at is not None or args.track is not None):
        parser.error("--clip explains a whole clip of one face: it cannot be combined with --at or --track.")
    with _errors_as_usage(parser):
        from . import pretrained
        from .loading import choose_device, load_model
        from .timeline import Timeline, draw_explanation, explain_clip
        from .timeline import explain as explain_window_of

        # No other attention back-end returns its weights.
        name = args.model or pretrained.folder()
        model, processor = load_model(name, attn_implementation="eager", device=choose_device())
        if args.clip:
            explanation = explain_clip(args.video, model, processor)  # type: ignore[arg-type]  # it refuses others
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
        "Attention shows where the model looks, not why it answers so.",
    )
    add = parser.add_argument
    add("video", metavar="VIDEO", help="file, or http address of one; with --clip a folder of frames, too")
    add("--model", help="folder of a trained STT, or its name on the Hub; by default the weights of this package")
    add("--output", required=True, type=Path, metavar="FILE", help=f"picture to write: {', '.join(PICTURES)}")
    add("--at", type=float, metavar="SECONDS", help="moment of the video; by default the first with a face")
    add("--track", type=int, metavar="N", help="whose face, by the number in the rows of 'stt timeline'; by default "
        "the largest")  # fmt: skip
    add("--clip", action="store_true", help="VIDEO is cropped to one face, as those of data sets: explain all of it")
    _add_windows(parser)
    _add_detector(parser)
    return parser


@contextmanager
def _errors_as_usage(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Turn errors of use into the parser's, which end the command with status 2. A closed pipe is not an error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def _refuse_picture(parser: argparse.ArgumentParser, option: str, file: Path) -> None:
    """Exit if a picture cannot be written, before anything is read for it."""
    _refuse_file(parser, option, file, PICTURES)


def _refuse_file(parser: argparse.ArgumentParser, option: str, file: Path, suffixes: Sequence[str]) -> None:
    if not file.parent.is_dir():
        parser.error(f"{option} {file}: there is no folder {file.parent}.")
    if not os.access(file.parent, os.W_OK):
        parser.error(f"{option} {file}: you may not write to the folder {file.parent}.")
    if file.suffix.lower() not in suffixes:
        parser.error(f"{option} {file} must end in one of {', '.join(suffixes)}: the suffix gives the format.")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--model", help="folder or name on the Hub of a trained STT, or of another classifier of videos or of images "
        "(VideoMAE, ViT, …), or module:function, your own; by default the weights that come with this "
        "package")  # fmt: skip
    add("--revision", help="branch, tag or commit of a model on the Hub")
    add("--trust_remote_code", action="store_true", help="run the Python code that the model's repository carries: "
        "read it first, and name its --revision")  # fmt: skip
    add("--labels", choices=("own", "canonical"), default="own", help="canonical: one spelling of the classes for all "
        "models, as DFEW's (default: the model's own)")  # fmt: skip
    add("--batch_size", type=int, default=8, help="windows that go through the model at once (default: 8)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="precision of the model; "
        "bfloat16 is faster on CPUs that know it, and on GPUs")  # fmt: skip
    add("--device", help="such as cuda:1 or cpu; by default a GPU if there is one")


def _add_windows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("windows").add_argument
    add("--window_s", type=float, default=2.0, help="seconds that are judged at once (default: 2)")
    add("--stride_s", type=float, default=1.0, help="seconds from one such window to the next (default: 1)")


def _add_answers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("answers").add_argument
    add("--min_score", type=float, metavar="P", help="answers whose probability is below P are 'unsure' (default: the "
        "model's own threshold, if it has one; 0 to answer always)")  # fmt: skip
    add("--baseline", type=_baseline, metavar="START-END", help="scores relative to each person's resting face: the "
        "seconds in which it rests, or 'auto' for the person's median")  # fmt: skip
    add("--min_face_share", type=float, default=0.5, help="least share of a window's frames with the face (0.5)")


def _add_crop_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("crop", "The default is the model's, or a face_crop.json in its folder.")
    add = group.add_argument
    add("--face_crop", type=Path, metavar="FILE", help="JSON that says how faces are cut out, as 'stt crop' writes it")
    add("--margin", type=float, help="what is added around a face, as a share of its side")
    add("--align", action=argparse.BooleanOptionalAction, help="turn faces upright")


def _add_detector(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("finding faces").add_argument
    add("--detector", default="default", metavar="NAME", help="default; an .onnx file of a larger RetinaFace; or "
        "module:function, your own")  # fmt: skip
    add("--detect_fps", type=float, metavar="N", help="search only N frames a second for faces, and interpolate their "
        "places in between (default: search every frame)")  # fmt: skip


def _baseline(text: str) -> tuple[float, float] | str:
    """Read `START-END` in seconds, or `auto`."""
    if text == "auto":
        return text
    start, _, end = text.partition("-")
    return float(start), float(end)


def _write_rows(
    reader: "Timeline",
    videos: Sequence[str],
    args: argparse.Namespace,
    outputs: "Outputs | FolderOutputs",
    table: Path | None = None,
) -> int:
    """Write rows of all videos to a table, and print what was done."""
    from accelerate.state import PartialState

    from .processes import end_with_launcher
    from .timeline import write_timelines
    from .timeline.batch import write_segments

    # Launchers send SIGTERM to the others when one process has died, terminals SIGHUP when they are closed. Neither
    # counts as a crash of the current video, which the next run reads again.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup's is SIG_IGN
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    end_with_launcher()
    table = table or args.output
    summary = write_timelines(videos, reader, table, read=lambda video, stop: outputs.rows(video, reader, stop))
    processes = PartialState()
    if processes.is_main_process:
        states = ", ".join(f"{number} {state}" for state, number in sorted(summary.states.items()))
        rows = f"{_count(sum(summary.states.values()), 'row')} ({states or 'none'})"
        print(f"{table}: {rows} of {_count(summary.num_videos, 'video')}")
        if summary.num_skipped:
            print(f"{summary.num_skipped} of these {'was' if summary.num_skipped == 1 else 'were'} there already")
        if summary.num_errors:
            print(f"{summary.num_errors} could not be read, or not to the end: see {summary.errors}")
        if args.segments:
            print("see also", *write_segments(table, reader.class_names, args.smooth_s))
    if processes.num_processes > 1:
        processes.wait_for_everyone()
        processes.destroy_process_group()  # without this, gloo's threads occasionally abort a process at its end
    return int(processes.is_main_process and summary.num_errors > 0)


def _write_folder(reader: "Timeline", videos: Sequence[str], args: argparse.Namespace) -> int:
    """Write a table of all videos, a report of each and an index into a folder."""
    from .timeline.outputs import FolderOutputs

    args.output_dir.mkdir(parents=True, exist_ok=True)
    outputs = FolderOutputs(args.output_dir, videos, "" if args.annotate is None else ".mp4", args.smooth_s)
    status = _write_rows(reader, videos, args, outputs, outputs.table)
    if int(os.environ.get("RANK", "0")) == 0:
        if lacking := outputs.write_index(reader):
            print(
                f"{_count(len(lacking), 'video')} (such as {lacking[0]}) had been read before, without all files that "
                "are asked for now: another --output_dir gets them."
            )
        print(f"see {args.output_dir / 'index.html'}")
    return status


def _print_rows(reader: "Timeline", videos: Sequence[str], args: argparse.Namespace, outputs: "Outputs") -> int:
    """Print rows or segments of all videos, and to standard error the reasons of those that could not be read."""
    from .loading import ModelError
    from .timeline.batch import VIDEO_ERRORS
    from .timeline.report import row_line
    from .timeline.tables import to_json
    from .timeline.video import stop_on_interrupt

    failures = 0
    for video in videos:
        rows: list[Row] = []
        is_first = True
        with stop_on_interrupt(video) as stop:
            given = outputs.rows(video, reader, stop)
            try:
                for row in given:
                    if is_first and not args.jsonl:
                        print(f"{video}\n{'start':>10}{'end':>10}{'face':>6}  expression")
                    is_first = False
                    if args.segments:
                        rows.append(replace(row, thumbnail=None))
                    else:
                        print(to_json(row.to_dict(reader.class_names)) if args.jsonl else row_line(row), flush=True)
            except (BrokenPipeError, ModelError):
                raise
            except VIDEO_ERRORS as error:
                failures += 1
                reason = _with_name(video, str(error))
            else:
                reason = ""
        if args.segments:
            _print_segments(rows, video, args)
        if reason:
            print(reason, file=sys.stderr)
    return int(failures > 0)


def _print_segments(rows: Sequence["Row"], video: str, args: argparse.Namespace) -> None:
    from .timeline import segments, summarize
    from .timeline.report import segment_line, summary_line
    from .timeline.tables import to_json

    parts = segments(rows, args.smooth_s)
    for part in parts:
        print(to_json({"video": video, **vars(part)}) if args.jsonl else segment_line(part))
    if not args.jsonl:
        print(*map(summary_line, summarize(parts)), sep="\n")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _with_name(video: str, reason: str) -> str:
    """Put the name of its video before a reason that lacks it."""
    return reason if video in reason else f"{video}: {reason}"


def _argument(hint: Any) -> dict[str, Any]:
    """Keyword arguments for argparse to read a type such as ``bool``, ``int | None`` or ``tuple[str, ...]``."""
    [kind, *_] = [each for each in get_args(hint) if each is not type(None)] or [hint]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) in (tuple, list):
        return {"nargs": "+", "type": kind}
    return {"type": kind}


def publish(argv: Sequence[str]) -> int:
    """``stt publish DIR USER/NAME``: 0 if the model was published, 1 if the Hub refused."""
    parser = argparse.ArgumentParser(
        prog="stt publish",
        description="Publish a trained model on the Hugging Face Hub, with its card, in one commit.",
        epilog="Log in first with 'hf auth login', or set HF_TOKEN. A README.md in DIR replaces the card that is "
        "generated from results.json; its model-index must be the same.",
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of examples/train.py or cross_validate.py")
    parser.add_argument("repo_id", metavar="USER/NAME", help="where to publish it, such as user/stt-dfew")
    parser.add_argument("--revision", help="branch to commit to (default: main)")
    parser.add_argument(
        "--fold", type=int, help="fold of a cross-validation whose weights are published (default: the first)"
    )
    parser.add_argument("--benchmark", help="data set on the Hub with a leaderboard of the tasks war and uar")
    _add_publishing(parser)
    return _publish(parser, "publish", argv)


def publish_space(argv: Sequence[str]) -> int:
    """``stt publish-space USER/NAME --model USER/MODEL``: 0 if the Space was published, 1 if the Hub refused."""
    parser = argparse.ArgumentParser(
        prog="stt publish-space", description="Publish the Space that shows a model in the browser, in one commit."
    )
    parser.add_argument("repo_id", metavar="USER/NAME", help="where to publish it, such as user/stt-demo")
    parser.add_argument("--model", required=True, metavar="USER/MODEL", help="name of the model on the Hub")
    parser.add_argument("--app", metavar="FILE", help="the app (default: examples/app.py of the checkout)")
    _add_publishing(parser)
    return _publish(parser, "publish_space", argv)


def _add_publishing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--message", help="commit message")
    parser.add_argument("--dry-run", action="store_true", help="list what would be published, without network access")


def _publish(parser: argparse.ArgumentParser, function: str, argv: Sequence[str]) -> int:
    args = parser.parse_args(argv)
    from . import hub  # takes seconds; help and wrong options need not wait for it

    try:
        publication = getattr(hub, function)(**vars(args))
    except hub.PublishError as error:
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


def train(argv: Sequence[str]) -> int:
    """``stt train``: runs `examples/train.py`."""
    return _run_example("train", argv)


def cross_validate(argv: Sequence[str]) -> int:
    """``stt cross-validate``: runs `examples/cross_validate.py`."""
    return _run_example("cross_validate", argv)


def predict(argv: Sequence[str]) -> int:
    """``stt predict``: runs `examples/predict.py`."""
    return _run_example("predict", argv)


def _run_example(name: str, argv: Sequence[str]) -> int:
    """Run a program of examples/ as its script would run; wheels carry these beside this file, see setup.py."""
    package = Path(__file__).resolve().parent
    folder = next(
        path for path in (package / "examples", package.parent / "examples") if (path / "train.py").is_file()
    )
    sys.argv = [f"stt {name.replace('_', '-')}", *argv]
    sys.path.insert(0, str(folder))  # cross_validate.py imports train.py
    runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
    return 0  # other statuses exit by themselves


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "crop": (crop, "cut training clips of faces out of raw videos, as timeline cuts them"),
    "timeline": (timeline, "find out who shows which expression when, in videos, folders, cameras and streams"),
    "score": (score, "measure how well a model agrees with your own labels of a video"),
    "explain": (explain, "draw where and when the model attends to a face"),
    "train": (train, "train on one fold of a data set, choose an epoch on validation, test it once"),
    "cross-validate": (cross_validate, "train and test on every fold of a data set"),
    "predict": (predict, "classify the face in each video as a whole"),
    "publish": (publish, "publish a trained model on the Hugging Face Hub"),
    "publish-space": (publish_space, "publish the page that shows a model in the browser, as a Space"),
    "verify": (verify, "check your copy of a data set against what is published of it"),
}


if __name__ == "__main__":
    sys.exit(main())
