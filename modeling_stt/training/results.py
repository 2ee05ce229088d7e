"""results.json: written whole or not at all, and compared with that of another run."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .environment import CODE_FACTS

RESULTS_FILE = "results.json"
RUN_FILE = "run.json"  # the settings of a run; an interrupted run is resumed only with the same ones


def write_results(path: str | os.PathLike, results: dict[str, Any]) -> Path:
    """Write results.json, whole or not at all: an interrupted write leaves the old file.

    Raises:
        ValueError: For a number that is not finite, which JSON cannot hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List the facts in which two runs differ, of those that decide their outcome.

    Args:
        there: Content of one run.json or results.json, or a part of it.
        here: The same of the other.

    Returns:
        A text such as `"recipe.learning_rate (0.01 there, 0.1 here)"` for each, in order of names; empty for runs that
        are alike. Of the environments only `CODE_FACTS` count.
    """
    facts_there, facts_here = (dict(_facts(json.loads(json.dumps(run)))) for run in (there, here))
    return [
        f"{name} ({_shown(facts_there.get(name))} there, {_shown(facts_here.get(name))} here)"
        for name in sorted(facts_there.keys() | facts_here.keys())
        if facts_there.get(name) != facts_here.get(name)
    ]


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested objects with their dotted names."""
    if not isinstance(value, dict) or not value:
        yield name, value
        return
    for key, part in value.items():
        if name != "environment" or key in CODE_FACTS:
            yield from _facts(part, f"{name}.{key}" if name else key)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
