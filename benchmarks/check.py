"""What `senthy check` is worth: planted label errors found, accuracy with and without them, and its cost.

    python benchmarks/check.py noise --labelled ../shared/data/labelled
    python benchmarks/check.py cost --source tweets.csv.gz --rows 150000
    python benchmarks/check.py whole --source tweets.csv.gz --rows 300000 [--only whole|killed] [--json]

`noise` takes rows with human labels, flips some, and tells precision and recall of what is flagged; then accuracy on
further rows, whose labels are left alone, of a model trained with the noise, without what was flagged, with what was
flagged and planted corrected, and without noise. `cost` tells processor seconds of each part, and peak memory.

`whole` runs the command on a prepared database of rows spread over a csv file, and tells how much of its processor time
is tokenising and encoding. A second run with an empty cache is killed when about half of the token states are stored,
and continued: its file must be that of the first. `--only` does one of the two. `--layers 1` takes only the
first layers of the encoder: for a look at a number of rows that would take hours to encode with all.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from limits import machine
from scale import cut
from watch import measure

from sentiment_hybrid import paths
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.engine.insight import examine
from sentiment_hybrid.engine.insight.artefacts import find_artefacts
from sentiment_hybrid.engine.insight.duplicates import find_duplicates
from sentiment_hybrid.engine.insight.features import States, fit_states, fit_words, mean_states
from sentiment_hybrid.engine.insight.label_errors import find_label_errors, out_of_fold
from sentiment_hybrid.engine.insight.languages import find_other_languages
from sentiment_hybrid.engine.insight.outliers import find_outliers
from sentiment_hybrid.engine.insight.repeats import find_repeats
from sentiment_hybrid.engine.insight.table import Table
from sentiment_hybrid.runtime import Runtime

NAMES = ("negative", "neutral", "positive")
#: Sets of texts of several kinds whose labels people have chosen for the text itself.
SETS = (
    "tse_train", "ss_tweet", "sts_gold", "sanders", "goemotions_train", "hutto_movies", "sst5_train", "crowd_products",
)  # fmt: skip
_COMMAND = "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])"
#: The command, which leaves in a file at which of its processor seconds tokenising and encoding begin and end.
_CHECK = """
import os, sys, time
from sentiment_hybrid.cli import main
from sentiment_hybrid.engine.inference.session import Session

untimed = Session.dataset

def timed(*arguments, **more):
    note("w")
    dataset = untimed(*arguments, **more)
    note("a")
    return dataset

def note(mode):
    with open(os.environ["ENCODING"], mode) as file:
        file.write(f"{time.process_time()} ")

