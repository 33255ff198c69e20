"""A search as the public predecessor does it beside ours: same trials, epochs, rows and head sizes, in one run.

    python benchmarks/seed_search.py FILE.csv.gz --tokenizer DIR [--models lstm han] [--layers 12] [--json]

The rival is written from the description of the predecessor's algorithm: the frozen encoder is computed anew at every
step, in float32, with its dropout on, every text padded to 128 tokens; batches of 16, two to a step; a plain BiLSTM
(256 x 2, 4 attention heads, maximum over all places) or BiGRU (256 x 1, additive attention) on top; accuracy on the
validation rows after each epoch. Ours is `senthy optimize --no-final` with heads of the same sizes, from an empty
cache, its figures and all. Both draw learning rate, dropout and weight decay; both load the encoder once, and neither
pays for imports. Weights are random, of roberta-base's shape (or fewer --layers) with its real tokenizer: it is the
time that counts here.

What is done once whatever the size (loading, encoding, figures) weighs the more the smaller the setting is.

Then the factor at the predecessor's full size, by counted tokens: its passes times 128, against the real tokens of the
distinct windows of as many real tweets, which ours encodes once.
"""

from __future__ import annotations

import argparse
import csv
import gc
import gzip
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import as_json, copy_rate, encoder_shapes, machine, machine_lines, matmul_rate, table
from torch import nn
from transformers.utils.logging import disable_progress_bar

from sentiment_hybrid import console
from sentiment_hybrid.commands import data, optimize
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.store import Examples, open_store
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.states.store import window_keys
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.models.encoder.hub import load_encoder_dir

PADDED = 128
BATCH, ACCUMULATION, WARMUP = 16, 2, 100
TARGETS = {"lstm": 30.0, "han": 50.0, "counted": 200.0}
#: The predecessor's defaults: a search, and the training after it.
TRIALS, TRIAL_EPOCHS, TRIAL_ROWS = 50, 10, 10_000
EPOCHS, ROWS, TEST_SHARE = 20, 200_000, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a (gzipped) CSV with the columns text and target")
    parser.add_argument("--tokenizer", type=Path, required=True, help="roberta-base's config.json and tokenizer files")
    parser.add_argument("--models", nargs="+", choices=["lstm", "han"], default=["lstm", "han"])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument(
        "--seed-trials", type=int, help="of the predecessor: measure so many, whose times are multiplied"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200, help="of a trial: three quarters to train on, one to validate")
    parser.add_argument("--layers", type=int, default=12, help="of the encoder; roberta-base has 12")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each contestant; medians are compared")
    parser.add_argument("--counted-rows", type=int, default=ROWS, help="tweets whose tokens are counted")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    console.set_verbosity(-1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(arguments, Path(temporary))
    print(as_json(report) if arguments.json else shown(report))


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    texts, labels = tweets(arguments.file, arguments.counted_rows)
    encoder, tiny = (made(arguments.tokenizer, work / f"encoder-{layers}", layers) for layers in (arguments.layers, 1))
    report: dict[str, Any] = {
        "setting": {
            "trials": arguments.trials,
            "seed_trials": arguments.seed_trials,
            "epochs": arguments.epochs,
            "rows": arguments.rows,
        }
        | {"encoder": {"layers": arguments.layers, "hidden": 768}, "threads": torch.get_num_threads()},
        "counted": counted(encoder, texts),
    }
    write_csv(work / "tweets.csv", texts, labels, rows=4 * arguments.rows + 200)
    device = resolve().device.type
    search: dict[str, Any] = {}
    for model in arguments.models:
        # Imports and the libraries' own first times are paid before, with an encoder of one layer.
        warm = argparse.Namespace(**{**vars(arguments), "trials": 1, "epochs": 1, "rows": 40})
        contest(warm, work / "warm" / model, work / "tweets.csv", tiny, model)
        turns = [
            contest(arguments, work / f"{turn}" / model, work / "tweets.csv", encoder, model)
            for turn in range(arguments.repeats)
        ]
        search[model] = summary(turns)
    report["search"] = search
    shapes = encoder_shapes(1024, hidden=768, intermediate=3072)
    report["limits"] = {
        "matmul_fp32": matmul_rate(shapes, "float32", device=device),
        "matmul_bf16": matmul_rate(shapes, "bfloat16", device=device),
        "copy": copy_rate(device=device),
    }
    report["machine"] = machine()
    return report


# --- texts and encoder -----------------------------------------------------------------------------------------------


def tweets(file: Path, rows: int) -> tuple[list[str], list[str]]:
    """Distinct cleaned tweets from all over the file, and their labels."""
    with file.open("rb") as binary:
        unpacked: Any = gzip.GzipFile(fileobj=binary) if file.suffix == ".gz" else binary
        lines = io.TextIOWrapper(unpacked, encoding="utf-8", newline="")
        raw = [(row["text"], row["target"]) for row in csv.DictReader(lines)]
    chosen = np.random.default_rng(0).permutation(len(raw))
    found: dict[str, str] = {}
    for start in range(0, len(chosen), 20_000):
        part = [raw[at] for at in chosen[start : start + 20_000]]
        for text, (_, target) in zip(normalizers.tweets([text for text, _ in part]), part, strict=True):
            if text:
                found.setdefault(text, target)
        if len(found) >= rows:
            break
    return list(found)[:rows], list(found.values())[:rows]


def write_csv(path: Path, texts: list[str], labels: list[str], *, rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "target"))
        writer.writerows(zip(texts[:rows], labels[:rows], strict=True))


