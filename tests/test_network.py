"""No command uses the network unless it downloads what it was asked for; with --offline, none does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: Every command that computes or reads something, in one process; `--offline` where a download would be due.
SCRIPT = """
import sys
from sentiment_hybrid.cli import main

encoder, *steps = sys.argv[1:]
small = ["encoder.name=" + encoder, "encoder.max_length=16", "train.batch_size=16", "train.epochs=1",
         "train.sample_size=60", "train.valid_sample_size=40", "test.sample_size=40", "test.resamples=100",
         "linear.hpo.epochs=1", "linear.hpo.n_trials=1", "linear.hpo.sample_size=60"]
settings = [word for one in small for word in ("--set", one)]
COMMANDS = {
    "train": [
        ["data", "--source", "sample"],
        ["train", "-m", "linear", *settings],
        ["test", "-m", "linear", *settings],
        ["optimize", "-m", "linear", "--no-final", *settings],
        ["info", "--json"], ["cache", "info"], ["config", "show"],
    ],
    "apply": [
        ["predict", "--load-model-path", "mini", "good"],
        ["export", "--load-model-path", "mini", "--output", "onnx"],
        ["predict", "--load-model-path", "onnx", "--offline", "good"],
    ],
    "offline": [
        ["fetch", "--offline"],
        ["data", "--offline", "--source", "kaggle"],
        ["train", "--offline", "--set", "encoder.name=roberta-base"],
    ],
}
for step in steps:
    for words in COMMANDS[step]:
        try:
            main(words)
        except SystemExit as end:
            expected = 1 if step == "offline" else 0
            assert end.code == expected, (words, end.code)
"""

#: Python's part of the network refuses and says so; what is in C is seen by strace alone.
BLOCKED = """
import sys
def refuse(event, arguments):
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"}:
        print("NETWORK", event, arguments, file=sys.__stderr__)
        raise OSError("the network is blocked")
sys.addaudithook(refuse)
"""


def run(folder: Path, encoder: Path, *steps: str, tracer: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The steps in a home of their own, with no variable that would keep a library silent by itself."""
    quiet = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    command = [*tracer, sys.executable, "-c", BLOCKED + SCRIPT, str(encoder), *steps]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment | {"HOME": str(folder)}
    )


def test_no_command_looks_up_a_host_connects_or_leaves_telemetry(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    pytest.importorskip("onnxruntime")
    log = tmp_path / "trace"
    strace = shutil.which("strace")
    tracer = (strace, "-f", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmmsg", "-o", str(log)) if strace else ()
    done = run(tmp_path, tiny_encoder_dir, "train", "apply", "offline", tracer=tracer)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    written = [path for path in (tmp_path / ".cache").rglob("*") if path.is_file()]
    assert not [path for path in written if "microsoft" in str(path).lower()]
    if strace:
        assert not re.findall(r"AF_INET6?\b.*", log.read_text(encoding="utf-8"))
    assert "shape_type_inference" not in done.stderr, "a warning of torch for its own developers"
