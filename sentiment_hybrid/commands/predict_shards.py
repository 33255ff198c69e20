"""`senthy predict` of many files: each is labelled as a whole and skipped once it is done, by one process or several.

Processes and machines share nothing but the output folder: `_senthy/job.json` says which job it is of, and
`_senthy/shards/NAME.json` that a file is done. A file that cannot be read is left out, the others go on, and the
command fails at the end; an output that cannot be written stops the command, because it would stop the others too.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import __version__, console, errors
from sentiment_hybrid.commands.predict import PredictResult, Request, check_threshold, open_predictor
from sentiment_hybrid.commands.predict_rows import READING, Incoming, columns_of, label_rows, open_rows, schema_of
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data import shards as files
from sentiment_hybrid.data.remote import Shard, is_inside, located
from sentiment_hybrid.data.shards import Folder
from sentiment_hybrid.data.sources import several
from sentiment_hybrid.data.sources.several import Shards
from sentiment_hybrid.errors import ColumnError, DataError, OutputError, SenthyError, ShardError, UsageError, count
from sentiment_hybrid.files import sha256
from sentiment_hybrid.processes import Helpers, Parent
from sentiment_hybrid.redaction import redact

if TYPE_CHECKING:
    from sentiment_hybrid.engine.inference.predictor import Predictor

JOB, MANIFEST = f"{files.OWN}/job.json", f"{files.OWN}/manifest.json"
_FORMAT = 1
#: Times that one file may end a worker; then it is taken for the cause.
_DEATHS = 2
#: Deaths in a row, per worker, after which it is no file's fault.
_DEATHS_IN_ALL = 3
#: What is counted per file and in all.
_COUNTS = ("rows", "empty", "truncated", "skipped")


def run(request: Request) -> PredictResult:
    """Label every file of a folder, a pattern or a URL that is not done, or only every Nth; or check that all are done.

    Raises:
        ShardError: some files could not be read; the others are done.
        SourceError: there are no files, or none can be read.
        OutputError: the folder is of another job or holds other files, cannot be written, or is not complete.
    """
    started = time.perf_counter()
    found, folder = find_files(request)
    if request.finish:
        manifest = _manifest(found, folder, request)
        return _result(request, manifest, [], started)
    mine = [shard for at, shard in enumerate(found.shards) if at % request.shard[1] == request.shard[0] - 1]
    todo = [shard for shard in mine if _record(folder, shard) is None]
    if len(todo) < len(mine):
        console.note(f"{count(len(mine) - len(todo), 'file')} of {len(mine):,} done before")
    labelled, failed = _label_all(request, found, folder, todo)
    if failed:
        raise ShardError(
            f"{count(len(failed), 'file')} of {len(mine):,} could not be labelled; the others are done",
            problems=tuple(failed[:20]),
            hint="Mend or remove them; the same command labels only what is not done.",
        )
    job = folder.read(JOB) or {}
    if request.shard[1] == 1:
        _manifest(found, folder, request)
    return _result(request, job, labelled, started)


def find_files(request: Request) -> tuple[Shards, Folder]:
    """The files, and the folder of their outputs. Raises UsageError, SourceError, OutputError."""
    if request.texts:
        raise UsageError("both texts and --input were given", hint="Use only one of them.")
    if request.input_file is None or request.output_file is None:
        raise UsageError("several files need an --output folder", hint="Add --output FOLDER.")
    check_threshold(request)
    if request.finish and request.shard[1] > 1:
        raise UsageError("--finish checks all files, and --shard only some", hint="Leave out --shard.")
    if request.review is not None or request.as_json:
        raise UsageError("--review and --json are for one file", hint="Leave them out, or give one file as --input.")
    found = several.find_shards(request.input_file, any_suffix=request.file_format is not None)
    if found.ignored and not request.finish:
        console.note(f"{count(len(found.ignored), 'file')} of unknown format ignored, such as {found.ignored[0]}")
    if request.file_format is None:
        several.check_one_kind(found)
    folder = files.open_folder(request.output_file)
    _check_apart(request.input_file, request.output_file, found)
    names = [files.output_name(one, request.file_format) for one in found.shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two files would both become {twice}", hint="Rename one of them.")
    return found, folder


def _check_apart(given: Path | str, output: Path | str, found: Shards) -> None:
    """Refuse an output folder whose files are, or would be, among the input. Raises UsageError."""
    source, target = located(given), located(output)
    elsewhere = "Choose an output folder elsewhere."
    if inside := [one.place for one in found.shards if is_inside(located(one.place), target)]:
        raise UsageError(f"--input includes files of --output, such as {inside[0]}", hint=elsewhere)
    is_folder = source == located(found.root)
    if is_folder and is_inside(target, source) and not several.is_hidden(target[len(source) :]):
        raise UsageError(
            f"--output {output} is inside the folder --input, which is read with all below it", hint=elsewhere
        )


def _result(request: Request, job: dict[str, Any], records: Sequence[dict[str, Any]], started: float) -> PredictResult:
    every = job.get("shards", records)
    counts = {name: sum(record[name] for record in every) for name in _COUNTS}
    model = job.get("model", {})
    return PredictResult(
        Path(model.get("directory", "")), tuple(model.get("labels", ())), **counts,
        seconds=time.perf_counter() - started, output=request.output_file, files=len(every), checked=request.finish,
    )  # fmt: skip


# --- what is done ----------------------------------------------------------------------------------------------------


def _record_name(shard: Shard) -> str:
    return f"{files.OWN}/shards/{shard.name}.json"


def _record(folder: Folder, shard: Shard) -> dict[str, Any] | None:
    """What was written of a file; None if it is not done, has changed since, or its output is gone."""
    record = folder.read(_record_name(shard))
    if record is None or record.get("input") != shard.stamp:
        return None
    return record if folder.size(record["output"]) == record["bytes"] else None


def _manifest(found: Shards, folder: Folder, request: Request) -> dict[str, Any]:
    """Write what the folder holds, with counts and checksums. Raises OutputError unless it holds each file once."""
    job = folder.read(JOB)
    if job is None:
        raise OutputError(f"{request.output_file} is no output of predict", hint="Label the files first.")
    if job["input"] != redact(found.root):
        raise OutputError(f"{request.output_file} was made from {job['input']}, not from {redact(found.root)}")
    records = {shard.name: _record(folder, shard) for shard in found.shards}
    missing = [name for name, record in records.items() if record is None]
    if missing:
        raise ShardError(
            f"{count(len(missing), 'file')} of {len(records):,} {'is' if len(missing) == 1 else 'are'} not labelled",
            problems=tuple(missing[:20]),
            hint="The same command without --finish labels what is missing.",
        )
    done = [{"name": name, **record} for name, record in records.items() if record is not None]
    outputs = {record["output"] for record in done}
    others = [name for name in folder.names() if name not in outputs and not name.startswith(f"{files.OWN}/")]
    if others:
        raise ShardError(
            f"{request.output_file} also holds {count(len(others), 'file')} without a file in the input",
            problems=tuple(others[:20]),
            hint="Remove them, or give the --input that they were made from.",
        )
    totals = {name: sum(record[name] for record in done) for name in (*_COUNTS, "bytes")}
    manifest = {**job, "files": len(done), **totals, "shards": done}
    folder.write(MANIFEST, manifest)
    return manifest


# --- one process -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labeller:
    """A model and what all outputs of the job have in common."""

    request: Request
    folder: Folder
    predictor: Predictor
    abstain_below: float | None
    schema: dict[str, Any]
    directory: Path

    def label(self, shard: Shard, advance: Callable[[int], object]) -> dict[str, Any]:
        """Label a file unless it is done, and record it; returns the record.

        Raises DataError if it cannot be read, and OutputError if its output cannot be written.
        """
        with self.folder.held(_record_name(shard)):
            record = _record(self.folder, shard)
            if record is None:
                self.folder.remove(MANIFEST)  # of an earlier run: it no longer describes the folder
                record = self._labelled(shard, advance)
                self.folder.write(_record_name(shard), record)
        return record

    def _labelled(self, shard: Shard, advance: Callable[[int], object]) -> dict[str, Any]:
        output = files.output_name(shard, self.request.file_format)
        self.predictor.empty = self.predictor.truncated = 0
        with several.fetched(shard) as source, self.folder.new(output) as target:
            request = replace(
                self.request, input_file=source, output_file=target, text_column=self.schema["text_column"],
                prefix=self.schema["prefix"], resume=True, part=True,
            )  # fmt: skip
            with contextlib.ExitStack() as stack, console.hushed():
                incoming = open_rows(stack, request)
                check_schema(shard, incoming, self.schema)
                rows, skipped = label_rows(
                    stack, request, self.predictor, incoming, self.abstain_below, advance=advance
                )
            counts = {"rows": rows, "empty": self.predictor.empty, "truncated": self.predictor.truncated}
            facts = {"bytes": target.stat().st_size, "sha256": sha256(target)}
        return {"input": shard.stamp, "output": output, **counts, "skipped": skipped, **facts}


def check_schema(shard: Shard, incoming: Incoming, schema: dict[str, Any]) -> None:
    """Refuse columns or types that are not those of the job. Raises ColumnError."""
    own = columns_of(incoming)
    for what in ("columns", "types"):
        if own[what] != schema[what]:
            raise ColumnError(
                f"{shard.name} has {_difference(own[what], schema[what])}",
                hint="The outputs of one job have one schema: label files of another one by themselves.",
            )


def _difference(own: Any, common: Any) -> str:
    """In what the columns of a file differ from those of the first one."""
    other = [f"{name!r}" for name in own if name not in common]
    lacking = [f"{name!r}" for name in common if name not in own]
    if other or lacking:
        said = [f"{prefix} {', '.join(names)}" for prefix, names in (("", other), ("not", lacking)) if names]
        return f"other columns than the first file: {'; '.join(said).strip()}"
    if isinstance(own, dict):
        name = next(name for name in own if own[name] != common[name])
        return f"{own[name]} in column {name!r}, where the first file has {common[name]}"
    return "the columns of the first file in another order"


def open_labeller(request: Request, found: Shards, folder: Folder) -> Labeller:
    """Load the model, and start the job of the folder or join it. Raises OutputError if it is of another one."""
    predictor, directory, below = open_predictor(request)
    identity = predictor.identity
    how = identity["compute"][0]
    if isinstance(how, dict):  # threads change no prediction, and machines may have different numbers of them
        identity["compute"][0] = {key: value for key, value in how.items() if key != "threads"}
    options = request.data.model_dump(mode="json", include={*READING})
    options |= {"safe_csv": request.safe_csv, "explain": request.explain, "abstain_below": below}
    options |= {"format": request.file_format, "text_column": request.text_column, "prefix": request.prefix}
    options["engine"] = request.engine
    facts = {"senthy": __version__, "input": redact(found.root), "model": identity, "options": options}
    with folder.held(JOB):
        job = folder.read(JOB)
        if job is None:
            if others := [name for name in folder.names() if name != JOB]:
                raise OutputError(
                    f"{request.output_file} holds other files, such as {others[0]}",
                    hint="Choose a new or empty folder.",
                )
            schema = _first_schema(request, found, predictor)
            job = {"format": _FORMAT, **facts, "schema": schema}
            job["model"] = {**identity, "directory": str(directory)}
            folder.write(JOB, job)
    _check_same(request, job, facts)
    return Labeller(request, folder, predictor, below, job["schema"], directory)


def _check_same(request: Request, job: dict[str, Any], facts: dict[str, Any]) -> None:
    """Refuse a folder of another job, naming what differs."""
    if job.get("format") != _FORMAT:
        raise OutputError(
            f"{request.output_file} was written by another version of senthy", hint="Choose a new folder."
        )
    changed = []
    for name in ("model", "options"):
        changed += [key for key, value in facts[name].items() if job[name].get(key) != value]
    changed += [name for name in ("senthy", "input") if job[name] != facts[name]]
    if changed:
        key = changed[0]
        own, its = ({**one, **one["model"], **one["options"]}[key] for one in (facts, job))
        detail = f": {key} is {own!r}, there {its!r}" if len(str(own)) + len(str(its)) < 120 else f": its {key} differ"
        raise OutputError(
            f"{request.output_file} is the output of another job{detail}",
            hint=f"Choose another folder, or what {JOB} in it says.",
        )


def _first_schema(request: Request, found: Shards, predictor: Predictor) -> dict[str, Any]:
    """The schema of the first file that can be read, which all others must have. Raises SourceError if none can."""
    failure: DataError | None = None
    for shard in found.shards:
        try:
            with several.fetched(shard) as source, contextlib.ExitStack() as stack:
                incoming = open_rows(stack, replace(request, input_file=source))
                if incoming.columns:
                    return schema_of(request, predictor, incoming)
        except DataError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return {"columns": [], "types": {}, "text_column": request.text_column, "prefix": request.prefix or ""}


# --- several processes -----------------------------------------------------------------------------------------------


def _label_all(
    request: Request, found: Shards, folder: Folder, todo: Sequence[Shard]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Label files; returns the records of those that are done, and what is wrong with the others."""
    labelled: list[dict[str, Any]] = []
    failed: list[str] = []
    workers = min(request.workers or 1, len(todo))
    if workers > 1:
        from sentiment_hybrid.engine.inference.opening import find_model

        # Workers are silent, so it is said here which model is theirs; that there is none, too, before they start.
        find_model(request.config.paths.models_dir, request.model_dir, request.head, onnx=request.backend == "onnx")
    try:
        with console.progress("predicting", unit="texts") as bar:
            outcomes = (
                _in_helpers(request, found, todo, workers, bar.advance)
                if workers > 1
                else _here(request, found, folder, todo, bar.advance)
            )
            for outcome in outcomes:
                if isinstance(outcome, str):
                    console.warn(outcome)
                    failed.append(outcome)
                else:
                    labelled.append(outcome)
                bar.advance(0, files=f"{len(labelled):,} of {len(todo):,}")
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"interrupted; {count(len(labelled), 'file')} labelled, and the same command continues there"
        ) from stop
    return labelled, failed


