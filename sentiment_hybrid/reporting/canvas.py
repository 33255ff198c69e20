"""The common style of all figures, fonts for labels in any script, and saving without partial files."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.files import atomic_file, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
INK, MUTED, GRID = "#1f2933", "#65727f", "#dde3e9"
BLUE, ORANGE, GREEN = "#2166ac", "#d9730d", "#2f8f5b"
#: Fallback fonts, tried in this order if installed, for characters that the main font lacks.
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
    "pdf.fonttype": 42,  # text that other programs can search and edit
    "svg.hashsalt": "senthy",  # the same input gives the same file
}
#: Metadata to omit (time, program), so that equal figures are equal files.
_UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
_HINT = "check permissions and free space, or choose another directory with --set paths.results_dir=DIR"


@contextmanager
def figure(path: Path, inches: tuple[float, float], title: str) -> Iterator[Figure]:
    """A figure in the common style, saved when the block ends without an error, as PNG, PDF or SVG by its suffix.

    Each line of its title is wrapped to its width.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "font.sans-serif": _fonts()}), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box; a warning would not help the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawing = Figure(figsize=inches, dpi=_DPI, layout="constrained")
        _set_title(drawing, title)
        yield drawing
        with written(f"figure {path}", hint=_HINT), atomic_file(path) as aside:
            drawing.savefig(aside, format=path.suffix[1:], metadata=_UNDATED[path.suffix[1:]])


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def _set_title(drawing: Figure, title: str) -> None:
    width = max(24, int(drawing.get_figwidth() * 9))
    lines = [wrapped(line, width=width, lines=3) for line in title.split("\n")]
    drawing.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=12, fontweight="bold")


def titled(title: str, *, data: str, rows: str, encoder: str) -> str:
    """A title with a second line that describes the data; paths are shortened to file names."""
    names = (Path(name).name if "/" in name and ":" not in name else name for name in data.split(", "))
    known = Path(encoder).name if Path(encoder).is_absolute() else encoder
    return f"{title}\n{', '.join(names)}: {rows}; encoder {known}"


def wrapped(text: str, *, width: int = 18, lines: int = 2) -> str:
    """Text for an axis label: printable characters only, wrapped, shortened with an ellipsis."""
    shown = "".join(" " if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} else char for char in text)
    parts = textwrap.wrap(shown, width) or [""]
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip() + "…"]
    return "\n".join(parts)


def percent() -> Any:
    """Formats tick labels of fractions in percent, with the decimals that they need."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.4g} %")  # ticks may be 2.5 points apart


def number(value: float) -> str:
    """``0.25``, ``1e-5``."""
    return re.sub(r"e-0*", "e-", f"{value:.4g}").replace("e+0", "e")


def finite(value: Any) -> bool:
    """Whether the value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
