"""The storage of a search and its lock, the study and its identity, and the results of trials."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from sentiment_hybrid.config.schema import Config, Hpo
from sentiment_hybrid.errors import OutputError, StudyError
from sentiment_hybrid.files import digest_of
from sentiment_hybrid.redaction import redact
from sentiment_hybrid.tuning.sampler import ENDED, OPTIONS, OWNER, RETRY_OF, SURPLUS, Hyperband, SeededSampler

#: Seconds between two heartbeats of a running trial, on a server, and without one until it counts as dead.
HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 180
MOST_RETRIES = 3

#: Further user attributes of a trial.
ATTEMPT, FAILURE, BEST_EPOCH, SECONDS, CHECKSUM = "attempt", "failure", "best_epoch", "seconds", "checksum"
#: A value of ENDED: a trial whose process was interrupted. Like SURPLUS, it does not count as a failure.
INTERRUPTED = "interrupted"
#: The value of FAILURE of a trial whose process was killed.
KILLED = "its process was killed"

_CONNECT_SECONDS = 10
_LOCKED_SECONDS = 60
_TABLES = {"studies", "trials", "trial_params"}
_EXAMPLES = "Examples: sqlite:///results/study.db, postgresql+psycopg://user:password@host/database."
_DRIVERS = {"postgresql": 'Install it in the checkout: pip install ".[postgres]". Then write postgresql+psycopg://...'}
_DRIVER = "Install it with pip; the documentation of SQLAlchemy lists the drivers for each database."
#: Settings of `train` that trials ignore, or that do not change results.
_NOT_OF_TRIALS = {"epochs", "sample_size", "valid_sample_size", "patience", "checkpoint_minutes", "token_budget"}


# --- storage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Storage:
    """An open storage; ``exclusive`` if no other process can use it now; ``shown`` is its URL without the password."""

    optuna: RDBStorage
    shown: str
    exclusive: bool


@contextmanager
def open_storage(url: str | None, *, default: Path) -> Iterator[Storage]:
    """Connect to a storage; an SQLite file is locked while the block runs.

    Args:
        url: an Optuna storage URL; None means the SQLite file ``default``.

    Raises:
        StudyError: invalid URL, missing driver, unreachable, locked by another process, or not an Optuna storage.
        OutputError: the SQLite file cannot be written.
    """
    place = _parsed(url, default)
    shown = redact(place.render_as_string(hide_password=False))
    # Log messages of Optuna go through our own handlers.
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _locked(place) if _is_sqlite(place) else nullcontext(), storage_errors(shown):
        storage = _connected(place, shown)
        try:
            if _is_sqlite(place):
                _check_content(storage, shown)
            yield Storage(storage, shown, _is_sqlite(place))
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _parsed(url: str | None, default: Path) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(default))
    try:
        place = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        # Before an @ there may be a password.
        shown = "the storage" if "@" in url else f"the storage {redact(url)!r}"
        raise StudyError(f"{shown} is not a valid URL", hint=_EXAMPLES) from error
    if "@" in (place.host or ""):
        raise StudyError(
            f"the password in the storage {redact(url)} contains an @", hint="Write %40 for it, or use PGPASSWORD."
        )
    if place.drivername in {"postgres", "postgresql"}:
        place = place.set(drivername="postgresql+psycopg")
    if _is_sqlite(place) and place.host:
        raise StudyError(
            f"{redact(url)} names a host, {place.host}, but an SQLite file has none",
            hint=f"Use three slashes for a relative path: sqlite:///{place.host}/{place.database or ''}.",
        )
    if _is_sqlite(place) and place.database in {None, "", ":memory:"}:
        raise StudyError("an SQLite storage needs a file, because a database in memory is lost", hint=_EXAMPLES)
    return place


def _is_sqlite(place: URL) -> bool:
    return place.get_backend_name() == "sqlite"


@contextmanager
def _locked(place: URL) -> Iterator[None]:
    """Lock an SQLite file; the system releases the lock of a killed process."""
    path = Path(str(place.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_file(path)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StudyError(
            f"another process is using the storage {path}",
            hint="Wait for it; or use one process with --workers N; or share a server between processes: --storage "
            "postgresql+psycopg://user@host/database.",
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot use the storage {path}: {error.strerror or error}",
            hint="Choose another location: --storage sqlite:///FILE, or --set paths.results_dir=DIR.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_file(path: Path) -> None:
    """Refuse other databases, because Optuna would add its tables to any file. Raises StudyError."""
    if not path.is_file():
        return
    address = _existing(path)
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_LOCKED_SECONDS)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path} is not an Optuna storage: {error}", hint="Choose another file, or move this one away."
        ) from error
    if tables and not tables >= _TABLES:
        raise StudyError(
            f"{path} is not an Optuna storage: it is a database with other tables",
            hint="Choose another file, or move this one away.",
        )


def _check_content(storage: RDBStorage, shown: str) -> None:
    """Read everything once, because Optuna does not catch the errors that damaged values cause. Raises StudyError."""
    try:
        for study in storage.get_all_studies():
            for trial in storage.get_all_trials(study._study_id, deepcopy=False):
                if trial.state == TrialState.COMPLETE and trial.values is None:
                    raise ValueError(f"trial {trial.number} has ended without a value")
                _check_checksum(trial)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StudyError(
            f"the storage {shown} is damaged: {error}",
            hint="Restore it, or choose another file, or move this one away.",
        ) from error


def checksum(params: Mapping[str, Any], scores: Sequence[float]) -> int:
    """crc32 of the parameters of a trial and of its score after each epoch."""
    return zlib.crc32(json.dumps([dict(params), list(scores)], sort_keys=True).encode())


def _check_checksum(trial: FrozenTrial) -> None:
    """Raises ValueError if parameters or scores are not those that were stored; earlier versions stored no checksum."""
    scores = [value for _, value in sorted(trial.intermediate_values.items())]
    if CHECKSUM not in trial.user_attrs:
        return
    good = trial.user_attrs[CHECKSUM] == checksum(trial.params, scores)
    if not good or (trial.state == TrialState.COMPLETE and trial.value != max(scores)):
        raise ValueError(f"the checksum of trial {trial.number} is wrong")


def _existing(path: Path) -> str:
    """The URI of an SQLite file; not read-only, because SQLite may have to roll back a killed process's transaction."""
    return f"{path.resolve().as_uri()}?mode=rw"