Session.dataset = timed
main(sys.argv[1:])
"""
#: Bytes of the token states of a tweet with mini, about.
_STATES = 20 * 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("noise", "cost", "whole"))
    parser.add_argument(
        "--labelled", type=Path, default=Path("../shared/data/labelled"), help="Folder of labelled sets."
    )
    parser.add_argument("--source", default="sample", help="Texts for cost.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--test-rows", type=int, default=5_000)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--ways",
        nargs="+",
        default=["mini", "TF-IDF", "mini+TF-IDF"],
        help="What flags, and after a plus what is trained, if that is another model.",
    )
    parser.add_argument("--only", choices=("whole", "killed"))
    parser.add_argument("--layers", type=int, help="of the encoder of mini, for whole; all by default")
    parser.add_argument("--json", action="store_true", help="of whole")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "whole":
            report = whole(given, Path(folder))
            print(json.dumps(report, indent=1) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
            return
        # Token states are not kept: each text is read once.
        config = load_config(None, ["encoder.name=mini", f"paths.cache_dir={folder}", "cache.max_gb=0.001"])
        (noise if given.what == "noise" else cost)(given, config)


def noise(given: argparse.Namespace, config: Config) -> None:
    texts, labels = human_rows(given.labelled, given.rows + given.test_rows)
    table = table_of(texts, labels)
    states = encoded(config, table)
    rows, held_out = np.arange(given.rows), np.arange(given.rows, len(texts))
    groups = find_duplicates(texts).groups
    fits = {"mini": partial(fit_states, states), "TF-IDF": partial(fit_words, texts)}
    print(f"{given.rows:,} rows, {given.noise:.0%} flipped; accuracy on {len(held_out):,} others", flush=True)
    for name in given.ways:
        flags, trains = name.split("+") if "+" in name else (name, name)
        figures = []
        for seed in range(given.seeds if trains == "mini" else 1):
            noisy, flipped = with_noise(labels, rows, share=given.noise, seed=seed)
            answers = out_of_fold(fits[flags], rows, noisy[rows], groups[rows], seed=seed)
            assert answers is not None
            flagged = sorted(find_label_errors(answers), key=lambda one: -one.confidence)
            figures.append(measured(flagged, flipped, noisy, labels, fits[trains], rows, held_out))
        print(f"\n{name}: mean (standard deviation) over {len(figures)} seeds")
        for what in figures[0]:
            values = [100 * one[what] for one in figures]
            print(f"  {what:46} {np.mean(values):6.2f} ({np.std(values):.2f})", flush=True)


def measured(flagged, flipped, noisy, true, fit, rows, held_out) -> dict[str, float]:
    """Shares of one seed; after each gain half of its 95 % interval, of paired differences on the same test rows."""
    places = np.array([one.place for one in flagged])
    planted = np.isin(places, flipped)
    result = {
        "flagged, of all rows": len(places) / len(rows),
        "precision (flagged that were flipped)": planted.mean(),
        "recall (flipped that are flagged)": planted.sum() / len(flipped),
        "likely label of found ones is the true one": np.mean(
            [one.likely == true[one.place] for one, hit in zip(flagged, planted, strict=True) if hit]
        ),
    }
    for first in (100, 500, 1000):
        result[f"precision of the first {first:,}"] = planted[:first].mean()
        result[f"recall of the first {first:,}"] = planted[:first].sum() / len(flipped)
    corrected = noisy.copy()
    corrected[places] = true[places]
    first = noisy.copy()
    first[places[:1000]] = true[places[:1000]]
    kept = np.setdiff1d(rows, places)
    versions = {
        "with the noise": (rows, noisy),
        "flagged rows removed unread": (kept, noisy),
        "the first 500 flagged removed unread": (np.setdiff1d(rows, places[:500]), noisy),
        "the first 1,000 flagged corrected": (rows, first),
        "all flagged corrected": (rows, corrected),
        "without noise": (rows, true),
    }
    right = {}
    for what, (train, given) in versions.items():
        right[what] = fit(train, given[train])(held_out).argmax(1) == true[held_out]
        result[f"accuracy, {what}"] = right[what].mean()
    before = right["with the noise"].astype(float)
    for what in list(versions)[1:]:
        gain = right[what] - before
        result[f"gain, {what}"] = gain.mean()
        result["± " + what] = 1.96 * gain.std() / np.sqrt(len(gain))
    return {what: float(value) for what, value in result.items()}


def cost(given: argparse.Namespace, config: Config) -> None:
    source = open_source(given.source, config.data, offline=True)
    texts, labels = [], []
    normalize = get_normalizer("tweet")
    column, label = ("text", "target") if "target" in source.columns else ("text", "label")
    step = max(1, 1_500_000 // given.rows)  # of the 1.58 million tweets, which are sorted by label
    taken = 0
    for batch in source.batches((column, label)):
        for text, value in zip(batch.columns[column], batch.columns[label], strict=True):
            taken += 1
            if taken % step == 0 and len(texts) < given.rows and (cleaned := normalize(text or "")):
                texts.append(cleaned)
                labels.append(0 if str(value).startswith(("0", "n")) else 2)
    table = table_of(texts, np.array(labels))
    rows = np.arange(len(texts))
    print(f"{len(texts):,} rows, seconds of processor time and thereof per million rows", flush=True)
    with timed("near-duplicates", len(texts)):
        duplicates = find_duplicates(texts)
        find_repeats(table, duplicates)
    with timed("other languages", len(texts)):
        find_other_languages(texts, rows)
    with timed("tokens", len(texts)):
        find_artefacts(texts, rows, table.labels, NAMES)
    with timed("encoding, mean states", len(texts)):
        states = encoded(config, table)
    with timed("label errors", len(texts)):
        answers = out_of_fold(partial(fit_states, states), rows, table.labels, duplicates.groups)
        assert answers is not None
        find_label_errors(answers)
    with timed("outliers", len(texts)):
        find_outliers(states, rows, table.labels)


def whole(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    source = cut(Path(given.source), [given.rows], folder)[given.rows]
    cache, states = folder / "cache", folder / "encoding"
    os.environ["ENCODING"] = str(states)
    settings = {"cache_dir": cache, "results_dir": folder / "results", "data_db": folder / "tweets.db"}
    places = [word for name, path in settings.items() for word in ("--set", f"paths.{name}={path}")]
    report: dict[str, Any] = {
        "rows": given.rows,
        "layers": given.layers,
        "data": measure(_COMMAND, "data", "--source", source, *places),
    }
    encoder = "mini" if given.layers is None else shortened(given.layers, folder / "encoder")
    command = ["check", "--quiet", "--offline", "--set", f"encoder.name={encoder}", *places, "--output"]
    whole_csv, made_csv = folder / "whole.csv", folder / "made.csv"
    if given.only != "killed":
        figures = measure(_CHECK, *command, whole_csv)
        report["whole"] = figures | compared(figures["processor_seconds"], span(states))
        shutil.rmtree(cache)
    if given.only != "whole":
        first = killed([*command, made_csv], cache, given.rows * _STATES // 2)
        encoding = span(states, end=first)
        figures = measure(_CHECK, *command, made_csv)
        report["killed"] = compared(first, encoding)
        report["continued"] = figures | compared(figures["processor_seconds"], span(states))
        report["both"] = compared(first + figures["processor_seconds"], encoding + span(states))
    if given.only is None:
        report["identical"] = whole_csv.read_bytes() == made_csv.read_bytes()
    with (made_csv if made_csv.exists() else whole_csv).open(encoding="utf-8", newline="") as file:
        report["flagged"] = sum(1 for _ in csv.reader(file)) - 1
    return {**report, "machine": machine()}


def shortened(layers: int, folder: Path) -> Path:
    """The encoder of mini with its first layers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    source = paths.mini_dir() / "encoder"
    model = AutoModel.from_pretrained(source, dtype=torch.float32)
    model.encoder.layer = model.encoder.layer[:layers]
    model.config.num_hidden_layers = layers
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def span(states: Path, end: float | None = None) -> float:
    """Processor seconds of encoding; of a run that was killed meanwhile, until its end."""
    begun, *ended = map(float, states.read_text(encoding="ascii").split())
    return (ended[0] if end is None else end) - begun