#: The record of a file, or what is wrong with it.
_Outcome = dict[str, Any] | str


def _here(
    request: Request, found: Shards, folder: Folder, todo: Sequence[Shard], advance: Callable[[int], object]
) -> Iterator[_Outcome]:
    labeller = open_labeller(request, found, folder)
    for shard in todo:
        try:
            yield labeller.label(shard, advance)
        except DataError as error:
            yield _failure_message(shard.name, error)


def _failure_message(name: str, error: SenthyError) -> str:
    message = error.message if name in error.message else f"{name}: {error.message}"
    return f"{message} ({error.hint})" if error.hint else message


def _in_helpers(
    request: Request, found: Shards, todo: Sequence[Shard], workers: int, advance: Callable[[int], object]
) -> Iterator[_Outcome]:
    """Label files in several processes; a file whose worker dies is tried once more.

    After an error that is not one of a single file, no further ones are begun, and it is raised once all have ended.
    """
    setup = {"request": as_json(request), "root": found.root, "shards": [asdict(one) for one in found.shards]}
    helpers = Helpers(f"{__name__}:serve", workers, setup)
    waiting = deque(todo)
    running: dict[int, Shard] = {}
    deaths: dict[str, int] = {}
    in_a_row = 0
    failure: SenthyError | None = None
    with contextlib.closing(helpers):
        while running or (waiting and failure is None):
            for slot in helpers.idle() if failure is None else ():
                if waiting:
                    running[slot] = waiting.popleft()
                    helpers.give(slot, {"shard": asdict(running[slot]), "slot": slot})
            if (event := helpers.next(1.0)) is None:
                continue
            if event.message is not None and "rows" in event.message:
                advance(event.message["rows"])
                continue
            shard = running.pop(event.slot)
            helpers.release(event.slot)
            if event.message is None:
                deaths[shard.name] = deaths.get(shard.name, 0) + 1
                in_a_row += 1
                if in_a_row >= _DEATHS_IN_ALL * workers:
                    failure = ShardError(f"worker after worker has died: {event.died}", hint="Use fewer --workers.")
                if deaths[shard.name] < _DEATHS:
                    console.warn(f"{shard.name}: {event.died}; it is tried once more")
                    waiting.appendleft(shard)
                else:
                    yield f"{shard.name}: {event.died}, twice"
            elif "record" in event.message:
                in_a_row = 0
                yield event.message["record"]
            elif event.message["data"]:
                yield event.message["message"]
            else:
                kind = getattr(errors, event.message["kind"])
                failure = failure or kind(event.message["message"], hint=event.message["hint"])
    if failure is not None:
        raise failure


