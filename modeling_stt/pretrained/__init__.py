"""The weights that the package ships: `stt_rendered`, trained on rendered faces alone (see its README.md)."""

from pathlib import Path

DEFAULT = "stt_rendered"


def folder(name: str = DEFAULT) -> Path:
    """Folder of weights that come with the package, for `from_pretrained` and `Timeline`.

    Raises:
        FileNotFoundError: For weights that the package does not ship.
    """
    here = Path(__file__).parent
    known = sorted(path.parent.name for path in here.glob("*/config.json"))
    if name not in known:
        raise FileNotFoundError(f"The package ships no weights called {name!r}, only {', '.join(known) or 'none'}.")
    return here / name
