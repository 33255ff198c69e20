"""Training: all layers beside the transformers `Trainer`, and heads over stored states beside a plain loop.

    python benchmarks/train.py layers FILE.csv.gz --tokenizer DIR [--size small|base] [--steps 8] [--repeats 3] [--json]
    python benchmarks/train.py heads FILE.csv.gz --tokenizer DIR [--rows 3200] [--repeats 3] [--json]

`layers`: random weights of one size, all of them trained, 32 rows a step, AdamW. The `Trainer` with its defaults (fp32,
random batches padded to their longest row) beside ours in fp32, and with bf16 and batches grouped by length beside ours
in bf16, with the `linear` head. Each pair trains the very same tweets, `--steps` batches such as the Trainer makes of
`--pool` tweets, chosen so that the few steps of a benchmark have the mixture of an epoch: random batches of typical
mean and longest length; grouped ones evenly from the shortest to the longest. A contestant's time is one pass over
them, without making its model; optimiser state is made anew in each. Each has a process of its own.

`heads`: `lstm` and `han` (GRU) of 192 over states of 384 values as our store keeps them, beside a plain loop over the
same states: packed BiLSTM or BiGRU in fp32, random batches, mean, one layer, `loss.item()` at each step.

Contestants take turns; figures are medians, ratios are those of the turns' medians. Beside them: the best rate that
this process reaches on the model's own matrix shapes, and the share of it that a forward and two backward products per
real token come to.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import as_json, copy_rate, encoder_flops, encoder_shapes, machine, machine_lines, matmul_rate, ratio, table
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment_hybrid.config.schema import Config, ScratchEncoder
from sentiment_hybrid.engine import device as devices
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference.session import EncodedDataset
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.events import StepEvent
from sentiment_hybrid.engine.training.prepare import open_session
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import build_scratch
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.encoder.roberta import Architecture, Roberta
from sentiment_hybrid.models.tokenizer import Tokenizer

BATCH = 32
SIZES = {
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "middle": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
clock = time.perf_counter
TRAINER, TRAINER_BEST = "Trainer, defaults (fp32)", "Trainer, bf16, grouped by length"
OURS, OURS_BF16 = "senthy, fp32", "senthy, bf16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["layers", "heads"])
    parser.add_argument("file", type=Path, help="a csv of tweets with a column `text`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a directory with RoBERTa's tokenizer")
    parser.add_argument("--size", choices=SIZES, default="middle", help="base is roberta-base; the others end sooner")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pool", type=int, default=12_800, help="tweets of which the steps are chosen")
    parser.add_argument("--rows", type=int, default=3_200, help="tweets of a turn over stored states")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, with --threads 1: on a shared machine")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    settle(arguments)
    arguments.device = devices.resolve(arguments.device).device.type
    report = (layers if arguments.what == "layers" else heads)(arguments)
    report["machine"] = machine()
    report["copy_bytes_per_second"] = copy_rate(device=arguments.device)
    print(as_json(report) if arguments.json else shown(report))


def settle(arguments: argparse.Namespace) -> None:
    """Threads and clock, in each process."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.cpu_time:
        global clock
        clock = time.process_time


def tweets(file: Path, count: int, tokenizer: Tokenizer) -> TokenizedTexts:
    import pandas as pd

    texts = pd.read_csv(file, usecols=["text"], dtype=str, nrows=count, encoding_errors="replace")["text"].dropna()
    return tokenize(texts.tolist(), tokenizer, max_length=128, max_windows=1)


# --- all layers ------------------------------------------------------------------------------------------------------


