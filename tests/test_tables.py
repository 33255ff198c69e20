"""Tables of figures: whole and legible at any width, in one unit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sentiment_hybrid import tables
from sentiment_hybrid.commands import optimize
from sentiment_hybrid.engine.evaluation import metrics

MODELS = ("LSTMRoBERTa", "HANRoBERTa", "LinearRoBERTa", "baseline")


@pytest.fixture(scope="module")
def scored() -> dict[str, metrics.Scores]:
    """Real scores of four models on three classes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 400)
    found = {}
    for place, name in enumerate(MODELS):
        noise = rng.dirichlet((1.0, 1.0, 1.0), 400)
        probabilities = 0.1 * place * np.eye(3)[truth] + (1.0 - 0.1 * place) * noise
        found[name] = metrics.score(
            truth, probabilities, ("negative", "neutral", "positive"), metrics.Level(resamples=200)
        )
    return found


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [80, 120, 300])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_figure_of_four_models_is_whole_at_any_width(
    number: int, width: int, scored: dict[str, Any], monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    models = {name: scored[name] for name in MODELS[:number]}
    tables.scores("Tested on 400 texts", models)
    lines = shown(capsys)
    assert all(len(line) <= width for line in lines)
    out = "\n".join(lines)
    for name, one in models.items():
        assert name in out
        for interval in (one.accuracy, one.macro_f1, one.mcc, one.roc_auc, one.ece):
            assert f"{100 * interval.value:.2f}" in out
            assert f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]" in out, "an interval is never broken"
    assert "%" in out and "macro-F1" in out


@pytest.mark.parametrize("width", [80, 120])
def test_differences_of_all_pairs_are_whole_at_any_width(
    width: int, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    better = metrics.Comparison(
        12345, 0.95, metrics.Difference(0.1234, 0.1, 0.15, 0.0), metrics.Difference(-0.01, -0.02, 0.01, 0.3), 9, 1
    )
    pairs = [(better, "LSTMRoBERTa", "the TF-IDF baseline"), (better, "HANRoBERTa", "LSTMRoBERTa")]
    tables.differences(pairs)
    lines = shown(capsys)
    assert all(len(line) <= width for line in lines if "corrected" not in line)
    assert "corrected for 2 pairs (Holm)" in " ".join(lines)
    cells = [line.split() for line in lines]
    assert ["LSTMRoBERTa", "macro-F1", "LSTMRoBERTa", "+12.34", "[+10.00,", "+15.00]", "<", "0.001"] in cells
    assert ["-", "TF-IDF", "baseline", "accuracy", "neither", "-1.00", "[-2.00,", "+1.00]", "0.3"] in cells


def test_a_single_pair_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    same = metrics.Difference(0.0, -0.01, 0.01, 0.9)
    tables.differences([(metrics.Comparison(1, 0.95, same, same, 0, 0), "LSTMRoBERTa", "the baseline")])
    assert "LSTMRoBERTa and the baseline do not differ measurably on this 1 text" in capsys.readouterr().out
    tables.differences([])
    assert capsys.readouterr().out == ""


def test_seeds_stand_in_rows_with_the_published_one_marked(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    of = {"mean": 0.82, "std": 0.0123, "values": [0.81, 0.83]}
    names = ("valid_macro_f1", "valid_accuracy", "test_macro_f1", "test_accuracy")
    summary = {"seeds": [7, 8], "published": 8, "figures": dict.fromkeys(names, of)}
    tables.seeds("LSTMRoBERTa", summary)
    lines = shown(capsys)
    assert all(len(line) <= 80 for line in lines)
    assert [*["82.00", "±", "1.23"] * 4] == next(line.split()[3:] for line in lines if "mean" in line)
    assert ["8", "(published)", *["83.00"] * 4] in [line.split() for line in lines]
    tables.varied({"LSTMRoBERTa": summary})
    said = capsys.readouterr().out
    assert "initial weights" in said and "test macro-F1 over seeds: LSTMRoBERTa 82.00 ± 1.23 %" in said


@pytest.mark.parametrize("width", [80, 120])
def test_the_best_trials_of_a_search_are_whole_at_any_width(
    width: int, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("learning_rate", "encoder_learning_rate", "weight_decay", "dropout", "hidden", "layers", "attention_heads")
    params = dict.fromkeys(names, 0.00012345)
    top = [SimpleNamespace(number=n, value=0.8123, best_epoch=3, params=params) for n in range(20, 30)]
    counts = {"finished": 1, "pruned": 1, "failed": 0}
    facts = {"study": "s", "storage": "x", "counts": counts, "trials": [], "epochs": 3}
    optimize.show_search(
        cast(Any, SimpleNamespace(**facts, metric="macro_f1", best=top[0], top=top, importances=None, files={}))
    )
    lines = shown(capsys)
    lines = lines[lines.index(next(line for line in lines if "Best trials" in line)) : -1]
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    assert words.count("20") == 1 and words.count("0.0001234") >= 2 * len(names)
    assert all(name in words for name in names), "no name is broken"


@pytest.mark.parametrize(
    ("promised", "best", "advice"), [(["0.95"], 0.963, "95%"), ([], 0.897, "89.7%"), ([], None, None)]
)
def test_a_test_names_a_target_accuracy_that_can_be_promised(
    promised: list[str],
    best: float | None,
    advice: str | None,
    scored: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    promises = {target: {"threshold": 0.9, "coverage": 0.5, "accuracy": (0.96, 0.9, 0.99)} for target in promised}
    validation = {"rows": 400, "fresh": True, "best": best}
    triage = {"coverage": {"0.95": 0.5, "0.98": 0.2}, "validation": validation, "promises": promises}
    facts = {"before_corrections": None, "overlap": None, "comparison": None, "baseline": None, "files": {}}
    scores = scored["LSTMRoBERTa"]
    result = SimpleNamespace(
        model="LSTMRoBERTa", scores=scores, rows=400, split="test", entry={"triage": triage}, **facts
    )
    tables.test(result)
    advised = [line for line in shown(capsys) if "--target-accuracy" in line]
    assert advised == ([f"Use them with senthy predict --target-accuracy {advice}."] if advice else [])
