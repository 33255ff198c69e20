"""Runs a program and watches it and its helper processes: wall time, processor time, peak memory.

from watch import measure
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_EVERY = 0.02
_MIB = 2**20


def measure(code: str, *arguments: object) -> dict[str, float]:
    """One run of some Python in a process of its own: seconds, processor seconds, peak MiB with all its helpers.

    ``peak_mib`` includes pages of files that are mapped into memory, which the system takes back when it needs room;
    ``own_mib`` is without them, 0 where the system does not tell.
    Raises RuntimeError with what it said when it fails.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with tempfile.TemporaryFile() as said:
        before, started = _processor_seconds(), time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        watch = _Watch(process.pid)
        failed = process.wait()
        seconds = time.perf_counter() - started
        peak = watch.stop()
        if failed:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-2000:])
    return {
        "seconds": seconds,
        "processor_seconds": _processor_seconds() - before,
        "own_mib": watch.own / _MIB,
        "peak_mib": peak / _MIB if peak else _largest_child() / _MIB,
    }


def _processor_seconds() -> float:
    """Of all processes that this one waited for, and theirs."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _largest_child() -> float:
    """Where there is no /proc: the largest of all children so far, without their helpers."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _Watch:
    """Looks often at the memory of a process and its children, and keeps the largest sum."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = self.own = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The peak in bytes; 0 where the system does not tell."""
        self._stopped.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._stopped.wait(_EVERY):
            pids = _with_children(self._pid)
            # Pages that they share are counted for each; the process itself also remembers its own peak.
            now = sum(status(pid, "VmRSS") for pid in pids)
            self._peak = max(self._peak, now, status(self._pid, "VmHWM"))
            self.own = max(self.own, sum(status(pid, "RssAnon") for pid in pids))


def _with_children(pid: int) -> Sequence[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except (OSError, ValueError):
            continue
    return found


def status(pid: int | str, name: str) -> int:
    """A field of /proc/PID/status in bytes; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
