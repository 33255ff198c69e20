"""The figures of a hyperparameter search: history, epochs, importances, slices, parallel coordinates.

They are drawn from plain mappings rather than from a study, so that reporting does not depend on Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid.reporting.canvas import BLUE, GRID, INK, MUTED, ORANGE, figure, finite, number, percent, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

#: A trial: number, state (complete, pruned, failed), value, params, epochs (the value after each epoch).
Trial = Mapping[str, Any]
#: Search spaces by hyperparameter: type, and choices, or low, high, step and log.
Space = Mapping[str, Mapping[str, Any]]

#: The part of each title that says what the figure shows.
_SHOWS = {
    "history": "optimization history",
    "epochs": "learning curves of the trials",
    "slices": "values of each hyperparameter",
    "parallel_coordinates": "hyperparameters of all trials",
    "importances": "hyperparameter importance",
}
_SLICES_PER_ROW = 3
#: With more lines the figure becomes illegible; only the best ones are drawn.
_MOST_LINES = 200
#: Pruned trials have a value of fewer epochs, so they are drawn fainter than finished ones.
_LOOKS = {"complete": ("o", BLUE, 1.0), "pruned": ("D", ORANGE, 0.75)}


def draw(
    folder: Path,
    stem: str,
    trials: Sequence[Trial],
    importances: Mapping[str, float] | None,
    *,
    metric: str,
    space: Space,
    title: Callable[[str], str],
    suffix: str = "png",
) -> dict[str, Path]:
    """Draw the figures that these trials allow as ``<stem>_<kind>.<suffix>``; returns kind -> file.

    Args:
        trials: the trials; higher ``value`` and ``epochs`` are better.
        importances: hyperparameter -> fraction of the variance that it explains; None if unknown.

    Raises:
        OutputError: a file cannot be written.
    """
    scored = [trial for trial in trials if finite(trial["value"])]
    if not scored:
        return {}
    drawings: dict[str, Callable[..., None]] = {
        "history": partial(history, trials=trials),
        "epochs": partial(epochs, trials=trials),
        "slices": partial(slices, trials=scored, space=space),
        "parallel_coordinates": partial(parallel_coordinates, trials=scored, space=space),
    }
    if importances:
        drawings["importances"] = partial(show_importances, importances=importances)
    files = {kind: folder / f"{stem}_{kind}.{suffix}" for kind in drawings}
    for kind, path in files.items():
        drawings[kind](path, metric=metric, title=title(_SHOWS[kind]))
    return files


def history(path: Path, trials: Sequence[Trial], *, metric: str, title: str) -> None:
    """Value of each trial, and the best so far. Raises OutputError if the file cannot be written."""
    with _values_over("trial", path, metric, title) as axes:
        _scatter_states(axes, trials, lambda trial: trial["number"])
        _best_so_far(axes, trials)
        failed = [trial["number"] for trial in trials if trial["state"] == "failed"]
        if failed:
            # At the bottom edge: a failed trial has no value.
            bottom, edge = [0.02] * len(failed), axes.get_xaxis_transform()
            axes.scatter(failed, bottom, marker="x", color=MUTED, transform=edge, label="failed")


def epochs(path: Path, trials: Sequence[Trial], *, metric: str, title: str) -> None:
    """Value of each trial after each epoch; pruned trials end early. Raises OutputError."""
    best = _best(trials)
    with _values_over("epoch", path, metric, title) as axes:
        for trial in trials:
            values = trial["epochs"]
            if not values or trial["state"] not in _LOOKS or trial is best:
                continue
            pruned = trial["state"] == "pruned"
            color, style = (ORANGE, "--") if pruned else (BLUE, "-")
            marker = "o" if len(values) == 1 and not pruned else ""
            axes.plot(range(1, len(values) + 1), values, style + marker, color=color, linewidth=1.2, alpha=0.6)
            if pruned:
                axes.scatter([len(values)], [values[-1]], color=color, marker="D", s=26, zorder=3)
        if best is not None and best["epochs"]:
            numbers = range(1, len(best["epochs"]) + 1)
            marker = "o" if len(numbers) == 1 else ""
            label = f"best: trial {best['number']}"
            axes.plot(numbers, best["epochs"], "-" + marker, color=INK, linewidth=2.2, label=label)
        axes.plot([], [], color=BLUE, linewidth=1.2, label="finished")
        axes.plot([], [], "--D", color=ORANGE, linewidth=1.2, markersize=4, label="pruned")


def show_importances(path: Path, importances: Mapping[str, float], *, metric: str, title: str) -> None:
    """Fraction of the variance that each hyperparameter explains. Raises OutputError."""
    names = sorted(importances, key=importances.__getitem__)
    with figure(path, (7.6, 1.5 + 0.42 * max(2, len(names))), title) as drawing:
        axes = drawing.subplots()
        bars = axes.barh(range(len(names)), [importances[name] for name in names], color=BLUE, height=0.62)
        axes.bar_label(bars, [f"{100 * importances[name]:.0f} %" for name in names], padding=5, color=INK, fontsize=9)
        axes.set_yticks(range(len(names)), [wrapped(name, width=28) for name in names])
        axes.set_xlim(0, 1.12 * max(*importances.values(), 1e-9))
        axes.set_xlabel(f"fraction of the variance in {metric}")
        axes.xaxis.set_major_formatter(percent())
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)


def slices(path: Path, trials: Sequence[Trial], *, metric: str, space: Space, title: str) -> None:
    """One panel per hyperparameter: the value of each trial over the setting. Raises OutputError."""
    names = _names(trials)
    rows = max(1, -(-len(names) // _SLICES_PER_ROW))
    columns = min(_SLICES_PER_ROW, max(1, len(names)))
    with figure(path, (0.6 + 3.4 * columns, 0.7 + 2.9 * rows), title) as drawing:
        panels = drawing.subplots(rows, columns, squeeze=False, sharey=True)
        for number, axes in enumerate(panels.flat):
            if number >= len(names):
                axes.set_visible(False)
                continue
            scale = _Scale.of(names[number], trials, space)
            tried = [trial for trial in trials if names[number] in trial["params"]]
            _scatter_states(axes, tried, scale.place_of)
            axes.set_xticks(*scale.ticks(most=5))
            axes.set_xlabel(wrapped(scale.title, width=32))
            axes.set_xlim(-0.08, 1.08)
            axes.grid(True)
            if number % columns == 0:
                _name_values(axes, metric)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=2)


def parallel_coordinates(path: Path, trials: Sequence[Trial], *, metric: str, space: Space, title: str) -> None:
    """A line per trial through all its hyperparameters, darker for better trials. Raises OutputError."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    names = _names(trials)
    # The best are drawn last, on top; of equal values, a finished trial.
    shown = sorted(trials, key=lambda trial: (trial["value"], trial["state"] == "complete"))[-_MOST_LINES:]
    scales = [_Scale.of(name, trials, space) for name in names]
    heights = [_heights(scale, shown) for scale in scales]
    norm = _normalised([trial["value"] for trial in shown])
    shades = colormaps["YlGnBu"]
    with figure(path, (2.4 + 1.5 * max(2, len(names)), 4.6), title) as drawing:
        axes = drawing.subplots()
        for trial in shown:
            points = [(place, of[id(trial)]) for place, of in enumerate(heights) if id(trial) in of]
            # Skip the lightest fifth of the colour map, which is invisible on white.
            shade = shades(0.2 + 0.8 * float(norm(trial["value"])))
            axes.plot(*zip(*points, strict=True), color=shade, linewidth=2.4 if trial is shown[-1] else 1.1)
        for place, scale in enumerate(scales):
            axes.axvline(place, color=GRID, linewidth=1.2, zorder=0)
            for height, words in zip(*scale.ticks(most=5), strict=True):
                mark = axes.annotate(words, (place, height), xytext=(4, 0), textcoords="offset points", fontsize=8)
                mark.set(color=INK, va="center", zorder=4)
                mark.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0})
        axes.set_xticks(range(len(names)), [wrapped(scale.title, width=16) for scale in scales])
        axes.set_yticks([])
        axes.set(xlim=(-0.1, max(len(names) - 1, 1) + 0.3), ylim=(-0.1, 1.1))
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0)
        best = _best(shown) or shown[-1]
        axes.plot([], [], color=shades(1.0), linewidth=2.4, label=f"best: trial {best['number']}")
        drawing.legend(loc="outside lower center")
        bar = drawing.colorbar(
            ScalarMappable(norm, shades), ax=axes, label=metric, format=_percent(metric), pad=0.01, fraction=0.05
        )
        bar.outline.set_visible(False)


