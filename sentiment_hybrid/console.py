"""Terminal output: results on stdout; notes, warnings, errors, logs and progress on stderr.

If several processes train together, only the main one prints.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import distributed, errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.text import Text

#: Seconds between two progress lines if stderr is not a terminal.
PLAIN_INTERVAL = 10.0

#: Width of tables that go to a pipe or file: large, so that nothing is wrapped.
_PIPE_WIDTH = 1000

_HIDDEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

_verbosity = 0
_consoles: dict[str, tuple[Any, Console]] = {}
_live: list[RichProgress] = []
_clock = time.monotonic


# --- streams ---------------------------------------------------------------------------------------------------------


def out() -> Console:
    """The console for results, on stdout."""
    return _console("stdout")


def err() -> Console:
    """The console for everything else, on stderr."""
    return _console("stderr")


def _console(name: str) -> Console:
    stream = getattr(sys, name)
    made_for, console = _consoles.get(name, (None, None))
    # A test or a notebook may have replaced the stream.
    if console is None or made_for is not stream:
        from rich.console import Console

        width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
        console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
        _consoles[name] = (stream, console)
    return console


def prepare_streams() -> None:
    """Allow any text on stdout and stderr: UTF-8 on Windows, and unencodable characters escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:
            continue
        if os.name == "nt":
            reconfigure(encoding="utf-8")
        reconfigure(errors="backslashreplace")


def quiet_broken_pipe() -> None:
    """Redirect stdout to the null device after its reader has closed it, so that the final flush does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return


def safe(text: object) -> str:
    """Text that is safe to print on a terminal: control characters and lone surrogates are escaped."""
    return str(text).translate(_HIDDEN).encode("utf-8", "backslashreplace").decode("utf-8")


# --- messages --------------------------------------------------------------------------------------------------------


def set_verbosity(level: int) -> None:
    """-1 shows warnings and errors only; 0 is normal; 1 adds debug messages; 2 adds those of libraries."""
    global _verbosity
    _verbosity = level
    ours = logging.DEBUG if level > 0 else logging.INFO if level == 0 else logging.WARNING
    libraries = logging.DEBUG if level > 1 else logging.INFO if level == 1 else logging.ERROR
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _LogLines)]
    root.addHandler(_LogLines())
    root.setLevel(libraries)
    logging.getLogger("sentiment_hybrid").setLevel(ours)
    # Deprecation warnings of libraries do not concern users; -v shows them as log lines.
    logging.captureWarnings(True)
    if level > 0:
        os.environ["TRANSFORMERS_VERBOSITY"] = "info"
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if level < 0:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def verbosity() -> int:
    """The level last given to ``set_verbosity``."""
    return _verbosity


class _LogLines(logging.Handler):
    """Log records as plain lines on stderr, above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if not distributed.is_main():
            return
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        name = "" if record.name.startswith("sentiment_hybrid") else f"{record.name}: "
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        _line(f"{level}{name}{text}", style="dim")


def note(message: str) -> None:
    """Print one line of information on stderr; silent with -q."""
    if _is_talkative():
        _line(message)


def warn(message: str) -> None:
    """Print a warning on stderr, also with -q."""
    if distributed.is_main():
        _line(message, head="warning: ", head_style="bold yellow")


