"""How time and peak memory grow with the rows, from ten thousand to all: `senthy data`, `train` and `predict`.

python benchmarks/scale.py FILE.csv.gz [--rows 10000 30000 ...] [--model-rows 10000 30000 100000] [--json OUT]

The slope is that of log time against log rows: 1 is proportional, less where a fixed cost weighs. It is told over all
sizes and over those from 100,000 rows on, where the start of the program no longer counts. Train is one epoch of a
linear head over a small frozen encoder of random weights, storing its states included; predict is that model on a file.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from limits import as_json, machine, machine_lines, table
from watch import measure

ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
MODEL_ROWS = (10_000, 30_000, 100_000)
LARGE = 100_000
#: From here on, every buffer between the processes is full.
FULL = 300_000
MOST_SLOPE, MOST_MIB, MOST_GROWTH = 1.1, 600, 1.1

_ENCODER = """
import csv, sys, torch
from pathlib import Path
from sentiment_hybrid.config.schema import ScratchEncoder
from sentiment_hybrid.models.encoder.hub import build_scratch, save_encoder
from sentiment_hybrid.models.tokenizer import train_tokenizer
scratch = ScratchEncoder(vocab_size=2000, hidden_size=32, layers=1, attention_heads=2, intermediate_size=64)
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    texts = [row["text"] for row in csv.DictReader(file)]
torch.manual_seed(0)
tokenizer = train_tokenizer(texts, scratch, max_length=64)
save_encoder(build_scratch(scratch, tokenizer=tokenizer, max_length=64).model, tokenizer, Path(sys.argv[2]))
"""
_LOAD = """
import sys
from pathlib import Path
from sentiment_hybrid.config.load import load_config
place = Path(sys.argv[2])
config = load_config(None, flags={
    "data.source": sys.argv[1],
    **{f"paths.{name}": str(place / name) for name in ("data_db", "models_dir", "results_dir", "cache_dir")},
    "encoder.name": str(place.parent / "encoder"), "encoder.trainable_layers": 0, "encoder.max_length": 64,
    "linear.train.epochs": 1, "test.sample_size": 100, "test.resamples": 100,
})
"""
CODE = {
    "data": _LOAD + "from sentiment_hybrid.commands.data import run; run(config, offline=True)",
    "train": _LOAD + "from sentiment_hybrid.commands.train import run; run(config, 'linear', offline=True)",
    "predict": _LOAD
    + "from sentiment_hybrid.commands.predict import Request, run\n"
    + "given, out = Path(sys.argv[1]), place / 'out.csv'\n"
    + "run(Request(config=config, head='linear', input_file=given, output_file=out, offline=True))",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a text and a label column")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="sizes for data; all is added")
    parser.add_argument("--model-rows", type=int, nargs="*", default=MODEL_ROWS, help="sizes for train and predict")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = cut(options.file, [*options.rows, *options.model_rows], Path(folder))
        everything = max(files)
        sizes = sorted({*options.rows, everything} & files.keys())
        measured = grow(files, sizes, sorted({*options.model_rows} & files.keys()), Path(folder))
    report = {"file": options.file.name, "measured": measured, "growth": growth(measured), "machine": machine()}
    print(table(measured, title="time and peak memory by rows"))
    print(table(report["growth"], title="\nslope of log time against log rows; peak memory, largest / at 300,000 rows"))
    print(f"at most: slope {MOST_SLOPE}, memory of data {MOST_MIB} MiB and {MOST_GROWTH} times that of 300,000 rows")
    print(machine_lines(report["machine"]))
    if options.json:
        options.json.write_text(as_json(report), encoding="utf-8")
    return int(not good(report["growth"]))


def cut(source: Path, sizes: Sequence[int], folder: Path) -> dict[int, Path]:
    """Files of so many rows, spread evenly over the source, and one of all rows. Returns rows -> file."""
    total = sum(1 for _ in read(source)) - 1
    wanted = sorted({size for size in sizes if size < total} | {total})
    with ExitStack() as stack:
        writers = {}
        for size in wanted:
            file = stack.enter_context((folder / f"{size}.csv").open("w", encoding="utf-8", newline=""))
            writers[size] = csv.writer(file)
        rows = read(source)
        header = next(rows)
        for writer in writers.values():
            writer.writerow(header)
        for number, row in enumerate(rows):
            for size, writer in writers.items():
                if number * size // total != (number + 1) * size // total:
                    writer.writerow(row)
    return {size: folder / f"{size}.csv" for size in wanted}


def read(source: Path) -> Iterator[list[str]]:
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


def grow(files: dict[int, Path], sizes: list[int], model_sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    """Every command at its sizes, each in a process of its own."""
    measured = []
    if model_sizes:
        measure(_ENCODER, files[model_sizes[0]], folder / "encoder")
    for rows in sorted({*sizes, *model_sizes}):
        place = folder / f"run-{rows}"
        place.mkdir()
        commands = [name for name in CODE if rows in (sizes if name == "data" else model_sizes)]
        if rows in model_sizes and rows not in sizes:
            measure(CODE["data"], files[rows], place)
        for name in commands:
            found = measure(CODE[name], files[rows], place)
            measured.append({"command": name, "rows": rows, **found, "rows/s": rows / found["seconds"]})
            print(f"{name} {rows:,}: {found['seconds']:.1f} s, {found['peak_mib']:.0f} MiB", file=sys.stderr)
    return sorted(measured, key=lambda row: (list(CODE).index(row["command"]), row["rows"]))


def growth(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By command: slopes, the largest peak, and how it compares with that of 300,000 rows."""
    result = []
    for name in CODE:
        rows = [row for row in measured if row["command"] == name]
        if not rows:
            continue
        large = [row for row in rows if row["rows"] >= LARGE]
        full = [row["peak_mib"] for row in rows if row["rows"] >= FULL]
        result.append(
            {
                "command": name,
                "slope": slope(rows, "seconds"),
                "slope from 100,000": slope(large, "seconds"),
                "slope of processor time": slope(large, "processor_seconds"),
                "peak MiB": max(row["peak_mib"] for row in rows),
                "peak growth": max(full) / full[0] if full else None,
            }
        )
    return result


def slope(rows: list[dict[str, Any]], key: str) -> float | None:
    """Of the least-squares line through (log rows, log value)."""
    points = [(math.log(row["rows"]), math.log(row[key])) for row in rows]
    if len(points) < 2:
        return None
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    spread = sum((x - middle[0]) ** 2 for x, _ in points)
    return sum((x - middle[0]) * (y - middle[1]) for x, y in points) / spread


def good(growths: list[dict[str, Any]]) -> bool:
    data = growths[0]
    linear = all((row["slope from 100,000"] or 0) <= MOST_SLOPE for row in growths)
    return linear and data["peak MiB"] <= MOST_MIB and (data["peak growth"] or 0) <= MOST_GROWTH


if __name__ == "__main__":
    sys.exit(main())
