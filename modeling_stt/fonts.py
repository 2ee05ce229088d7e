"""Names in pictures, as they are: in any script, and with signs that matplotlib takes for mathematics."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)


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