def layers(arguments: argparse.Namespace) -> dict[str, Any]:
    tokenizer = Tokenizer.load(arguments.tokenizer, pad_token_id=1)
    assert tokenizer is not None
    pool = tweets(arguments.file, arguments.pool, tokenizer)
    random, grouped = (
        [pool.ids[pool.window_offsets[row] : pool.window_offsets[row + 1]] for row in np.concatenate(batches)]
        for batches in (random_batches(pool.lengths, arguments.steps), grouped_batches(pool.lengths, arguments.steps))
    )
    size = SIZES[arguments.size]
    given = {TRAINER: random, OURS: random, TRAINER_BEST: grouped, OURS_BF16: grouped}
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(apart(arguments, name, ids)) for name, ids in given.items()}
        seconds = turns(contestants, arguments.repeats)
    tokens = {name: sum(map(len, ids)) for name, ids in given.items()}
    shape = {"hidden": size["hidden_size"], "intermediate": size["intermediate_size"]}
    per_step = encoder_shapes(tokens[OURS] // arguments.steps, **shape)
    rates = {kind: matmul_rate(per_step, kind, device=arguments.device) for kind in ("float32", "bfloat16")}
    lines = []
    for name, times in seconds.items():
        took = statistics.median(times)
        flop = 3 * encoder_flops(tokens[name], layers=size["num_hidden_layers"], **shape)
        limit = rates["bfloat16" if "bf16" in name else "float32"]
        lines.append(
            {
                "all layers": name,
                "seconds": took,
                "tweets/s": len(given[name]) / took,
                "tokens/s": tokens[name] / took,
                "share of matrix rate": flop / took / limit,
            }
        )
    return {
        "what": f"{arguments.size}: {arguments.steps} steps of {BATCH} tweets, {tokens[OURS]:,} real tokens in random "
        f"batches and {tokens[OURS_BF16]:,} in grouped ones, {arguments.repeats} turns",
        "table": lines,
        "seconds": seconds,
        "ratios": {
            "Trainer defaults / senthy fp32": ratio(seconds[TRAINER], seconds[OURS]),
            "Trainer bf16 + length grouping / senthy bf16": ratio(seconds[TRAINER_BEST], seconds[OURS_BF16]),
        },
        "matrix_flops_per_second": rates,
    }


@contextmanager
def apart(arguments: argparse.Namespace, name: str, ids: list[np.ndarray]) -> Iterator[Callable[[], float]]:
    """A contestant in a process of its own, as its users run it: what one sets for its process helps no other."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there, arguments, name, ids))
    process.start()
    there.close()

    def run() -> float:
        here.send("go")
        return float(here.recv())

    try:
        here.recv()  # it is ready; making the models at the same time would need more memory than training does
        yield run
    finally:
        here.close()
        process.join()


def serve(pipe: Connection, arguments: argparse.Namespace, name: str, ids: list[np.ndarray]) -> None:
    """Run a pass whenever asked, until nobody asks any more."""
    settle(arguments)
    labels = np.random.default_rng(0).integers(0, 2, len(ids))
    size = SIZES[arguments.size]
    with tempfile.TemporaryDirectory() as folder, suppress(EOFError):
        if name in (OURS, OURS_BF16):
            run = our_pass(arguments, ids, labels, size, "bf16" if name == OURS_BF16 else "fp32")
        else:
            run = trainer_pass(arguments, ids, labels, size, folder, bf16=name == TRAINER_BEST)
        pipe.send("ready")
        while pipe.recv():
            pipe.send(run())


def random_batches(lengths: np.ndarray, steps: int) -> list[np.ndarray]:
    """Batches in random order: of many draws the one whose mean length and mean longest row are the most typical."""
    draws = [np.random.default_rng(seed).permutation(len(lengths))[: steps * BATCH] for seed in range(200)]
    means = np.array([lengths[draw].mean() for draw in draws])
    longest = np.array([lengths[draw].reshape(steps, BATCH).max(1).mean() for draw in draws])
    away = np.abs(means / means.mean() - 1) + np.abs(longest / longest.mean() - 1)
    return list(draws[int(away.argmin())].reshape(steps, BATCH))


def grouped_batches(lengths: np.ndarray, steps: int) -> list[np.ndarray]:
    """Some of the batches that the Trainer's length grouping makes, evenly from the shortest to the longest."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    order = np.array(list(LengthGroupedSampler(BATCH, lengths=lengths.tolist(), generator=torch.manual_seed(0))))
    whole = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    by_length = whole[np.argsort(lengths[whole].mean(1), kind="stable")]
    places = ((np.arange(steps) + 0.5) / steps * len(by_length)).astype(int)
    return list(by_length[np.random.default_rng(0).permutation(places)])


def trainer_pass(
    arguments: argparse.Namespace, ids: list[np.ndarray], labels: np.ndarray, size: dict, folder: str, *, bf16: bool
) -> Callable[[], float]:
    """A pass of the Trainer over rows that come in the order of its batches already."""
    from transformers import (
        AutoTokenizer,
        DataCollatorWithPadding,
        RobertaConfig,
        RobertaForSequenceClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils import logging

    logging.set_verbosity_error()
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, num_labels=2, **size)
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(config)
    examples = [{"input_ids": row.tolist(), "labels": int(label)} for row, label in zip(ids, labels, strict=True)]
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(str(arguments.tokenizer)))

    class Timer(TrainerCallback):
        started = ended = 0.0

        def on_step_begin(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if state.global_step == 0:
                self.started = clock()

        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if arguments.device == "cuda":
                torch.cuda.synchronize()
            self.ended = clock()

    def run() -> float:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            bf16=bf16,
            # In the order of `random_batches` or `grouped_batches`, which it would draw from the whole pool.
            train_sampling_strategy="sequential",
            use_cpu=arguments.device == "cpu",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        timer = Timer()
        trainer = Trainer(model=model, args=settings, train_dataset=examples, data_collator=collator, callbacks=[timer])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return timer.ended - timer.started

    return run


def our_pass(
    arguments: argparse.Namespace, ids: list[np.ndarray], labels: np.ndarray, size: dict, precision: str
) -> Callable[[], float]:
    compute = devices.resolve(arguments.device, precision)
    config = Config.model_validate({"linear": {"train": {"batch_size": BATCH, "precision": precision}}})
    torch.manual_seed(0)
    document = {
        "model_type": "roberta",
        "vocab_size": 50_265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        **size,
    }
    encoder = Encoder(Roberta(Architecture(document)), "all")
    head = build_head("linear", config.linear.head, input_size=encoder.hidden_size, num_classes=2)
    classifier = Classifier(encoder, head).to(compute.device)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in ids])))
    flat = TokenizedTexts(np.concatenate(ids), offsets, np.arange(len(ids) + 1), pad_id=1, truncated=0)
    return lambda: epoch_of(classifier, EncodedDataset(flat, labels), config.linear.train, compute)


