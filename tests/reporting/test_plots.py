"""Figures are drawn whole, whatever labels users bring, without a display and without leftovers."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentiment_hybrid.engine.evaluation.metrics import Interval, Level, ReliabilityBin, score
from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.reporting import canvas, plots
from sentiment_hybrid.reporting.canvas import percent, titled

NASTY = [
    "a_b_c",
    "$\\frac{1$",
    "100% ^sure^ {x}",
    "😀🏳️‍🌈",
    "負面",
    "a label that goes on and on and on until nobody would want to read it any more",
    "line\nbreak\ttab",
    "",
    "\ud800",
    "supercalifragilisticexpialidociousandmuchlongerthanthat",
]
ROWS = [
    {"name": "LSTMRoBERTa", "accuracy": Interval(0.84, 0.83, 0.85), "macro_f1": Interval(0.83, 0.82, 0.84)},
    {"name": "$x_y^z$", "accuracy": Interval(0.80, 0.79, 0.81), "macro_f1": Interval(math.nan, math.nan, math.nan)},
]
EPOCHS = [
    {
        "epoch": i,
        "train_loss": 1 / i,
        "valid_loss": 1.1 / i,
        "valid_accuracy": 0.8,
        "valid_macro_f1": 0.7,
        "learning_rate": 1e-3,
    }
    for i in range(1, 4)
]


def bins() -> tuple[ReliabilityBin, ...]:
    rng = np.random.default_rng(0)
    positive = rng.uniform(size=200)
    labels = (rng.uniform(size=200) < positive).astype(int)
    table = np.stack([1 - positive, positive], axis=1)
    return score(labels, table, ["a", "b"], Level(confidence=0.95, resamples=100, seed=0)).reliability


DRAWINGS: dict[str, Callable[[Path, str], None]] = {
    "confusion": lambda path, title: plots.confusion_matrix(path, [[5, 1], [2, 0]], ["a", "b"], title=title),
    "reliability": lambda path, title: plots.reliability(path, bins(), title=title),
    "curves": lambda path, title: plots.learning_curves(path, EPOCHS, title=title, best=2),
    "comparison": lambda path, title: plots.comparison(path, ROWS, title=title),
}


def pixels(path: Path) -> Any:
    from matplotlib.image import imread

    return imread(path)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_a_png_of_readable_size_with_clean_margins(tmp_path: Path, name: str) -> None:
    path = tmp_path / "figures" / "figure.png"
    DRAWINGS[name](path, "LSTMRoBERTa: test split")
    image = pixels(path)
    assert image.shape[0] > 250 and image.shape[1] > 500
    assert image.std() > 0.02
    # Nothing is cut off: the outermost rows and columns are white.
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge[..., :3] == 1.0).all()
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("title", ["$\\frac{1$ _a_", "very long " * 40, "", "😀 \ud800\x00"])
def test_no_title_breaks_a_figure_or_warns(tmp_path: Path, name: str, title: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DRAWINGS[name](tmp_path / "figure.png", title)
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.parametrize("size", [2, 10, 40])
def test_no_label_breaks_the_confusion_matrix_and_many_classes_fit(tmp_path: Path, size: int) -> None:
    labels = (NASTY * 4)[:size]
    counts = np.random.default_rng(0).integers(0, 100_000, (size, size)).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.confusion_matrix(tmp_path / "figure.png", counts, labels, title="many")
    image = pixels(tmp_path / "figure.png")
    assert max(image.shape) <= 4000
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge[..., :3] == 1.0).all()


def test_empty_rows_and_absent_figures_are_drawn_as_nothing(tmp_path: Path) -> None:
    plots.confusion_matrix(tmp_path / "a.png", [[0, 0], [0, 0]], ["a", "b"], title="no rows")
    plots.reliability(tmp_path / "b.png", [ReliabilityBin(0.0, 1.0, 0, math.nan, math.nan)], title="no rows")
    plots.learning_curves(tmp_path / "c.png", [], title="no epoch", best=1)
    plots.learning_curves(
        tmp_path / "d.png", [{"epoch": 1, "train_loss": math.nan, "valid_loss": None}], title="nan", best=1
    )
    plots.comparison(tmp_path / "e.png", [], title="no model")
    assert len(list(tmp_path.glob("*.png"))) == 5


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize(("suffix", "starts"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_same_input_gives_the_same_bytes_in_each_format(
    tmp_path: Path, name: str, suffix: str, starts: bytes
) -> None:
    one, two = (tmp_path / f"{file}.{suffix}" for file in ("one", "two"))
    for path in (one, two):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            DRAWINGS[name](path, "$x_1$ 負面 😀 \ud800")
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(starts)


def test_lines_of_one_panel_are_told_apart_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(canvas, "_set_title", lambda drawing, title: drawn.append(drawing))
    DRAWINGS["curves"](tmp_path / "figure.png", "")
    for axes in drawn[0].axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in axes.get_lines()]
        assert len(looks) == len(set(looks))


def test_the_seeds_of_a_model_are_drawn_beside_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(canvas, "_set_title", lambda drawing, title: drawn.append(drawing))
    of = {"mean": 0.83, "std": 0.02, "values": [0.81, 0.85]}
    seeds = {"seeds": [1, 2], "published": 2, "figures": {"test_accuracy": of, "test_macro_f1": of}}
    plots.comparison(tmp_path / "figure.png", [{**ROWS[0], "seeds": seeds}, ROWS[1]], title="")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["LSTMRoBERTa\nseed 2, of 2 seeds", "$x_y^z$"]
    points = [tuple(x for x, _ in marks.get_offsets()) for marks in axes.collections if len(marks.get_offsets()) == 2]
    assert points.count((0.81, 0.85)) == 2


def test_a_title_says_data_rows_and_encoder_and_names_of_paths_are_enough() -> None:
    where = {"data": "/data/a.csv, kaggle:owner/name", "rows": "311 test texts", "encoder": "/models/roberta"}
    assert titled("LSTM", **where) == "LSTM\na.csv, kaggle:owner/name: 311 test texts; encoder roberta"
    assert titled("LSTM", **where | {"encoder": "org/roberta"}).endswith("encoder org/roberta")


def test_a_path_that_cannot_be_written_is_an_error_and_keeps_the_old_figure(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file is in the way")
    with pytest.raises(OutputError, match="cannot write"):
        DRAWINGS["confusion"](tmp_path / "results" / "figure.png", "x")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        DRAWINGS["confusion"](tmp_path / "taken.png", "x")
    assert not list(tmp_path.glob(".*"))


def test_drawing_touches_neither_pyplot_nor_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sentiment_hybrid.reporting import plots, results;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.confusion_matrix(Path(sys.argv[1]), [[1, 0], [0, 1]], ['a', 'b'], title='t');"
        "assert not {'matplotlib.pyplot', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "figure.png")], check=True)


def test_ticks_between_whole_percents_keep_their_decimals() -> None:
    assert [percent()(value, None) for value in (0.0, 0.875, 0.9, 0.925, 1.0)] == [
        "0 %",
        "87.5 %",
        "90 %",
        "92.5 %",
        "100 %",
    ]
