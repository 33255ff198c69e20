"""How many threads torch computes with on a CPU: the cores that this process really has, unless the user has said."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

_SAID_BY_THE_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def settle() -> None:
    """Lower torch's number of threads to the cores that it may use.

    torch counts processors: two threads of a core, and cores that a container may not use, and threads that wait for
    each other there are slower than fewer. A number that is lower already, or is set in the environment, stays.
    """
    if any(os.environ.get(name) for name in _SAID_BY_THE_USER):
        return
    wanted = cores()
    if wanted is not None and wanted < torch.get_num_threads():
        torch.set_num_threads(wanted)


def cores() -> int | None:
    """Physical cores that this process may use, at most its container's share; None where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    physical = {_core_of(cpu) for cpu in os.sched_getaffinity(0)}
    share = _container_share()
    return len(physical) if share is None else max(1, min(len(physical), math.ceil(share)))


def _core_of(cpu: int) -> str:
    """A name for the core that a processor is a thread of."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


def _container_share() -> float | None:
    """Processors' worth of time that the container gets, from version 2 or 1 of cgroups; None where it has no limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = (_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (_CGROUP / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