# --- parts


@contextmanager
def _values_over(name: str, path: Path, metric: str, title: str) -> Iterator[Axes]:
    """A figure of values over whole numbers."""
    from matplotlib.ticker import MaxNLocator

    with figure(path, (8.6, 4.2), title) as drawing:
        axes = drawing.subplots()
        yield axes
        axes.set_xlabel(name)
        low, high = axes.dataLim.intervalx
        if low == high:  # room for whole numbers on both sides
            axes.set_xlim(low - 1, high + 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_values(axes, metric)
        axes.grid(True)
        drawing.legend(loc="outside lower center", ncols=4)


#: Height of the band over which the lines of one choice are spread.
_BAND = 0.12


def _heights(scale: _Scale, trials: Sequence[Trial]) -> dict[int, float]:
    """Where each trial crosses an axis, by its id; trials of one choice are spread so that each can be followed."""
    placed = {id(trial): scale.place_of(trial) for trial in trials if scale.name in trial["params"]}
    if scale.numeric:
        return placed
    for height in set(placed.values()):
        same = [trial for trial, place in placed.items() if place == height]
        for rank, trial in enumerate(same):
            placed[trial] += _BAND * (rank / (len(same) - 1) - 0.5) if len(same) > 1 else 0.0
    return placed


#: Whole-number hyperparameters with so few possible values are drawn as choices.
_FEW = 5


class _Scale:
    """Maps the values of a hyperparameter to 0..1: choices evenly, numbers linearly or logarithmically."""

    def __init__(self, name: str, values: Sequence[Any], *, numeric: bool, log: bool) -> None:
        self.name, self.numeric, self.log = name, numeric, log
        self.values = values
        if numeric:
            self.low, self.high = (self._raw(edge) for edge in (min(values), max(values)))

    @classmethod
    def of(cls, name: str, trials: Sequence[Trial], space: Space) -> _Scale:
        """The scale of a hyperparameter: over its search space, and any trials beyond that."""
        entry = space.get(name, {})
        found = [trial["params"][name] for trial in trials if name in trial["params"]]
        values = list(dict.fromkeys([*_all_of(entry), *found]))
        few = not entry and len(values) <= 3
        if few or "choices" in entry or not all(map(_is_number, values)):
            values.sort(key=lambda value: (not _is_number(value), value if _is_number(value) else str(value)))
            return cls(name, values, numeric=False, log=False)
        if _counted(entry) and len(values) <= _FEW:
            return cls(name, sorted(values), numeric=False, log=False)
        return cls(name, values, numeric=True, log=bool(entry.get("log")) and min(values) > 0)

    @property
    def title(self) -> str:
        return f"{self.name} (log scale)" if self.log else self.name

    def place(self, value: Any) -> float:
        """The position in 0..1; 0.5 if there is only one value."""
        if not self.numeric:
            return self.values.index(value) / (len(self.values) - 1) if len(self.values) > 1 else 0.5
        return (self._raw(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def place_of(self, trial: Trial) -> float:
        return self.place(trial["params"][self.name])

    def ticks(self, *, most: int) -> tuple[list[float], list[str]]:
        """Positions and labels of a few round values."""
        values = self.values if not self.numeric else _round_values(min(self.values), max(self.values), self.log, most)
        words = [number(value) if isinstance(value, float) else str(value) for value in values]
        return [self.place(value) for value in values], [wrapped(word) for word in words]

    def _raw(self, value: float) -> float:
        return math.log(value) if self.log else float(value)


def _is_number(value: Any) -> bool:
    return finite(value) and not isinstance(value, bool)


def _counted(entry: Mapping[str, Any]) -> bool:
    return entry.get("type") == "int" and not entry["log"]


def _all_of(entry: Mapping[str, Any]) -> list[Any]:
    """The choices of a search space, its few whole numbers, or its ends."""
    if "choices" in entry:
        return list(entry["choices"])
    if _counted(entry) and len(numbers := range(entry["low"], entry["high"] + 1, entry["step"])) <= _FEW:
        return list(numbers)
    return [entry["low"], entry["high"]] if entry else []


def _round_values(low: float, high: float, log: bool, most: int) -> list[float]:
    """At most ``most`` round values from low to high; both ends if there are fewer than two."""
    from matplotlib.ticker import MaxNLocator

    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            # Not a product of floats, so that 1e-05 and 3e-4 are exact.
            values = [value for p in powers for f in factors if low <= (value := float(f"{f}e{p}")) <= high]
            if 2 <= len(values) <= most:
                return values
        if len(values) > most:
            return values[:: -(-len(values) // most)]
    edge = 1e-9 * (high - low)
    for bins in range(most + 1, 0, -1):
        found = MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        values = [min(max(float(value), low), high) for value in found if low - edge <= value <= high + edge]
        if 2 <= len(values) <= most:
            return values
    return [low, high] if high > low else [low]


def _percent(metric: str) -> Any:
    return None if metric.endswith("loss") else percent()


def _name_values(axes: Axes, metric: str) -> None:
    axes.set_ylabel(metric)
    if formatter := _percent(metric):
        axes.yaxis.set_major_formatter(formatter)


def _names(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial["params"]))


def _best(trials: Sequence[Trial]) -> Trial | None:
    complete = [trial for trial in trials if trial["state"] == "complete" and finite(trial["value"])]
    return max(complete, key=lambda trial: trial["value"], default=None)


def _scatter_states(axes: Axes, trials: Sequence[Trial], place: Callable[[Trial], float]) -> None:
    for state, (marker, color, alpha) in _LOOKS.items():
        some = [trial for trial in trials if trial["state"] == state and finite(trial["value"])]
        points = [place(trial) for trial in some], [trial["value"] for trial in some]
        label = "finished" if state == "complete" else state
        axes.scatter(*points, s=30, marker=marker, color=color, alpha=alpha, edgecolor="white", label=label, zorder=3)


def _best_so_far(axes: Axes, trials: Sequence[Trial]) -> None:
    numbers: list[int] = []
    values: list[float] = []
    for trial in sorted(trials, key=lambda trial: int(trial["number"])):
        if trial["state"] == "complete" and finite(trial["value"]):
            numbers.append(trial["number"])
            values.append(max([trial["value"], *values[-1:]]))
    if numbers:
        # Extend the line over later trials that were pruned or failed.
        numbers.append(max(int(trial["number"]) for trial in trials))
        values.append(values[-1])
    axes.step(numbers, values, where="post", color=INK, linewidth=1.6, label="best so far")


def _normalised(values: Sequence[float]) -> Normalize:
    from matplotlib.colors import Normalize

    ordered = sorted(values)
    # Clip at the first decile: one very bad trial would give all others the same dark shade.
    low = ordered[len(ordered) // 10]
    return Normalize(low, ordered[-1] if ordered[-1] > low else low + 1e-9, clip=True)