def made(tokenizer: Path, folder: Path, layers: int) -> Path:
    """An encoder of roberta-base's shape with random weights, on disk with the real tokenizer."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if not folder.is_dir():
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(tokenizer)
        config.num_hidden_layers = layers
        AutoModel.from_config(config, add_pooling_layer=False, dtype=torch.float32).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def counted(encoder: Path, texts: list[str]) -> dict[str, Any]:
    """Tokens through the encoder at the predecessor's full size: its own padded ones, and ours, each window once."""
    tokenized = tokenize(texts, load_encoder_dir(encoder).tokenizer, max_length=PADDED, max_windows=32)
    _, first = np.unique(window_keys(tokenized), return_index=True)
    scale = ROWS / len(texts)
    ours = float(tokenized.window_lengths[first].sum()) * scale
    passes = {
        "search: trials x epochs x rows (train and valid)": TRIALS * TRIAL_EPOCHS * TRIAL_ROWS,
        "training: epochs x training rows": round(EPOCHS * ROWS * (1 - TEST_SHARE)),
        "test rows": round(ROWS * TEST_SHARE),
    }
    theirs = sum(passes.values())
    return {
        "passes": passes,
        "seed_passes": theirs,
        "seed_tokens": theirs * PADDED,
        "tweets": len(texts),
        "our_passes": round(len(first) * scale),
        "our_tokens": ours,
        "tokens_per_tweet": float(tokenized.lengths.mean()),
        "passes_factor": theirs / (len(first) * scale),
        "factor": theirs * PADDED / ours,
        # Both heads: the predecessor does everything twice, ours finds the states of the first.
        "factor_both_heads": 2 * theirs * PADDED / ours,
        "target": TARGETS["counted"],
    }


# --- the contest -----------------------------------------------------------------------------------------------------


