"""`senthy predict` over many files: time and memory by rows and processes, and what that makes of a billion rows.

    python benchmarks/growth.py FILE.csv.gz --results growth.jsonl [--rows 10000 100000 1000000] [--processes 1 2 4]

The texts of the file are repeated in its order as often as it takes, each with a number, in Parquet files of `--shard`
rows: repeats are synthetic, but hardly a text of a batch of 1,024 comes twice, so that each is computed. A point that
is in the results already is not measured again, so a stopped run continues.

    python benchmarks/growth.py FILE.csv.gz --results growth.jsonl --rows 10000000 --processes 1 --shares 20 --work DIR

labels the files as `--shard 1/20` to `--shard 20/20`, as an array of jobs would, and adds up the shares, which can be
measured on different days; `--finish` then writes the manifest.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from limits import machine, machine_lines, table
from watch import measure

_CODE = "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])"
BILLION = 1_000_000_000
MEASURED = ("seconds", "processor_seconds", "own_mib", "peak_mib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a column text")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--shard", type=int, default=50_000, help="rows per file; at least four files are made")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--shares", type=int, default=1, help="measure this many shares of the files one by one")
    parser.add_argument("--work", type=Path, help="keep the files here until all shares are measured")
    parser.add_argument("--results", type=Path, required=True, help="JSON Lines, one per point; kept and continued")
    options = parser.parse_args()
    for rows in options.rows:
        wanted = [number for number in options.processes if not is_measured(options.results, rows, number)]
        if wanted:
            with contextlib.nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as folder:
                measured(options, rows, wanted, Path(folder) / str(rows))
    print(shown(points(options.results)))


def points(results: Path) -> list[dict[str, Any]]:
    """What has been measured so far, without the shares of a point."""
    return [line for line in lines_of(results) if "share" not in line]


def lines_of(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def is_measured(results: Path, rows: int, processes: int) -> bool:
    return any((point["rows"], point["processes"]) == (rows, processes) for point in points(results))


def measured(options: argparse.Namespace, rows: int, processes: Sequence[int], folder: Path) -> None:
    """Label the same files by each number of processes, and add each point to the results at once."""
    source, size = folder / "in", min(options.shard, math.ceil(rows / 4))
    if not source.exists():
        shutil.rmtree(folder / "part", ignore_errors=True)
        write_shards(options.file, folder / "part", rows, size)
        (folder / "part").rename(source)
    for number in processes:
        output = folder / f"out-{number}"
        command = ["predict", "--quiet", "--input", source, "--output", output]
        label = [*command, "--load-model-path", "mini", "--precision", options.precision, "--workers", number]
        key = {"rows": rows, "processes": number}
        if options.shares == 1:
            shutil.rmtree(output, ignore_errors=True)  # of a stopped run
            point = measure(_CODE, *label)
        else:
            point = measured_shares(options, key, label, sorted(source.iterdir()), output)
            measure(_CODE, *command, "--finish")
        keep(options.results, {**key, **point, "machine": machine()})


def measured_shares(
    options: argparse.Namespace, key: dict[str, int], label: Sequence[object], files: Sequence[Path], output: Path
) -> dict[str, float]:
    """Label the shares that are not in the results yet; the sums of times and the largest memory of all."""
    for share in range(1, options.shares + 1):
        if share in found(options.results, key):
            continue
        for file in files[share - 1 :: options.shares]:  # what a stopped run has labelled must be measured, too
            (output / file.name).unlink(missing_ok=True)
            (output / "_senthy" / "shards" / f"{file.name}.json").unlink(missing_ok=True)
        taken = measure(_CODE, *label, "--shard", f"{share}/{options.shares}")
        keep(options.results, {**key, "share": share, **taken})
    shares = found(options.results, key).values()
    return {name: (sum if "seconds" in name else max)(one[name] for one in shares) for name in MEASURED}


def found(results: Path, key: dict[str, int]) -> dict[int, dict[str, Any]]:
    """The measured shares of a point by number."""
    return {line["share"]: line for line in lines_of(results) if "share" in line and key.items() <= line.items()}


def keep(results: Path, line: dict[str, Any]) -> None:
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_shards(source: Path, folder: Path, rows: int, size: int) -> None:
    """Numbered rows as Parquet files."""
    folder.mkdir(parents=True)
    numbered = enumerate(itertools.islice(repeated(source), rows))
    for at in itertools.count():
        if not (part := list(itertools.islice(numbered, size))):
            return
        numbers, texts = zip(*part, strict=True)
        pq.write_table(pa.table({"id": numbers, "text": texts}), folder / f"part-{at:06}.parquet")


def repeated(source: Path) -> Iterator[str]:
    """The texts of a file, again and again."""
    while True:
        with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
            yield from (row["text"] for row in csv.DictReader(file))


def shown(seen: Sequence[dict[str, Any]]) -> str:
    """All points, the slope for each number of processes, and the largest point carried to a billion rows."""
    names = ("rows", "processes", "seconds", "processor_seconds", "peak_mib")
    lines = [table([{name: point[name] for name in names} for point in seen], title="predict over many files")]
    for number in sorted({point["processes"] for point in seen}):
        own = sorted((point for point in seen if point["processes"] == number), key=lambda point: point["rows"])
        if len(own) < 2:
            continue
        first, last = own[-2], own[-1]
        more = last["rows"] - first["rows"]
        wall, processor = ((last[name] - first[name]) / more for name in ("seconds", "processor_seconds"))
        slope = math.log(last["processor_seconds"] / first["processor_seconds"]) / math.log(
            last["rows"] / first["rows"]
        )
        lines.append(
            f"{number} process(es), {first['rows']:,} to {last['rows']:,} rows: slope of processor time {slope:.2f}, "
            f"{1 / wall:,.0f} rows/s; a billion: {BILLION * wall / 3600:,.0f} h here, "
            f"{BILLION * processor / 3600:,.0f} core-hours"
        )
    return "\n".join([*lines, machine_lines(seen[-1]["machine"])] if seen else ["nothing measured"])


if __name__ == "__main__":
    main()
