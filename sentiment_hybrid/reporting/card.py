"""Model cards: README.md with the Hub's metadata; later figures replace their part of it, and people's words stay."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from sentiment_hybrid.errors import count
from sentiment_hybrid.reporting.rendering import environment

#: Metrics of a table: field of Scores, name, and the Hub's type.
_METRICS = (("accuracy", "accuracy", "accuracy"), ("macro_f1", "macro-F1", "f1"), ("ece", "calibration error", "ece"))
_MOST_LABELS = 12
#: What a user names for the header.
NAMED = ("license", "language", "datasets")
_NO_LICENSE = (
    "The license is still to be named by the publisher of this model: `license:` in the header of this file, or "
    "`--set models.license=ID` with `senthy train` or `senthy test`. Encoder and data have terms of their own."
)


@dataclass(frozen=True)
class Tested:
    """Figures of one test: the texts, and the scores of model and baseline (`evaluation.metrics.Scores`).

    The model, or mini, was trained on ``known`` of the texts.
    """

    __test__ = False  # not a test class for pytest

    data: str
    split: str
    scores: Any
    baseline: Any = None
    known: int = 0

    @property
    def name(self) -> str:
        """What was tested; the same rows have the same name."""
        known = f", {self.known:,} of them trained on" if self.known else ""
        return f"{plain(self.data)}, {self.split} ({self.scores.rows:,} texts{known})"


def plain(text: object) -> str:
    """Text on one line that Markdown and HTML do not read as markup."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", line)


def new_card(header: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """A card without figures; ``facts`` are the variables of the template."""
    template = environment("sentiment_hybrid.reporting", html=False, md=plain, rows=count).get_template("card.md")
    return joined(header, template.render(source=_source, **facts))


def _source(name: str) -> str:
    return plain(name) if name else "a source that was not recorded"


def parts(card: str) -> tuple[dict[str, Any], str]:
    """Header and body of a card. Raises ValueError if it has no header that can be read."""
    found = re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)
    try:
        header = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError as error:
        raise ValueError(f"its header is no YAML: {error}") from error
    if found is None or not isinstance(header, dict):
        raise ValueError("it has no header between two lines ---")
    return header, card[found.end() :].lstrip("\n")


def joined(header: Mapping[str, Any], body: str) -> str:
    """A card of header and body, with the sentence about the license that the header names."""
    given = header.get("license")
    body = _with_block(body, "license", f"`{plain(given)}`" if given else _NO_LICENSE)
    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def with_figures(
    card: str, tests: Sequence[Tested], *, name: str, named: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """The card with these tests and entries in its header; earlier tests of other rows stay.

    Raises ValueError: the card has no header, or no place for figures.
    """
    header, body = parts(card)
    old = _block(body, "figures")
    rows = {line.split(" | ")[0]: line for line in old.splitlines() if line.startswith("| ")}
    rows = {key: line for key, line in rows.items() if key != "| tested on"}
    rows |= {f"| {test.name}": _row(test) for test in tests}
    columns = ["tested on", *(title for _, title, _ in _METRICS), "F1 of each label", "macro-F1 of TF-IDF"]
    level = 100 * tests[-1].scores.confidence
    table = [f"In percent, with {level:g} % bootstrap intervals:", "", f"| {' | '.join(columns)} |"]
    table += ["|---" * len(columns) + "|", *rows.values()]
    index = _merged(header.get("model-index"), tests, name=name)
    return joined(header | {**named, "model-index": index}, _with_block(body, "figures", "\n".join(table)))


def taken_over(card: str, original: str, *, same: bool = True) -> str:
    """The card with figures and settings of another one, and its license, language and data sets if it has none.

    Metadata gets the figures only if the model is the ``same``, not where it computes otherwise.

    Raises ValueError: the other one has no header, or no place for figures.
    """
    (header, body), (before, old) = parts(card), parts(original)
    names = (*NAMED, "model-index") if same else NAMED
    kept = {name: before[name] for name in names if name in before}
    for name in ("figures", "settings"):
        body = _with_block(body, name, _block(old, name).rstrip("\n"))
    return joined(kept | header, body)


def _row(test: Tested) -> str:
    cells = [_interval(getattr(test.scores, field)) for field, _, _ in _METRICS]
    classes = [f"{plain(one.label)} {_percent(one.f1)}" for one in test.scores.per_class]
    cells.append(", ".join(classes) if len(classes) <= _MOST_LABELS else "-")
    cells.append(_interval(test.baseline.macro_f1) if test.baseline else "-")
    return f"| {test.name} | {' | '.join(cells)} |"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _interval(figure: Any) -> str:
    if math.isnan(figure.value):
        return "-"
    return f"{_percent(figure.value)} [{_percent(figure.low)}, {_percent(figure.high)}]"


def _merged(index: Any, tests: Sequence[Tested], *, name: str) -> list[dict[str, Any]]:
    """The Hub's model-index with these tests."""
    try:
        before = list(index[0]["results"])
    except (TypeError, KeyError, IndexError):
        before = []
    results = {str(one.get("dataset")): one for one in before if isinstance(one, dict)}
    for test in tests:
        one = _result(test)
        results[str(one["dataset"])] = one
    return [{"name": name, "results": list(results.values())}]


def _result(test: Tested) -> dict[str, Any]:
    figures = [(kind, title, getattr(test.scores, field).value) for field, title, kind in _METRICS]
    args = {"rows": test.scores.rows, **({"trained_on": test.known} if test.known else {})}
    return {
        "task": {"type": "text-classification", "name": "Text Classification"},
        "dataset": {"type": test.data, "name": test.data, "split": test.split, "args": args},
        "metrics": [
            {"type": kind, "name": title, "value": round(float(value), 4)}
            for kind, title, value in figures
            if not math.isnan(value)
        ],
    }


def _block(body: str, name: str) -> str:
    """The text of a block. Raises ValueError if there is none."""
    found = _place(body, name)
    if found is None:
        raise ValueError(f"it has no lines <!-- {name} --> and <!-- end of {name} -->")
    return found.group(2)


def _with_block(body: str, name: str, text: str) -> str:
    """The body with another text in a block; unchanged if there is none."""
    found = _place(body, name)
    return body if found is None else f"{body[: found.start(2)]}{text}\n{body[found.end(2) :]}"


def _place(body: str, name: str) -> re.Match[str] | None:
    return re.search(rf"(<!-- {name} -->\n)(.*?)(<!-- end of {name} -->)", body, flags=re.DOTALL)
