"""The folder of one training run: its resolved configuration, metadata, metrics and checkpoints.

Of several processes that train together, only the main one writes it; the others receive its values.
"""

from __future__ import annotations

import itertools
import json
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from yaml import YAMLError

from sentiment_hybrid import distributed, paths
from sentiment_hybrid.config.load import load_config, to_yaml
from sentiment_hybrid.config.schema import JOINT, MODEL_NAMES, Config
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.config.syntax import parse
from sentiment_hybrid.engine.training.checkpoints import RunCheckpoints, check_present, load_trainable
from sentiment_hybrid.errors import ConfigError, SenthyError, TrainingError, UsageError
from sentiment_hybrid.files import atomic_file, read_json, replace_text, write_json, written
from sentiment_hybrid.runtime import Runtime

#: Valid names of models; a run's folder starts with it.
_NAME = re.compile(r"[\w-][\w.-]{0,60}|")
#: Settings that a resumed run may change, because they do not affect results.
FREE_TO_CHANGE = frozenset({"checkpoint_minutes", "token_budget"})
#: The lowest token budget that a configuration may have; a single long text may exceed it.
_LEAST_BUDGET = 64
#: The number of changed settings that a message lists.
_SHOWN = 5


@dataclass(frozen=True)
class Run:
    """A run's folder and its files."""

    folder: Path

    @classmethod
    @distributed.on_main
    def start(cls, config: Config, model: str, fingerprint: str, *, name: str = "", **facts: Any) -> Run:
        """Create a folder with the resolved configuration, and metadata that include ``facts``."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a model", hint="Use letters, digits, hyphens, dots, underscores.")
        run_id = f"{name or model}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        run = cls(paths.runs_dir(config.paths.results_dir) / run_id)
        run.folder.mkdir(parents=True)
        (run.folder / paths.RUN_CONFIG).write_text(to_yaml(config.to_keep()), encoding="utf-8")
        run.note(
            model=model,
            name=name,
            seed=config.project.seed,
            started=now(),
            train_fingerprint=fingerprint,
            versions=versions(),
            **facts,
        )
        return run

    @classmethod
    @distributed.on_main
    def unfinished(cls, config: Config, model: str, fingerprint: str) -> Run:
        """The unfinished run of this model with the same settings and data.

        Of several, the newest one with a checkpoint, or the newest.

        Raises:
            TrainingError: there is none.
        """
        folder = paths.runs_dir(config.paths.results_dir)
        metas = {run: run.meta() for run in map(cls, folder.glob("[!.]*"))}
        runs = [run for run, meta in metas.items() if meta.get("model") == model and "finished" not in meta]
        runs.sort(key=lambda run: ("last" in run.checkpoints.pointers(), metas[run]["started"], run.id))
        for run in reversed(runs):
            if metas[run]["train_fingerprint"] == fingerprint:
                return run
        if runs:
            raise runs[-1]._of_other_settings(config, model)
        raise TrainingError(f"there is no unfinished {model} run in {folder}", hint="Omit --resume to start a new run.")

    @classmethod
    @contextmanager
    def opened(cls, config: Config, model: str, fingerprint: str, runtime: Runtime, **facts: Any) -> Iterator[Run]:
        """A new run, or with ``--resume`` the unfinished one, locked by this process within the block.

        A new run that fails before its first checkpoint leaves no folder behind. Raises TrainingError.
        """
        if runtime.resume:
            run = cls.unfinished(config, model, fingerprint)
        else:
            run = cls.start(config, model, fingerprint, name=runtime.name, **facts)
        try:
            with run.locked():
                yield run
        except SenthyError:
            if not runtime.resume:
                run.drop_if_empty()
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run; the system releases the lock of a killed process.

        Raises:
            TrainingError: another process is training it.
        """
        lock = FileLock(self.folder / paths.RUN_LOCK)
        distributed.from_main(self._take, lock)
        try:
            yield
        finally:
            lock.release()

    def _take(self, lock: FileLock) -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise TrainingError(
                f"the run {self.id} is being trained by another process", hint="Wait for it, or start a new run."
            ) from error

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def checkpoints(self) -> RunCheckpoints:
        """Its checkpoints."""
        return RunCheckpoints(self.folder / paths.CHECKPOINTS_DIR)

    def stopped_at_once(self) -> str:
        """The message if a training is stopped in the middle of a step."""
        if "last" not in self.checkpoints.pointers():
            return "stopped at once, before any state was saved"
        return f"stopped at once; the last saved state is in {self.folder}; add --resume to continue"

    def config(self) -> Config:
        """The configuration that it was started with."""
        return load_config(self.folder / paths.RUN_CONFIG)

    def settings(self) -> dict[str, Any]:
        """The same as plain values, whatever version wrote them; empty if they are gone or damaged."""
        try:
            found = parse((self.folder / paths.RUN_CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError, YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def resumed_config(self, config: Config, *sections: str) -> Config:
        """Its configuration with these sections of ``config``, which do not affect the trained model."""
        return distributed.from_main(self.config).changed({name: getattr(config, name) for name in sections})

    def keep_token_budget(self, token_budget: int) -> None:
        """Write this budget to the run's configuration, for when it is resumed."""
        config, model = self.config(), self.meta()["model"].partition("-")[0]  # a fine-tuning adds to its head's name
        section = f"{model}.train" if model in (*MODEL_NAMES, JOINT) else model
        changed = config.changed({f"{section}.token_budget": max(token_budget, _LEAST_BUDGET)})
        replace_text(self.folder / paths.RUN_CONFIG, to_yaml(changed))

    def meta(self) -> dict[str, Any]:
        """The content of meta.json; empty if there is none yet."""
        # Any other failure must not pass for an empty file: `note` would replace what is there.
        with suppress(FileNotFoundError, NotADirectoryError, ValueError):
            return read_json(self.folder / paths.RUN_META)
        return {}

    def note(self, **facts: Any) -> None:
        """Add facts to meta.json."""
        with atomic_file(self.folder / paths.RUN_META) as aside:
            write_json(aside, {**self.meta(), **facts})

    @distributed.on_main
    def settle(self, compute: Mapping[str, Any], *, encoder: str) -> None:
        """Record device, precision and threads of the first start, and the fingerprint of the encoder.

        Raises:
            TrainingError: the encoder has changed since the first start.
        """
        before = self.meta()
        if before.get("encoder_fingerprint", encoder) != encoder:
            raise TrainingError(
                f"the encoder is not the one that the run {self.id} was started with",
                hint="Restore the original encoder (pin encoder.revision), or start a new run.",
            )
        self.note(compute=before.get("compute", dict(compute)), encoder_fingerprint=encoder)

    def texts(self) -> dict[str, str]:
        """Its small files, name -> text: what `restore` needs."""
        places = [self.folder / name for name in (paths.RUN_CONFIG, paths.RUN_META, paths.RUN_METRICS)]
        return {place.name: place.read_text(encoding="utf-8") for place in places if place.is_file()}

    def restore(self, texts: Mapping[str, str]) -> None:
        """Write the folder again after it was deleted; its checkpoints are lost. Raises OutputError."""
        with written(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (self.folder / name).write_text(text, encoding="utf-8")

    def append_epoch(self, facts: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl. Raises OutputError if the folder was deleted."""
        check_present(self.folder)
        with (self.folder / paths.RUN_METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one per epoch, in order."""
        path = self.folder / paths.RUN_METRICS
        if not path.is_file():
            return []
        epochs: dict[int, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                facts = json.loads(line)
            except ValueError:
                continue  # truncated by a kill; the epoch is trained and written again
            if isinstance(facts, dict) and isinstance(facts.get("epoch"), int):
                epochs[facts["epoch"]] = facts
        return [epochs[epoch] for epoch in sorted(epochs)]

    def best_epoch(self) -> tuple[dict[str, Any], dict[str, float]]:
        """The record of the best epoch, and its validation metrics; none without validation."""
        best = [epoch for epoch in self.epochs() if epoch["is_best"]][-1]
        return best, {name: value for name in METRICS if (value := best.get(f"valid_{name}")) is not None}

    def load_best(self, model: torch.nn.Module) -> None:
        """Load the weights of the best epoch into the model. Raises ModelError or TrainingError."""
        load_trainable(model, self.checkpoints.load("best").part("model."))

    def keep_epochs_before(self, epoch: int) -> None:
        """Remove the lines of epochs that will be trained again, because a kill prevented their checkpoint."""
        kept = [json.dumps(facts) + "\n" for facts in self.epochs() if facts["epoch"] < epoch]
        replace_text(self.folder / paths.RUN_METRICS, "".join(kept))

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished, after its model has been published, and remove its checkpoints."""
        if not distributed.is_main():
            return
        self.note(finished=now(), **facts)
        # Last, because an unfinished run needs them to resume.
        self.checkpoints.remove()

    def drop_if_empty(self) -> None:
        """Remove the folder of a run that failed before its first checkpoint."""
        if distributed.is_main() and not self.checkpoints.pointers() and not self.epochs():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _of_other_settings(self, config: Config, model: str) -> TrainingError:
        """The error if this run cannot be resumed with ``config``: it lists the settings that differ."""
        changed = self._changed_settings(config, model)
        if not changed:
            return TrainingError(
                f"the unfinished run {self.id} was started with other settings or other data",
                hint=f"Compare {self.folder / paths.RUN_CONFIG} with yours, prepare the same data again, or start "
                "a new run without --resume.",
            )
        shown = [f"{key} was {before} and is {now}" for key, (before, now) in changed.items()]
        more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        back = " ".join(f"--set {key}={before}" for key, (before, _) in itertools.islice(changed.items(), _SHOWN))
        return TrainingError(
            f"the unfinished run {self.id} was started with other settings: {'; '.join(shown[:_SHOWN])}{more}",
            hint=f"Continue with {back}, or start a new run without --resume. All settings of the run: "
            f"{self.folder / paths.RUN_CONFIG}",
        )

    def _changed_settings(self, config: Config, model: str) -> dict[str, tuple[str, str]]:
        """Dotted key -> (value at the start, value now) of settings that affect the trained model."""
        try:
            before, now = flat(self.config().model_dump(mode="json")), flat(config.model_dump(mode="json"))
        except ConfigError:
            return {}  # written by another version of senthy
        own = {
            JOINT: ("distill.", *(f"{head}.head." for head in config.heads(model)), f"{model}.", f"{model}.train."),
            **{name: ("distill.", f"{name}.head.", f"{name}.train.") for name in MODEL_NAMES},
        }.get(model, (f"{model}.",))
        sections = ("project.seed", "data.", "encoder.", *own)
        free = {f"{own[-1]}{name}" for name in (*FREE_TO_CHANGE, "output_dir")}
        keys = [key for key in now.keys() | before.keys() if key.startswith(sections) and key not in free]
        shown = {key: (json.dumps(before.get(key)), json.dumps(now.get(key))) for key in sorted(keys)}
        return {key: values for key, values in shown.items() if values[0] != values[1]}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def versions() -> dict[str, str]:
    """Versions of the libraries that affect results, for meta.json and model.json."""
    names = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scikit-learn")
    return {
        "senthy": version("sentiment-hybrid"),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def now() -> str:
    """The local time with its offset, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
