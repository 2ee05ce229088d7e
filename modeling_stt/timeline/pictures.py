"""Shared parts of pictures: a page laid out in inches, and colours of classes and states."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..fonts import literal
from .rows import LOST, NO_FACE, NO_FRAMES, TOO_SMALL, UNSURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