def compared(processor: float, encoding: float) -> dict[str, float]:
    return {"processor_seconds": processor, "encoding": encoding, "times_encoding": processor / encoding}


def killed(command: list[Any], cache: Path, size: int) -> float:
    """Processor seconds of a run that is killed when its cache has so many bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-c", _CHECK, *map(str, command)], stdout=subprocess.DEVNULL)
    while process.poll() is None and sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < size:
        time.sleep(0.5)
    process.kill()
    if process.wait() == 0:
        raise SystemExit("the command ended before it was killed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def timed(what: str, rows: int) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {what:24} {seconds:8.1f} {1e6 * seconds / rows:8.0f}   peak {peak:,.0f} MiB", flush=True)


def human_rows(folder: Path, wanted: int) -> tuple[list[str], np.ndarray]:
    """Distinct cleaned texts with one human label each, in random order."""
    normalize = get_normalizer("tweet")
    found: dict[str, set[str]] = {}
    for name in SETS:
        with gzip.open(folder / f"{name}.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                text, label, *_ = line.rstrip("\n").split("\t")
                if label in NAMES and (cleaned := normalize(text)):
                    found.setdefault(cleaned, set()).add(label)
    rows = [(text, NAMES.index(next(iter(labels)))) for text, labels in found.items() if len(labels) == 1]
    order = np.random.default_rng(0).permutation(len(rows))[:wanted]
    return [rows[at][0] for at in order], np.array([rows[at][1] for at in order])


def with_noise(labels: np.ndarray, rows: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is replaced by another one, drawn evenly; and which rows they are."""
    random = np.random.default_rng(seed)
    flipped = random.choice(rows, round(share * len(rows)), replace=False)
    noisy = labels.copy()
    noisy[flipped] = (noisy[flipped] + random.integers(1, len(NAMES), len(flipped))) % len(NAMES)
    return noisy, flipped


def table_of(texts: list[str], labels: np.ndarray) -> Table:
    everything = np.ones(len(texts), dtype=bool)
    numbers = np.arange(len(texts))
    return Table(NAMES, texts, texts, labels, labels, numbers, np.zeros(len(texts), dtype=np.int8), everything)


def encoded(config: Config, table: Table) -> States:
    session = examine._session(config, Runtime(offline=True), table, "encoder")
    assert session is not None
    dataset = session.dataset(table.texts, table.labels)
    return mean_states(session, dataset, Path(config.paths.cache_dir or "."))


if __name__ == "__main__":
    main()
