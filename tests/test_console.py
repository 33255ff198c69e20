"""What a person sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sentiment_hybrid import console, tables
from sentiment_hybrid.commands import data, finetune, run_all
from sentiment_hybrid.engine.evaluation import metrics

I = SimpleNamespace  # noqa: E741


@pytest.fixture(autouse=True)
def _log_lines() -> None:
    console.set_verbosity(0)


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A stderr that says it is a terminal; pytest puts its own back between a fixture and the test."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    return stream


def interval(value: float) -> Any:
    return I(value=value, low=value - 0.01, high=value + 0.01)


def scores(value: float = 0.8) -> Any:
    names = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "roc_auc", "ece")
    classes = tuple(I(label=label, precision=0.8, recall=0.7, f1=0.75, support=500) for label in ("[neg]", "pos"))
    return I(rows=1000, confidence=0.95, per_class=classes, **{name: interval(value) for name in names})


def compared(gap: float, *, differs: bool) -> Any:
    difference = metrics.Difference(gap, gap - 0.01, gap + 0.01, 0.00001 if differs else 0.4)
    return metrics.Comparison(1000, 0.95, difference, difference, only_a=120, only_b=80)


def tested(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "model": "LSTMRoBERTa",
        "split": "test",
        "rows": 1000,
        "labels": ("[neg]", "pos"),
        "scores": scores(0.82),
        "baseline": scores(0.78),
        "comparison": compared(0.04, differs=True),
        "files": {"confusion_matrix": Path("results/c.png")},
        "overlap": None,
        "before_corrections": None,
        "entry": {},
    }
    return I(**facts | changes)


def test_brackets_in_user_text_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("[neutral] [bold]x[/bold]")
    console.table("[red]", ["[label]"], [["[neutral]"]])
    console.warn("label [neutral]")
    console.error("no [x]", problems=["[y]"], hint="[z]")
    caught = capsys.readouterr()
    for word in ("[neutral] [bold]x[/bold]", "[red]", "[label]"):
        assert word in caught.out
    for word in ("warning: label [neutral]", "Error: no [x]", "  - [y]", "Hint: [z]"):
        assert word in caught.err


def test_control_characters_and_lone_surrogates_do_not_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[31mb\x07\ud83dc")
    console.table("", ["t"], [["x\x1b]0;title\x07"]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b[31mb\\x07\\ud83dc" in out


def test_a_long_line_is_not_folded_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("word " * 100)
    console.note("word " * 100)
    console.table("", ["a", "b"], [["x" * 150, "y" * 150]])
    caught = capsys.readouterr()
    assert caught.out.count("\n") == 1 + 5
    assert caught.err.count("\n") == 1


@pytest.mark.parametrize("width", [60, 80])
def test_a_cut_column_leaves_room_for_the_others(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    console.table("", ["row", "text", "label", "likely"], [[7, "a text " * 12, "negative", "neutral"]], left=4, cut=1)
    shown = capsys.readouterr().out
    assert all(len(line) <= width for line in shown.splitlines())
    assert re.search(r"7 +a text .*… +negative +neutral", shown)


def test_notes_are_silent_with_q_and_warnings_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    console.set_verbosity(-1)
    console.note("a note")
    console.warn("a warning")
    logging.getLogger("sentiment_hybrid.x").info("an info")
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err == "warning: a warning\n"


def test_v_shows_debug_lines_of_the_program_and_info_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    for level, ours, theirs in ((0, False, False), (1, True, False), (2, True, True)):
        console.set_verbosity(level)
        logging.getLogger("sentiment_hybrid.x").debug("mine")
        logging.getLogger("other").debug("theirs")
        err = capsys.readouterr().err
        assert ("mine" in err) is ours
        assert ("theirs" in err) is theirs


def test_progress_in_a_pipe_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "_clock", lambda: now[0])
    with console.progress("training", total=1000, unit="texts") as bar:
        for _ in range(10):
            now[0] += 3
            bar.advance(100, loss=0.51234)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "training: 400 of 1,000 (40 %) texts, 33 texts/s, loss 0.5123, 12 s elapsed, 18 s remaining"
    assert lines[-1] == "training: 1,000 of 1,000 (100 %) texts, 33 texts/s, loss 0.5123, 30 s elapsed"


def test_a_total_that_is_estimated_is_said_to_be_and_what_was_done_before_is_no_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, total = [0.0], [4321.0]
    monkeypatch.setattr(console, "_clock", lambda: now[0])
    with console.progress("predicting", lambda: total[0], unit="texts") as bar:
        bar.skip(1000)
        now[0] = 10.0
        bar.advance(1100)
        now[0] = 20.0
        total[0] = 4300
        bar.advance(1100)
        now[0] = 30.0
        total[0] = 3000.0
        bar.advance(1100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "predicting: 2,100 of about 4,300 (48 %) texts, 110 texts/s, 10 s elapsed, 20 s remaining",
        "predicting: 3,200 of 4,300 (74 %) texts, 110 texts/s, 20 s elapsed, 10 s remaining",
        "predicting: 4,300 of about 4,300 (100 %) texts, 110 texts/s, 30 s elapsed",
    ]


def test_a_task_that_finishes_nothing_for_long_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = threading.Event()
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.01)
    monkeypatch.setattr(console, "_GRACE", 0.0)
    monkeypatch.setattr(console, "_line", lambda line: (sys.stderr.write(f"{line}\n"), printed.set()))
    with console.progress("training", total=3, unit="epochs") as bar:
        bar.update(loss=0.5)
        printed.clear()
        assert printed.wait(10)
    assert "training: 0 of 3 (0 %) epochs, loss 0.5, " in capsys.readouterr().err


def test_a_hidden_task_shows_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "_clock", lambda: now[0])
    with console.progress("predicting", shown=False) as bar:
        now[0] = 60.0
        bar.advance(5)
    assert capsys.readouterr().err == ""


def test_slow_work_is_reported_by_the_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "_clock", lambda: now[0])
    with console.progress("searching", total=6, unit="trials") as bar:
        now[0] = 12.0
        bar.update(completed=0, failed=0)
        now[0] = 50.0
        bar.update(completed=2, failed=0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "searching: 0 of 6 (0 %) trials, failed 0, 12 s elapsed"
    assert lines[1] == "searching: 2 of 6 (33 %) trials, 2.4 trials/min, failed 0, 50 s elapsed, 1 min 40 s remaining"


def test_a_quick_task_in_a_pipe_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reading") as bar:
        bar.advance(5)
        bar.update(total=10, description="still reading")
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_is_a_bar_with_facts_and_tasks_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    with console.progress("training", total=100, unit="texts") as outer:
        outer.advance(40, loss=0.25)
        with console.progress("validating", total=10) as inner:
            inner.advance(5, macro_f1=0.5)
            console._live[0].refresh()
        console.note("above the [bar]")
    shown = terminal.getvalue()
    for word in ("training", "loss 0.25", "validating", "macro_f1 0.5", "40%", "above the [bar]"):
        assert word in shown


def test_lines_stand_above_a_bar_and_rows_on_stdout_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = as_terminal(monkeypatch)
    with console.progress("predicting", total=100, unit="texts") as bar:
        bar.advance(40)
        console._live[0].refresh()
        console.note("a note")
        logging.getLogger("sentiment_hybrid.x").info("a record")
        sys.stderr.write("of a library\n")
        console.rows_stream().write("a row\n")
    above = [line for line in re.split(r"[\r\n]", terminal.getvalue()) if re.search("note|record|library", line)]
    assert [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in above] == ["a note", "a record", "of a library"]
    assert capsys.readouterr().out == "a row\n"


@pytest.mark.parametrize("width", [80, 160])
def test_progress_fits_the_terminal_with_elapsed_and_remaining_time(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = as_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))
    now = [1000.0]
    with console.progress("training", total=320_000, unit="texts") as bar:
        monkeypatch.setattr(console._live[0], "get_time", lambda: now[0])
        for task in console._live[0].tasks:
            task.start_time, task._get_time = now[0], lambda: now[0]
        for _ in range(5):
            now[0] += 100
            bar.advance(20_000, loss=0.41234, **{"macro-F1": "52.31 %"})
        console._live[0].refresh()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    shown = [line for line in last if "macro-F1" in line][-1]
    assert len(shown.rstrip()) <= width
    for words in ("training", "31%", "loss 0.4123", "macro-F1 52.31 %", "elapsed 0:08:20", "left 0:18:20"):
        assert words in shown
    assert "…" not in shown


def test_what_has_no_room_beside_a_bar_is_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    with console.speaking("HAN"), console.progress("searching", total=50, unit="trials") as bar:
        bar.update(completed=3, **{"best macro-F1": "82.41 %"}, pruned=3, failed=0, worker="a long name of a machine")
        console._live[0].refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    shown = [line for line in lines if "82.41" in line][-1].rstrip()
    assert "HAN: searching    6%" in shown
    assert shown.endswith("best macro-F1 82.41 %")


def test_the_last_line_in_a_pipe_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console, "_clock", lambda: now[0])
    with console.progress("reading", total=2) as bar:
        now[0] = 20.0
        bar.advance(2)
    assert capsys.readouterr().err.count("reading") == 1


def test_lines_say_which_model_and_seed_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    with console.speaking("HANRoBERTa"), console.speaking("seed 43"):
        console.note("epoch 1")
        console.warn("slow")
        logging.getLogger("sentiment_hybrid.x").info("stored")
        assert console.Progress(f"{console._speaker}training", None, unit="texts", bar=None).line().startswith("HAN")
    console.note("done")
    assert capsys.readouterr().err.splitlines() == [
        "HANRoBERTa, seed 43: epoch 1", "warning: HANRoBERTa, seed 43: slow", "HANRoBERTa, seed 43: stored", "done",
    ]  # fmt: skip


def test_progress_with_q_is_silent_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    console.set_verbosity(-1)
    with console.progress("training", total=100) as bar:
        bar.advance(40)
    assert terminal.getvalue() == ""


def test_a_failing_task_takes_its_bar_away(monkeypatch: pytest.MonkeyPatch) -> None:
    as_terminal(monkeypatch)
    with pytest.raises(ValueError, match="x"), console.progress("training", total=100):
        raise ValueError("x")
    assert console._live == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7440, "2 h 04 min")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


def test_sizes_and_p_values_read_well() -> None:
    assert [console.size(n) for n in (0, 1023, 1536, 5 * 2**30, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "3.0 TiB",
    ]
    assert tables.p_value(0.00001) == "< 0.001"
    assert tables.p_value(0.0312) == "0.031"


def test_a_figure_that_there_is_not_is_a_dash() -> None:
    nothing = interval(float("nan"))
    assert tables.percent(nothing) == "-"


def test_a_paired_test_is_described_in_words() -> None:
    won = tables.difference(compared(0.04, differs=True), "LSTMRoBERTa", "the baseline")
    expected = "is better than the baseline, beyond chance, in macro-F1 and accuracy on these 1,000 texts"
    assert won.startswith(f"LSTMRoBERTa {expected}")
    assert "accuracy +4.00 [+3.00, +5.00] points, p < 0.001" in won
    lost = tables.difference(compared(-0.04, differs=True), "LSTMRoBERTa", "the baseline")
    assert lost.startswith("The baseline is better than LSTMRoBERTa")
    assert "macro-F1 +4.00 [+3.00, +5.00] points" in lost, "the figures are the better one's"
    assert "do not differ measurably" in tables.difference(compared(0.0, differs=False), "a", "b")


def test_models_that_lead_in_one_metric_each_are_both_named() -> None:
    both = replace(compared(0.04, differs=True), accuracy=compared(-0.02, differs=True).accuracy)
    said = tables.difference(both, "a", "b")
    assert said.startswith("A is better than b, beyond chance, in macro-F1, and worse in accuracy, on these")


def test_a_test_shows_intervals_beside_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    tables.test(tested(overlap={"rows": 40, "of": 1000}))
    caught = capsys.readouterr()
    for word in ("82.00 [81.00, 83.00]", "78.00 [77.00, 79.00]", "baseline", "[neg]", "75.00", "results/c.png"):
        assert word in caught.out
    assert "40 of these 1,000 texts (4.0 %) were in the model's training data" in caught.err


def test_a_file_without_a_text_trained_on_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    tables.test(tested(overlap={"rows": 0, "of": 1000}))
    assert "None of these texts was in the model's training data." in capsys.readouterr().out
    tables.test(tested())  # a split of the database: nothing to check
    caught = capsys.readouterr()
    assert "training data" not in caught.out + caught.err


def test_a_model_that_the_baseline_beats_comes_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    tables.test(tested(comparison=compared(-0.04, differs=True)))
    out = capsys.readouterr().out
    assert "The TF-IDF baseline is better than LSTMRoBERTa" in out and "Before you use this model, try more" in out
    tables.test(tested())
    assert "Before you use" not in capsys.readouterr().out


def test_a_test_without_baseline_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    tables.test(tested(baseline=None, comparison=None))
    assert "baseline" not in capsys.readouterr().out


def test_a_training_shows_its_best_epoch_its_seeds_and_its_test(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = {"mean": 0.81, "std": 0.004, "values": [0.806, 0.814]}
    seeds = {"seeds": [3, 4], "published": 4, "figures": {"test_accuracy": accuracy}}
    result = I(
        model="LSTMRoBERTa",
        model_dir=Path("models/m"),
        run_dir=Path("results/runs/1"),
        best_epoch=3,
        epochs=5,
        valid={"accuracy": 0.8, "macro_f1": 0.79},
        seconds=65.0,
        resumed=True,
        seeds=seeds,
        test=tested(),
    )
    tables.training(result)
    out = capsys.readouterr().out
    for word in ("models/m", "(resumed)", "1 min 05 s", "epoch 3", "macro-F1 79.00 %", "81.00 ± 0.40", "82.00"):
        assert word in out


def finetuned(**changes: Any) -> Any:
    measured = I(rows=48, before=scores(0.6), after=scores(0.7), comparison=compared(0.1, differs=True))
    facts: dict[str, Any] = {
        "model": "HANRoBERTa",
        "model_dir": Path("models/new"),
        "parent_dir": Path("models/old"),
        "run_dir": Path("results/runs/2"),
        "labels": ("neg", "pos"),
        "old_labels": ("neg", "pos"),
        "best_epoch": 2,
        "epochs": 3,
        "valid": {"accuracy": 0.8, "macro_f1": 0.79},
        "valid_before": {"accuracy": 0.7, "macro_f1": 0.69},
        "improved": True,
        "metric": "macro_f1",
        "left_out": {"repeated text": 1234},
        "new_test": measured,
        "old_test": I(rows=1000, before=scores(0.8), after=scores(0.75), comparison=compared(-0.05, differs=True)),
        "old_test_missing": "",
        "seconds": 65.0,
        "resumed": False,
        "files": {"predictions": Path("results/p.csv")},
    }
    return I(**{**facts, **changes})


def test_a_fine_tuning_shows_both_tests_before_and_after_and_what_was_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finetune.show(finetuned())
    caught = capsys.readouterr()
    for word in ("models/new fine-tuned from models/old", "1,234 repeated text", "48 new texts: accuracy", "60.00"):
        assert word in caught.out
    for word in ("75.00", "the model is worse than before", "New texts: The fine-tuned model is better"):
        assert word in caught.out
    assert caught.err == ""


def test_a_fine_tuning_that_helped_nobody_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    kept = I(rows=1000, before=scores(), after=scores(), comparison=compared(0.0, differs=False))
    worse = {"accuracy": 0.6, "macro_f1": 0.59}
    finetune.show(finetuned(improved=False, valid=worse, old_test=kept))
    caught = capsys.readouterr()
    assert "no epoch improved" in caught.err
    assert "59.00 %, before: 69.00 %" in caught.err
    assert "no sign of forgetting" in caught.out


def test_a_fine_tuning_to_other_labels_says_what_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    alone = I(rows=48, before=None, after=scores(0.7), comparison=None)
    finetune.show(
        finetuned(
            labels=("joy", "[rage]"),
            new_test=alone,
            old_test=None,
            old_test_missing="its labels were neg, pos",
            improved=None,
            valid_before=None,
        )
    )
    out = capsys.readouterr().out
    assert "the output layer was replaced: its labels are joy, [rage], and were neg, pos" in out
    assert "was not measured (its labels were neg, pos)" in out


def test_data_shows_rows_per_split_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    report = {
        "splits": {"train": {"neg": 70, "pos": 30}, "test": {"neg": 20, "pos": 0}},
        "dropped": {"conflicting_labels": 12, "empty": 0},
        "rows_read": 150,
        "warnings": ["next to no negation"],
    }
    result = I(
        path=Path("d.db"),
        built=True,
        report=report,
        labels=("neg", "pos"),
        seconds=1.0,
        source="x.csv",
        corrections=None,
    )
    data.show(result)
    caught = capsys.readouterr()
    for word in ("d.db", "x.csv", "70 (70.0 %)", "20 (100.0 %)", "conflicting labels", "8.00 %", "from 150 rows"):
        assert word in caught.out
    assert "empty" not in caught.out
    assert caught.err == "", "the build itself has told its warnings"
    result.built = False
    data.show(result)
    assert capsys.readouterr().err == "warning: next to no negation\n"


def test_run_all_compares_the_models_and_names_failures(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_all.RunAllResult(
        data=I(),
        tests={
            "LSTMRoBERTa": tested(entry={}),
            "HANRoBERTa": tested(model="HANRoBERTa", scores=scores(0.83), entry={}),
        },
        comparisons=[(compared(-0.01, differs=False), "LSTMRoBERTa", "HANRoBERTa")],
        files={"results": Path("results/model_results.json")},
        failures={"LinearRoBERTa": RuntimeError("no [memory]")},
        searches={},
        trained={},
        skipped=["train lstm"],
        seconds=3.0,
    )
    run_all.show(result)
    caught = capsys.readouterr()
    for word in ("LSTMRoBERTa", "HANRoBERTa", "baseline", "82.00", "83.00", "78.00", "do not differ measurably"):
        assert word in caught.out
    assert "LinearRoBERTa: no [memory]" in caught.err


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    console.as_json({"text": "é😀[x]", "path": Path("a")})
    assert json.loads(capsys.readouterr().out) == {"text": "é😀[x]", "path": "a"}


def test_of_several_processes_only_the_main_one_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    console.say("a")
    console.raw("b")
    console.as_json({"c": 1})
    console.table("d", ["x"], [["y"]])
    console.note("e")
    console.warn("f")
    logging.getLogger("sentiment_hybrid").info("g")
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    with console.progress("h", total=2) as task:
        task.advance(1)
    assert capsys.readouterr() == ("", "")
    assert console._new_bar() is None
    console.error("what only this process has met")
    assert "Error of process 1 on " in capsys.readouterr().err
