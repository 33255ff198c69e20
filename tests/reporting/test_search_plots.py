"""Figures of a search are drawn whole for any hyperparameters and any trials."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from sentiment_hybrid.errors import OutputError
from sentiment_hybrid.reporting import canvas, search_plots


def trials(count: int = 20, *, seed: int = 0) -> list[dict[str, Any]]:
    """As a search would give them: a third pruned, one failed."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        rate = float(10 ** random.uniform(-4, -2))
        params = {
            "learning_rate": rate,
            "dropout": float(random.uniform(0.1, 0.5)),
            "hidden": int(random.choice([128, 256, 512])),
            "layers": int(random.integers(1, 4)),
            "cell": str(random.choice(["gru", "lstm"])),
            "clip_norm": [None, 1.0][number % 2],
        }
        peak = 0.8 - 0.05 * (math.log10(rate) + 3) ** 2 + float(random.normal(0, 0.005))
        state = "failed" if number == 7 else "pruned" if number % 3 == 2 else "complete"
        length = {"failed": 0, "pruned": 3, "complete": 9}[state]
        curve = [peak - 0.1 * 0.6**epoch for epoch in range(length)]
        made.append(
            {
                "number": number,
                "state": state,
                "value": max(curve) if curve else None,
                "params": params,
                "epochs": curve,
            }
        )
    return made


RATE = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True, "step": None}
LAYERS = {"type": "int", "low": 1, "high": 3, "log": False, "step": 1}
CELL = {"type": "categorical", "choices": ("gru", "lstm", "none")}
SPACE = {"learning_rate": RATE, "layers": LAYERS, "cell": CELL}


def draw(
    folder: Path, some: list[dict[str, Any]], importances: dict[str, float] | None, suffix: str = "png"
) -> dict[str, Path]:
    return search_plots.draw(
        folder,
        "lstm",
        some,
        importances,
        metric="macro-F1",
        space=SPACE,
        title=lambda shows: f"A search: {shows}",
        suffix=suffix,
    )


def test_every_figure_is_drawn_and_holds_more_than_paper(tmp_path):
    files = draw(tmp_path, trials(), {"learning_rate": 0.8, "dropout": 0.2})
    assert set(files) == {"history", "epochs", "slices", "parallel_coordinates", "importances"}
    for path in files.values():
        assert matplotlib.image.imread(path)[..., :3].std() > 0.02
    assert sorted(tmp_path.iterdir()) == sorted(files.values()), "nothing is left beside them"


