"""``--dry-run`` of train, optimize and run-all: counts the work and estimates its time, memory and disk space."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sentiment_hybrid import console, distributed, paths
from sentiment_hybrid.config.schema import JOINT, Config, Hpo, Train
from sentiment_hybrid.data.store import Split, Store, open_store
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.states.shards import stored_keys
from sentiment_hybrid.engine.states.store import window_keys
from sentiment_hybrid.engine.training import prepare
from sentiment_hybrid.engine.training.probe import Probe, Rate
from sentiment_hybrid.engine.training.publish import stays_with_its_name
from sentiment_hybrid.engine.training.teacher import check_teacher
from sentiment_hybrid.files import size_of
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning.space import check_space
from sentiment_hybrid.tuning.study import trials_in_copy
from sentiment_hybrid.tuning.trials import TrialTrainer

Verb = Literal["train", "optimize"]

#: Seconds of each measurement.
SECONDS = 2.0
#: Maximum number of texts per split to tokenise; the rest is extrapolated.
MOST_COUNTED = 500_000
_PROBED = 8192  # texts to measure with
#: While a model trains, three checkpoints (best, last, new) hold its weights and their two moments as float32.
_CHECKPOINT_BYTES = 3 * 3 * 4
_VARIED = ("hidden", "layers", "trainable_layers", "max_length", "batch_size")


@dataclass(frozen=True)
class DryRun:
    """What a command would do with one model (``counts``), and the time and disk space that it would take."""

    verb: Verb
    model: str
    precision: str
    counts: dict[str, int]
    seconds: dict[str, float]
    bytes: dict[str, int]
    notes: list[str]

    @property
    def total_seconds(self) -> float:
        """The estimate."""
        return sum(self.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "total_seconds": self.total_seconds}


def run(
    config: Config, models: Sequence[str], verb: Verb, runtime: Runtime = Runtime(), **options: Any
) -> list[DryRun]:
    """The work and cost of ``train`` or ``optimize`` for each model; only a temporary folder is written.

    A few seconds are spent on each model to measure this machine. ``options`` are those of `Survey`.

    Raises:
        SenthyError: as the command itself for the same config, database and encoder.
        UsageError: started in several processes.
    """
    distributed.refuse("a dry run", hint="Leave out torchrun or accelerate launch for --dry-run.")
    results, encoded = [], set[bytes]()
    with open_store(config.paths.data_db) as store, temporary() as folder:
        for model in dict.fromkeys(models):
            with console.progress(f"counting and measuring {model}", unit="parts"):
                survey = Survey(config, model, verb, store, runtime, **options)
                rates = survey.probe(folder / model, SECONDS).training(survey.compute.precision)
                results.append(survey.estimate(rates, encoded))
    return results


def show(results: Sequence[DryRun]) -> None:
    """Show the estimate of each model, and their sum."""
    for result in results:
        show_estimate(result)
    if len(results) > 1:
        console.say(f"together about {console.duration(sum(one.total_seconds for one in results))}")
    console.say("a dry run: counted and measured on this machine; nothing was changed")


def show_estimate(result: DryRun) -> None:
    """Show the work, and its time and disk space."""
    rows = [[name, f"{count:,}"] for name, count in result.counts.items()]
    rows += [[f"time of {what}", console.duration(seconds)] for what, seconds in result.seconds.items()]
    rows += [["time in all, about", console.duration(result.total_seconds)]]
    rows += [[f"disk for {what}", console.size(count)] for what, count in result.bytes.items()]
    console.table(f"{result.verb} --model {result.model}, {result.precision}", ["", ""], rows)
    for note in result.notes:
        console.say(note)


@contextmanager
def temporary() -> Iterator[Path]:
    """A temporary folder, removed even if a memory map still has one of its files open."""
    with tempfile.TemporaryDirectory(prefix="senthy-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Survey:
    """Counts of the texts that a command would use with one model; the options are those of the command."""

    def __init__(
        self,
        config: Config,
        model: str,
        verb: Verb,
        store: Store,
        runtime: Runtime = Runtime(),
        *,
        seeds: int = 1,
        test: bool = True,
        final: bool = True,
        most: int | None = None,
    ) -> None:
        if verb == "optimize":
            check_space(config, model)
        self.config, self.model, self.verb, self.store = config, model, verb, store
        self.runtime, self.seeds = runtime, seeds
        self.final = verb == "train" or final
        self.test = test and self.final
        check_teacher(config, store.labels)
        self.heads = config.heads(model)
        self.settings, self.hpo = config.training(model), config.model(self.heads[0]).hpo
        self.rows = self._rows()
        self.examples = {split: store.read(split, min(rows, most or MOST_COUNTED)) for split, rows in self.rows.items()}
        self.compute = device.resolve(runtime.device, self.settings.precision)
        from accelerate.utils import set_seed

        set_seed(config.project.seed)
        self.encoder = prepare.load_or_build_encoder(
            config, lambda: self.examples["train"].texts, offline=runtime.offline, place=runtime.encoder
        )
        self.session = prepare.open_session(
            config, model, self.encoder, num_classes=len(store.labels), compute=self.compute
        )
        self.tokenized = {split: self.session.tokenize(one.texts) for split, one in self.examples.items()}

    def probe(self, folder: Path, seconds: float) -> Probe:
        """A measurement with the first training texts; token states go to ``folder``."""
        examples = self.examples["train"].first(_PROBED)
        return Probe(self.config, self.model, self.encoder, examples, self.store.labels, self.compute, seconds, folder)

    def estimate(self, rates: Sequence[Rate], encoded: set[bytes]) -> DryRun:
        """Combine the counts with the rates of `Probe.training`.

        ``encoded`` are keys of windows whose states will already be stored; those of this command are added.
        """
        rate = {one.work: one.tokens for one in rates if one.precision == self.compute.precision}
        counts, missing = self._windows(encoded)
        seconds = {"encoding": missing / rate["encode"]} if missing else {}
        if self.verb == "optimize":
            facts = TrialTrainer(self.config, self.model, self.runtime).facts()
            default = paths.study_db(self.config.paths.results_dir, self.model)
            done = trials_in_copy(self.hpo.storage, self.config, self.model, facts, default=default)
            counts["trials done already"] = done
            runs = max(0, self.hpo.n_trials - done)
            seconds["searching"] = self._training("search", counts, rate, runs, self.hpo, self.hpo.epochs)
        if self.final:
            epochs = self.hpo.epochs if self._with_valid else self.settings.epochs
            seconds["training"] = self._training("training", counts, rate, self.seeds, self.settings, epochs)
        if self.test:
            counts["test rows"] = self.rows["test"]
            seconds["testing"] = (
                len(self.heads) * self.seeds * self._tokens("test", self.rows["test"]) / rate["validate"]
            )
        sizes, notes = self._bytes(missing), self._notes(missing)
        return DryRun(self.verb, self.model, self.compute.precision, counts, seconds, sizes, notes)

    def _rows(self) -> dict[Split, int]:
        """Rows of each split that the command uses: samples are nested, so the largest contains the others."""
        settings, hpo = self.settings, self.hpo
        train = [settings.sample_size or self.store.count("train")] if self.final else []
        valid = [self.store.count("valid", settings.valid_sample_size)] if self.final else []
        if self.verb == "optimize":
            train.append(self.store.count("train", hpo.sample_size))
            valid.append(self.store.count("valid", None if self._with_valid else hpo.valid_sample_size))
        rows: dict[Split, int] = {"train": max(train), "valid": max(valid)}
        return {**rows, "test": self.config.test.sample_size or self.store.count("test")} if self.test else rows

    @property
    def _with_valid(self) -> bool:
        """Whether the final model trains on the validation rows too."""
        return self.verb == "optimize" and self.final and self.hpo.final.include_valid

    def _tokens(self, split: Split, rows: int) -> float:
        lengths = self.tokenized[split].lengths[:rows]
        return float(lengths.sum()) * rows / max(1, len(lengths))

    def _training(
        self, name: str, counts: dict[str, int], rate: dict[str, float], runs: int, sizes: Train | Hpo, epochs: int
    ) -> float:
        """Seconds of this number of runs on samples of these sizes; adds the work to ``counts``."""
        train, valid = self.store.count("train", sizes.sample_size), self.store.count("valid", sizes.valid_sample_size)
        trained: list[tuple[Split, int]] = [("train", train)]
        if self._with_valid and name == "training":
            trained, valid = [*trained, ("valid", self.store.count("valid"))], 0
        rows, tokens = sum(rows for _, rows in trained), sum(self._tokens(*one) for one in trained)
        steps = runs * epochs * -(-rows // (self.settings.batch_size * self.settings.accumulation))
        found = {"runs": runs, "epochs": epochs, "rows": rows, "validation rows": valid, "steps of all runs": steps}
        counts |= {f"{name}: {what}": count for what, count in found.items()}
        return runs * epochs * (tokens / rate["train"] + self._tokens("valid", valid) / rate["validate"])

    def _windows(self, encoded: set[bytes]) -> tuple[dict[str, int], float]:
        """Counts of windows, and of tokens whose states are missing; empty without a state store."""
        import numpy as np

        if self.session.states is None:
            return {}, 0.0
        texts = list(self.tokenized.values())
        keys = np.concatenate([window_keys(one) for one in texts])
        lengths = np.concatenate([one.window_lengths for one in texts])
        distinct, first = np.unique(keys, return_index=True)
        known = stored_keys(self.session.states.folder) | encoded
        missing = [at for at, key in zip(first.tolist(), distinct.tolist(), strict=True) if key not in known]
        encoded.update(distinct.tolist())
        scale = sum(self.rows.values()) / max(1, sum(map(len, texts)))
        counts = {"windows": len(keys), "distinct windows": len(distinct), "windows to encode": len(missing)}
        return {name: round(scale * count) for name, count in counts.items()}, scale * float(lengths[missing].sum())

    def _state_bytes(self, tokens: float) -> int:
        return int(2 * tokens * self.encoder.model.config.hidden_size)  # float16

    def _bytes(self, missing_tokens: float) -> dict[str, int]:
        found = {"token states": self._state_bytes(missing_tokens)} if missing_tokens else {}
        if self.final:
            weights = dict(self.session.classifier.named_parameters())
            in_heads = sum(weight.numel() for name, weight in weights.items() if not name.startswith("encoder."))
            inside = self.runtime.bundle_encoder or not stays_with_its_name(self.config, self.encoder)
            in_encoder = sum(weight.numel() for weight in self.encoder.model.parameters()) if inside else 0
            trained = sum(weight.numel() for weight in weights.values() if weight.requires_grad)
            found["checkpoints, while it trains"] = _CHECKPOINT_BYTES * trained
            found["models" if self.model == JOINT else "model"] = 4 * (in_heads + len(self.heads) * in_encoder)
        return found

    def _notes(self, missing_tokens: float) -> list[str]:
        """What the estimate excludes or assumes."""
        notes = ["not in the estimate: the TF-IDF baseline, figures, and what early stopping or pruning saves"]
        if some := [split for split, one in self.examples.items() if len(one) < self.rows[split]]:
            notes.append(f"counted on the first texts of {' and '.join(some)}; the others are assumed to be like them")
        most, used = self.config.cache.max_gb, size_of(paths.states_dir(self.config.paths.cache))
        if missing_tokens and most is not None and used + self._state_bytes(missing_tokens) > most * 1e9:
            notes.append(
                f"the token states need more than cache.max_gb ({most:g}) leaves: the encoder will run live in every "
                "epoch, which takes much longer; raise it, or see senthy cache"
            )
        if varied := [name for name in _VARIED if self.verb == "optimize" and name in self.hpo.search_space]:
            notes.append(f"the space varies {', '.join(varied)}; estimated with the config's own values")
        further = self.model == JOINT and self.config.joint.further_source is not None
        if self.final and (further or self.config.distill.teacher is not None):
            notes.append(
                "not in the estimate: further texts (joint.further_source, distill.source), and a teacher's predictions"
            )
        return notes
