"""docs/api.md, generated from the docstrings of the public names."""

import inspect
import re
import textwrap
from importlib import import_module
from typing import Any

from helpers.programs import ROOT

PACKAGES = {
    "modeling_stt": "Model, configuration and processor. Importing the package makes them known to the Auto classes.",
    "modeling_stt.training": "Training and evaluation.",
    "modeling_stt.timeline": "Expressions over time in videos of any kind.",
    "modeling_stt.hub": "Publishing on the Hugging Face Hub.",
    "dataset_scripts": "Data sets.",
}
INTRODUCTION = """# The Python API

Every public name with its docstring. The page is generated: after a change of a docstring, run
`STT_WRITE_API=1 python -m pytest tests/test_docs.py -k api`.
"""
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


def api_page() -> str:
    """Generate the text of the page."""
    parts = [INTRODUCTION]
    for package, sentence in PACKAGES.items():
        module = import_module(package)
        parts.append(f"## {package}\n\n{sentence}\n")
        parts += [_entry(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)]
    return "\n".join(parts)


def _entry(name: str, value: Any) -> str:
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return f"### {name}\n\n`{_shown(value)}`\n"
    text = f"### {name}\n\n```text\n{_signature(name, value)}\n```\n\n{_docstring(value)}"
    methods = [_method(key, each) for key, each in vars(value).items()] if inspect.isclass(value) else []
    listed = "\n".join(filter(None, methods))
    return f"{text}\n{listed}\n" if listed else text


def _method(name: str, value: Any) -> str | None:
    """A line of a class's own public method or property; None for anything else."""
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    if (name.startswith("_") and name != "__call__") or not inspect.isfunction(function) or not function.__doc__:
        return None
    if function.__module__.split(".")[0] not in ("modeling_stt", "dataset_scripts"):
        return None  # put there by a decorator
    summary = " ".join(inspect.cleandoc(function.__doc__).split("\n\n")[0].split())
    call = "" if isinstance(value, property) else "()"
    return f"- `.{name}{call}`: {_links(summary)}"


def _signature(name: str, value: Any) -> str:
    """The call with the names and defaults of its arguments; of classes with many, those that it does not inherit."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return name
    parts, star = [], False
    parameters = list(inspect.signature(value).parameters.values())
    if inspect.isclass(value) and len(parameters) > 30:
        parameters = [each for each in parameters if each.name in vars(value).get("__annotations__", {})]
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        star |= parameter.kind is parameter.VAR_POSITIONAL
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_shown(parameter.default)}"
        parts.append(f"{mark}{parameter.name}{default}")
    line = f"{name}({', '.join(parts)})"
    return line if len(line) <= 100 else f"{name}(\n{textwrap.indent(textwrap.fill(', '.join(parts), 96), '    ')}\n)"


def _shown(value: Any) -> str:
    """A default as in source code: functions and classes by their names, addresses in memory left out."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__name__
    return re.sub(
        r"<factory>|<(\w+\.)*(\w+) object at 0x\w+>",
        lambda found: f"{found[2] or ''}(…)",
        repr(value).replace(f"{ROOT}/", ""),
    )


def _docstring(value: Any) -> str:
    """A docstring as Markdown: paragraphs, code as blocks, the arguments and errors as lists."""
    lines, items = [], False
    for line in inspect.cleandoc(value.__doc__ or "").splitlines():
        section = line.rstrip(":")
        if line.endswith(":") and section in SECTIONS:
            items = True
            lines += [f"**{section}**", ""]
        elif items and (found := re.match(r"    (\*{0,2}[\w.]+)( \([^)]*\))?: (.*)", line)):
            lines.append(f"- `{found[1]}`: {_links(found[3])}")
        elif items and line.startswith("    "):
            lines.append(_links(f"  {line.strip()}" if lines[-1] else line.strip()))
        else:
            items = False if line.strip() else items
            lines.append(_links(line))
    return "\n".join(lines).rstrip() + "\n"


def _links(text: str) -> str:
    """Links of our docstrings, [`name`] and ``name``, as plain code; examples as text that is not run here."""
    text = re.sub(r"(?<!`)``(?!`)", "`", text.replace("```python", "```text"))
    return re.sub(r"\[(`[^`]+`)\]", r"\1", text)
