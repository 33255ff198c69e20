"""Labelling texts: beside the transformers `pipeline` on the same weights, and int8 beside fp32 on labelled texts.

    python benchmarks/predict.py speed FILE.csv.gz --tokenizer DIR [--size base|middle|small] [--repeats 3] [--json]
    python benchmarks/predict.py flips MODEL_DIR FILE|tweets.db [--rows 100000] [--export DIR] [--json]

`speed`: a RoBERTa of random weights and a real tokenizer, as RobertaForSequenceClassification in
`pipeline("text-classification")` with its defaults and at its best batch size, and as a senthy model with a `linear`
head at each precision: the encoder, nearly all of the work, has the same weights, and its states are compared first.
All label the same distinct tweets, cleaning, tokenising and all. The batch size is found on the first `--tuning`
tweets. Contestants take turns; figures are medians, ratios the median of the turns' ratios. Beside them: the best rate
that this process reaches on the model's own matrix shapes, and the share of it that one product per weight and real
token comes to.

`flips`: a trained model at each precision (and an export of it) on labelled rows: a prepared database's test split, or
a file. Labels that differ from those of fp32, and the difference in accuracy, in points.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import (
    as_json,
    copy_rate,
    encoder_flops,
    encoder_shapes,
    machine,
    machine_lines,
    matmul_rate,
    ratio,
    side_by_side,
    table,
)

from sentiment_hybrid import Predictor
from sentiment_hybrid.commands import export
from sentiment_hybrid.config.schema import Config, Data
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.labelled import read_labelled
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.inference.model_directory import ModelInfo, read_info, save_model
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.errors import SenthyError
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder

SIZES = {
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "middle": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
BATCH_SIZES = (1, 8, 16, 32, 64, 128, 256)
DEFAULT, BEST = "pipeline, defaults", "pipeline, best batch"
#: Ratios that are to be reached: (rival, ours) -> at least.
TARGETS = {
    (DEFAULT, "senthy bf16"): 4.0,
    (DEFAULT, "senthy int8"): 7.0,
    (BEST, "senthy bf16"): 3.0,
    (BEST, "senthy int8"): 5.0,
    (BEST, "senthy onnx int8"): 2.0,
}
#: Points of accuracy that int8 may cost.
MOST_POINTS = 0.2
_LABELS = ("LABEL_0", "LABEL_1")
_MAX_LENGTH = 128
#: Rows of a product when the machine's rate is measured: about what a batch has.
_PRODUCT_ROWS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    first = what.add_parser("speed")
    first.add_argument("file", help="texts: csv, tsv, jsonl, parquet, each also .gz")
    first.add_argument("--tokenizer", type=Path, required=True, help="a folder with a tokenizer.json of RoBERTa")
    first.add_argument("--size", choices=SIZES, default="base")
    first.add_argument("--rows", type=int, default=1000)
    first.add_argument("--tuning", type=int, default=256, help="rows on which the pipeline's batch size is found")
    first.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    first.add_argument("--precisions", nargs="+", help="of fp32, bf16, int8, onnx, onnx-int8")
    first.add_argument("--device", default="cpu", help="cpu or cuda")
    first.add_argument("--repeats", type=int, default=3)
    second = what.add_parser("flips")
    second.add_argument("model", type=Path)
    second.add_argument("file")
    second.add_argument("--rows", type=int, default=100_000)
    second.add_argument("--export", type=Path, action="append", default=[], help="an export of the model; repeat it")
    second.add_argument("--precisions", nargs="+", default=["bf16", "int8"])
    for one in (first, second):
        one.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        report = speed(arguments, Path(work)) if arguments.what == "speed" else flips(arguments)
    report["machine"] = machine()
    print(as_json(report) if arguments.json else shown(report))


# --- beside the pipeline ---------------------------------------------------------------------------------------------


def speed(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    texts = distinct_texts(arguments.file, arguments.rows)
    size = SIZES[arguments.size]
    pipe = make_pipeline(arguments.tokenizer, size, work / "rival", device=arguments.device)
    ours = make_model(work / "rival", pipe.model, work / "ours")
    predictors = contestants(ours, work, arguments)
    tokens = count_tokens(ours, texts)
    batch, tried = best_batch(pipe, texts[: arguments.tuning], arguments.batch_sizes)
    before = limits(size, arguments.device)
    works: dict[str, Callable[[], object]] = {
        DEFAULT: lambda: pipe(texts),
        BEST: lambda: pipe(texts, batch_size=batch),
        **{name: lambda one=one: one.predict_proba(texts) for name, one in predictors.items()},
    }
    for work_once in works.values():  # what a first call alone does: pages, kernels, weights laid out
        work_once()
    seconds = side_by_side(works, repeats=arguments.repeats, device=arguments.device, warmup=False)
    # The best that there was: another program that takes a core for a moment must not make the limit a low one.
    limit = {kind: max(rate, before[kind]) for kind, rate in limits(size, arguments.device).items()}
    return {
        "what": "speed",
        "size": {**size, "max_length": _MAX_LENGTH},
        "rows": len(texts),
        "tokens": tokens,
        "pipeline_batch_size": batch,
        "pipeline_texts_per_second": tried,
        "states_differ_by": difference(pipe, ours, texts[:32]),
        "contestants": results(seconds, rows=len(texts), tokens=tokens, size=size, limit=limit),
        "targets": reached(seconds),
        "copy_gb_per_second": copy_rate(device=arguments.device) / 1e9,
    }


def distinct_texts(file: str, rows: int) -> list[str]:
    """The first so many distinct tweets, as they are cleaned by default: both sides get the same."""
    source = open_source(file, Data(), offline=True)
    column = find_text(source.columns, "text" if "text" in source.columns else None, source=source.name)
    normalizer = normalizers.from_id(normalizers.NORMALIZERS["tweet"].id)
    found: dict[str, None] = {}
    for batch in source.batches([column], size=1000):
        found.update(dict.fromkeys(text for text in map(normalizer, (v or "" for v in batch.columns[column])) if text))
        if len(found) >= rows:
            break
    return list(found)[:rows]


def make_pipeline(tokenizer: Path, size: dict[str, int], folder: Path, *, device: str) -> Any:
    """A text-classification pipeline over random weights, as one over a fetched model is made."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification, logging, pipeline

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    fast = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=2, **size
    )
    model = RobertaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # random weights of the usual size give every text nearly the same states
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    # Tweets are shorter; the limit is for the one that is not.
    return pipeline("text-classification", model=str(folder), device=device, truncation=True, max_length=_MAX_LENGTH)


