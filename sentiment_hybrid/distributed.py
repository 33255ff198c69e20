"""Several processes that train one model together: the rank of this one, and the communication between them.

`torchrun` or `accelerate launch` starts them and passes the ranks in environment variables; ``join`` connects them. In
a single process, no function here waits, and nothing heavy is imported.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

from sentiment_hybrid.errors import SenthyError, TrainingError, UsageError

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = timedelta(days=1)  # others wait while one encodes a corpus; if one dies, the launcher ends all
_MESSAGE_SECONDS = 20.0  # another process may still be importing; the launcher ends the wait
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_OTHER_ENGINES = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")
_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")

_control: list[Any] = []  # the process group for messages, once there is one


# --- this process ----------------------------------------------------------------------------------------------------


def world() -> int:
    """The number of processes that train together."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The rank of this process, from 0."""
    return _number("RANK", 0) if world() > 1 else 0


def local_world() -> int:
    """The number of these processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if world() > 1 else 1


def local_rank() -> int:
    """The rank of this process on its machine, from 0."""
    return _number("LOCAL_RANK", 0) if world() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that prints and writes."""
    return world() == 1 or rank() == 0


def name() -> str:
    """This process in words, for its own messages."""
    return f"process {rank()} on {socket.gethostname()}"


def joined() -> bool:
    """Whether this process is connected to others."""
    return bool(_control)


def reports(failure: BaseException) -> bool:
    """Whether this process reports a failure, so that each failure is reported once.

    The main process reports failures of all processes, and those that another process has sent to it. Before they are
    connected, the first process of each machine also reports, because something may be missing on its machine only.
    """
    if is_main():
        return True
    if _control:
        return not isinstance(failure, (SenthyError, KeyboardInterrupt))
    return local_rank() == 0


def forget_mpi() -> None:
    """Hide variables of MPI or SLURM, so that accelerate does not treat independent processes as one training."""
    for size in _MPI_SIZES:
        os.environ.pop(size, None)


def must_use_cpu() -> bool:
    """Whether the launcher requests the CPU; accelerate then uses it on any machine."""
    return _is_set("ACCELERATE_USE_CPU")


def await_message() -> None:
    """Wait before exiting after a failure that another process reports: the launcher kills it once one has exited."""
    with suppress(KeyboardInterrupt):
        time.sleep(_MESSAGE_SECONDS)


def refuse(what: str, *, hint: str = "Start it without torchrun or accelerate launch.") -> None:
    """Raise UsageError if a launcher has started several processes of something that runs in one."""
    if world() > 1:
        raise UsageError(f"{what} runs in one process, but {world()} were started", hint=hint)


# --- connecting ------------------------------------------------------------------------------------------------------


def join(device: str) -> None:
    """Connect the processes that were started together, for computing on this kind of device, unless they are.

    Raises:
        UsageError: the launcher was started with options that do not work, or set up other than data-parallel training.
        TrainingError: the processes cannot connect, or a machine has fewer GPUs than processes.
    """
    _check_launch(device)
    if world() == 1 or _control:
        return
    import torch
    from accelerate import PartialState

    if device == "cuda" and local_world() > torch.cuda.device_count():
        raise TrainingError(
            f"{local_world()} processes were started on a machine with {torch.cuda.device_count()} GPUs",
            hint="Start one process per GPU.",
        )
    try:
        PartialState(cpu=device == "cpu", backend="gloo" if device == "cpu" else "nccl")
        # Another group, on the CPU: waiting for each other needs no GPU, and may take longer than sending a gradient.
        control = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the {world()} processes could not connect to each other: {error}",
            hint="Every machine must reach MASTER_ADDR on MASTER_PORT; start the same command on each.",
        ) from error
    _control.append(control)


def leave() -> None:
    """Disconnect all processes, at their end: they cannot join again."""
    if not _control:
        return
    import torch

    with suppress(TrainingError):  # another one that failed has reported it, and the work of this one is complete
        barrier()
        torch.distributed.destroy_process_group()
    _control.clear()


