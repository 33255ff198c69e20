"""The package is a guest in a program that imports it: it leaves settings of the process as it finds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Run in a process of its own: settings differ from the defaults, so that setting a default would show.
HOST = """
import csv, gc, logging, os, random, signal, sys
import joblib  # sets a variable of OpenMP's when it is imported, as scikit-learn does
import numpy as np
import torch
import typer
import typer.core

torch.set_num_threads(3)
torch.set_float32_matmul_precision("medium")
gc.set_threshold(701, 11, 12)
csv.field_size_limit(1000)


def settings():
    return {
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "quantised engine": torch.backends.quantized.engine,
        "torch's random numbers": torch.get_rng_state().sum().item(),
        "numpy's": np.random.get_state()[1].sum(),
        "Python's": hash(random.getstate()),
        "gc": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "csv": csv.field_size_limit(),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "log": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook),
        "typer": [vars(one).get(name) for one in (typer, typer.core) for name in ("Typer", "TyperGroup", "rich")],
        "path": list(sys.path),
        "folder": os.getcwd(),
    }


def check(what):
    now = settings()
    changed = {name: (before[name], now[name]) for name in before if before[name] != now[name]}
    changed.pop("environment", None)
    variables = {name for name in before["environment"] | now["environment"]}
    variables = {name for name in variables if before["environment"].get(name) != now["environment"].get(name)}
    assert not changed and not variables, f"{what} changes {changed} {variables}"


before = settings()
"""

IMPORTED = """
import importlib.util, pkgutil
import sentiment_hybrid

if importlib.util.find_spec("onnxruntime"):
    importlib.import_module("sentiment_hybrid.engine.inference.onnx_runtime").require("onnxruntime")
    check("import onnxruntime")
for module in pkgutil.walk_packages(sentiment_hybrid.__path__, "sentiment_hybrid."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        check(f"import {module.name}")
"""

PREDICTED = """
from sentiment_hybrid import Predictor
from sentiment_hybrid.engine.inference import evaluate

joblib.cpu_count = lambda only_physical_cores=False: 1
seen = []
real = evaluate.predict_probabilities


def watched(*arguments, **options):
    seen.append(torch.get_num_threads())
    return real(*arguments, **options)


evaluate.predict_probabilities = watched
for model in ("mini", "mini-lstm"):
    predictor = Predictor(model)
    check("a Predictor")
    assert predictor.predict("what a lovely day").label == "positive"
    check("a prediction")
    stream = predictor.stream(["good"] * 3, chunk=1)
    next(stream)
    check("a stream that is half read")
predictor = Predictor("mini", precision="int8")
predictor.predict(["good", "bad"])
check("a prediction in int8")
assert set(seen) == {1}, "while it computes, it uses the cores that there are"
"""

READ = """
import sys
from pathlib import Path
from sentiment_hybrid.config.schema import Data
from sentiment_hybrid.data.sources import open_source

file = Path(sys.argv[1])
file.write_text("text,label\\n" + "".join(f"{'x' * 5000} {n},a\\n" for n in range(50)), encoding="utf-8")
source = open_source(str(file), Data(encoding="latin-1"))  # read by the csv module
batches = source.batches(size=10)
next(batches)
assert sum(len(batch) for batch in batches) == 40
check("reading a file")
"""


@pytest.mark.parametrize("use", [IMPORTED, PREDICTED, READ], ids=["imported", "predicting", "reading"])
def test_a_host_program_keeps_its_settings(use: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", HOST + use, str(tmp_path / "texts.csv")],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "SENTHY_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
