"""Options of a command that are not settings, and the signals that stop it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Runtime:
    """Created once, by the command line or a function of the Python API, and passed on.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: a local copy of the encoder that the configuration or the model names.
        bundle_encoder: store a frozen hub encoder in the model directory, too.
        resume: continue the newest unfinished run of the same configuration and data.
        name: name of the trained model; a model with a name is never removed automatically.
    """

    device: str = "auto"
    offline: bool = False
    encoder: str | Path | None = None
    bundle_encoder: bool = False
    resume: bool = False
    name: str = ""


@contextmanager
def stopping_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Within, the `stop_signals` call this handler; without effect outside of the main thread, which alone has any."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (stop_signals() if in_main_thread else ())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def stop_signals() -> list[signal.Signals]:
    """The signals that stop the work and save its state: Ctrl-C, SIGTERM, and SIGHUP unless nohup has it ignored."""
    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]