# --- heads over stored states ----------------------------------------------------------------------------------------


def heads(arguments: argparse.Namespace) -> dict[str, Any]:
    tokenizer = Tokenizer.load(arguments.tokenizer, pad_token_id=1)
    assert tokenizer is not None
    settings = {"head": {"hidden": 192, "layers": 1}, "train": {"batch_size": BATCH}}
    gru = {**settings, "head": {**settings["head"], "cell": "gru"}}
    config = Config.model_validate({"encoder": {"max_length": 128, "max_windows": 1}, "lstm": settings, "han": gru})
    compute = devices.resolve(arguments.device)
    scratch = ScratchEncoder(hidden_size=384, layers=1, attention_heads=6, intermediate_size=384)
    torch.manual_seed(0)
    loaded = build_scratch(scratch, tokenizer=tokenizer, max_length=128)
    with tempfile.TemporaryDirectory() as cache:
        contestants: dict[str, Callable[[], float]] = {}
        for model in ("lstm", "han"):
            session = open_session(config, model, loaded, num_classes=2, compute=compute, cache=Path(cache))
            import pandas as pd

            texts = pd.read_csv(arguments.file, usecols=["text"], dtype=str, nrows=arguments.rows)["text"].dropna()
            dataset = session.dataset(texts.tolist(), np.arange(len(texts)) % 2)
            contestants[f"senthy {model}, {compute.precision}"] = lambda w=session, m=dataset, n=model: epoch_of(
                w.classifier, m, config.model(n).train, compute
            )
            contestants[f"plain loop, packed {'LSTM' if model == 'lstm' else 'GRU'}, fp32"] = plain_pass(
                dataset, nn.LSTM if model == "lstm" else nn.GRU
            )
        seconds = turns(contestants, arguments.repeats)
    names = list(seconds)
    return {
        "what": f"{len(texts):,} tweets, {dataset.tokenized.lengths.mean():.1f} tokens each, batch {BATCH}, "
        f"{arguments.repeats} turns",
        "table": [
            {"over stored states": name, "seconds": statistics.median(t), "tweets/s": len(texts) / statistics.median(t)}
            for name, t in seconds.items()
        ],
        "seconds": seconds,
        "ratios": {
            f"{names[at + 1]} / {names[at]}": ratio(seconds[names[at + 1]], seconds[names[at]]) for at in (0, 2)
        },
    }