def contest(arguments: argparse.Namespace, work: Path, file: Path, encoder: Path, model: str) -> dict[str, Any]:
    config = configured(arguments, work, file, encoder, model)
    data.run(config)
    with open_store(config.paths.data_db) as store:
        hpo = config.model(model).hpo
        rows = store.read("train", hpo.sample_size), store.read("valid", hpo.valid_sample_size)
    with timed() as theirs:
        measured = min(arguments.seed_trials or arguments.trials, arguments.trials)
        seed_search(model, encoder, *rows, trials=measured, epochs=arguments.epochs)
    theirs = {name: took * arguments.trials / measured for name, took in theirs.items()}
    gc.collect()
    with timed() as ours:
        found = optimize.run(config, model, final=False)
    print(f"{model}: seed {theirs['wall']:.1f} s, ours {ours['wall']:.1f} s", file=sys.stderr)
    assert found.counts["finished"] == arguments.trials and found.counts["failed"] == 0
    tokens = tokenize(
        [*rows[0].texts, *rows[1].texts], load_encoder_dir(encoder).tokenizer, max_length=PADDED, max_windows=32
    )
    times = arguments.trials * arguments.epochs
    return {
        "seed": theirs["wall"],
        "ours": ours["wall"],
        "seed_cpu": theirs["cpu"],
        "ours_cpu": ours["cpu"],
        "seed_tokens": times * sum(map(len, rows)) * PADDED,
        "our_tokens": int(tokens.window_lengths.sum()),
    }


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Wall seconds of what is within, and the processor's, which a busy neighbour does not stretch."""
    took: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield took
    took |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def configured(arguments: argparse.Namespace, work: Path, file: Path, encoder: Path, model: str) -> Config:
    """The predecessor's head sizes and steps, its space without the sizes, and an empty folder for all that is ours."""
    train = arguments.rows * 3 // 4
    space = {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 5e-3, "log": True},
        "dropout": {"type": "float", "low": 0.1, "high": 0.5},
        "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
    }
    flags: dict[str, Any] = {
        "data.source": str(file),
        "data.valid_size": 0.2,
        "data.test_size": TEST_SHARE,
        "encoder.name": str(encoder),
        "encoder.max_length": PADDED,
        f"{model}.head.hidden": 256,
        f"{model}.train.batch_size": BATCH,
        f"{model}.train.accumulation": ACCUMULATION,
        f"{model}.train.warmup_steps": WARMUP,
        f"{model}.hpo.n_trials": arguments.trials,
        f"{model}.hpo.epochs": arguments.epochs,
        f"{model}.hpo.sample_size": train,
        f"{model}.hpo.valid_sample_size": arguments.rows - train,
        f"{model}.hpo.pruner": "none",
        f"{model}.hpo.search_space": space,
        "paths.data_db": str(work / "tweets.db"),
        "paths.models_dir": str(work / "models"),
        "paths.results_dir": str(work / "results"),
        "paths.cache_dir": str(work / "cache"),
    }
    sizes = {"lstm.head.layers": 2, "lstm.head.attention_heads": 4} if model == "lstm" else {"han.head.layers": 1}
    return load_config("default", [], flags={**flags, **sizes})


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("seed", "ours", "seed_cpu", "ours_cpu")
    medians = {name: statistics.median(turn[name] for turn in turns) for name in names}
    return {
        "seconds": {name: [turn[name] for turn in turns] for name in names},
        **medians,
        "ratio": medians["seed"] / medians["ours"],
        "ratio_cpu": medians["seed_cpu"] / medians["ours_cpu"],
        "seed_tokens": turns[0]["seed_tokens"],
        "our_tokens": turns[0]["our_tokens"],
    }


# --- the rival -------------------------------------------------------------------------------------------------------