def make_model(rival: Path, model: Any, folder: Path) -> Path:
    """The encoder of the pipeline's model under a `linear` head, as `senthy train` publishes one."""
    from transformers import AutoTokenizer

    alone = folder.with_name("encoder")
    model.roberta.save_pretrained(alone)
    AutoTokenizer.from_pretrained(rival, local_files_only=True).save_pretrained(alone)
    encoder = load_encoder_dir(alone)
    section = Config().linear.head
    shared = Encoder(encoder.model, 0)
    head = build_head("linear", section, input_size=shared.hidden_size, num_classes=2)
    with torch.no_grad():
        head.get_parameter("output.bias")[0] += 10.0  # one label for all: an export is refused whose labels flip
    info = ModelInfo(
        head="linear",
        head_config=section.model_dump(mode="json"),
        labels=_LABELS,
        normalizer=normalizers.NORMALIZERS["none"].id,
        max_length=_MAX_LENGTH,
        max_windows=1,
        encoder_name=str(alone),
        encoder_revision=None,
        encoder_fingerprint=encoder.fingerprint,
        encoder_inside=True,
        trainable_layers=0,
        data_fingerprint="",
        split_fingerprint="",
        train_fingerprint="",
        run_id="",
        created="",
        train_rows=0,
    )
    save_model(folder, classifier=Classifier(shared, head), encoder=encoder, info=info, bundle=True)
    return folder


def contestants(ours: Path, work: Path, arguments: argparse.Namespace) -> dict[str, Predictor]:
    """Our model at every precision asked for, or that there is."""
    wanted = arguments.precisions or ["fp32", "bf16", "int8", "onnx-int8"]
    found: dict[str, Predictor] = {}
    for name in wanted:
        try:
            found[f"senthy {name.replace('-', ' ')}"] = predictor(ours, name, work, device=arguments.device)
        except SenthyError as error:
            if arguments.precisions:
                raise
            print(f"without {name}: {error.message}")
    return found


def predictor(ours: Path, name: str, work: Path, *, device: str) -> Predictor:
    if not name.startswith("onnx"):
        return Predictor(ours, device=device, precision=name)
    config = Config.model_validate({"paths": {"data_db": work / "none.db"}})
    quantize = "int8" if name == "onnx-int8" else None
    done = export.run(config, load_model_path=ours, output=work / name, quantize=quantize, rows=16)
    return Predictor(done.directory, device=device)


def count_tokens(model: Path, texts: Sequence[str]) -> int:
    encoder = load_encoder_dir(model / "encoder")
    return int(tokenize(texts, encoder.tokenizer, max_length=_MAX_LENGTH, max_windows=1).ids.size)


def best_batch(pipe: Any, texts: list[str], sizes: Sequence[int]) -> tuple[int, dict[str, float]]:
    """The batch size that labels these fastest, and texts per second at each."""
    pipe(texts[:16])
    rates: dict[str, float] = {}
    for size in sizes:
        started = time.perf_counter()
        pipe(texts, batch_size=size)
        rates[str(size)] = len(texts) / (time.perf_counter() - started)
    return int(max(rates, key=rates.__getitem__)), rates


def difference(pipe: Any, ours: Path, texts: list[str]) -> float:
    """The largest difference of a token's state between the two encoders, of states about 1 in size."""
    encoder = load_encoder_dir(ours / "encoder")
    inputs = pipe.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=_MAX_LENGTH)
    mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        theirs = pipe.model.float().cpu().roberta(**inputs).last_hidden_state
        own = Encoder(encoder.model, 0)(inputs["input_ids"], mask)
    return float((theirs - own)[mask].abs().max())


