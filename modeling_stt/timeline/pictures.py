"""Shared parts of pictures: a page laid out in inches, colours of classes and states, and fonts."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .rows import LOST, NO_FACE, NO_FRAMES, TOO_SMALL, UNSURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

# Okabe and Ito's seven, then four that stay as far from all others (0.076 in Oklab at least) as those are from each
# other, to normal eyes and in Machado's simulation of the three kinds of colour blindness.
CLASS_COLORS = (
    *("#F0E442", "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7"),
    *("#332288", "#882255", "#99DDFF", "#BD1F01"),
)
STATE_COLOR, STATE_EDGE = "#F2F2F2", "#A8A8A8"
STATE_HATCHES = {UNSURE: "++", NO_FACE: "\\\\", TOO_SMALL: "...", LOST: "///", NO_FRAMES: "xxx"}


def class_colors(class_names: Sequence[str]) -> dict[str, str]:
    """Map each class to its colour, by its place among the classes; from the twelfth on they come again."""
    return {name: CLASS_COLORS[i % len(CLASS_COLORS)] for i, name in enumerate(class_names)}


class Page:
    """A figure laid out in inches from its left top corner, so that what is shown and written in it is known to fit.

    Raises:
        ImportError: If matplotlib is missing.
    """

    def __init__(self, width: float, height: float) -> None:
        try:
            from matplotlib.figure import Figure  # not pyplot's, which would keep it and look for a screen
        except ImportError as error:
            raise ImportError("Pictures need matplotlib: pip install 'modeling-stt[timeline]'") from error
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Add axes in this place."""
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def write(self, left: float, top: float, text: str, fontsize: float = 10) -> None:
        """Write text whose left top corner is there."""
        self.figure.text(left / self.width, 1 - top / self.height, literal(text), va="top", fontsize=fontsize)


def ink_on(color: str) -> str:
    """Choose black or white, whichever is read better on `#RRGGBB`, by its relative luminance."""
    red, green, blue = ((int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


def literal(text: str) -> str:
    """Escape text for matplotlib, which would take what stands between two `$` for mathematics."""
    return text.replace("$", r"\$")


@contextmanager
def readable(*texts: str) -> Iterator[None]:
    """Let matplotlib write these texts in an installed font that has their characters, where its own lacks some."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties, fontManager

    file = font_file("".join(texts))
    families = ["DejaVu Sans"]
    if file is not None:
        fontManager.addfont(file)
        families.append(FontProperties(fname=file).get_name())
    with rc_context({"font.family": families}):
        yield


@lru_cache(maxsize=32)
def font_file(text: str) -> Path | None:
    """Find an installed font that has all characters of a text which matplotlib's own font lacks.

    Returns:
        Its file; None if nothing is lacking, or, with a warning, if no font has them.
    """
    from matplotlib.font_manager import findfont, findSystemFonts
    from matplotlib.ft2font import FT2Font

    lacking = {ord(c) for c in text if c.isprintable()} - set(FT2Font(findfont("DejaVu Sans")).get_charmap())
    if not lacking:
        return None
    for file in sorted(findSystemFonts()):
        try:
            if lacking <= set(FT2Font(file).get_charmap()):
                return Path(file)
        except (OSError, RuntimeError):  # fonts in a form that FreeType does not read
            continue
    logger.warning(
        "No installed font has the characters %s, which are drawn as boxes: install one, such as Noto Sans CJK.",
        "".join(sorted(map(chr, lacking))),
    )
    return None
