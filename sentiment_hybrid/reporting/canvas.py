"""The paper that every figure is drawn on: one style, fonts, labels of any script, and saving whole or not at all."""

from __future__ import annotations

import math
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.files import aside_of, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
INK, MUTED, GRID = "#1f2933", "#65727f", "#dde3e9"
BLUE, ORANGE, GREEN = "#2166ac", "#d9730d", "#2f8f5b"
#: Looked at in this order for characters that the font before lacks, where they are installed.
_FALLBACK_FONTS = (
    "Noto Emoji",
    "Segoe UI Emoji",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def figure(path: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A styled figure, saved aside and swapped in when the block ends well."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.sans-serif": _fonts()}), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box; nothing a user could do about a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawing = Figure(figsize=inches, dpi=_DPI, layout="constrained")
        canvas = FigureCanvasAgg(drawing)
        yield drawing
        _save(path, canvas)


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def _save(path: Path, canvas: Any) -> None:
    hint = "check the folder's permissions and free space, or choose another with --set paths.results_dir=DIR"
    with written(f"figure {path}", hint=hint), aside_of(path) as aside:
        canvas.print_png(aside, metadata={"Software": None})


def title_of(drawing: Figure, title: str) -> None:
    """A title over the whole figure, wrapped to its width."""
    width = max(24, int(drawing.get_figwidth() * 9))
    drawing.suptitle(wrapped(title, width=width, lines=3), x=0.012, ha="left", fontsize=12, fontweight="bold")


def wrapped(text: str, *, width: int = 18, lines: int = 2) -> str:
    """Text fit for an axis: printable characters only, wrapped, cut with an ellipsis."""
    shown = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in text)
    parts = textwrap.wrap(shown, width) or [""]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip() + "…"]
    return "\n".join(parts)


def percent() -> Any:
    """Ticks of shares as whole percents."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=0)


def finite(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)
