"""The speed of `mini` as it ships: over its own encoder and head alone, and over onnxruntime on the same graph.

    python benchmarks/mini_speed.py whole FILE.csv.gz [--model mini-han] [--rows 30000] [--repeats 3] [--json]
    python benchmarks/mini_speed.py onnx FILE.csv.gz [--model mini-han] [--rows 5000] [--repeats 5] [--json]

`whole`: `senthy predict --input FILE --output FILE` as its users run it, in a process of its own, start and all, over
encoder and head alone on the very same batches, made before; then the rest alone, in seconds: the start, cleaning and
tokenising, making batches, and reading and writing (a run in which nothing is computed).

`onnx`: strings to labels by `Predictor`, over the graph that `senthy export` writes of the same model, in onnxruntime,
in float32 and int8, which gets texts that are already cleaned and tokenised, sorted by length, at the number of tokens
per run that is its best on some of them.

Contestants take turns; figures are medians, ratios the median of the turns' ratios: of wall time, and of processor
time, which alone says anything on a shared machine (with `--threads 1`, for threads that wait for each other burn it).
An AVX2 machine is emulated by ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2, for torch alone: nothing limits the
kernels of onnxruntime, so on a processor with AVX-512 the rival keeps what it has.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import CLOCKS, Times, as_json, both, limited, machine, machine_lines, ratios, table, timed, turns
from scale import cut
from watch import measure

from sentiment_hybrid import Predictor
from sentiment_hybrid.commands import export
from sentiment_hybrid.commands.predict import Request
from sentiment_hybrid.commands.predict_rows import label_rows, open_rows
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.batches import Batch, TokenizedTexts, collate, make_batches
from sentiment_hybrid.engine.inference.onnx_runtime import OnnxBackend, graph_inputs
from sentiment_hybrid.engine.inference.predictor import PreparedTexts, model_directory

_CODE = "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])"
WHOLE, ALONE, OURS = "senthy predict", "encoder and head", "senthy"
#: At most (whole / alone); at least (onnxruntime / ours), by whether the processor has bf16 instructions.
MOST_WHOLE, LEAST_ONNX = 1.15, {True: 1.5, False: 1.2}
_BUDGETS = (512, 1024, 2048, 4096, 8192, 16_384)  # tokens per run of onnxruntime
_TUNING = 1024  # texts that choose among them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["whole", "onnx"])
    parser.add_argument("file", type=Path, help="csv or csv.gz with a column text")
    parser.add_argument("--model", default="mini-han")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--precision", default="auto", help="of ours")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch and onnxruntime")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        report = (whole if options.what == "whole" else onnx)(options, Path(folder))
    report |= {"what": options.what, "model": options.model, "limited_by": limited(), "machine": machine()}
    print(as_json(report) if options.json else shown(report))


# --- the whole command -----------------------------------------------------------------------------------------------


class Recorder(Predictor):
    """Prepares texts as its base does, and keeps them and the time that this takes; computes nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.groups: list[TokenizedTexts] = []
        self.seconds = 0.0

    def prepare(self, texts: Sequence[object], *, first: int = 0) -> PreparedTexts:
        started = time.perf_counter()
        prepared = super().prepare(texts, first=first)
        self.seconds += time.perf_counter() - started
        self.groups.append(prepared.tokenized)
        return prepared

    def compute(self, prepared: PreparedTexts, *, progress: Callable[[int], object] = lambda texts: None) -> np.ndarray:
        progress(len(prepared.tokenized))
        return np.full((prepared.size, len(self.labels)), 1 / len(self.labels), dtype=np.float32)


