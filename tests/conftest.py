"""Isolation for every test, and the small real things that many of them need."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sentiment_hybrid import console

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo

# Before torch: tiny matrices gain nothing from threads, and those of several test processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.processor(needs="bf16")`` skips a test where the processor cannot compute in bf16."""
    marks = item.iter_markers("processor")
    if any(mark.kwargs.get("needs") == "bf16" for mark in marks):
        from sentiment_hybrid.models import processor

        if not processor.computes_bf16():
            pytest.skip("this processor does not compute in bf16")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes outside its own folder or reaches a network, and none inherits the logging of another."""
    monkeypatch.setenv("SENTHY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # parallel test processes set it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_verbosity", 0)
    loggers = [logging.getLogger(), logging.getLogger("sentiment_hybrid")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tweets beside a checkout; a user's machine does not have it."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real data (../shared) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, very small RoBERTa with its tokenizer, saved as a user would have it on disk (random weights)."""
    import torch

    from sentiment_hybrid.config.schema import ScratchEncoder
    from sentiment_hybrid.models.encoder.hub import build_scratch, save_encoder
    from sentiment_hybrid.models.tokenizer import train_tokenizer

    texts = [
        f"{word} {mark}"
        for word in ["good", "bad", "not", "very", "what", "a", "day", "this", "film", "food", "was", "is"]
        for mark in "!?."
    ]
    scratch = ScratchEncoder(vocab_size=400, hidden_size=16, layers=2, attention_heads=2, intermediate_size=32)
    torch.manual_seed(2)
    tokenizer = train_tokenizer(texts, scratch, max_length=32)
    loaded = build_scratch(scratch, tokenizer=tokenizer, max_length=32)
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_encoder(loaded.model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium that reaches no network."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for one in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                "disable-background-networking", "disable-component-update", "disable-sync"):  # fmt: skip
        options.add_argument(f"--{one}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def model_info(encoder: Any, head: str, **changes: Any) -> ModelInfo:
    """What a model of two classes on this `LoadedEncoder` says of itself; ``changes`` are fields of `ModelInfo`."""
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo

    facts: dict[str, Any] = {
        "head": head,
        "head_config": {},
        "labels": ("negative", "positive"),
        "normalizer": "tweet@1",
        "max_length": 32,
        "max_windows": 3,
        "encoder_name": "tiny",
        "encoder_revision": None,
        "encoder_fingerprint": encoder.fingerprint,
        "encoder_inside": True,
        "trainable_layers": 0,
        "data_fingerprint": "d",
        "split_fingerprint": "s",
        "train_fingerprint": "t",
        "run_id": "r",
        "created": "2025-01-01T00:00:00+00:00",
        "train_rows": 10,
    }
    return ModelInfo(**facts | changes)
