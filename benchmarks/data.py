"""`senthy data` beside pandas read_csv + to_sql on the same file: wall time, processor time, peak memory.

python benchmarks/data.py FILE [--runs 3] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PEAK = """
import resource, sys
own, kids = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
unit = 1 if sys.platform == "darwin" else 1024
# The system tells the peak of the largest helper, not their sum; others of its size may have run beside it.
print((own.ru_maxrss + kids.ru_maxrss) * unit, own.ru_utime + own.ru_stime + kids.ru_utime + kids.ru_stime)
"""
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


def measure(code: str, source: Path, folder: Path) -> dict[str, float]:
    """One run in a process of its own: seconds, processor seconds and peak bytes (its own and its largest helper's)."""
    target = folder / "out.db"
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    command = [sys.executable, "-c", code + PEAK, str(source), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    peak, processor = done.stdout.split()[-2:]
    return {"seconds": seconds, "processor_seconds": float(processor), "peak_bytes": float(peak)}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def machine() -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("sentiment-hybrid", "pandas", "numpy", "ftfy")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a text and a label column")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, one after the other in turn")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"senthy data": [], "pandas": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.runs):
            for name, code in (("senthy data", OURS), ("pandas", PANDAS)):
                results[name].append(measure(code, options.file, Path(folder)))
    medians = {name: median(runs) for name, runs in results.items()}
    ratio = medians["senthy data"]["seconds"] / medians["pandas"]["seconds"]
    print(f"{'':14}{'wall':>9}{'processor':>12}{'peak memory':>14}   median of {options.runs}")
    for name, row in medians.items():
        peak = row["peak_bytes"] / 2**20
        print(f"{name:14}{row['seconds']:8.1f}s{row['processor_seconds']:11.1f}s{peak:11,.0f} MiB")
    print(f"ratio of wall times {ratio:.2f} (at most 3)")
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    if options.json:
        facts = {"ratio": ratio, "median": medians, "runs": results, "machine": machine(), "file": options.file.name}
        options.json.write_text(json.dumps(facts, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