def error(message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
    """Print an error on stderr: the message, one line per problem, and a hint."""
    of_process = "" if distributed.is_main() else f" of {distributed.name()}"
    _line(message, head=f"Error{of_process}: ", head_style="bold red")
    for problem in problems:
        _line(f"  - {problem}")
    if hint:
        _line(hint, head="Hint: ", head_style="bold")


def traceback(failure: BaseException) -> None:
    """Print the traceback of an error on stderr."""
    import traceback as standard

    _line("".join(standard.format_exception(failure)).rstrip(), style="dim")


def _is_talkative() -> bool:
    return _verbosity >= 0 and distributed.is_main()


def _line(message: str, *, head: str = "", head_style: str = "", style: str = "") -> None:
    from rich.text import Text

    text = Text.assemble((head, head_style), (safe(message), style))
    err().print(text, soft_wrap=True)


def say(message: str = "") -> None:
    """Print one line of a result on stdout."""
    if distributed.is_main():
        out().print(safe(message), soft_wrap=True)


def raw(text: str) -> None:
    """Print text on stdout unchanged, for files and other programs: no wrapping, no escapes."""
    if not distributed.is_main():
        return
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def as_json(value: object) -> None:
    """Print a value on stdout as JSON."""
    raw(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """Print a table on stdout; the first ``left`` columns are left-aligned, the others right-aligned."""
    if not distributed.is_main():
        return
    from rich import box
    from rich.table import Table

    shown = Table(
        title=_cell(title) if title else None,
        show_header=any(columns),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    for number, name in enumerate(columns):
        shown.add_column(_cell(name), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    out().print(shown)


def _cell(value: object) -> Text:
    from rich.text import Text

    return Text("" if value is None else safe(value))


# --- progress --------------------------------------------------------------------------------------------------------


class Progress:
    """The progress of one task on stderr, as a bar or as a line every few seconds."""

    def __init__(self, description: str, total: int | None, *, unit: str, bar: RichProgress | None) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._done = 0
        self._facts: dict[str, object] = {}
        self._started = self._printed = _clock()
        self._bar = bar
        self._task: TaskID | None = None
        if bar is not None:
            self._task = bar.add_task(description, total=total, unit=unit, facts="")

    def advance(self, count: int = 1, **facts: object) -> None:
        """Add ``count`` finished units; facts (loss=0.41) are shown next to the bar."""
        self._facts.update(facts)
        self.update(completed=self._done + count)

    def update(
        self,
        *,
        completed: int | None = None,
        total: int | None = None,
        description: str | None = None,
        **facts: object,
    ) -> None:
        """Change some values; omitted ones keep theirs."""
        self._done = self._done if completed is None else completed
        self._total = self._total if total is None else total
        self._description = description or self._description
        self._facts.update(facts)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=self._done,
                total=self._total,
                description=self._description,
                facts=_facts(self._facts),
            )
        elif _is_talkative() and _clock() - self._printed >= PLAIN_INTERVAL:
            self._printed = _clock()
            _line(self.line())

    def line(self) -> str:
        """The current state as one line."""
        seconds = max(_clock() - self._started, 1e-9)
        speed = self._done / seconds
        share = f" of {self._total:,} ({100 * self._done / max(self._total, 1):.0f} %)" if self._total else ""
        parts = [f"{self._description}: {self._done:,}{share} {self._unit}"]
        parts += [pace(speed, self._unit)] if speed > 0 else []
        parts += [_facts(self._facts)] if self._facts else []
        parts += [f"{duration(seconds)} elapsed"]
        if self._total and speed > 0 and self._done < self._total:
            parts += [f"{duration((self._total - self._done) / speed)} remaining"]
        return ", ".join(parts)

    def close(self) -> None:
        """Remove the bar; a task that has printed lines prints its last one."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        elif self._printed > self._started and _is_talkative():
            _line(self.line())


@contextmanager
def progress(description: str, total: int | None = None, *, unit: str = "rows") -> Iterator[Progress]:
    """Show the progress of a task on stderr; tasks may be nested. Silent with -q.

    Args:
        description: the task, in two or three words.
        total: number of units; None if unknown.
        unit: what is counted.
    """
    bar = _live[-1] if _live else _new_bar()
    own = bar is not None and not _live
    if bar is not None and own:
        bar.start()
        _live.append(bar)
    task = Progress(description, total, unit=unit, bar=bar)
    try:
        yield task
    finally:
        task.close()
        if bar is not None and own:
            _live.remove(bar)
            bar.stop()


def _new_bar() -> RichProgress | None:
    console = err()
    if not _is_talkative() or not console.is_terminal or console.is_dumb_terminal:
        return None
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}", markup=False),
        _speed_column(),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _speed_column() -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            unit = task.fields.get("unit", "rows")
            return Text(pace(task.speed, unit) if task.speed else f"{unit}")

    return Speed()


def pace(speed: float, unit: str) -> str:
    """``1,204 texts/s``, or ``2.4 trials/min`` if slower than one per second."""
    return f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{60 * speed:.2g} {unit}/min"


def _facts(facts: Mapping[str, object]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items()
    )


# --- formatting ------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 05 s, 2 h 04 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: float) -> str:
    """A number of bytes in a suitable unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def percent(interval: Any) -> str:
    """``82.41 % [81.90, 82.93]``; a dash for NaN."""
    if math.isnan(interval.value):
        return "-"
    return f"{100 * interval.value:.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def decimal(interval: Any) -> str:
    """``0.648 [0.638, 0.659]``; a dash for NaN."""
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def p_value(value: float) -> str:
    """``p = 0.031``, or ``p < 0.0001``."""
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def difference(comparison: Any, first: str, second: str) -> str:
    """A paired test in words: the difference between two models on the same rows, and whether it is significant."""
    gap, level = comparison.accuracy, 100 * comparison.confidence
    low, high, alone = gap.low, gap.high, (comparison.only_a, comparison.only_b)
    if comparison.differs and gap.value < 0:
        # The better model is named first, and the numbers are from its perspective.
        first, second, low, high, alone = second, first, -high, -low, alone[::-1]
    value = abs(gap.value) if comparison.differs else gap.value
    facts = (
        f"{100 * value:+.2f} points of accuracy, {level:g} % interval {100 * low:+.2f} to {100 * high:+.2f}; "
        f"correct for one model only: {alone[0]:,} and {alone[1]:,} of {comparison.rows:,} texts; "
        f"exact McNemar {p_value(comparison.p_value)}"
    )
    named = f"{first[0].upper()}{first[1:]}"
    if not comparison.differs:
        return f"{named} and {second} do not differ measurably on these rows ({facts})."
    return f"{named} is better than {second} on these rows, beyond chance ({facts})."


# --- results ---------------------------------------------------------------------------------------------------------

_HEADLINES = (
    ("accuracy", "accuracy", percent),
    ("macro-F1", "macro_f1", percent),
    ("macro precision", "macro_precision", percent),
    ("macro recall", "macro_recall", percent),
    ("MCC", "mcc", decimal),
    ("ROC-AUC", "roc_auc", decimal),
    ("calibration error", "ece", decimal),
)


def show_data(result: Any) -> None:
    """Show the result of ``senthy data``: rows per split and class, and dropped rows by reason."""
    report = result.report
    state = "prepared" if result.built else "is up to date (--refresh rebuilds it)"
    say(f"{result.path} {state}: {result.source}, {duration(result.seconds)}")
    rows = [_split_row(name, row, result.labels) for name, row in report["splits"].items()]
    table("Rows per split", ["split", "rows", *result.labels], rows)
    read = max(report["rows_read"], 1)
    dropped = [
        (reason.replace("_", " "), f"{count:,}", f"{100 * count / read:.2f} %")
        for reason, count in report["dropped"].items()
        if count
    ]
    if dropped:
        table(f"Dropped from {report['rows_read']:,} rows", ["reason", "rows", "share"], dropped)
    # The warnings of a new build were printed while it ran.
    for warning in () if result.built else report["warnings"]:
        warn(warning)


def _split_row(name: str, counts: Mapping[str, int], labels: Sequence[str]) -> list[str]:
    total = sum(counts.get(label, 0) for label in labels)
    shares = [f"{counts.get(label, 0):,} ({100 * counts.get(label, 0) / max(total, 1):.1f} %)" for label in labels]
    return [name, f"{total:,}", *shares]


def show_scores(title: str, scores: Mapping[str, Any]) -> None:
    """Show the main metrics with intervals, one column per model; ``scores`` is name -> Scores."""
    rows = [[words, *(render(getattr(one, field)) for one in scores.values())] for words, field, render in _HEADLINES]
    level = 100 * next(iter(scores.values())).confidence
    table(title, [f"metric [{level:g} % interval]", *scores], rows)


def show_test(result: Any) -> None:
    """Show a test: metrics next to the baseline, metrics per class, the paired test, and the files."""
    columns = {result.model: result.scores}
    if result.baseline is not None:
        columns["baseline"] = result.baseline
    show_scores(f"{result.model} on {result.rows:,} texts ({result.split})", columns)
    classes = [
        [
            one.label,
            f"{100 * one.precision:.2f} %",
            f"{100 * one.recall:.2f} %",
            f"{100 * one.f1:.2f} %",
            f"{one.support:,}",
        ]
        for one in result.scores.per_class
    ]
    table("Per class", ["class", "precision", "recall", "F1", "texts"], classes)
    if result.comparison is not None:
        say(difference(result.comparison, result.model, "the TF-IDF baseline"))
    overlap = getattr(result, "overlap", None)
    if overlap and overlap.get("rows"):
        warn(
            f"{overlap['rows']:,} of these {result.rows:,} texts ({100 * overlap['rows'] / max(result.rows, 1):.1f} %) "
            "were in the model's training data, so the scores are too high"
        )
    elif overlap:
        say("None of these texts was in the model's training data.")
    show_files(result.files)
    if result.results_file_set_aside is not None:
        warn(f"the results file was damaged and renamed to {result.results_file_set_aside}; a new one was started")


def _name(metric: str) -> str:
    return "macro-F1" if metric == "macro_f1" else metric.replace("_", " ")


def _best_epoch(result: Any) -> str:
    """``best of 5 epochs: epoch 3``, or ``one epoch``."""
    return f"best of {result.epochs} epochs: epoch {result.best_epoch}" if result.epochs > 1 else "one epoch"


def show_pretrain(result: Any) -> None:
    """Show the location of the pretrained encoder, its training data, and the next command."""
    changed = f"{result.perplexity_before:,.2f} -> " if result.perplexity_before is not None else ""
    rows = [
        ("encoder", result.encoder_dir),
        ("from", result.base),
        ("texts", f"{result.texts:,} ({result.tokens:,} tokens), {result.held_out_texts:,} held out"),
        ("best epoch", f"{result.best_epoch} of {result.epochs}"),
        ("held-out perplexity", f"{changed}{result.perplexity:,.2f}"),
        ("masked-token accuracy", f"{100 * result.accuracy:.2f} %"),
        ("time", duration(result.seconds)),
    ]
    table("Pretrained", ("", ""), rows, left=2)
    say(f"use it: senthy train --set encoder.name={result.encoder_dir}")


def show_train(result: Any) -> None:
    """Show a training: model directory, best epoch, results over seeds, and test."""
    resumed = " (resumed)" if result.resumed else ""
    say(f"{result.model_dir} trained{resumed} in {duration(result.seconds)}; run {result.run_dir}")
    if result.valid:
        best = ", ".join(f"{_name(name)} {value:.4f}" for name, value in result.valid.items())
        say(f"{_best_epoch(result)}, on the validation split {best}")
    if getattr(result, "seeds", None):
        show_seeds(result.seeds)
    if result.test is not None:
        show_test(result.test)


def show_optimize(result: Any) -> None:
    """Show a search and its final model."""
    show_search(result)
    if result.trained is not None:
        show_train(result.trained)
    elif result.test is not None:
        show_test(result.test)


def show_search(result: Any) -> None:
    """Show the trials of a search: counts, savings by pruning, best trials, importances, and files."""
    say(f"study {result.study} in {result.storage}")
    say(
        f"{result.finished:,} trials finished, {result.pruned:,} pruned, {result.failed:,} failed; "
        f"{result.epochs_run:,} epochs trained, {result.epochs_saved:,} saved by pruning"
    )
    sign = -1 if result.metric == "loss" else 1
    names = list(result.best.params)
    rows = [
        [trial.number, f"{sign * trial.value:.4f}", trial.best_epoch, *(_param(trial.params[name]) for name in names)]
        for trial in result.top
    ]
    table("Best trials", ["trial", f"valid {_name(result.metric)}", "epoch", *names], rows)
    if result.importances:
        ordered = sorted(result.importances.items(), key=lambda item: -item[1])
        rows = [[name, f"{100 * value:.1f} %"] for name, value in ordered]
        table("Hyper-parameter importance", ["hyper-parameter", "importance"], rows)
    else:
        say("hyper-parameter importance is unknown: too few trials, or results that are too similar")
    show_files(result.files)


def _param(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_seeds(summary: Mapping[str, Any]) -> None:
    """Show mean and standard deviation over seeds; ``summary`` is metric -> {mean, deviation, values}."""
    rows = [
        [
            name.replace("_", " "),
            f"{one['mean']:.4f}",
            f"{one['deviation']:.4f}",
            ", ".join(f"{v:.4f}" for v in one["values"]),
        ]
        for name, one in summary.items()
        if isinstance(one, Mapping)
    ]
    table("Over seeds", ["metric", "mean", "std", "values"], rows)


def show_finetune(result: Any) -> None:
    """Show a fine-tuning: model directory, scores before and after on new and old texts, and forgetting."""
    resumed = " (resumed)" if result.resumed else ""
    say(
        f"{result.model_dir} fine-tuned{resumed} from {result.parent_dir} in {duration(result.seconds)}; "
        f"run {result.run_dir}"
    )
    best = ", ".join(f"{_name(name)} {value:.4f}" for name, value in result.valid.items())
    say(f"{_best_epoch(result)}, on the new validation rows {best}")
    if result.left_out:
        say("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in result.left_out.items()))
    if result.labels != result.old_labels:
        say(
            f"the output layer was replaced: its labels are {', '.join(result.labels)}, "
            f"and were {', '.join(result.old_labels)}"
        )
    _show_before_and_after(result)
    if result.improved is False:
        name = result.metric
        warn(
            f"no epoch improved {_name(name)} on the new validation rows "
            f"({result.valid[name]:.4f}, before: {result.valid_before[name]:.4f}); the best epoch was published anyway"
        )
    show_files(result.files)
    if result.results_file_set_aside is not None:
        warn(f"the results file was damaged and renamed to {result.results_file_set_aside}; a new one was started")


def _show_before_and_after(result: Any) -> None:
    tests = {f"{result.new_test.rows:,} new texts": result.new_test}
    if result.old_test is not None:
        tests[f"{result.old_test.rows:,} texts of the old test split"] = result.old_test
    rows = [
        [
            f"{words}: {name}",
            percent(getattr(test.before, field)) if test.before else "-",
            percent(getattr(test.after, field)),
        ]
        for words, test in tests.items()
        for name, field in (("accuracy", "accuracy"), ("macro-F1", "macro_f1"))
    ]
    level = 100 * result.new_test.after.confidence
    table(f"{result.model} before and after", [f"metric [{level:g} % interval]", "before", "after"], rows)
    if result.new_test.comparison is not None:
        verdict = difference(result.new_test.comparison, "the fine-tuned model", "the model before")
        say(f"New texts: {verdict}")
    if result.old_test is None:
        say(f"Old test split: forgetting was not measured ({result.old_test_missing})")
        return
    gap = result.old_test.comparison
    forgot = "the model is worse than before" if gap.differs and gap.accuracy.value < 0 else "no sign of forgetting"
    say(f"Old test split: {forgot}. {difference(gap, 'the fine-tuned model', 'the model before')}")


def show_predictions(result: Any) -> None:
    """Show the predictions of texts given as arguments; those of a file have been written already."""
    if result.output is not None:
        say(f"{result.output}: {errors.count(result.rows, 'text')} labelled in {duration(result.seconds)}")
    if not result.texts:
        return
    rows = [
        ["-", "-", text] if one.label is None else [one.label, f"{one.score:.3f}", text]
        for text, one in zip(result.texts, result.predictions, strict=True)
    ]
    table("", ["prediction", "score", "text"], rows, left=3)


def show_export(result: Any) -> None:
    """Show the location of an export, its deviation from the original, and its speed."""
    check = result.check
    say(f"{result.directory}: {result.kind}, {size(result.bytes)}, from {result.model_dir}")
    say(
        f"on {check.rows:,} texts of {result.checked_on}: {100 * check.agreement:.2f} % of the labels agree, logits "
        f"differ by at most {check.logit_difference:.2g}, probabilities by {check.probability_difference:.2g}"
    )
    table("", ["", "tokens/s"], [[name, f"{speed:,.0f}"] for name, speed in result.speed.items()])
    faster = f"{result.factor:.1f} times as fast as" if result.factor >= 1.05 else "not faster than"
    say(f"the export is {faster} torch at its best precision, on this processor")


def show_pack(result: Any) -> None:
    """Show the location and content of a pack."""
    say(f"{result.directory}: one encoder, {', '.join(result.heads)}; {size(result.bytes)}")
    if result.seen_texts:
        say(f"it records {result.seen_texts:,} training texts, so that senthy test can report an overlap")


def show_run_all(result: Any) -> None:
    """Show searches, then all models and the baseline in one table, and whether they differ."""
    for search in result.searches.values():
        show_search(search)
    for trained in result.trained.values():
        if trained.seeds:
            show_seeds(trained.seeds)
    scores = {name: test.scores for name, test in result.tests.items()}
    baseline = next((test.baseline for test in result.tests.values() if test.baseline is not None), None)
    if baseline is not None:
        scores["baseline"] = baseline
    if scores:
        rows = next(iter(result.tests.values())).rows
        show_scores(f"Tested on {rows:,} texts", scores)
    for comparison, first, second in result.comparisons:
        say(difference(comparison, first, second))
    show_files(result.files)
    for name, failure in result.failures.items():
        error(f"{name}: {getattr(failure, 'message', None) or failure}", hint=getattr(failure, "hint", ""))


def show_info(facts: Mapping[str, Mapping[str, object]]) -> None:
    """Show the result of ``senthy info`` by section."""
    for section, rows in facts.items():
        table(section, ["", ""], [[name, value] for name, value in rows.items()], left=2)


def show_cache(info: Any) -> None:
    """Show the content of the cache folder, its size, and damage."""
    say(f"cache: {info.folder}")
    kinds = {kind: [entry for entry in info.entries if entry.kind == kind] for kind in ("states", "baselines")}
    finetune = [entry for entry in info.entries if entry.kind == "finetune"]
    if kinds["states"]:
        columns = ["encoder", "layer", "precision", "windows", "tokens", "GB", "last used", "folder"]
        table("Token states", columns, [_store_row(entry) for entry in kinds["states"]], left=3)
    room = "unlimited (cache.max_gb)" if info.max_gb is None else f"{info.max_gb:g} GB (cache.max_gb)"
    say(f"token states: {info.states_bytes / 1e9:.3f} GB of {room}")
    if kinds["baselines"]:
        rows = [[entry.path.name, f"{entry.bytes / 1e9:.3f}", _day(entry.used)] for entry in kinds["baselines"]]
        table("Baselines", ["training texts", "GB", "last used"], rows)
    if finetune:
        columns = ["source", "file", "rows", "GB", "last used"]
        table("Fine-tuning data", columns, [_texts_row(entry) for entry in finetune], left=2)
    if teachers := [entry for entry in info.entries if entry.kind == "teachers"]:
        rows = [
            [entry.facts.get("teacher", "unknown"), f"{entry.facts.get('texts', 0):,}", f"{entry.bytes / 1e9:.3f}",
             _day(entry.used)]
            for entry in teachers
        ]  # fmt: skip
        table("Probabilities of teachers", ["teacher", "texts", "GB", "last used"], rows)
    for problem in info.problems:
        warn(problem)
    if info.verified and not info.problems:
        say("verified: all checksums are correct")


def _store_row(entry: Any) -> list[object]:
    facts = entry.facts
    layer = facts.get("layer", "unknown")
    return [
        *(facts["encoder"], "last" if layer is None else layer, facts.get("precision", "unknown")),
        *(f"{facts['windows']:,}", f"{facts['tokens']:,}", f"{entry.bytes / 1e9:.3f}", _day(entry.used)),
        entry.path.name,
    ]


def _texts_row(entry: Any) -> list[object]:
    rows = f"{entry.facts['rows']:,}" if entry.facts else "-"
    return [
        entry.facts.get("source", "unknown"),
        entry.path.name,
        rows,
        f"{entry.bytes / 1e9:.3f}",
        _day(entry.used),
    ]


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show_cleared(cleared: Any) -> None:
    """Show what was removed from the cache, and what could not be."""
    for entry in cleared.removed:
        say(f"removed {entry.path}")
    say(f"freed {cleared.bytes / 1e9:.3f} GB" if cleared.removed or cleared.kept else "nothing was removed")
    for path, why in cleared.kept:
        warn(f"{path} was not removed: {why}")


def show_fetch(result: Any) -> None:
    """Show what is available for offline use, and what is missing."""
    table("", ["what", "state", "where"], [[part.what, part.state, part.where] for part in result.parts], left=3)
    for part in result.missing:
        warn(f"{part.what}: {part.problem}")


def show_schema(settings: Sequence[Any]) -> None:
    """Every setting; in a pipe, one per line."""
    rows = [[one.key, one.allowed, one.default, one.meaning] for one in settings]
    table("", ["setting", "allowed", "default", "meaning"], rows, left=4)


def show_files(files: Mapping[str, object]) -> None:
    """Show the files that were written."""
    for what, path in files.items():
        if path is not None:
            say(f"{what.replace('_', ' ')}: {path}")
