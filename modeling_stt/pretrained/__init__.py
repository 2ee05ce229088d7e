"""The weights that the package ships: `stt_rendered`, trained on rendered faces alone (see its README.md)."""

import json
from pathlib import Path
from typing import Any

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


def face_crop(name: str = DEFAULT) -> dict[str, Any]:
    """Give the cut of the faces that the weights learned from, for `FaceCrop.from_dict`.

    Raises:
        FileNotFoundError: For weights that the package does not ship.
    """
    settings = json.loads((folder(name) / "video_preprocessor_config.json").read_text(encoding="utf-8"))
    return dict(settings["face_crop"])