def whole(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = options.rows or 30_000
    given = cut(options.file, [rows], folder)[rows]
    request = Request(config=Config(), input_file=given, output_file=folder / "out.csv")
    recorder = Recorder(options.model, precision=options.precision)
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        label_rows(stack, request, recorder, open_rows(stack, request), None)
    without_model = time.perf_counter() - started
    started = time.perf_counter()
    batches = [batch for group in recorder.groups for batch in batches_of(recorder, group)]
    collating = time.perf_counter() - started
    forward(recorder, batches[:8])
    command = ["predict", "--quiet", "--load-model-path", options.model, "--precision", options.precision]
    command += ["--input", str(given), "--output", str(request.output)]
    command_time = partial(measure, _CODE, *command)
    taken = turns({WHOLE: command_time, ALONE: timed(lambda: forward(recorder, batches))}, options.repeats)
    starts = [measure(_CODE, "predict", "--quiet", "fine") for _ in range(3)]
    tokens = sum(group.ids.size for group in recorder.groups)
    return {
        "rows": rows,
        "tokens": tokens,
        "precision": recorder.identity["compute"][0]["precision"],
        "contestants": lines(taken, rows, tokens),
        "ratios": ratios(taken, WHOLE, ALONE),
        "ratio_without_start": (median(taken[WHOLE]) - median(starts)) / median(taken[ALONE]),
        "at_most": MOST_WHOLE,
        "rest": {
            "start": statistics.median(once["seconds"] for once in starts),
            "start, processor time": median(starts),
            "cleaning and tokenising": recorder.seconds,
            "making batches": collating,
            "a run that computes nothing": without_model,
        },
    }


def median(runs: Sequence[Times]) -> float:
    """Of their processor time."""
    return statistics.median(run["processor_seconds"] for run in runs)


def batches_of(predictor: Predictor, group: TokenizedTexts) -> list[Batch]:
    """A group as `Predictor.compute` feeds it to the model."""
    budget = predictor.identity["compute"][1]
    return [collate(group, rows) for rows in make_batches(group.lengths, np.arange(len(group)), budget)]


def forward(predictor: Predictor, batches: Sequence[Batch]) -> None:
    """Encoder and head alone."""
    compute, classifier = predictor._compute, predictor._classifier.eval()
    with compute.borrowed(), torch.inference_mode(), compute.layout(classifier.encoder):
        for batch in batches:
            with compute.autocast():
                classifier(**batch.inputs(compute.device))


# --- beside onnxruntime ----------------------------------------------------------------------------------------------


def onnx(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = options.rows or 5000
    given = cut(options.file, [rows], folder)[rows]
    texts = texts_of(given)
    ours = Predictor(options.model, precision=options.precision)
    exports = {kind: exported(options.model, kind, folder) for kind in ("fp32", "int8")}
    tokenized = ours.prepare(texts).tokenized
    tuning = ours.prepare(texts[:_TUNING]).tokenized
    best = {kind: best_budget(backend, tuning) for kind, backend in exports.items()}
    works = {name(kind): partial(run_graph, backend, tokenized, best[kind]) for kind, backend in exports.items()}
    works[OURS] = lambda: ours.predict_proba(texts)
    for work in works.values():  # what a first call alone does
        work()
    taken = turns({name: timed(work) for name, work in works.items()}, options.repeats)
    expected = ours.predict_proba(texts).argmax(1)
    return {
        "rows": rows,
        "tokens": tokenized.ids.size,
        "precision": ours.identity["compute"][0]["precision"],
        "tokens_per_run": best,
        "contestants": lines(taken, rows, tokenized.ids.size),
        "other_labels": {
            kind: float((Predictor(backend.directory).predict_proba(texts).argmax(1) != expected).mean())
            for kind, backend in exports.items()
        },
        "ratios": {rival: ratios(taken, rival, OURS) for rival in map(name, exports)},
        "at_least": LEAST_ONNX[machine()["bf16"] and not limited()],
    }


def name(kind: str) -> str:
    return f"onnxruntime {kind}"


def texts_of(given: Path) -> list[str]:
    import pandas as pd

    return pd.read_csv(given, usecols=["text"], dtype=str, keep_default_na=False)["text"].tolist()


def exported(model: str, kind: str, folder: Path) -> OnnxBackend:
    """The graph of a model, as `senthy export` writes it."""
    config = Config.model_validate({"paths": {"data_db": folder / "none.db"}})
    quantize = "int8" if kind == "int8" else None
    done = export.run(config, load_model_path=model_directory(model), output=folder / kind, quantize=quantize, rows=16)
    return OnnxBackend(done.directory, device="cpu")


def best_budget(backend: OnnxBackend, tokenized: TokenizedTexts) -> int:
    """The number of tokens per run at which it is fastest."""
    works = {str(budget): timed(partial(run_graph, backend, tokenized, budget)) for budget in _BUDGETS}
    taken = turns(works, 3)
    return int(min(taken, key=lambda budget: min(once["processor_seconds"] for once in taken[budget])))


def run_graph(backend: OnnxBackend, tokenized: TokenizedTexts, budget: int) -> None:
    for rows in make_batches(tokenized.lengths, np.arange(len(tokenized)), budget):
        backend._session.run(["logits"], graph_inputs(tokenized, rows))


# --- times and tables ------------------------------------------------------------------------------------------------


def lines(taken: dict[str, list[Times]], rows: int, tokens: int) -> list[dict[str, Any]]:
    """A row for each contestant."""
    found = []
    for who, runs in taken.items():
        wall, processor = (statistics.median(run[clock] for run in runs) for clock in CLOCKS)
        found.append({"": who, "seconds": wall, "processor seconds": processor, "texts/s": rows / wall,
                      "tokens/s": tokens / wall, "texts/processor second": rows / processor})  # fmt: skip
    return found


def shown(report: dict[str, Any]) -> str:
    title = f"{report['model']} in {report['precision']}, {report['rows']:,} tweets, {report['tokens']:,} tokens"
    said = [table(report["contestants"], title=title)]
    if report["what"] == "whole":
        said += [
            f"{WHOLE} / {ALONE}: {both(report['ratios'])} (wanted: at most {report['at_most']})",
            f"without the start, as for very many rows, by processor time: {report['ratio_without_start']:.3f}",
            "alone, seconds:",
        ]
        said += [f"  {step}: {seconds:.2f}" for step, seconds in report["rest"].items()]
    else:
        said += [f"{rival} / {OURS}: {both(found)}" for rival, found in report["ratios"].items()]
        said.append(f"wanted: at least {report['at_least']} over the faster one")
        said.append(f"tokens per run: {report['tokens_per_run']}; other labels: {report['other_labels']}")
    if report["limited_by"]:
        said.append(f"torch limited by {report['limited_by']}, onnxruntime by nothing")
    return "\n".join([*said, machine_lines(report["machine"])])


if __name__ == "__main__":
    main()
