"""A tiny frozen or trainable classifier over real tokens, shared by the engine's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed

from sentiment_hybrid.config.schema import Cache, Config, Encoder
from sentiment_hybrid.engine.device import resolve
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training.prepare import open_session
from sentiment_hybrid.models.encoder.hub import load_encoder

GOOD = ["good", "great", "lovely", "fine", "happy"]
BAD = ["bad", "awful", "nasty", "poor", "sad"]


def toy_texts(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts that one word decides, of very different lengths."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    filler = ["the", "day", "was", "it", "and", "so", "then", "we", "all"]
    texts = []
    for label in labels:
        words = list(random.choice(filler, size=random.integers(1, 14)))
        words.insert(int(random.integers(0, len(words) + 1)), str(random.choice(GOOD if label else BAD)))
        texts.append(" ".join(words))
    return texts, labels.astype(np.int64)


@pytest.fixture
def small_config(tiny_encoder_dir: Path, tmp_path: Path) -> Config:
    """Small heads over the tiny encoder; everything lies in tmp_path."""
    return Config.model_validate(
        {
            "paths": {"cache_dir": tmp_path / "cache"},
            "encoder": {"name": str(tiny_encoder_dir), "max_length": 16},
            **{
                name: {
                    "head": {} if name == "linear" else {"hidden": 8, "layers": 1, "dropout": 0.1},
                    "train": {"batch_size": 8, "epochs": 2, "precision": "fp32", "learning_rate": 0.01},
                }
                for name in ("lstm", "han", "linear")
            },
        }
    )


@pytest.fixture
def make_session(small_config: Config, tmp_path: Path) -> Callable[..., Session]:
    """Build a session: ``make_session("lstm", trainable_layers=0)``."""

    def make(
        model: str = "lstm",
        *,
        trainable_layers: int | str = 0,
        precision: str = "fp32",
        max_gb: float | None = None,
        cache: Path = tmp_path / "cache",
        **train: Any,
    ) -> Session:
        encoder = Encoder(
            name=small_config.encoder.name,
            max_length=16,
            trainable_layers=trainable_layers,  # type: ignore[arg-type]
        )
        section = small_config.model(model)
        section = section.model_copy(update={"train": section.train.model_copy(update=train)})
        changes = {"encoder": encoder, "cache": Cache(max_gb=max_gb), model: section}
        config = small_config.model_copy(update=changes)
        set_seed(3)
        return open_session(
            config,
            model,
            load_encoder(encoder),
            num_classes=2,
            compute=resolve("cpu", precision),
            cache=cache,
        )

    return make


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny matrices are slower on several threads, and sums on one are the same everywhere."""
    torch.set_num_threads(1)
