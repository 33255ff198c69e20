"""`senthy predict --engine ray`: many files labelled by actors of a Ray cluster, row by row restartable.

Ray schedules, moves rows, replaces dead actors and machines, and remembers which rows are written. The output is a
folder of Parquet files in no particular order; `senthy_row` numbers the rows of all files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import console
from sentiment_hybrid.commands import predict_shards
from sentiment_hybrid.commands.predict import PredictResult, Request, open_predictor
from sentiment_hybrid.commands.predict_rows import answers_of, open_rows, types_of
from sentiment_hybrid.commands.predict_shards import JOB, MANIFEST, as_json, from_json
from sentiment_hybrid.data import shards as files
from sentiment_hybrid.data.remote import Shard
from sentiment_hybrid.data.shards import LocalFolder
from sentiment_hybrid.data.sources import Batch, several, texts_of
from sentiment_hybrid.data.sources.several import Shards
from sentiment_hybrid.errors import OutputError, SenthyError, ShardError, SourceError, UsageError
from sentiment_hybrid.files import sha256

if TYPE_CHECKING:
    import pyarrow

#: The number of a row among those of all files: that of its file in the order of names, times `_FILE`, plus its own.
ROW = "senthy_row"
_FILE = 1 << 32
_CHECKPOINT = f"{files.OWN}/checkpoint"
#: Rows that an actor labels at a time.
_BATCH = 1024
#: Cores of an actor where the number of actors is not given.
_CORES = 4
#: Memory that an actor of a small model takes, at least; Ray starts none on a machine that has less.
_MEMORY = 1 << 30
_ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception): .+$", re.MULTILINE)


def run(request: Request) -> PredictResult:
    """Label every row of many files on the cluster that ``RAY_ADDRESS`` names, or on this machine.

    The same command continues a stopped job after the rows that are written, if this version of Ray has checkpoints.

    Raises:
        UsageError: Ray is not installed, or the options or the files do not suit it.
        SourceError, ColumnError: a file cannot be read, or has other columns; nothing more is written then.
        OutputError: the folder is of another job, or cannot be written.
        ShardError: the actors died, or there is no room for one.
    """
    started = time.perf_counter()
    ray = _imported()
    found, folder = predict_shards.find_files(request)
    if request.shard != (1, 1) or request.finish:
        raise UsageError("--shard and --finish are for --engine local", hint="Leave them out: Ray divides the work.")
    if not isinstance(folder, LocalFolder):
        raise UsageError("--engine ray writes to folders only", hint="Mount the store, or use --shard.")
    labeller = predict_shards.open_labeller(request, found, folder)
    if not labeller.schema["columns"]:
        raise UsageError(
            "--engine ray reads tables, and JSON Lines are none", hint="Convert them to Parquet, or use --shard."
        )
    _pin(found, folder)
    if (done := folder.read(MANIFEST)) is None:
        with _cluster(ray), _own_errors(ray):
            # Machines have other working directories: every path is absolute.
            placed = replace(request, model_dir=Path(labeller.directory).resolve())
            _write(ray, placed, found, labeller.schema, folder)
        done = _manifest(folder)
    else:
        console.note("all rows were labelled before")
    model = done["model"]
    return PredictResult(
        Path(model["directory"]), tuple(model["labels"]), done["rows"], 0, 0, 0,
        seconds=time.perf_counter() - started, output=request.output_file, files=len(found.shards),
    )  # fmt: skip


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            "--engine ray needs Ray, which is not installed",
            hint='In the checkout: pip install ".[ray]". Or leave out --engine.',
        ) from error
    return ray


def _pin(found: Shards, folder: LocalFolder) -> None:
    """Keep which files the numbers of rows count; refuse others when the job continues."""
    name = f"{files.OWN}/files.json"
    own = {"files": [[one.name, *one.stamp] for one in found.shards]}
    before = folder.read(name)
    if before is None:
        folder.write(name, own)
    elif before != own:
        raise OutputError(
            f"the files of {found.root} have changed since {folder} was begun", hint="Choose a new output folder."
        )


# --- the cluster -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """The cluster that is there; otherwise one of this machine, which ends with the block."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(log_to_driver=console.verbosity() > 0, logging_level="error", include_dashboard=False)
    except Exception as error:  # of any class, down to Exception itself
        raise ShardError(
            f"Ray cannot be started or reached: {' '.join(str(error).split())[:300]}",
            hint="Check `ray status` and RAY_ADDRESS; without a cluster, leave out --engine.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_errors(ray: Any) -> Iterator[None]:
    """Raise an error of a file that Ray has wrapped as it was, and any other error of Ray as a ShardError."""
    try:
        yield
    except ray.exceptions.RayError as error:
        *_, root = causes = list(_causes(error))
        own = next((cause for cause in causes if isinstance(cause, SenthyError)), None)
        if own is not None:
            raise own from None
        # The first error of a chained traceback is the reason; Ray sends those of an actor as text.
        first = _ERROR_LINE.search(str(error))
        reason = first[0] if first else f"{type(root).__name__}: {' '.join(str(root).split())}"
        raise ShardError(
            f"Ray stopped: {reason[:300]}", hint="The same command continues. If memory ran out, use fewer --workers."
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised for, down to the first: Ray keeps that in ``cause`` or ``__cause__``."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__


def _actors(ray: Any, request: Request) -> dict[str, Any]:
    """How many actors, and what each asks of the cluster: readers and writers must have room beside them.

    Raises ShardError where Ray would wait for ever: no machine has room for one.
    """
    cluster: Mapping[str, float] = ray.cluster_resources()
    cores, gpus = cluster.get("CPU", 1.0), int(cluster.get("GPU", 0)) if request.device in ("auto", "cuda") else 0
    number = request.workers or gpus or max(1, int(cores / _CORES))
    each = round((0.8 if cores >= 2 * _CORES else 0.4) * cores / number, 2)
    wanted = {"num_cpus": max(0.01, each), "memory": _MEMORY, **({"num_gpus": min(1.0, gpus / number)} if gpus else {})}
    largest = max(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
    if largest < _MEMORY:
        raise ShardError(
            f"no machine of the cluster has the {_MEMORY / 1e9:.1f} GB of memory that an actor needs; "
            f"the largest has {largest / 1e9:.1f} GB",
            hint="Start Ray with more (ray start --memory BYTES).",
        )
    return {**wanted, "compute": ray.data.ActorPoolStrategy(size=number)}


def _write(ray: Any, request: Request, found: Shards, schema: dict[str, Any], folder: LocalFolder) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = console.verbosity() >= 0 and console.is_terminal(sys.stderr)
    if console.verbosity() <= 0:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    before, checkpoints = getattr(context, "checkpoint_config", None), folder.root.resolve() / _CHECKPOINT
    if hasattr(ray.data, "checkpoint"):
        from ray.data.checkpoint import CheckpointConfig

        checkpoints.mkdir(parents=True, exist_ok=True)
        context.checkpoint_config = CheckpointConfig(ROW, str(checkpoints), delete_checkpoint_on_success=False)
    elif any(name.endswith(".parquet") for name in folder.names()):
        raise OutputError(f"this version of Ray cannot continue {folder}", hint="Choose a new folder, or a newer Ray.")
    plain = as_json(request)
    try:
        source = _source(ray, plain, schema, found)
        labelled = ray.data.read_datasource(source, num_cpus=0.1, override_num_blocks=len(found.shards)).map_batches(
            Actor, fn_constructor_args=(plain, schema), batch_size=_BATCH, batch_format="pyarrow",
            **_actors(ray, request),
        )  # fmt: skip
        labelled.write_parquet(str(folder.root.resolve()), ray_remote_args={"num_cpus": 0.1})
    finally:
        if hasattr(ray.data, "checkpoint"):
            context.checkpoint_config = before


def _manifest(folder: LocalFolder) -> dict[str, Any]:
    """Count what was written, and remove the checkpoints."""
    import pyarrow.parquet

    parts = [
        {
            "name": name,
            "rows": pyarrow.parquet.read_metadata(folder.root / name).num_rows,
            "bytes": folder.size(name),
            "sha256": sha256(folder.root / name),
        }
        for name in folder.names()
        if not name.startswith(f"{files.OWN}/")
    ]
    rows = sum(part["rows"] for part in parts)
    manifest = {**(folder.read(JOB) or {}), "rows": rows, "parts": parts}
    folder.write(MANIFEST, manifest)
    shutil.rmtree(folder.root / _CHECKPOINT, ignore_errors=True)
    return manifest


# --- on the machines of the cluster ----------------------------------------------------------------------------------


def _source(ray: Any, plain: dict[str, Any], schema: dict[str, Any], found: Shards) -> Any:
    """The rows of all files, one read task per file, with our readers."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Files(Datasource):
        """Files of any format that `predict` reads."""

        def estimate_inmemory_data_size(self) -> int:
            return sum(int(one.stamp[0]) for one in found.shards)

        def get_read_tasks(self, parallelism: int, *given: Any, **more: Any) -> list[Any]:
            return [
                ReadTask(
                    partial(read_blocks, plain, schema, number, shard),
                    BlockMetadata(
                        num_rows=None, size_bytes=int(shard.stamp[0]), input_files=[shard.place], exec_stats=None
                    ),
                )
                for number, shard in enumerate(found.shards)
            ]

    return Files()


def read_blocks(plain: dict[str, Any], schema: dict[str, Any], number: int, shard: Shard) -> Iterator[pyarrow.Table]:
    """The rows of a file as tables, with the column `ROW`. Raises SourceError, ColumnError."""
    import pyarrow

    with contextlib.ExitStack() as stack:
        path = stack.enter_context(several.fetched(shard))
        incoming = open_rows(stack, replace(from_json(plain), input_file=path, output_file=None))
        predict_shards.check_schema(shard, incoming, schema)
        if ROW in incoming.columns:
            raise SourceError(f"{shard.name} has a column {ROW!r}, which --engine ray adds", hint="Rename it.")
        types = types_of(incoming)
        for batch in (batch for some in incoming.batches for batch in some):
            columns = {name: pyarrow.array(values, type=types.get(name)) for name, values in batch.columns.items()}
            numbers = pyarrow.array([_FILE * number + row for row in batch.rows], type=pyarrow.int64())
            yield pyarrow.table({**columns, ROW: numbers})


class Actor:
    """A model on one machine, which labels batches of rows."""

    def __init__(self, plain: dict[str, Any], schema: dict[str, Any]) -> None:
        console.set_verbosity(-1)
        self._schema = schema
        self._request = replace(from_json(plain), text_column=schema["text_column"], prefix=schema["prefix"])
        self._predictor, _, self._below = open_predictor(self._request)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """The table with the added columns."""
        import pyarrow

        column = self._schema["text_column"]
        batch = Batch(table[ROW].to_pylist(), {column: table[column].to_pylist()})
        texts = texts_of(batch, column, source="the input")
        probabilities = self._predictor.compute(self._predictor.prepare(texts))
        added = [f"{self._schema['prefix']}{name}" for name in self._predictor.added_columns]
        added += ["explanation"] if self._request.explain else []
        answers = answers_of(self._request, self._predictor, texts, probabilities, added, self._below)
        for at, (name, values) in enumerate(answers.items()):
            kind = pyarrow.float64() if 0 < at <= len(self._predictor.labels) + 1 else pyarrow.string()
            table = table.append_column(name, pyarrow.array([_text(value) for value in values], type=kind))
        return table


def _text(value: Any) -> Any:
    """An explanation as JSON, as the other formats have it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
