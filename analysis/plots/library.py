"""Loads matplotlib so that neither environment nor current folder can change a figure."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Variables that would select a backend, style file or date, or break the drawing if malformed.
_CALLERS = (
    "MPLBACKEND", "MATPLOTLIBRC", "SOURCE_DATE_EPOCH", "PILLOW_ALIGNMENT", "PILLOW_BLOCK_SIZE",
    "PILLOW_BLOCKS_MAX",
)  # fmt: skip


@contextmanager
def alone() -> Iterator[None]:
    """The context in which matplotlib is loaded and draws, without these variables.

    Warnings about a cache folder that is not writable (no home) are silenced; it uses another.
    """
    kept = {name: os.environ.pop(name) for name in _CALLERS if name in os.environ}
    fonts = os.environ.get("MPL_IGNORE_SYSTEM_FONTS")
    os.environ["MPL_IGNORE_SYSTEM_FONTS"] = "1"  # its own DejaVu, not this machine's
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        del os.environ["MPL_IGNORE_SYSTEM_FONTS"]
        if fonts is not None:
            os.environ["MPL_IGNORE_SYSTEM_FONTS"] = fonts
        os.environ.update(kept)


@contextmanager
def _beside_its_own_style() -> Iterator[None]:
    """A context in matplotlib's own folder, because it first looks for styles in the current one."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("matplotlib", name="matplotlib")
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    try:
        os.chdir(Path(found.origin).with_name("mpl-data"))
        try:
            yield
        finally:
            os.fchdir(here)
    finally:
        os.close(here)


with alone(), _beside_its_own_style():
    import matplotlib as mpl
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import LogLocator

__all__ = [
    "Artist", "Axes", "Figure", "FigureCanvasAgg", "Line2D", "LogLocator", "Patch",
    "PdfPages", "PolyCollection", "alone", "mpl",
]  # fmt: skip
