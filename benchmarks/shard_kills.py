"""`senthy predict` of many files by several workers, killed at random moments: each row once, as by one process.

    python benchmarks/shard_kills.py FILE.csv.gz [--files 24] [--rows 400] [--workers 4] [--kills 20] [--json]

One process labels all files first. Then the same with workers is killed again and again: the command, or one of its
workers, at a random moment; a killed command is given again. At the end every output must be the same, byte by byte.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from os import kill
from pathlib import Path
from typing import Any

from limits import as_json, machine, machine_lines

_CODE = "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a column text")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--rows", type=int, default=400, help="per file")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most", type=float, default=8.0, help="seconds until a kill, at most")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait first until one more file is done")
    parser.add_argument("--commands", type=float, default=0.5, help="share of kills that are of the command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = killed(options, Path(folder))
    report["machine"] = machine()
    print(as_json(report) if options.json else shown(report))
    return int(not report["identical"] or report["rows_more_or_less_than_once"])


def killed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    split(options.file, folder / "in", options.files, options.rows)
    command = [sys.executable, "-c", _CODE, "predict", "--quiet", "--load-model-path", "mini", "--input", folder / "in"]
    started = time.monotonic()
    subprocess.run([*map(str, command), "--output", str(folder / "whole")], check=True)
    seconds = time.monotonic() - started
    several = [*map(str, command), "--workers", str(options.workers), "--output", str(folder / "made")]
    draw, done = random.Random(options.seed), []
    process = subprocess.Popen(several, stderr=subprocess.DEVNULL)
    for _ in range(options.kills):
        before, latest = labelled(folder / "made"), time.monotonic() + options.patience
        while options.patience and process.poll() is None and labelled(folder / "made") == before:
            if time.monotonic() > latest:
                break
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, options.most))
        helpers = children(process.pid)
        who = "worker" if helpers and draw.random() >= options.commands else "command"
        with suppress(ProcessLookupError):
            kill(draw.choice(helpers) if who == "worker" else process.pid, signal.SIGKILL)
        done.append(f"{who} at {labelled(folder / 'made')}")
        print(done[-1], file=sys.stderr, flush=True)
        if who == "command" or process.poll() is not None:
            process.wait()
            process = subprocess.Popen(several, stderr=subprocess.DEVNULL)
    process.wait()
    subprocess.run(several, check=True)
    found, expected = outputs(folder / "made"), outputs(folder / "whole")
    expected_rows = options.files * options.rows
    ids = Counter(
        row["id"] for path in (folder / "made").glob("*.csv") for row in csv.DictReader(path.open(newline=""))
    )
    return {
        "files": options.files, "rows": len(ids), "workers": options.workers, "one_process_seconds": seconds,
        "kills": done, "identical": found == expected,
        "rows_more_or_less_than_once": sum(n != 1 for n in ids.values()) + expected_rows - len(ids),
    }  # fmt: skip


def split(source: Path, folder: Path, files: int, rows: int) -> None:
    """The first rows of a file as many files; each row gets a number."""
    folder.mkdir()
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8", newline="") as file:
        texts = enumerate(row["text"] for row in csv.DictReader(file))
        for number in range(files):
            with (folder / f"part-{number:04}.csv").open("w", encoding="utf-8", newline="") as part:
                csv.writer(part).writerows([["id", "text"], *itertools.islice(texts, rows)])


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def labelled(folder: Path) -> int:
    """How many files are done."""
    return len(list((folder / "_senthy" / "shards").glob("*.json")))


def outputs(folder: Path) -> dict[str, Any]:
    """All outputs and the manifest."""
    manifest = json.loads((folder / "_senthy" / "manifest.json").read_text())
    return {"manifest": manifest, **{path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}}


def shown(report: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{report['rows']:,} rows in {report['files']} files, one process: {report['one_process_seconds']:.0f} s",
            f"{report['workers']} workers, {len(report['kills'])} kills, files done then: {', '.join(report['kills'])}",
            "the same files" if report["identical"] else "OTHER FILES",
            f"{report['rows_more_or_less_than_once']} rows more or less than once",
            machine_lines(report["machine"]),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
