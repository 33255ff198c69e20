"""``senthy check``: label errors, near-duplicates and other defects of labelled texts, as a file to correct."""

from __future__ import annotations

import itertools
import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentiment_hybrid import console, paths
from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.corrections import COLUMNS, row_id
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import Split, Store, open_store
from sentiment_hybrid.data.writers import check_target, open_writer, without_formulas
from sentiment_hybrid.engine.insight.artefacts import Artefact
from sentiment_hybrid.engine.insight.examine import Features, Found, examine
from sentiment_hybrid.engine.insight.table import WHYS, Finding, Table, merged, read_table, split_name
from sentiment_hybrid.engine.training.runs import now, versions
from sentiment_hybrid.errors import DatabaseError, DataError, OutputError, SenthyError, count
from sentiment_hybrid.files import replace_text, written
from sentiment_hybrid.runtime import Runtime

#: Flagged rows per kind that the JSON file and the terminal show.
_IN_JSON, _ON_SCREEN = 200, 10
_SHORT = 80
_BATCH = 1000


@dataclass(frozen=True)
class CheckResult:
    """What was found in the database, or in ``data_file``; ``report`` is the content of the JSON file."""

    csv: Path
    json: Path
    data_file: str | None
    kept_decisions: int
    artefacts: list[Artefact]
    report: dict[str, Any]


def run(
    config: Config,
    runtime: Runtime = Runtime(),
    *,
    data_file: str | None = None,
    splits: Sequence[Split] = ("train", "valid"),
    output: Path = Path("check.csv"),
    features: Features = "auto",
    safe_csv: bool = False,
) -> CheckResult:
    """Check the prepared database, or a labelled source that is prepared in a temporary folder.

    Args:
        output: the flagged rows; what people have entered into an existing file stays in it.

    Raises:
        DataError: and its kinds: the texts cannot be used.
        EncoderError: ``features`` is encoder, and it cannot be loaded.
        UsageError: ``output`` has an unknown extension.
        OutputError: ``output`` holds something else, or cannot be written.
    """
    check_target(output)
    with _opened(config, data_file, offline=runtime.offline) as store:
        table = read_table(store, splits)
        if not table.chosen.any():
            raise DataError(f"the {', '.join(splits)} split of {store.path} is empty", hint="Choose another --split.")
        decided, places = _decided(output, table, store)
        found = examine(config, runtime, table, features)
        lines = merged([one for one in found.findings if one.place not in places])
        _write_csv(output, decided, table, lines, safe=safe_csv)
        report = _report(store, table, found, lines, splits=splits, output=output)
        target = paths.check_json(config.paths.results_dir)
        replace_text(target, json.dumps(report, ensure_ascii=False, indent=1))
        return CheckResult(output, target, data_file, len(decided), found.artefacts, report)


@contextmanager
def _opened(config: Config, data_file: str | None, *, offline: bool) -> Iterator[Store]:
    """The prepared database, or one that is made of a source for this check alone."""
    if data_file is None:
        if not config.paths.data_db.exists():
            raise DatabaseError(
                f"there is no prepared database {config.paths.data_db}",
                hint="Run `senthy data` first, or name a labelled file with --data FILE.",
            )
        with open_store(config.paths.data_db) as store:
            yield store
        return
    cache = config.paths.cache
    with written(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="check-") as folder:
        unset = dict.fromkeys(f"data.{name}" for name in ("corrections", "train_source", "valid_source", "test_source"))
        own = config.changed({**unset, "data.source": data_file, "paths.data_db": Path(folder) / "check.db"})
        data_command.run(own, offline=offline)
        with open_store(own.paths.data_db) as store:
            yield store


# --- the file that people correct ------------------------------------------------------------------------------------


def _decided(output: Path, table: Table, store: Store) -> tuple[list[dict[str, str]], set[int]]:
    """Lines of an existing file that people have filled in, and the places of their rows in the table.

    Raises OutputError for a file of something else.
    """
    if not output.exists():
        return [], set()
    try:
        source = open_source(str(output), Config().data, offline=True)
        ours = set(COLUMNS) <= set(source.columns)
        batches = list(source.batches(COLUMNS)) if ours else []
    except SenthyError:
        ours = False
    if not ours:
        raise OutputError(f"{output} exists, and `senthy check` has not written it", hint="Choose another --output.")
    lines = [
        {name: batch.columns[name][at] or "" for name in COLUMNS}
        for batch in batches
        for at in range(len(batch))
        if (batch.columns["correction"][at] or "").strip()
    ]
    wanted = {(line["split"], line["row"]): line["id"] for line in lines}
    places = [place for place, key in table.places_of(wanted) if wanted[key] == row_id(table.raws[place])]
    # Rows that were left out are no longer there, so a few must do.
    if lines and not places and not store.corrections:
        raise OutputError(
            f"{output} contains {count(len(lines), 'correction')} of other data", hint="Choose another --output."
        )
    return lines, set(places)


def _write_csv(
    output: Path, decided: Sequence[dict[str, str]], table: Table, lines: Sequence[list[Finding]], *, safe: bool
) -> None:
    """Earlier decisions first, then the flagged rows, the most urgent first."""
    rows = itertools.chain(decided, (_line(table, several) for several in lines))
    with open_writer(output, COLUMNS) as writer:
        while some := list(itertools.islice(rows, _BATCH)):
            columns = {name: [row[name] for row in some] for name in COLUMNS}
            writer.write(without_formulas(columns) if safe else columns)


