"""Terminal output: results on stdout; notes, warnings, errors, logs and progress on stderr.

If several processes train together, only the main one prints.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback as standard
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from sentiment_hybrid import distributed
from sentiment_hybrid.files import holds_any_text
from sentiment_hybrid.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID
    from rich.text import Text

#: Seconds between two progress lines if stderr is not a terminal.
PLAIN_INTERVAL = 10.0

#: Seconds that a line waits for something to be finished.
_GRACE = 1.0

#: Columns of a progress bar.
_BAR = 20

#: Width of tables that go to a pipe or file: large, so that nothing is wrapped.
_PIPE_WIDTH = 1000

#: Characters that would control a terminal, or reorder the text around them -> how they are shown; \n and \t are kept.
_HIDDEN = {code: f"\\x{code:02x}" for code in range(32) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}"
    for code in (*range(0x7F, 0xA0), 0x61C, *range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}

_verbosity = 0
_consoles: dict[str, tuple[Any, Console]] = {}
_live: list[RichProgress] = []
#: What notes, warnings and progress begin with.
_speaker = ""
_clock = time.monotonic


# --- streams ---------------------------------------------------------------------------------------------------------


def _console(name: str) -> Console:
    """The console on stdout, for results, or on stderr, for everything else."""
    # A bar replaces stderr by a proxy; another console on that proxy would interfere with the bar.
    stream = getattr(getattr(sys, name), "rich_proxied_file", getattr(sys, name))
    made_for, console = _consoles.get(name, (None, None))
    # A test or a notebook may have replaced the stream.
    if console is None or made_for is not stream:
        from rich.console import Console

        width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
        console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
        console.on_broken_pipe = _reraise  # type: ignore[method-assign] # rich would end the process
        _consoles[name] = (stream, console)
    return console


def _reraise() -> None:
    raise


@dataclass(frozen=True)
class _Unfailing:
    """stderr whose failures are ignored: what cannot be written is lost."""

    _stream: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def prepare_streams() -> None:
    """Allow any text on stdout and stderr, replace missing streams, and ignore failures of stderr."""
    for name in ("stdin", "stdout", "stderr"):
        # Closed by the caller. Reserve its file descriptor, or the next opened file would receive the output.
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":
                setattr(sys, name, open(number, "w"))  # noqa: SIM115, PTH123 - it is open until the process ends
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:
            continue
        if os.name == "nt":
            reconfigure(encoding="utf-8")
        reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _Unfailing):
        sys.stderr = cast("TextIO", _Unfailing(sys.stderr))


def quiet_broken_pipe() -> None:
    """Redirect stdout to the null device after its reader has closed it, so that the final flush does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is a terminal, or missing."""
    return stream is None or bool(stream.isatty())


class _Terminal:
    """stdout for rows of a user's file, if it is a terminal: control characters are escaped."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        return sys.stdout.write(safe(text))


def rows_stream() -> Any:
    """Where rows of results are written: stdout, unchanged unless it is a terminal."""
    return _Terminal() if sys.stdout.isatty() else sys.stdout


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
        _line(f"{level}{_speaker}{name}{text}", style="dim")


