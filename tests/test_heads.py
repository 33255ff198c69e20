"""A head from outside: another package registers it by an entry point, and every command knows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = '''
"""A head of another package: the mean of the token states, scaled."""
from sentiment_hybrid.config.sections import Section, default
from sentiment_hybrid.heads import Head


class ToyConfig(Section):
    """Settings of the toy head."""

    scale: float = default(1.0, "Factor on the mean.")


HEAD = Head("ToyRoBERTa", "toy_head:ToyConfig", "toy_module:Toy")
'''
MODULE = '''
from torch import nn
from sentiment_hybrid.models.attention import masked_mean, uniform
from sentiment_hybrid.models.classifier import HeadOutput, gather_texts


class Toy(nn.Module):
    """Scaled mean and one layer."""

    def __init__(self, config, *, input_size, num_classes):
        super().__init__()
        self.scale = config.scale
        self.output = nn.Linear(input_size, num_classes)

    def forward(self, states, mask, text_index, num_texts, counts=None):
        tokens, real = gather_texts(states, mask, text_index, num_texts)
        return HeadOutput(self.output(self.scale * masked_mean(tokens, real)), uniform(real))
'''
SMALL = """
data: {source: sample}
encoder:
  name: scratch
  trainable_layers: all
  scratch: {vocab_size: 400, hidden_size: 16, layers: 1, attention_heads: 2, intermediate_size: 32}
toy: {head: {scale: 2.0}, train: {epochs: 1, sample_size: 40, valid_sample_size: 40}}
test: {sample_size: 20, resamples: 100, baseline: false}
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which another distribution provides the head `toy`."""
    packages = tmp_path / "packages"
    info = packages / "toy_head-1.0.dist-info"
    info.mkdir(parents=True)
    (packages / "toy_head.py").write_text(TOY, encoding="utf-8")
    (packages / "toy_module.py").write_text(MODULE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-head\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[sentiment_hybrid.heads]\ntoy = toy_head:HEAD\n", encoding="utf-8")
    (tmp_path / "senthy.yaml").write_text(SMALL, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(packages), "SENTHY_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}


def senthy(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sentiment_hybrid", *words]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_a_head_of_another_package_is_configured_trained_tested_and_applied(elsewhere, tmp_path):
    for words in (("data",), ("train", "--model", "toy", "--device", "cpu"), ("predict", "--model", "toy", "good day")):
        ended = senthy(elsewhere, tmp_path, *words)
        assert ended.returncode == 0, f"{words}: {ended.stderr}"
    assert (tmp_path / "models" / "toy_roberta_model_final" / "model.safetensors").is_file()
    assert "ToyRoBERTa_Train" in (tmp_path / "results" / "model_results.json").read_text(encoding="utf-8")


def test_a_head_of_another_package_has_its_settings_checked(elsewhere, tmp_path):
    ended = senthy(elsewhere, tmp_path, "config", "check", "--set", "toy.head.scael=1")
    assert ended.returncode == 2
    assert "scale" in ended.stderr


def test_a_head_that_cannot_be_loaded_leaves_the_others_usable(elsewhere, tmp_path):
    (tmp_path / "packages" / "toy_head.py").write_text("import no_such_module\n", encoding="utf-8")
    (tmp_path / "senthy.yaml").unlink()
    ended = senthy(elsewhere, tmp_path, "config", "check", "--set", "lstm.train.epochs=2")
    assert ended.returncode == 0
    assert "toy" in ended.stderr
