"""A service in this process, asked without a socket; on the shipped model, or on one whose speed a test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from sentiment_hybrid.config.schema import Serve
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.model import ServedModel, load_served

Asked = list[httpx.Response]


def ask(service: Service, *requests: tuple[str, str, dict[str, Any]], waiting: int = 0, then: Any = None) -> Asked:
    """The responses to requests that are sent at the same time: (method, path, arguments of httpx).

    ``then`` is called once this many texts are ``waiting``.
    """

    async def send() -> Asked:
        transport = httpx.ASGITransport(service.application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            sent = [asyncio.ensure_future(client.request(how, path, **more)) for how, path, more in requests]
            if then is not None:
                while service.batcher.waiting < waiting:
                    await asyncio.sleep(0)
                then()
            return list(await asyncio.gather(*sent))

    return asyncio.run(asyncio.wait_for(send(), 60))


def predict(service: Service, *bodies: Any, waiting: int = 0, then: Any = None, **more: Any) -> Asked:
    requests = (("POST", "/predict", {"json": body, **more}) for body in bodies)
    return ask(service, *requests, waiting=waiting, then=then)


@dataclass
class Stub:
    """A predictor whose probability of ``positive`` is the length of a text modulo 10, in tenths.

    ``gate`` is waited for in every computation; ``seen`` are the texts of each.
    """

    labels: tuple[str, ...] = ("negative", "positive")
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    seen: list[Any] = field(default_factory=list)
    name: str = "stub"

    def __post_init__(self) -> None:
        self.gate.set()
        self.info = SimpleNamespace(
            weights_sha256=f"{self.name:0<64}", head="linear", name=self.name, run_id="r", encoder_name="none",
            normalizer="none@1", max_length=8, max_windows=1, created="", valid={},
        )  # fmt: skip

    def prepare(self, texts: Sequence[str | None]) -> list[str]:
        return [text or "" for text in texts]

    def compute(self, texts: list[str]) -> np.ndarray:
        self.seen.append(texts)
        self.entered.set()
        self.gate.wait(20)
        if "poison" in texts:
            raise RuntimeError("this text breaks the model")
        high = np.array([len(text) % 10 / 10 for text in texts], dtype=np.float32)
        return np.stack([1 - high, high], axis=1)

    def is_cut(self, texts: list[str]) -> np.ndarray:
        return np.zeros(len(texts), dtype=bool)

    def predict(self, texts: Sequence[str]) -> None:
        return

    def explain(self, texts: Sequence[str], label: str | None = None) -> list[Any]:
        if texts:
            self.seen.append("explain")
        return [SimpleNamespace(text=text, unread=0, words=(), cells=lambda places: []) for text in texts]

    def served(self) -> ServedModel:
        return ServedModel(self, Path("stub"), (None,), explains=True)  # type: ignore[arg-type]


@pytest.fixture
def make_service() -> Iterator[Callable[..., Service]]:
    """``make_service(stub, token=None, **settings)``: a running service."""
    running: list[tuple[Service, Stub | None]] = []

    def make(model: Stub | ServedModel, token: str | None = None, **settings: Any) -> Service:
        served = model.served() if isinstance(model, Stub) else model
        service = Service(served, Serve(**settings), token=token)
        service.batcher.start()
        running.append((service, model if isinstance(model, Stub) else None))
        return service

    yield make
    for service, stub in running:
        if stub is not None:
            stub.gate.set()
        service.batcher.close()


@pytest.fixture(scope="session")
def mini() -> ServedModel:
    """The shipped model, loaded once."""
    return load_served(Path("mini"), lambda _: Predictor("mini", device="cpu", precision="fp32"))