def _connected(place: URL, shown: str) -> RDBStorage:
    options: dict[str, Any] = {}
    if _is_sqlite(place):
        engine: dict[str, Any] = {"connect_args": {"timeout": _LOCKED_SECONDS}}
    else:
        # Reconnect after a restart of the server.
        engine = {"pool_pre_ping": True}
        if place.get_backend_name() in {"postgresql", "mysql"}:
            engine["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
        options = {
            "heartbeat_interval": HEARTBEAT_SECONDS,
            "grace_period": GRACE_SECONDS,
            "heartbeat_stale_trial_callback": lambda study, trial: requeue(study, trial),
        }
    url = place.render_as_string(hide_password=False)
    for attempt in range(5):
        try:
            with quiet():
                return RDBStorage(url, engine_kwargs=engine, **options)
        except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError):
            # Another machine is creating the tables right now.
            if attempt == 4:
                raise
            time.sleep(random.uniform(0.1, 0.5))
        except sqlalchemy.exc.NoSuchModuleError as error:
            raise StudyError(f"unknown kind of storage: {place.drivername}", hint=_EXAMPLES) from error
        except ImportError as error:
            raise StudyError(
                f"the driver of {place.drivername} is not installed",
                hint=_DRIVERS.get(place.get_backend_name(), _DRIVER),
            ) from error
        except RuntimeError as error:
            raise StudyError(
                f"{shown} was made by a version of Optuna other than {optuna.__version__}",
                hint="Use another storage, or upgrade this one: optuna storage upgrade --storage URL.",
            ) from error
    raise AssertionError("not reached")


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Turn errors of the storage into StudyErrors without its password."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause: BaseException = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        said = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        # Without the driver's error as the cause, if its text contains the password.
        raise StudyError(
            f"the storage {shown} cannot be used: {redact(said[0]) if said else type(cause).__name__}",
            hint="Nothing is lost: run the same command again once the storage can be reached and written.",
        ) from (error if redact(str(error)) == str(error) else None)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's warnings about experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- study -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyIdentity:
    """Everything that affects a trial's value except its parameters; equal identities share a study."""

    model: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of model and facts."""
        return digest_of([self.model, self.facts])


def identity(config: Config, model: str, data_facts: Mapping[str, Any]) -> StudyIdentity:
    """The identity of a search; the number of trials, workers, sampler and pruner may change."""
    section = config.model(model)
    hpo: Hpo = section.hpo
    tuned = set(hpo.search_space)
    facts = {
        "format": 1,
        **data_facts,
        "space": hpo.model_dump(mode="json")["search_space"],
        "epochs": hpo.epochs,
        "metric": section.train.metric,
        "seed": config.project.seed,
        "head": section.head.model_dump(mode="json", exclude=tuned),
        "train": section.train.model_dump(mode="json", exclude=tuned | _NOT_OF_TRIALS),
        "windows": config.encoder.model_dump(
            mode="json", include={"trainable_layers", "max_length", "max_windows"}, exclude=tuned
        ),
    }
    return StudyIdentity(model, facts)


def open_study(storage: Storage, wanted: StudyIdentity, config: Config) -> tuple[optuna.Study, str]:
    """The study with this identity, created if necessary, and a note for the user, or an empty string.

    The note says that it replaces another study, or that its sampler has changed.

    Raises:
        StudyError: ``hpo.study_name`` names a study with another identity.
    """
    hpo = config.model(wanted.model).hpo
    name = hpo.study_name or f"{_prefix(config.project.name, wanted.model)}{wanted.fingerprint[:12]}"
    known = {
        study.study_name: study for study in optuna.get_all_study_summaries(storage.optuna, include_best_trial=False)
    }
    if hpo.study_name and name in known:
        _check_same(known[name], wanted, storage)
    with quiet():
        study = optuna.create_study(
            storage=storage.optuna,
            study_name=name,
            direction="maximize",
            sampler=SeededSampler(hpo.sampler, config.project.seed),
            pruner=pruner_of(hpo),
            load_if_exists=True,
        )
    if "fingerprint" not in study.user_attrs:
        study.set_user_attr("model", wanted.model)
        study.set_user_attr("facts", dict(wanted.facts))
        study.set_user_attr("fingerprint", wanted.fingerprint)
    if name not in known:
        study.set_user_attr("sampler", _drawn_by(hpo.sampler))
        return study, _replacement_note(name, wanted, list(known.values()))
    return study, _sampler_note(study, _drawn_by(hpo.sampler))


def _drawn_by(sampler: str) -> dict[str, Any]:
    """What determines the parameters of a trial, besides the seed and earlier results."""
    return {"name": sampler, "options": OPTIONS[sampler], "optuna": optuna.__version__}


def _sampler_note(study: optuna.Study, now: dict[str, Any]) -> str:
    """A note if earlier trials were drawn by another sampler, with other options or by another version of Optuna."""
    before = study.user_attrs.get("sampler")
    if before == now:
        return ""
    study.set_user_attr("sampler", now)
    if not study.get_trials(deepcopy=False):
        return ""
    was = "an earlier version of senthy" if before is None else _in_words(before)
    return f"earlier trials were drawn by {was}, further ones by {_in_words(now)}: not as in an uninterrupted search"


def _in_words(sampler: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in sampler["options"].items())
    return f"{sampler['name']}{f' ({options})' if options else ''} of Optuna {sampler['optuna']}"


def trials_in_copy(url: str | None, config: Config, model: str, data_facts: Mapping[str, Any], *, default: Path) -> int:
    """Number of finished or pruned trials in the SQLite file of a search; 0 without a file, or for a server.

    Raises:
        StudyError: as the search would.
    """
    place = _parsed(url, default)
    path = Path(str(place.database))
    if not _is_sqlite(place) or not path.is_file():
        return 0
    with _copied(path) as storage:
        study, _ = open_study(storage, identity(config, model, data_facts), config)
        return sum(trial.state in {"complete", "pruned"} for trial in ended_trials(study))


def studies_in(
    url: str | None, *, default: Path, chosen: Callable[[str, str], bool]
) -> dict[str, tuple[list[TrialFacts], dict[str, float]]]:
    """Ended trials and importances of studies that other processes may be using; none where there is no SQLite file.

    Raises:
        StudyError: it is no Optuna storage, damaged, or out of reach.
    """
    place = _parsed(url, default)
    path = Path(str(place.database))
    if _is_sqlite(place) and not path.is_file():
        return {}
    with _copied(path) if _is_sqlite(place) else open_storage(url, default=default) as storage:
        summaries = optuna.get_all_study_summaries(storage.optuna, include_best_trial=False)
        names = [one.study_name for one in summaries if chosen(one.study_name, str(one.user_attrs.get("model", "")))]
        studies = {name: optuna.load_study(study_name=name, storage=storage.optuna) for name in names}
        trials = {name: ended_trials(study) for name, study in studies.items()}
        return {
            name: (trials[name], (importances(study) or {}) if best_of(trials[name]) else {})
            for name, study in studies.items()
        }


def is_of_project(name: str, model: str, config: Config, head: str) -> bool:
    """Whether a study is of a head in this project: on a server, there may be those of others."""
    own = config.model(head).hpo.study_name
    return model == head and (name == own if own else name.startswith(_prefix(config.project.name, head)))


@contextmanager
def _copied(path: Path) -> Iterator[Storage]:
    """A copy of an SQLite storage, so that not even a lock file is created beside it."""
    _check_file(path)
    with tempfile.TemporaryDirectory(prefix="senthy-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        address = _existing(path)
        with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        with open_storage(None, default=copy) as storage:
            yield storage


def _prefix(project: str, model: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', project)[:40]}-{model}-"


def _check_same(found: Any, wanted: StudyIdentity, storage: Storage) -> None:
    attributes = found.user_attrs
    if attributes.get("fingerprint") == wanted.fingerprint or (not attributes and not found.n_trials):
        return
    why = _difference(attributes, wanted)
    raise StudyError(
        f"the study {found.study_name} in {storage.shown} belongs to another search: {why}",
        hint="Omit --study-name, or choose another name for this search.",
    )


def _replacement_note(name: str, wanted: StudyIdentity, others: Sequence[Any]) -> str:
    """The note if a storage has studies of this model, but not this one."""
    older = [one for one in others if one.user_attrs.get("model") == wanted.model]
    if not older:
        return ""
    last = older[-1]
    return (
        f"{_difference(last.user_attrs, wanted)}: starting a new study {name} (the old one, {last.study_name}, is kept)"
    )


_WORDS = {
    "data": "the data changed",
    "space": "the search space changed",
    "encoder": "the encoder changed",
    "tokenizer": "the tokenizer changed",
    "train_rows": "the number of training texts changed",
    "valid_rows": "the number of validation texts changed",
    "epochs": "the epochs of a trial changed",
    "metric": "the metric changed",
    "seed": "the seed changed",
}


def _difference(attributes: Mapping[str, Any], wanted: StudyIdentity) -> str:
    if attributes.get("model") not in {None, wanted.model}:
        return f"it searches {attributes['model']}, not {wanted.model}"
    before = attributes.get("facts")
    if before is None:
        return "it was not made by senthy"
    mine = json.loads(json.dumps(wanted.facts))
    changed = [words for key, words in _WORDS.items() if before.get(key) != mine.get(key)]
    return ", ".join(changed) or "fixed settings changed"


def pruner_of(hpo: Hpo) -> optuna.pruners.BasePruner:
    """The configured pruner, set up for the number of trials and epochs."""
    if hpo.pruner == "median":
        # Chosen by replaying 2 x 20 recorded trials (benchmarks/search.py): pruning earlier, or after every epoch, also
        # stops trials that improve late, among them the best one.
        return optuna.pruners.MedianPruner(
            n_startup_trials=max(2, min(5, hpo.n_trials // 10)),
            n_warmup_steps=max(2, hpo.epochs // 3),
            interval_steps=2 if hpo.epochs >= 6 else 1,
        )
    if hpo.pruner == "hyperband":
        return Hyperband(min_resource=1, max_resource=hpo.epochs, reduction_factor=3, bootstrap_count=0)
    return optuna.pruners.NopPruner()


def requeue(study: optuna.Study, trial: FrozenTrial, *, counts: bool = True) -> bool:
    """Queue a failed trial's parameters again; False if no retries are left.

    An interrupted trial does not count as an attempt (``counts=False``).
    """
    attempt = int(trial.user_attrs.get(ATTEMPT, 1))
    if counts and attempt > MOST_RETRIES:
        return False
    fixed = trial.system_attrs.get("fixed_params", {})
    if fixed or OWNER in trial.user_attrs:  # otherwise it may lack parameters, and new ones are drawn
        params = {**fixed, **trial.params}
        first = trial.user_attrs.get(RETRY_OF, trial.number)
        study.enqueue_trial(params, user_attrs={ATTEMPT: attempt + counts, RETRY_OF: first})
    return True


def lost_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Killed or interrupted trials that were not queued again, because their process was killed before it did so."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    stopped = [
        trial
        for trial in failed
        if trial.user_attrs.get(FAILURE) == KILLED or trial.user_attrs.get(ENDED) == INTERRUPTED
    ]
    retries: dict[int, int] = {}
    for trial in study.get_trials(deepcopy=False):
        if RETRY_OF in trial.user_attrs:
            retries[trial.user_attrs[RETRY_OF]] = trial.number
    return [one for one in stopped if retries.get(one.user_attrs.get(RETRY_OF, one.number), -1) < one.number]


def ask(study: optuna.Study, space: Mapping[str, Any]) -> optuna.Trial:
    """A new trial with sampled parameters, or the next one of the queue."""
    with quiet():
        return study.ask(dict(space))


# --- results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialFacts:
    """A trial that has ended; ``value`` is the best selection_score, ``epochs`` has the score of each epoch."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    params: dict[str, Any]
    epochs: list[float]
    best_epoch: int | None
    seconds: float
    failure: str