def _line(table: Table, several: Sequence[Finding]) -> dict[str, Any]:
    place = several[0].place
    likely = next((one.likely for one in several if one.likely >= 0), -1)
    return {
        "row": int(table.rows[place]),
        "text": table.raws[place],
        "label": table.names[int(table.original[place])],
        "likely_label": table.names[likely] if likely >= 0 else "",
        "correction": "",
        "why": "; ".join(dict.fromkeys(one.why for one in several)),
        "confidence": f"{several[0].confidence:.3f}",
        "detail": "; ".join(one.detail for one in several if one.detail),
        "split": split_name(int(table.splits[place])),
        "id": row_id(table.raws[place]),
    }


def _report(
    store: Store, table: Table, found: Found, lines: Sequence[list[Finding]], *, splits: Sequence[Split], output: Path
) -> dict[str, Any]:
    """What other programs read: counts, facts, and the first flagged rows of each kind."""
    counts = Counter(why for several in lines for why in {one.why for one in several})
    shown: dict[str, list[dict[str, Any]]] = {why: [] for why in WHYS}
    for several in lines:
        of_kind = shown[several[0].why]
        if len(of_kind) < _IN_JSON:
            of_kind.append({name: value for name, value in _line(table, several).items() if name != "correction"})
    return {
        "format_version": 1,
        "created": now(),
        "source": store.source,
        "data_fingerprint": store.fingerprint,
        "labels": list(table.names),
        "flagged_splits": list(splits),
        "rows": int(table.chosen.sum()),
        "flagged": len(lines),
        "counts": {why: counts[why] for why in WHYS},
        "skipped": found.skipped,
        **found.facts,
        "dropped": store.report["dropped"],
        "artefacts": [one.to_dict() for one in found.artefacts],
        "examples": shown,
        "csv": str(output),
        "versions": versions(),
    }


# --- on the terminal -------------------------------------------------------------------------------------------------


def show(result: CheckResult) -> None:
    """Show shares and lengths by split, how many rows are flagged and why, the first of them, and tokens."""
    report = result.report
    read, flagged = report["rows"], report["flagged"]
    _show_splits(report)
    rows = [
        (why, f"{number:,}", f"{100 * number / max(read, 1):.2f} %", report["skipped"].get(why, ""))
        for why, number in report["counts"].items()
        if number or why in report["skipped"]
    ]
    title = f"Flagged: {flagged:,} of {count(read, 'row')} ({', '.join(report['flagged_splits'])})"
    columns = ["why", "rows", "share", *(["not looked for"] if report["skipped"] else [])]
    if rows:
        console.table(title, columns, [row[: len(columns)] for row in rows])
    else:
        console.say(f"{title}.")
    if several := report.get("several_windows"):
        length = f"encoder.max_length ({report['max_length']} tokens)"
        console.say(f"{count(several, 'text')} longer than {length}: read in several windows")
    _show_first(report)
    _show_artefacts(result.artefacts)
    if result.kept_decisions:
        console.say(f"{count(result.kept_decisions, 'earlier correction')} kept in {result.csv}")
    console.say(f"flagged rows: {result.csv}")
    console.say(f"all results: {result.json}")
    if flagged:
        repeat = (
            f"run: senthy data --source {shlex.quote(result.data_file)}"
            if result.data_file
            else "repeat `senthy data`, with the same options and"
        )
        console.say(
            f"Enter a label, keep or drop in the column `correction` where you are sure; then {repeat} "
            f"--corrections {shlex.quote(str(result.csv))}"
        )


def _show_splits(report: dict[str, Any]) -> None:
    labels = report["labels"]
    unit = "tokens" if "tokens" in report["splits"]["train"]["lengths"] else "words"
    rows = []
    for name in ("train", "valid", "test"):
        of = report["splits"][name]
        shares = [f"{100 * of['classes'][label] / max(of['rows'], 1):.1f}" for label in labels]
        rows.append([name, f"{of['rows']:,}", *shares, *(f"{value:,}" for value in of["lengths"][unit])])
    columns = ["split", "rows", *(f"{label} %" for label in labels), f"{unit}:\nmedian", "95 %", "most"]
    if len(labels) > _ON_SCREEN or not console.fits(columns, rows):
        rows, columns = [[*row[:2], *row[-3:]] for row in rows], [*columns[:2], *columns[-3:]]
    console.table(report["source"], columns, rows)


def _show_first(report: dict[str, Any]) -> None:
    first = report["examples"][WHYS[0]][:_ON_SCREEN]
    rows = [
        (one["row"], _shortened(one["text"]), one["label"], one["likely_label"], one["confidence"]) for one in first
    ]
    if rows:
        console.table(
            "Label errors, the most confident first",
            ["row", "text", "label", "likely label", "confidence"],
            rows,
            left=4,
            cut=1,
        )


def _show_artefacts(artefacts: Sequence[Artefact]) -> None:
    rows = [
        (one.token, one.label, _shortened(one.examples[0]), f"{one.texts:,}", f"{100 * one.share:.1f} %")
        for one in artefacts
        if one.gives_away
    ][:_ON_SCREEN]
    if rows:
        title = "Tokens that give the label away: nearly all texts with them have one label"
        console.table(title, ["token", "label", "for example", "texts", "share"], rows, left=3, cut=2)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"
