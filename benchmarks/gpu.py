"""Everything that only a GPU can show, in at most 8 minutes, written to a JSON file step by step.

    python benchmarks/gpu.py [--output gpu.json] [--minutes 8] [--data FILE.csv] [--steps NAME ...]
    python benchmarks/gpu.py --device cpu --small      the same script without a GPU, on small models

Each step is a process of its own with a time limit: one that fails or is cut off leaves its error in the file, and the
next one starts. The first ones matter most. Exit status: 0 if every step that ran has passed.

precision: mini's probabilities in float32, TF32, bf16 and fp16 beside float32 on the CPU; texts/s.
training: losses of all layers in each precision, fp16 with a scaled loss; all of them must fall and stay finite.
memory: a training that does not fit into a part of the memory halves its token budget and ends.
transfers: GB/s from ordinary and pinned memory.
processes: one process with NCCL; two on one card, which NCCL may refuse.
predict: beside the transformers pipeline, and the share of the matrix rate that encoding reaches (predict.py).
train: beside the transformers Trainer (train.py).
commands: texts/s of `senthy pretrain` and of joint training.
suite: the tests that depend on the device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from limits import machine

from sentiment_hybrid import paths
from sentiment_hybrid.files import write_json

HERE = Path(__file__).resolve().parent
#: The most seconds of each step.
LIMITS = {
    "precision": 60, "training": 60, "memory": 40, "transfers": 20, "processes": 60, "predict": 90, "train": 90,
    "commands": 90, "suite": 90,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="small models and few texts: to try this script")
    parser.add_argument("--data", type=Path, default=paths.sample_csv(), help="csv with a column `text`")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--only", choices=list(STEPS), help=argparse.SUPPRESS)  # in the process of a step
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(STEPS[arguments.only](arguments)))
        return
    if arguments.device == "cuda":
        refuse_without_gpu(parser)
    sys.exit(run_all(arguments))


def refuse_without_gpu(parser: argparse.ArgumentParser) -> None:
    import torch

    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --device cpu --small tries the script without one")


def run_all(arguments: argparse.Namespace) -> int:
    """Run each step in a process of its own, and write the report after each."""
    end = time.monotonic() + 60 * arguments.minutes
    report: dict[str, Any] = {"device": arguments.device, "small": arguments.small, "machine": machine(), "steps": {}}
    for name in arguments.steps:
        started = time.monotonic()
        limit = min(LIMITS[name] * patience(arguments), end - started)
        result = step(name, arguments, limit) if limit > 1 else {"error": "no time left"}
        report["steps"][name] = {**result, "seconds": round(time.monotonic() - started, 1)}
        write_json(arguments.output, report)
        print(
            f"{name}: {result.get('error', 'done')} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True
        )
    failed = [name for name, result in report["steps"].items() if "error" in result]
    print(f"{arguments.output}: {len(arguments.steps) - len(failed)} of {len(arguments.steps)} steps passed")
    return 1 if failed else 0


def patience(arguments: argparse.Namespace) -> int:
    """How many times as long a step may take as on a GPU."""
    return 3 if arguments.device == "cpu" else 1


def step(name: str, arguments: argparse.Namespace, limit: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", name, "--device", arguments.device, "--data", str(arguments.data)]
    command += ["--small"] if arguments.small else []
    return finished(command, limit)


def finished(command: list[str], limit: float, **environment: str) -> dict[str, Any]:
    """The JSON object that a command ends its output with, or its error."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **environment}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"cut off after {limit:.0f} s"}
    if done.returncode:
        return {"error": "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])}
    start = done.stdout.find("{")
    return dict(json.loads(done.stdout[start:])) if start >= 0 else {"output": done.stdout[-2000:]}


# --- precision and training ------------------------------------------------------------------------------------------


def texts_of(arguments: argparse.Namespace, most: int) -> list[str]:
    import pandas as pd

    texts = pd.read_csv(arguments.data, usecols=["text"], dtype=str, encoding_errors="replace")["text"].dropna()
    return texts.drop_duplicates().head(most).tolist()


def precisions(device: str) -> list[str]:
    from sentiment_hybrid.engine import device as devices
    from sentiment_hybrid.errors import TrainingError

    found = []
    for name in ("fp32", "bf16", "fp16"):
        with contextlib.suppress(TrainingError):
            devices.choose(device, name)
            found.append(name)
    return found


def precision(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sentiment_hybrid import Predictor

    texts = texts_of(arguments, 200 if arguments.small else 20_000)
    exact = Predictor("mini-han", device="cpu", precision="fp32").predict_proba(texts)
    found = {}
    for name in precisions(arguments.device):
        one = Predictor("mini-han", device=arguments.device, precision=name)
        one.predict_proba(texts[:64])
        started = time.perf_counter()
        probabilities = one.predict_proba(texts)
        found["TF32" if name == "fp32" and arguments.device == "cuda" else name] = {
            "texts/s": len(texts) / (time.perf_counter() - started),
            "largest difference": float(np.nanmax(np.abs(probabilities - exact))),
            "labels that differ": int((probabilities.argmax(1) != exact.argmax(1)).sum()),
        }
    worst = max(result["labels that differ"] for result in found.values())
    if worst > 0.01 * len(texts):
        raise SystemExit(f"{worst} of {len(texts)} labels differ: {found}")
    return {"texts": len(texts), "precisions": found, "matmul": torch.get_float32_matmul_precision()}


def trainer_of(arguments: argparse.Namespace, kind: str, **settings: Any) -> Any:
    """A training of all layers on whether a text has more than ten words, which any encoder learns."""
    import torch

    from sentiment_hybrid.config.schema import Config
    from sentiment_hybrid.engine import device as devices
    from sentiment_hybrid.engine.inference.session import EncodedDataset
    from sentiment_hybrid.engine.tokenization import tokenize
    from sentiment_hybrid.engine.training.tasks import Classification
    from sentiment_hybrid.engine.training.trainer import Trainer
    from sentiment_hybrid.models import build_head
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.models.encoder.hub import load_encoder_dir
    from sentiment_hybrid.models.encoder.module import Encoder

    texts = texts_of(arguments, 96 if arguments.small else 1280)
    loaded = load_encoder_dir(paths.mini_dir() / "encoder")
    given = {"batch_size": 32, "epochs": 3, "precision": kind, "learning_rate": 1e-3, "warmup_steps": 4, **settings}
    config = Config.model_validate({"lstm": {"train": given, "head": {"hidden": 64, "layers": 1}}})
    compute = devices.resolve(arguments.device, kind)
    torch.manual_seed(0)
    encoder = Encoder(loaded.model, "all")
    head = build_head("lstm", config.lstm.head, input_size=encoder.hidden_size, num_classes=2)
    tokens = tokenize(texts, loaded.tokenizer, max_length=64, max_windows=1)
    labels = np.array([len(text.split()) > 10 for text in texts], dtype=np.int64)
    return Trainer(
        Classifier(encoder, head).to(compute.device),
        Classification(EncodedDataset(tokens, labels), None, class_weights=np.ones(2)),
        settings=config.lstm.train,
        seed=1,
        compute=compute,
        accelerator=devices.accelerator(compute),
    )


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    from sentiment_hybrid.engine.training.events import EpochEvent

    found = {}
    for kind in precisions(arguments.device):
        trainer = trainer_of(arguments, kind)
        epochs = [event for event in trainer.events() if isinstance(event, EpochEvent)]
        scaler = trainer.accelerator.scaler
        losses = [event.train_loss for event in epochs]
        found[kind] = {
            "losses": losses,
            "texts/s": epochs[-1].rows_per_second,
            "loss scale": None if scaler is None else float(scaler.get_scale()),
        }
        if not np.isfinite(losses).all() or losses[-1] >= losses[0]:
            raise SystemExit(f"{kind}: the loss does not fall: {losses}")
    return {"precisions": found}


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Leave a training 200 MB, so that 100,000 tokens at once do not fit."""
    import torch

    from sentiment_hybrid.engine.training.events import BudgetEvent

    if arguments.device == "cpu":
        return {"skipped": "needs a GPU"}
    trainer = trainer_of(arguments, "fp32", token_budget=100_000, batch_size=1280, epochs=1)
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 200e6) / whole)
    lowered = [[event.before, event.token_budget] for event in trainer.events() if isinstance(event, BudgetEvent)]
    if not lowered:
        raise SystemExit("no step ran out of memory")
    return {"token budgets": lowered, "peak bytes": torch.cuda.max_memory_allocated()}


def transfers(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    if arguments.device == "cpu":
        return {"skipped": "needs a GPU"}
    ordinary = torch.empty(64 * 2**20, dtype=torch.uint8)
    rates = {}
    for name, source in {"ordinary": ordinary, "pinned": ordinary.pin_memory()}.items():
        source.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            source.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        rates[name] = 20 * source.numel() / (time.perf_counter() - started) / 1e9
    return {"GB/s": rates}


# --- several processes -----------------------------------------------------------------------------------------------

_REDUCE = """
import json, os, torch, torch.distributed as dist
cuda = os.environ["DEVICE"] == "cuda"
dist.init_process_group("nccl" if cuda else "gloo")
value = torch.ones(1 << 20, device="cuda:0" if cuda else "cpu") * (dist.get_rank() + 1)
dist.all_reduce(value)
if dist.get_rank() == 0:
    print(json.dumps({"backend": dist.get_backend(), "processes": dist.get_world_size(), "sum": float(value[0])}))
dist.destroy_process_group()
"""


def processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process must work; NCCL refuses two on one card in most versions, which is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "reduce.py"
        script.write_text(_REDUCE, encoding="utf-8")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        one, two = (finished([*launch, str(n), str(script)], 25, DEVICE=arguments.device) for n in (1, 2))
    if one.get("sum") != 1.0:
        raise SystemExit(f"one process: {one}")
    return {"one process": one, "two on one card": two}


# --- rivals ----------------------------------------------------------------------------------------------------------


def predict(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = 64 if arguments.small else 20_000
    return beside(
        arguments, "predict.py", "speed", str(arguments.data), "--rows", str(rows), "--tuning", str(min(rows, 512)),
        "--batch-sizes", "8", "64", "256", "--precisions", *precisions(arguments.device),
    )  # fmt: skip


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    steps = ["--steps", "2" if arguments.small else "20"]
    return beside(arguments, "train.py", "layers", str(arguments.data), *steps)


def beside(arguments: argparse.Namespace, script: str, *options: str) -> dict[str, Any]:
    """Another benchmark of this folder, of a small or a roberta-base-sized encoder."""
    size, repeats = ("small", "1") if arguments.small else ("base", "3")
    common = ["--tokenizer", str(paths.mini_dir() / "encoder"), "--size", size, "--repeats", repeats]
    found = finished(
        [sys.executable, str(HERE / script), *options, *common, "--device", arguments.device, "--json"],
        85 * patience(arguments),
    )
    if "error" in found:
        raise SystemExit(found["error"])
    return found


# --- commands and tests ----------------------------------------------------------------------------------------------


def commands(arguments: argparse.Namespace) -> dict[str, Any]:
    """Texts per second of the last epoch, of an encoder of the size of roberta-base, as metrics.jsonl has it."""
    size = (64, 2, 4, 128) if arguments.small else (768, 12, 12, 3072)
    names = ("hidden_size", "layers", "attention_heads", "intermediate_size")
    scratch = [f"encoder.scratch.{name}={value}" for name, value in zip(names, size, strict=True)]
    scratch.append("encoder.scratch.vocab_size=500")  # more needs more texts
    with tempfile.TemporaryDirectory() as folder:
        run = SimpleNamespace(folder=Path(folder), device=arguments.device)
        senthy(run, "data", "--source", str(arguments.data))
        few = ["--sample-size", "100"] if arguments.small else []
        senthy(run, "pretrain", "--base", "scratch", "--epochs", "2", *few, settings=scratch, device=True)
        trained = ["encoder.name=models/pretrained_encoder", "encoder.trainable_layers=all"]
        senthy(run, "train", "--model", "joint", "--epochs", "2", *few, settings=trained, device=True)
        kinds = {path.parent.name: rate_of(path) for path in Path(folder).glob("results/runs/*/metrics.jsonl")}
    return {"texts/s": kinds}


def senthy(run: SimpleNamespace, *arguments: str, settings: Sequence[str] = (), device: bool = False) -> None:
    """A command in the folder of a run; raises SystemExit with its last lines if it fails."""
    options = [part for setting in settings for part in ("--set", setting)]
    options += ["--device", run.device] if device else []
    command = [sys.executable, "-m", "sentiment_hybrid", *arguments, *options, "--offline", "-q"]
    done = subprocess.run(command, cwd=run.folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"senthy {' '.join(arguments)}: {done.stderr[-1000:]}")


def rate_of(metrics: Path) -> float:
    """Texts per second of the last epoch."""
    return float(json.loads(metrics.read_text(encoding="utf-8").splitlines()[-1])["rows_per_second"])


def suite(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tests whose device is `auto`, so that a GPU computes where there is one."""
    files = ["tests/engine/test_memory.py"]
    if not arguments.small:
        files += [
            "tests/engine/test_device.py",
            "tests/engine/inference/test_predictor.py",
            "tests/engine/training/test_trainer.py",
        ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-500:]
    if done.returncode:
        failed = re.findall(r"^FAILED .*", done.stdout, re.MULTILINE)
        raise SystemExit("\n".join([summary, *failed[:20]]))
    return {"summary": summary}


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "precision": precision,
    "training": training,
    "memory": memory,
    "transfers": transfers,
    "processes": processes,
    "predict": predict,
    "train": train,
    "commands": commands,
    "suite": suite,
}


if __name__ == "__main__":
    main()