def as_json(request: Request) -> dict[str, Any]:
    """A request as JSON."""
    values = {one.name: getattr(request, one.name) for one in fields(request)}
    values["config"] = request.config.model_dump(mode="json")
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def from_json(plain: dict[str, Any]) -> Request:
    """A request from JSON."""
    paths = {name: Path(plain[name]) for name in ("model_dir", "encoder") if plain[name] is not None}
    shard = (plain["shard"][0], plain["shard"][1])
    return Request(**{**plain, **paths, "config": Config.model_validate(plain["config"]), "shard": shard})


def serve() -> None:
    """Label the files requested on standard input, until it ends."""
    parent = Parent()
    console.set_verbosity(-1)
    setup = parent.hear()
    request = from_json(setup["request"])
    found = Shards(setup["root"], [Shard(**one) for one in setup["shards"]])
    labeller: Labeller | None = None
    while True:
        task = parent.hear()
        shard, starting = Shard(**task["shard"]), labeller is None
        try:
            if labeller is None:
                own = replace(request, device=_device(request.device, task["slot"]))
                labeller = open_labeller(own, found, files.open_folder(str(request.output_file)))
            starting = False
            parent.answer({"record": labeller.label(shard, lambda rows: parent.answer({"rows": rows}))})
        except SenthyError as error:
            data = isinstance(error, DataError) and not starting
            message = _failure_message(shard.name, error) if data else error.message
            parent.answer({"data": data, "kind": type(error).__name__, "message": message, "hint": error.hint})


def _device(wanted: str, slot: int) -> str:
    """The device of a worker: with several GPUs, they take turns."""
    if wanted not in ("auto", "cuda"):
        return wanted
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{slot % gpus}" if gpus > 1 else wanted