_STATES: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def ended_trials(study: optuna.Study) -> list[TrialFacts]:
    """All finished, pruned or failed trials, by number, without the cancelled ones."""
    ended = study.get_trials(deepcopy=False, states=tuple(_STATES))
    return [_facts(trial) for trial in ended if not is_cancelled(trial)]


def is_cancelled(trial: FrozenTrial) -> bool:
    """Whether a trial was surplus or interrupted: its state is FAIL, but it did not fail."""
    return trial.user_attrs.get(ENDED) in {SURPLUS, INTERRUPTED}


def _facts(trial: FrozenTrial) -> TrialFacts:
    return TrialFacts(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=dict(trial.params),
        epochs=[value for _, value in sorted(trial.intermediate_values.items())],
        best_epoch=trial.user_attrs.get(BEST_EPOCH),
        seconds=float(trial.user_attrs.get(SECONDS, 0.0)),
        failure=str(trial.user_attrs.get(FAILURE, "")),
    )


def best_of(trials: Sequence[TrialFacts]) -> list[TrialFacts]:
    """The finished trials, best first; ties are broken by number."""
    finished = [trial for trial in trials if trial.value is not None]
    return sorted(finished, key=lambda trial: (-(trial.value or 0.0), trial.number))


def importances(study: optuna.Study) -> dict[str, float] | None:
    """Importance of each hyperparameter (PED-ANOVA, Watanabe et al. 2023), summing to 1; None for too few trials."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [name for name in study.best_params if len({trial.params.get(name) for trial in finished}) > 1]
    if len(finished) < 4 or len({trial.value for trial in finished}) < 2 or not varied:
        return None
    with quiet():
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return {name: float(value) for name, value in found.items()}