def seed_search(model: str, encoder: Path, train: Examples, valid: Examples, *, trials: int, epochs: int) -> float:
    """The predecessor's search; returns the best accuracy."""
    import optuna
    from transformers import AutoModel, AutoTokenizer

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    roberta = AutoModel.from_pretrained(encoder, add_pooling_layer=False, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = [padded(tokenizer, examples) for examples in (train, valid)]
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        head = {"lstm": SeedLstm, "han": SeedHan}[model](roberta, trial.suggest_float("dropout", 0.1, 0.5))
        rate = trial.suggest_float("learning_rate", 1e-6, 5e-5, log=True)
        return seed_trial(head, *rows, rate=rate, decay=trial.suggest_float("weight_decay", 0.0, 0.1), epochs=epochs)

    study.optimize(objective, n_trials=trials)
    return float(study.best_value)


Padded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def padded(tokenizer: Any, examples: Examples) -> Padded:
    """Ids, mask and labels, every text at 128 places; done once, where the predecessor does it at every step."""
    encoded = tokenizer(examples.texts, padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"], torch.from_numpy(examples.labels)


def seed_trial(classifier: SeedHead, train: Padded, valid: Padded, *, rate: float, decay: float, epochs: int) -> float:
    """Train for so many epochs with accumulation and a linear schedule; the best accuracy on the validation rows."""
    weights = [weight for weight in classifier.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay)
    steps = epochs * -(-len(train[2]) // (BATCH * ACCUMULATION))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, max(0.0, (steps - step) / max(1, steps - WARMUP)))
    )
    best = 0.0
    for _ in range(epochs):
        classifier.train()
        batches = list(batches_of(train, torch.randperm(len(train[2]))))
        for number, (ids, mask, labels) in enumerate(batches, start=1):
            loss = nn.functional.cross_entropy(classifier(ids, mask), labels) / ACCUMULATION
            loss.backward()
            if number % ACCUMULATION == 0 or number == len(batches):
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        classifier.eval()
        with torch.no_grad():
            right = sum(
                int((classifier(ids, mask).argmax(1) == labels).sum())
                for ids, mask, labels in batches_of(valid, torch.arange(len(valid[2])))
            )
        best = max(best, right / len(valid[2]))
    return best


def batches_of(rows: Padded, order: torch.Tensor) -> Iterator[Padded]:
    for part in order.split(BATCH):
        yield rows[0][part], rows[1][part], rows[2][part]


class SeedHead(nn.Module):
    """A frozen encoder whose states are computed at each step, dropout and all."""

    def __init__(self, roberta: nn.Module) -> None:
        super().__init__()
        self.roberta = roberta.requires_grad_(False)

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.roberta(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, 128, 768)


class SeedLstm(SeedHead):
    def __init__(self, roberta: nn.Module, dropout: float) -> None:
        super().__init__(roberta)
        self.lstm = nn.LSTM(768, 256, num_layers=2, dropout=dropout, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(512, 4, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(512, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read, _ = self.lstm(self.states(ids, mask))  # (B, 128, 512), padding read like any token
        mixed, _ = self.attention(read, read, read)
        return self.output(self.dropout(mixed.amax(1)))


class SeedHan(SeedHead):
    def __init__(self, roberta: nn.Module, dropout: float) -> None:
        super().__init__(roberta)
        self.gru = nn.GRU(768, 256, bidirectional=True, batch_first=True)
        self.attention = nn.Sequential(nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(512, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read, _ = self.gru(self.states(ids, mask))  # (B, 128, 512)
        weights = self.attention(read).softmax(1)  # (B, 128, 1), over padding too
        return self.output(self.dropout((weights * read).sum(1)))


# --- telling ---------------------------------------------------------------------------------------------------------


def shown(report: dict[str, Any]) -> str:
    setting, counts, limits = report["setting"], report["counted"], report["limits"]
    rows = [
        {
            "head": model,
            "seed s": one["seed"],
            "ours s": one["ours"],
            "seed / ours": one["ratio"],
            "target": TARGETS[model],
            "by CPU time": one["ratio_cpu"],
            "seed tokens": one["seed_tokens"],
            "our tokens": one["our_tokens"],
        }
        for model, one in report["search"].items()
    ]
    title = (
        f"A search of {setting['trials']} trials x {setting['epochs']} epochs x {setting['rows']} rows, encoder of "
        f"{setting['encoder']['layers']} layers x {setting['encoder']['hidden']}: wall time"
    )
    full = [{"at the predecessor's full size": what, "passes": passes} for what, passes in counts["passes"].items()]
    return "\n".join(
        [
            table(rows, title=title),
            "",
            table(full),
            f"seed: {counts['seed_passes']:,} passes x {PADDED} = {counts['seed_tokens'] / 1e6:,.0f} million tokens",
            f"ours: {counts['our_passes']:,} distinct windows, {counts['our_tokens'] / 1e6:,.2f} million tokens "
            f"({counts['tokens_per_tweet']:.1f} a tweet, counted on {counts['tweets']:,})",
            f"factor {counts['factor']:,.0f} by tokens ({counts['passes_factor']:.0f} by passes), target "
            f"{counts['target']:.0f}; {counts['factor_both_heads']:,.0f} for both heads, which share the states",
            f"limits on the encoder's shapes: {limits['matmul_fp32'] / 1e9:,.0f} GFLOP/s fp32, "
            f"{limits['matmul_bf16'] / 1e9:,.0f} GFLOP/s bf16; copying {limits['copy'] / 1e9:.1f} GB/s",
            machine_lines(report["machine"]),
        ]
    )


if __name__ == "__main__":
    main()