def _check_launch(device: str) -> None:
    if any(_is_set(engine) for engine in _OTHER_ENGINES):
        raise UsageError(
            "accelerate is set up for DeepSpeed, FSDP or Megatron, and senthy trains data-parallel",
            hint="Use torchrun, or `accelerate launch --multi_gpu` with a configuration for several GPUs.",
        )
    torchrun = "Several on CPUs: torchrun --nproc-per-node 2 -m sentiment_hybrid train --device cpu ..."
    if world() == 1 and (mpi := max(_number(size, 1) for size in _MPI_SIZES)) > 1:
        raise UsageError(f"MPI has started {mpi} processes, which would each train a model", hint=torchrun)
    # It sets MASTER_ADDR, but no number of processes.
    if must_use_cpu() and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise UsageError(
            "`accelerate launch --cpu` starts one process only, whatever number is requested", hint=torchrun
        )
    if must_use_cpu() and device != "cpu":
        raise UsageError(f"`accelerate launch --cpu` cannot train on {device}", hint="Omit --cpu or --device.")
    if world() > 1 and device not in {"cpu", "cuda"}:
        raise UsageError(f"several processes cannot train on {device}", hint="Use --device cpu, or start one process.")


# --- communication ---------------------------------------------------------------------------------------------------


def gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if not _control:
        return [value]
    import torch

    values: list[Any] = [None] * world()
    with watched():
        torch.distributed.all_gather_object(values, value, group=_control[0])
    return values


def any_process(value: bool) -> bool:
    """Whether the value is true in any process."""
    if not _control:
        return value
    import torch

    highest = torch.tensor(int(value))
    with watched():
        torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX, group=_control[0])
    return bool(highest)


def barrier() -> None:
    """Wait until all processes are here."""
    any_process(False)


def together(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call ``work`` in every process; if it fails in one, it fails in all, with one error message.

    ``work`` itself must not wait for other processes.
    """
    if not _control:
        return work(*arguments, **options)
    value, own = None, None
    try:
        value = work(*arguments, **options)
    except Exception as error:  # noqa: BLE001 - after any error, the others must not wait for this process
        own = error
    failures = [one for one in gather(None if own is None else _from_here(own)) if one is not None]
    if own is not None and (is_main() or isinstance(own, SenthyError)):
        raise own
    if failures:
        raise failures[0] from own
    return cast(T, value)


def from_main(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call ``work`` in the main process; all processes return its result, or raise its error."""
    if not _control:
        return work(*arguments, **options)
    import torch

    value: list[Any] = [together(lambda: work(*arguments, **options) if is_main() else None)]
    with watched():
        torch.distributed.broadcast_object_list(value, src=0, group=_control[0])
    return cast(T, value[0])


def on_main(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that only the main process runs, as by `from_main`."""

    @functools.wraps(work)
    def shared(*arguments: P.args, **options: P.kwargs) -> T:
        return from_main(work, *arguments, **options)

    return shared


def check_same(value: object, what: str) -> None:
    """Raise TrainingError in all processes unless their values are equal."""
    values = gather(value)
    other = next((number for number, one in enumerate(values) if one != values[0]), None)
    if other is not None:
        raise TrainingError(
            f"process {other} and the main process have different {what}",
            hint="Every machine needs the same configuration, database and encoder.",
        )


@contextmanager
def watched() -> Iterator[None]:
    """Turn a lost connection into a TrainingError: another process has ended."""
    try:
        yield
    except RuntimeError as error:
        text, distributed = str(error).lower(), sys.modules["torch"].distributed
        lost = isinstance(error, distributed.DistError) or any(word in text for word in _LOST)
        if not _control or not lost:
            raise
        raise TrainingError(
            "another process of this training has ended",
            hint="See the message of that process. Checkpoints are kept; --resume continues from the last one.",
        ) from error


def _from_here(error: Exception) -> TrainingError:
    """A failure, as sent to the other processes."""
    message = error.message if isinstance(error, SenthyError) else f"{type(error).__name__}: {error}"
    failure = TrainingError(f"{name()}: {message}", hint=getattr(error, "hint", ""))
    failure.exit_code = getattr(error, "exit_code", 1)
    return failure


def _number(variable: str, default: int) -> int:
    try:
        return int(os.environ.get(variable, default))
    except ValueError:
        return default


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"1", "true", "yes"}
