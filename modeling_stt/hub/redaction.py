"""Removal of private facts from the records of a run: tokens, command lines, folders of a machine."""

import re
from typing import Any

_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|key)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\bhf_\w{8,}")

_HOMES = ("home", "users", "documents and settings")

# A home folder of any system in a text: /home/jane, C:\Users\Jane Doe\…, file:///Users/jane. Its name may have blanks.
_HOME = re.compile(
    rf"(?:file:/{{0,2}})?(?:[A-Za-z]:)?[\\/](?:{'|'.join(_HOMES)})[\\/](?:[^\\/\"'\n]+(?=[\\/])|[^\s\\/\"']+)",
    re.IGNORECASE,
)
_WHOLE_PATH = re.compile(r"file:|~[\\/]|[A-Za-z]:[\\/]|[\\/]", re.IGNORECASE)
# The folders of an absolute path inside a text, up to a blank.
_FOLDERS = re.compile(
    r"(?<![\w.~\\/])(?:file:/{0,2})?(?:~|[A-Za-z]:)?(?:\\\\|[\\/])(?:[^\s\\/\"']+[\\/])+|~[\\/]", re.IGNORECASE
)


def without_folders(text: str) -> str:
    """Cut the folders out of the absolute paths in a text: ``/home/jane/DFEW/a.csv`` becomes ``a.csv``.

    A text that begins like a path is treated as one path, including its blanks.
    """
    if _WHOLE_PATH.match(text) and "\n" not in text:
        *folders, name = re.split(r"[\\/]+", text.rstrip("\\/"))
        return "~" if folders and folders[-1].lower() in _HOMES else name
    return _FOLDERS.sub("", _HOME.sub("~", text))


def redact(value: Any) -> Any:
    """Copy a JSON value without command lines, and without tokens and folders in any text.

    The value of a key such as ``hub_token`` becomes ``"***"``, and the key ``command`` is left out.
    """
    if isinstance(value, dict):
        return {
            key: "***" if part and _SECRET_KEY.search(key) else redact(part)
            for key, part in value.items()
            if key != "command"
        }
    if isinstance(value, list):
        return [redact(part) for part in value]
    return _SECRET_VALUE.sub("***", without_folders(value)) if isinstance(value, str) else value
