"""Resident memory of a `Predictor` over many calls, as a server that lives for weeks makes them.

    python benchmarks/predictor_memory.py FILE.csv.gz [--calls 50000] [--model mini-lstm] [--precision fp32] [--json]

Every call has 1 to ``--most`` texts of the file, few more often than many (each power of two as often as the next),
each alone or up to four in a row, so that nearly all calls have sizes of their own. Figures are shown while it runs.
"most MB" is the largest size after any call since the figure before. The first tenth of the calls, and at least 200 (or
half of them), warm up; after it, this must not grow by more than 5 %. The peak is that of the process, with torch
(about 220 MB) and the model.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from limits import as_json, machine, machine_lines, table
from watch import status

from sentiment_hybrid import Predictor
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.sources import open_source

_MB = 1e6
_WARM_UP, _MOST_GROWTH = 200, 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="texts: csv, tsv, jsonl, parquet, each also .gz")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--most", type=int, default=64, help="texts of a call at most")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    predictor = Predictor(arguments.model, device="cpu", precision=arguments.precision)
    loaded = resident()
    measured = run(predictor, read_texts(arguments.file), arguments.calls, arguments.most)
    warm = min(max(_WARM_UP, arguments.calls // 10), arguments.calls // 2)
    settled = [row["most MB"] for row in measured if row["calls"] >= warm]
    growth = max(settled) / settled[0]
    report = {
        "model": arguments.model,
        "compute": predictor.identity["compute"],
        "loaded_mb": loaded,
        "peak_mb": status("self", "VmHWM") / _MB,
        "growth": growth,
        "flat": growth <= _MOST_GROWTH,
        "measured": measured,
        "machine": machine(),
    }
    print(as_json(report) if arguments.json else shown(report))
    return int(not report["flat"])


def read_texts(file: str, rows: int = 20_000) -> list[str]:
    source = open_source(file, Data(), offline=True)
    column = find_text(source.columns, "text" if "text" in source.columns else None, source=source.name)
    batches = source.batches([column], size=1000)
    values = itertools.chain.from_iterable(batch.columns[column] for batch in batches)
    return [text for text in itertools.islice(values, rows) if text]


def run(predictor: Predictor, texts: Sequence[str], calls: int, most: int) -> list[dict[str, Any]]:
    """Memory and texts per second, twenty times over the calls and after the first few."""
    draw = random.Random(0)
    wanted = {min(calls, number) for number in (1, 10, 100, _WARM_UP)}
    wanted |= {calls * part // 20 for part in range(1, 21)}
    measured, done, most_mb, started = [], 0, 0.0, time.perf_counter()
    for number in range(1, calls + 1):
        size = int((most + 1) ** draw.random())
        call = [" ".join(draw.choices(texts, k=draw.choice((1, 1, 1, 2, 4)))) for _ in range(size)]
        predictor.predict_proba(call)
        done += len(call)
        most_mb = max(most_mb, resident())
        if number in wanted:
            seconds = time.perf_counter() - started
            sizes = {"MB": resident(), "most MB": most_mb}
            measured.append({"calls": number, "texts": done, **sizes, "texts/s": done / seconds})
            print(*(f"{name} {value:,.0f}" for name, value in measured[-1].items()), file=sys.stderr, flush=True)
            most_mb = 0.0
    return measured


def resident() -> float:
    return status("self", "VmRSS") / _MB


def shown(report: dict[str, Any]) -> str:
    title = f"{report['model']}: {report['loaded_mb']:.0f} MB when it is loaded, at most {report['peak_mb']:.0f} MB"
    verdict = f"after warming up {report['growth']:.3f} times: {'flat' if report['flat'] else 'GROWS'}"
    return "\n".join([table(report["measured"], title=title), verdict, machine_lines(report["machine"])])


if __name__ == "__main__":
    raise SystemExit(main())