def note(message: str) -> None:
    """Print one line of information on stderr; silent with -q."""
    if _verbosity >= 0 and distributed.is_main():
        _line(f"{_speaker if message else ''}{message}")


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Prefix notes, warnings and progress in this block with a name: of a model or a seed."""
    global _speaker
    before, _speaker = _speaker, f"{_speaker.removesuffix(': ')}, {name}: " if _speaker else f"{name}: "
    try:
        yield
    finally:
        _speaker = before


@contextmanager
def hushed() -> Iterator[None]:
    """No notes in this block, as with -q, unless -v asks for more; warnings stay."""
    global _verbosity
    before, logger = _verbosity, logging.getLogger("sentiment_hybrid")
    level = logger.level
    if before == 0:
        _verbosity = -1
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _verbosity = before
        logger.setLevel(level)


def warn(message: str) -> None:
    """Print a warning on stderr, also with -q."""
    if distributed.is_main():
        _line(f"{_speaker}{message}", head="warning: ", head_style="bold yellow")


def error(message: str, *, problems: Sequence[str] = (), hint: str = "") -> None:
    """Print an error on stderr: the message, one line per problem, and a hint."""
    of_process = "" if distributed.is_main() else f" of {distributed.name()}"
    _line(message, head=f"Error{of_process}: ", head_style="bold red")
    for problem in problems:
        _line(f"  - {problem}")
    if hint:
        _line(hint, head="Hint: ", head_style="bold")


def last_words(message: str) -> None:
    """Print a warning just before the process ends in the middle of anything: no lock is waited for."""
    line = f"\nwarning: {message}\n"
    with suppress(OSError):
        os.write(2, (f"\x1b[?25h{line}" if _live else line).encode())  # a bar hides the cursor


def traceback(failure: BaseException) -> None:
    """Print the traceback of an error on stderr."""
    _line("".join(standard.format_exception(failure)).rstrip(), style="dim")


def _line(message: str, *, head: str = "", head_style: str = "", style: str = "") -> None:
    from rich.text import Text

    text = Text.assemble((head, head_style), (safe(redact(message)), style))
    _console("stderr").print(text, soft_wrap=True)


def say(message: str = "") -> None:
    """Print one line of a result on stdout."""
    if distributed.is_main():
        _console("stdout").print(safe(message), soft_wrap=True)


def styled(parts: Sequence[tuple[str, str]]) -> None:
    """Print text and its style, part by part, as one line on stdout that is wrapped at words; without colours if none
    are wanted (NO_COLOR) or stdout is no terminal.
    """
    if not distributed.is_main():
        return
    from rich.text import Text

    _console("stdout").print(Text.assemble(*((safe(text), style) for text, style in parts)))


def raw(text: str) -> None:
    """Print text on stdout unchanged, for files and other programs: no wrapping, no escapes."""
    if not distributed.is_main():
        return
    rows_stream().write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def as_json(value: object) -> None:
    """Print a value on stdout as JSON."""
    # What a terminal must not receive becomes a \\u escape, which means the same in JSON.
    text = json.dumps(value, indent=2, ensure_ascii=not holds_any_text(sys.stdout), default=str)
    raw(text.translate(_HIDDEN))


#: Characters of a cut column that are shown on the narrowest terminal.
_LEAST_CUT = 12


def table(
    title: str, columns: Sequence[object], rows: Sequence[Sequence[object]], *, left: int = 1, cut: int | None = None
) -> None:
    """Print a table on stdout; the first ``left`` columns are left-aligned, the others right-aligned.

    Where it is too wide, cells are wrapped, but those of the column ``cut`` are cut off.
    """
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
        fold: Any = {"overflow": "fold"}
        if number == cut:
            # A column that is not wrapped would take its room from the others.
            room = _widths(columns, rows)[number] - _excess(columns, rows)
            fold = {"no_wrap": True, "overflow": "ellipsis", "max_width": max(room, _LEAST_CUT)}
        shown.add_column(_cell(name), justify="left" if number < left else "right", **fold)
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    _console("stdout").print(shown)


def fits(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> bool:
    """Whether a table needs no more than the width of the terminal."""
    return _excess(columns, rows) <= 0


def _excess(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> int:
    """By how many characters a table is wider than the terminal."""
    return sum(_widths(columns, rows)) + 3 * len(columns) - 1 - _console("stdout").width


def _widths(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> list[int]:
    """The number of characters that each column takes without wrapping."""
    from rich.cells import cell_len

    cells = zip(columns, *rows, strict=True)
    return [max(cell_len(line) for cell in column for line in _cell(cell).plain.split("\n")) for column in cells]


def _cell(value: object) -> Text:
    from rich.text import Text

    return Text("" if value is None else safe(value))


# --- progress --------------------------------------------------------------------------------------------------------


#: Number of units, or a function that returns it: a float is an estimate, None is unknown.
Total = float | None | Callable[[], float | None]


class Progress:
    """The progress of one task on stderr, as a bar or as a line every few seconds."""

    def __init__(
        self, description: str, total: Total, *, unit: str, bar: RichProgress | None = None, lines: bool = False
    ) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._done = self.skipped = 0.0
        self._facts: dict[str, object] = {}
        self._started = self._printed = _clock()
        self._printed_at = 0.0
        self._closed = threading.Event()
        self._lines = lines
        self._bar = bar
        self._task: TaskID | None = None
        if bar is not None:
            self._task = bar.add_task(safe(description), total=None, progress=self, unit=unit, facts=[])

    @property
    def is_bar(self) -> bool:
        """Whether it is shown as a bar."""
        return self._bar is not None

    @property
    def total(self) -> float | None:
        """Units in all; an estimate is never below what is done."""
        total = self._total() if callable(self._total) else self._total
        return max(total, self._done) if isinstance(total, float) else total

    def advance(self, count: float = 1, *, total: Total = None, **facts: object) -> None:
        """Add ``count`` finished units; facts (loss=0.41) are shown next to the bar."""
        self._facts = {**self._facts, **facts}
        self.update(completed=self._done + count, total=total)

    def skip(self, count: float) -> None:
        """Add units that were finished before: they say nothing about the speed."""
        self.skipped += count
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, completed=int(self._done))

    def update(
        self, *, completed: float | None = None, total: Total = None, description: str | None = None, **facts: object
    ) -> None:
        """Change some values; omitted ones keep theirs."""
        self._done = self._done if completed is None else completed
        self._total = self._total if total is None else total
        self._description = description or self._description
        self._facts = {**self._facts, **facts}
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=self._done, description=safe(self._description), facts=_facts(self._facts)
            )
        elif self._lines and _clock() - self._printed >= PLAIN_INTERVAL:
            self._print()

    def _print(self) -> None:
        self._printed, self._printed_at = _clock(), self._done
        _line(self.line())

    def beat(self) -> None:
        """Until it is closed, print a line every few seconds, even if nothing is finished."""
        while not self._closed.wait(max(0.0, PLAIN_INTERVAL - (_clock() - self._printed)) + _GRACE):
            if _clock() - self._printed >= PLAIN_INTERVAL:
                self._print()

    def line(self) -> str:
        """The current state as one line."""
        seconds = max(_clock() - self._started, 1e-9)
        speed, total = (self._done - self.skipped) / seconds, self.total
        share = f" of {_in_all(total)} ({_percent(self._done, total)} %)" if total else ""
        parts = [f"{self._description}: {self._done:,.0f}{share} {self._unit}"]
        parts += [pace(speed, self._unit)] if speed > 0 else []
        parts += _facts(self._facts)
        parts += [f"{duration(seconds)} elapsed"]
        if total and speed > 0 and self._done < total:
            parts += [f"{duration((total - self._done) / speed)} remaining"]
        return ", ".join(parts)

    def close(self) -> None:
        """Remove the bar; a task that has printed lines prints its last one."""
        self._closed.set()
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        elif self._lines and self._printed > self._started and self._printed_at != self._done:
            _line(self.line())


@contextmanager
def progress(description: str, total: Total = None, *, unit: str = "rows", shown: bool = True) -> Iterator[Progress]:
    """Show the progress of a task on stderr; tasks may be nested. Silent with -q."""
    bar = None if not shown else _live[-1] if _live else _new_bar()
    own = bar is not None and not _live
    if bar is not None and own:
        bar.start()
        _live.append(bar)
    lines = bar is None and shown and _verbosity >= 0 and distributed.is_main()
    task = Progress(f"{_speaker}{description}", total, unit=unit, bar=bar, lines=lines)
    beat = threading.Thread(target=task.beat, daemon=True)
    if lines:
        beat.start()
    try:
        yield task
    finally:
        task.close()
        if lines:
            beat.join()
        if bar is not None and own:
            _live.remove(bar)
            bar.stop()


def _new_bar() -> RichProgress | None:
    console = _console("stderr")
    if _verbosity < 0 or not distributed.is_main() or not console.is_terminal or console.is_dumb_terminal:
        return None
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Column(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_bar_line(task, console.width), no_wrap=True)

    return RichProgress(Column(), console=console, transient=True, redirect_stdout=False)


def _bar_line(task: Task, width: int) -> str:
    """A task in one line of a terminal; what has no room there is left out, the least important first."""
    from rich.cells import cell_len

    progress, unit, facts = task.fields["progress"], task.fields["unit"], task.fields["facts"]
    total, elapsed = progress.total, task.elapsed or 0
    # rich looks at the last half minute alone
    speed = task.speed or (task.completed - progress.skipped) / max(elapsed, 1e-9)
    left = (total - task.completed) / speed if total and total > task.completed and speed > 0 else None
    amount = f"{task.completed:,.0f} {unit}"
    parts = [
        task.description,
        f"{_percent(task.completed, total):>3}%" if total else amount,
        "━" * (filled := int(_BAR * min(task.completed / total, 1))) + "─" * (_BAR - filled) if total else "",
        amount if total else "",
        pace(task.speed, unit) if task.speed else "",
        f"elapsed {_clock_time(elapsed)}",
        "" if left is None else f"left {_clock_time(left)}",
        *facts,
    ]
    shown = set[int]()
    for place in (0, 1, 5, 6, *range(7, len(parts)), 3, 4, 2):
        if parts[place] and cell_len("  ".join(parts[at] for at in sorted({*shown, place}))) <= width:
            shown.add(place)
    return "  ".join(parts[place] for place in sorted(shown))


def _percent(done: float, total: float) -> str:
    """Rounded down: 100 means that all is done."""
    return f"{int(100 * done / total)}"


def _in_all(total: float) -> str:
    return f"about {float(f'{total:.2g}'):,.0f}" if isinstance(total, float) else f"{total:,}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def pace(speed: float, unit: str) -> str:
    """``1,204 texts/s``, or ``2.4 trials/min`` if slower than one per second."""
    return f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{60 * speed:.2g} {unit}/min"


def _facts(facts: Mapping[str, object]) -> list[str]:
    known = {name: value for name, value in facts.items() if value is not None}
    return [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in known.items()]


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


def metric_name(metric: str) -> str:
    """As tables and messages call it: macro-F1."""
    return metric.replace("_f1", "-F1").replace("_", " ")


def metric_value(metric: str, value: float) -> str:
    """``82.41 %``; a loss is no fraction: ``0.4815``."""
    return f"{value:.4f}" if metric.endswith("loss") else f"{100 * value:.2f} %"


def metric_values(figures: Mapping[str, float]) -> str:
    """``macro-F1 82.41 %, loss 0.4815``."""
    return ", ".join(f"{metric_name(name)} {metric_value(name, value)}" for name, value in figures.items())
