"""`senthy predict` of a file, killed at random moments and resumed: the output must be that of a run never stopped.

    python benchmarks/predict_kills.py FILE.csv.gz [--rows 300000] [--kills 20] [--suffix csv] [--json]

The whole run comes first; it also says how long a run takes and its peak memory. A killed run gets a random part of
that time, at least until its first part is written, so that each of them advances.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from limits import as_json, machine, machine_lines
from scale import cut
from watch import measure

_CODE = "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a column text")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--suffix", default="csv", help="of the output: csv, tsv, jsonl, csv.gz, parquet ...")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = killed(options, cut(options.file, [options.rows], Path(folder))[options.rows])
    report["machine"] = machine()
    print(as_json(report) if options.json else shown(report))
    return int(not report["identical"])


def killed(options: argparse.Namespace, given: Path) -> dict[str, Any]:
    whole, made = (given.with_name(f"{name}.{options.suffix}") for name in ("whole", "made"))
    command = ["predict", "--quiet", "--load-model-path", "mini", "--precision", options.precision, "--input", given]
    figures = measure(_CODE, *command, "--output", whole)
    draw, reached = random.Random(options.seed), []
    for _ in range(options.kills):
        process = subprocess.Popen([sys.executable, "-c", _CODE, *map(str, command), "--output", made, "--resume"])
        end = time.monotonic() + draw.uniform(0, 2 * figures["seconds"] / options.kills)
        before = parts(made)
        while process.poll() is None and (time.monotonic() < end or parts(made) == before):
            time.sleep(0.02)
        process.kill()
        process.wait()
        reached.append(parts(made))
        if made.exists():
            break
    if not made.exists():
        measure(_CODE, *command, "--output", made, "--resume")
    same = made.read_bytes() == whole.read_bytes()
    return {"rows": options.rows, **figures, "kills": len(reached), "parts_after_each": reached, "identical": same}


def parts(output: Path) -> int:
    """How many parts of a run that has not ended are complete."""
    try:
        progress = output.with_name(f".{output.name}.parts") / "progress.json"
        return int(json.loads(progress.read_text(encoding="utf-8"))["parts"])
    except (OSError, ValueError, KeyError):
        return 0


def shown(report: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{report['rows']:,} rows, never stopped: {report['seconds']:.0f} s, at most {report['peak_mib']:.0f} MiB",
            f"killed {report['kills']} times, parts after each: {', '.join(map(str, report['parts_after_each']))}",
            "the same file" if report["identical"] else "ANOTHER FILE",
            machine_lines(report["machine"]),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