def plain_pass(dataset: EncodedDataset, kind: type[nn.RNNBase]) -> Callable[[], float]:
    """What one writes first: a list of arrays, random batches, packed, fp32; the states on the CPU already."""
    torch.manual_seed(0)
    assert dataset.states is not None
    offsets = dataset.tokenized.window_offsets
    windows = np.arange(len(dataset))
    lengths = np.diff(offsets)
    states = [dataset.states.gather(windows[at : at + 1], lengths[at : at + 1])[0] for at in windows]
    rnn, out = kind(384, 192, batch_first=True, bidirectional=True), nn.Linear(384, 2)
    optimizer = torch.optim.AdamW([*rnn.parameters(), *out.parameters()], lr=1e-3)

    def run() -> float:
        order = torch.randperm(len(states)).tolist()
        started = clock()
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            sizes = torch.tensor([len(states[row]) for row in rows])
            padded = nn.utils.rnn.pad_sequence([states[row].float() for row in rows], batch_first=True)
            read, _ = rnn(pack_padded_sequence(padded, sizes, batch_first=True, enforce_sorted=False))
            read, _ = pad_packed_sequence(read, batch_first=True)
            loss = nn.functional.cross_entropy(
                out(read.sum(1) / sizes[:, None]), torch.from_numpy(dataset.labels[rows])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        return clock() - started

    return run


# --- both ------------------------------------------------------------------------------------------------------------


def epoch_of(classifier: nn.Module, dataset: EncodedDataset, settings: Any, compute: devices.Compute) -> float:
    """Seconds of an epoch of a fresh fit, without validation."""
    trainer = Trainer(
        classifier,
        Classification(dataset, None, class_weights=np.ones(2)),
        settings=settings,
        seed=1,
        compute=compute,
        accelerator=devices.accelerator(compute),
    )
    started = clock()
    for facts in trainer.events():
        if not isinstance(facts, StepEvent):
            break
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def turns(contestants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds that each contestant reports; the first turn, which fills caches, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            gc.collect()
            took = run()
            if turn:
                seconds[name].append(took)
    return seconds


def shown(report: dict[str, Any]) -> str:
    parts = [table(report["table"], title=report["what"])]
    parts += [f"{name}: {value:.2f}" for name, value in report["ratios"].items()]
    if "matrix_flops_per_second" in report:
        rates = ", ".join(f"{kind} {rate / 1e9:,.0f}" for kind, rate in report["matrix_flops_per_second"].items())
        parts.append(f"best matrix rate on these shapes, GFLOP/s: {rates}")
    parts.append(f"copy rate {report['copy_bytes_per_second'] / 1e9:.1f} GB/s")
    return "\n".join([*parts, machine_lines(report["machine"])])


if __name__ == "__main__":
    main()