def test_each_figure_says_in_its_title_which_one_it_is(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(canvas, "_set_title", lambda drawing, title: titles.append(title))
    files = draw(tmp_path, trials(), {"learning_rate": 0.8, "dropout": 0.2})
    assert len(set(titles)) == len(files)
    assert all(title.startswith("A search: ") for title in titles)


def test_trials_of_one_epoch_are_points(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(search_plots, "_name_values", lambda axes, metric: seen.append(axes))
    two = [{"number": number, "state": "complete", "value": 0.5, "epochs": [0.5 + number]} for number in range(2)]
    search_plots.epochs(tmp_path / "epochs.png", two, metric="m", title="t")
    (axes,) = seen
    lines = [line for line in axes.get_lines() if len(line.get_xdata())]
    assert [line.get_marker() for line in lines] == ["o", "o"]
    assert axes.get_xlim() == (0, 2)


def test_the_best_so_far_holds_until_the_last_trial():
    axes = Figure().subplots()
    search_plots._best_so_far(axes, trials(12))
    (line,) = axes.get_lines()
    assert (line.get_xdata()[-1], line.get_ydata()[-1]) == (11, max(line.get_ydata()))


def test_without_a_scored_trial_nothing_is_drawn(tmp_path):
    failed = [{"number": 0, "state": "failed", "value": None, "params": {"dropout": 0.1}, "epochs": []}]
    assert draw(tmp_path, failed, None) == {}
    assert not list(tmp_path.iterdir())


def test_percentages_of_importances_and_scores_are_written_alike(tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        files = draw(tmp_path, trials(), {"learning_rate": 0.8, "dropout": 0.2}, suffix="svg")
    for name in ("importances", "history"):
        text = files[name].read_text(encoding="utf-8")
        assert re.search(r"\d %<", text)
        assert not re.search(r"\d%<", text)


def test_importances_are_left_out_where_nobody_can_tell(tmp_path):
    assert "importances" not in draw(tmp_path, trials(3), None)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["complete", "pruned"]),
            st.floats(-5, 1),
            st.one_of(st.integers(1, 10**6), st.text(max_size=60), st.none(), st.booleans(), st.floats(1e-9, 1e9)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_odd_values_of_hyper_parameters_are_drawn_without_a_warning(tmp_path_factory, given):
    some = [
        {"number": number, "state": state, "value": value, "params": {"learning_rate": param}, "epochs": [value]}
        for number, (state, value, param) in enumerate(given)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = draw(tmp_path_factory.mktemp("odd"), some, {"learning_rate": 1.0})
    assert all(path.stat().st_size > 0 for path in files.values())


@pytest.mark.parametrize(("log", "middle"), [(True, 1e-3), (False, 0.00505)], ids=["by the logarithm", "by size"])
def test_a_scale_places_values_between_its_ends(log, middle):
    some = [{"params": {"rate": rate}} for rate in (1e-4, 2e-3, 5e-3, 1e-2)]
    scale = search_plots._Scale.of("rate", some, {"rate": RATE | {"log": log}})
    assert scale.place(1e-4) == 0.0
    assert scale.place(1e-2) == pytest.approx(1.0)
    assert scale.place(middle) == pytest.approx(0.5)


def test_a_scale_covers_the_search_space_and_what_was_tried_beyond_it():
    some = [{"params": {"learning_rate": 2e-3, "layers": 2, "cell": "gru"}}]
    rate, layers, cell = (search_plots._Scale.of(name, some, SPACE) for name in SPACE)
    assert (rate.place(1e-4), rate.place(1e-2)) == (0.0, pytest.approx(1.0))
    assert rate.title == "learning_rate (log scale)"
    assert layers.ticks(most=5)[1] == ["1", "2", "3"]
    assert cell.ticks(most=5)[1] == ["gru", "lstm", "none"]
    beyond = search_plots._Scale.of("learning_rate", [*some, {"params": {"learning_rate": 0.1}}], SPACE)
    assert beyond.place(0.1) == pytest.approx(1.0) and beyond.place(1e-2) < 1.0


@pytest.mark.parametrize(
    ("low", "high", "log", "words"),
    [
        (1e-5, 1e-2, True, ["1e-5", "0.0001", "0.001", "0.01"]),
        (1e-4, 5e-3, True, ["0.0001", "0.0003", "0.001", "0.003"]),
        (1e-3, 2e-3, True, ["0.001", "0.002"]),
        (0.1, 0.5, False, ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        (0.0, 0.1, False, ["0", "0.025", "0.05", "0.075", "0.1"]),
    ],
)
def test_ticks_are_round_values_of_the_search_space(low, high, log, words):
    entry = {"type": "float", "low": low, "high": high, "log": log, "step": None}
    assert search_plots._Scale.of("x", [{"params": {"x": low}}], {"x": entry}).ticks(most=5)[1] == words


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-12, 1e12), st.floats(1.0001, 1e9), st.booleans(), st.integers(3, 6))
def test_any_scale_has_a_few_ticks_within_its_ends(low, factor, log, most):
    entry = {"type": "float", "low": low, "high": low * factor, "log": log, "step": None}
    places, words = search_plots._Scale.of("x", [], {"x": entry}).ticks(most=most)
    assert 2 <= len(places) == len(words) <= most
    assert places == sorted(places) and all(-1e-6 <= place <= 1 + 1e-6 for place in places)


def test_lines_of_one_choice_are_spread_so_that_each_can_be_followed():
    some = [{"params": {"cell": "gru"}} for _ in range(4)] + [{"params": {}}]
    heights = search_plots._heights(search_plots._Scale.of("cell", some, SPACE), some)
    assert len(heights) == len(set(heights.values())) == 4


@pytest.mark.parametrize(("suffix", "starts"), [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_figures_are_drawn_in_other_formats(tmp_path, suffix, starts):
    for path in draw(tmp_path, trials(), None, suffix).values():
        assert path.suffix == f".{suffix}" and path.read_bytes().startswith(starts)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError):
        draw(blocked, trials(), None)
