"""`senthy data` beside pandas read_csv + to_sql on the same file: wall time, processor time, peak memory.

python benchmarks/data.py FILE [--runs 3] [--json OUT]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from limits import as_json, copy_rate, machine, machine_lines, ratio, table
from watch import measure

MOST_TIMES, MOST_MIB = 1.5, 600
OURS = """
import sys
from sentiment_hybrid.commands.data import run
from sentiment_hybrid.config.load import load_config
run(load_config(None, flags={"data.source": sys.argv[1], "paths.data_db": sys.argv[2]}), offline=True)
"""
PANDAS = """
import sqlite3, sys
import pandas
connection = sqlite3.connect(sys.argv[2])
pandas.read_csv(sys.argv[1]).to_sql("tweets", connection, index=False)
connection.commit()
connection.close()
"""
CONTESTANTS = {"senthy data": OURS, "pandas": PANDAS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a text and a label column")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, one after the other in turn")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    report = compare(options.file, runs=options.runs)
    rows = [
        {"": name, "wall s": row["seconds"], "processor s": row["processor_seconds"], "peak MiB": row["peak_mib"]}
        for name, row in report["median"].items()
    ]
    print(table(rows, title=f"{options.file.name}, median of {options.runs} runs in turn"))
    print(f"senthy data / pandas: wall time {report['ratio']:.2f} (at most {MOST_TIMES}), ", end="")
    print(f"processor time {report['processor_ratio']:.2f}; peak memory at most {MOST_MIB} MiB")
    print(f"limit: the database's bytes are copied at the machine's rate in {report['copy_seconds']:.2f} s")
    print(machine_lines(report["machine"]))
    if options.json:
        options.json.write_text(as_json(report), encoding="utf-8")
    good = report["ratio"] <= MOST_TIMES and report["median"]["senthy data"]["peak_mib"] <= MOST_MIB
    return int(not good)


def compare(source: Path, *, runs: int) -> dict[str, Any]:
    """Runs of both in turn, their medians, and the median of the ratios turn by turn."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.db"
        for _ in range(runs):
            for name, code in CONTESTANTS.items():
                target.unlink(missing_ok=True)
                results[name].append(measure(code, source, target))
                if name == "senthy data":
                    size = target.stat().st_size
    ratios = {
        key: ratio([run[key] for run in results["senthy data"]], [run[key] for run in results["pandas"]])
        for key in ("seconds", "processor_seconds")
    }
    return {
        "file": source.name,
        "ratio": ratios["seconds"],
        "processor_ratio": ratios["processor_seconds"],
        "median": {name: median(found) for name, found in results.items()},
        "runs": results,
        "copy_seconds": size / copy_rate(),
        "machine": machine(),
    }


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
