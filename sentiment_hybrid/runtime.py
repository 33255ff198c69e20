"""What a command is given beside its configuration: where it computes, what it may reach, and what stops it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Runtime:
    """Made once, by the command line or a function of the Python API.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: a local copy of the encoder that the configuration or the model names.
        bundle_encoder: put a frozen hub encoder into the model directory too.
        resume: continue the newest unfinished run of the same configuration and data.
        name: what the user calls the trained model; it is never removed by itself then.
    """

    device: str = "auto"
    offline: bool = False
    encoder: str | Path | None = None
    bundle_encoder: bool = False
    resume: bool = False
    name: str = ""


def stop_signals() -> list[signal.Signals]:
    """The signals that stop the work and save its state: Ctrl-C, SIGTERM, and SIGHUP unless nohup has it ignored."""
    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hangup]
