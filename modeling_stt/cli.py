"""The ``stt`` command: arguments in, calls out. What a command needs is imported when it runs."""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin


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
    return COMMANDS[args.command][0](rest)


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


def _argument(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of a type such as ``bool``, ``int | None`` or ``tuple[str, ...]``."""
    [kind, *_] = [each for each in get_args(hint) if each is not type(None)] or [hint]
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) in (tuple, list):
        return {"nargs": "+", "type": kind}
    return {"type": kind}


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "verify": (verify, "check your copy of a data set against what is published of it"),
}


if __name__ == "__main__":
    sys.exit(main())