def limits(size: dict[str, int], device: str) -> dict[str, float]:
    """FLOP/s of the model's own products, by precision."""
    shapes = encoder_shapes(_PRODUCT_ROWS, hidden=size["hidden_size"], intermediate=size["intermediate_size"])
    return {"fp32": matmul_rate(shapes, device=device), "bf16": matmul_rate(shapes, "bfloat16", device=device)}


def results(
    seconds: dict[str, list[float]], *, rows: int, tokens: int, size: dict[str, int], limit: dict[str, float]
) -> list[dict[str, Any]]:
    """A line for each contestant: how fast, how many times as fast as the two pipelines, share of the limit."""
    shape = {"hidden": size["hidden_size"], "intermediate": size["intermediate_size"]}
    flops = encoder_flops(tokens, **shape, layers=size["num_hidden_layers"])
    lines = []
    for name, taken in seconds.items():
        median = statistics.median(taken)
        kind = "bf16" if name.endswith("bf16") else "fp32"
        lines.append(
            {
                "contestant": name,
                "texts/s": rows / median,
                "tokens/s": tokens / median,
                "x default": ratio(seconds[DEFAULT], taken),
                "x best batch": ratio(seconds[BEST], taken),
                "GFLOP/s": flops / median / 1e9,
                # int8 has another limit, which is not measured.
                "limit GFLOP/s": None if "int8" in name else limit[kind] / 1e9,
                "share %": None if "int8" in name else 100 * flops / median / limit[kind],
            }
        )
    return lines


def reached(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"ratio": f"{rival} / {ours}", "reached": (found := ratio(seconds[rival], seconds[ours])), "at least": least,
         "kept": "yes" if found >= least else "no"}
        for (rival, ours), least in TARGETS.items()
        if ours in seconds
    ]  # fmt: skip


# --- what a precision costs ------------------------------------------------------------------------------------------


def flips(arguments: argparse.Namespace) -> dict[str, Any]:
    info = read_info(arguments.model)
    texts, labels, where = labelled(arguments.file, info, arguments.rows)
    base = run(Predictor(arguments.model, device="cpu", precision="fp32"), texts)
    lines = [line("fp32", base, base, labels)]
    for name in arguments.precisions:
        found = run(Predictor(arguments.model, device="cpu", precision=name), texts)
        lines.append(line(name, found, base, labels))
    for place in arguments.export:
        lines.append(line(place.name, run(Predictor(place), texts), base, labels))
    return {"what": "flips", "model": str(arguments.model), "rows": len(texts), "of": where, "precisions": lines}


def labelled(file: str, info: ModelInfo, rows: int) -> tuple[list[str], np.ndarray, str]:
    """Texts and label numbers, in the model's own labels."""
    if file.endswith(".db"):
        with open_store(Path(file)) as store:
            examples = store.read("test", min(rows, store.count("test")), with_raw=True)
            names = store.labels
        own = np.array([info.labels.index(name) for name in names])
        return examples.raw or [], own[examples.labels], "the test split"
    data = Data(text_column=None)
    read = read_labelled(
        open_source(file, data, offline=True),
        data,
        labels=info.labels,
        normalizer=normalizers.from_id(info.normalizer),
    )
    examples = read.examples.first(rows)
    return examples.raw or [], examples.labels, file


def run(one: Predictor, texts: list[str]) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    probabilities = one.predict_proba(texts)
    return np.nan_to_num(probabilities), time.perf_counter() - started


def line(
    name: str, found: tuple[np.ndarray, float], base: tuple[np.ndarray, float], labels: np.ndarray
) -> dict[str, Any]:
    chosen, expected = found[0].argmax(1), base[0].argmax(1)
    accuracy = 100 * float((chosen == labels).mean())
    points = accuracy - 100 * float((expected == labels).mean())
    return {
        "precision": name,
        "texts/s": len(labels) / found[1],
        "accuracy %": accuracy,
        "points": points,
        "flips": int((chosen != expected).sum()),
        "flips %": 100 * float((chosen != expected).mean()),
        "largest probability difference": float(np.abs(found[0] - base[0]).max()),
        f"within {MOST_POINTS}": "yes" if abs(points) < MOST_POINTS + 1e-9 else "no",
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def shown(report: dict[str, Any]) -> str:
    facts = machine_lines(report["machine"])
    if report["what"] == "flips":
        return "\n".join([table(report["precisions"], title=f"{report['rows']:,} rows of {report['of']}"), facts])
    size = report["size"]
    title = (
        f"{report['rows']:,} tweets, {report['tokens']:,} real tokens; {size['num_hidden_layers']} layers of "
        f"{size['hidden_size']}; pipeline at batch size {report['pipeline_batch_size']}; states differ by "
        f"{report['states_differ_by']:.2g}"
    )
    tried = ", ".join(f"{name}: {rate:.1f}" for name, rate in report["pipeline_texts_per_second"].items())
    return "\n\n".join(
        [
            table(report["contestants"], title=title),
            table(report["targets"]),
            f"pipeline, texts/s by batch size: {tried}\ncopying: {report['copy_gb_per_second']:.1f} GB/s",
            facts,
        ]
    )


if __name__ == "__main__":
    main()
