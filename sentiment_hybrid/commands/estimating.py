"""``--dry-run`` of train, optimize and run-all: what there is to do, counted, and how long it will take, measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sentiment_hybrid import paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from sentiment_hybrid.data.store import Split, Store
    from sentiment_hybrid.engine.batches import TokenizedTexts
    from sentiment_hybrid.engine.bench import Bench
    from sentiment_hybrid.engine.estimate import Amount, Estimate, Speeds, Todo, Training
    from sentiment_hybrid.engine.training.session import Session
    from sentiment_hybrid.models.encoder.hub import LoadedEncoder

Verb = Literal["train", "optimize"]

#: Seconds of each of the few measurements of a dry run.
SECONDS = 2.0
#: Texts of a split that are tokenised to count their windows; of what is beyond, the same is expected.
MOST_COUNTED = 500_000
#: Texts that a bench takes to measure with.
MEASURED_TEXTS = 8192


@dataclass(frozen=True)
class DryRun:
    """The estimate of one command for one model; ``seconds`` is what it took to make."""

    verb: Verb
    model: str
    precision: str
    estimate: Estimate
    seconds: float


@dataclass
class Ground:
    """What the estimates of one config stand on: its texts, its encoder, and the speeds measured so far."""

    config: Config
    labels: tuple[str, ...]
    loaded: LoadedEncoder
    device: str
    offline: bool
    place: str | Path | None
    seconds: float
    folder: Path
    most: int
    known: frozenset[bytes] = frozenset()
    _texts: dict[Split, tuple[int, list[str]]] = field(default_factory=dict)
    _labels: dict[Split, list[int]] = field(default_factory=dict)
    _tokenized: dict[tuple[Split, int], TokenizedTexts] = field(default_factory=dict)

    def bench(self, model: str) -> Bench:
        """Measures this config's model on its training texts."""
        import numpy as np

        from sentiment_hybrid.engine.bench import Bench

        texts, labels = self._texts["train"][1], self._labels["train"]
        first = dict(zip(texts[:MEASURED_TEXTS], labels, strict=False))
        return Bench(
            self.config,
            model,
            self.loaded,
            list(first),
            np.array(list(first.values()), dtype=np.int64),
            self.labels,
            self.device,
            self.seconds,
            self.folder / model,
            self.place,
        )

    def read(self, store: Store, wanted: dict[Split, int]) -> None:
        """Take so many rows of each split, or as many as are counted."""
        for split, rows in wanted.items():
            examples = store.read(split, min(rows, self.most))
            self._texts[split] = (rows, examples.texts)
            self._labels[split] = examples.labels.tolist()

    def amount(self, session: Session, split: Split, rows: int) -> Amount:
        """The first so many rows of a split."""
        from sentiment_hybrid.engine.estimate import Amount

        tokens = self._of(session, split).lengths[:rows]
        return Amount(rows, float(tokens.sum()) * rows / max(len(tokens), 1))

    def windows(self, session: Session) -> dict[str, float]:
        """Windows of all rows, the distinct ones, and those that are not stored, as `Todo` names them."""
        from sentiment_hybrid.engine.estimate import survey

        if session.states is None:
            return {}
        texts = [self._of(session, split) for split in self._texts]
        found = survey(session.states.folder, texts, known=self.known)
        self.known |= found.keys
        counted = sum(len(texts) for _, texts in self._texts.values())
        beyond = sum(rows for rows, _ in self._texts.values()) / max(counted, 1)
        return {
            "windows": round(found.windows * beyond),
            "distinct": round(found.distinct * beyond),
            "missing": round(found.missing * beyond),
            "missing_tokens": found.missing_tokens * beyond,
        }

    def notes(self) -> list[str]:
        """What the counts do not know for certain."""
        beyond = [split for split, (rows, texts) in self._texts.items() if rows > len(texts)]
        if not beyond:
            return []
        return [f"counted on the first {self.most:,} texts of {' and '.join(beyond)}, and taken to go on so"]

    def _of(self, session: Session, split: Split) -> TokenizedTexts:
        key = (split, len(self._texts[split][1]))
        if key not in self._tokenized:
            self._tokenized[key] = session.tokenize(self._texts[split][1])
        return self._tokenized[key]


def run(
    config: Config,
    models: Sequence[str],
    verb: Verb,
    *,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
    seeds: int = 1,
    test: bool = True,
    final: bool = True,
) -> list[DryRun]:
    """What ``train`` or ``optimize`` of each model would do and take; nothing but a temporary folder is written.

    A few seconds are spent on each model to know how fast this machine is. The options are those of the commands.

    Raises:
        SenthyError: what the command itself would say of the same config, database and encoder.
        UsageError: started in several processes.
    """
    from sentiment_hybrid import distributed
    from sentiment_hybrid.data.store import open_store

    distributed.refuse("a dry run", hint="Leave out torchrun or accelerate launch for --dry-run.")
    results = []
    with open_store(config.paths.data_db) as store, temporary() as folder:
        ground = None
        for model in dict.fromkeys(models):
            started = time.perf_counter()
            _check(config, model, verb, store, test=test, final=final)
            wanted = rows_of(config, model, verb, store, test=test, final=final)
            ground = opened(
                config,
                store,
                wanted,
                device=device,
                offline=offline,
                place=encoder,
                folder=folder,
                seconds=SECONDS,
                most=MOST_COUNTED,
                before=ground,
            )
            made = estimated(ground, model, verb, store, seeds=seeds, final=final, test=test, bundle=bundle_encoder)
            results.append(replace(made, seconds=time.perf_counter() - started))
    return results


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for what measuring writes; it goes away, even with files that a memory map still holds open."""
    with tempfile.TemporaryDirectory(prefix="senthy-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def opened(
    config: Config,
    store: Store,
    wanted: dict[Split, int],
    *,
    device: str,
    offline: bool,
    place: str | Path | None,
    folder: Path,
    seconds: float,
    most: int,
    before: Ground | None = None,
) -> Ground:
    """Read texts and encoder; ``before`` is the ground of another model, whose encoder and states are shared."""
    from sentiment_hybrid.console import progress
    from sentiment_hybrid.engine.training.session import load_or_build_encoder, set_seeds

    with progress("reading texts and encoder", unit="parts"):
        set_seeds(config.project.seed)
        train = store.read("train", min(wanted["train"], most)).texts
        loaded = before.loaded if before else load_or_build_encoder(config, lambda: train, offline=offline, place=place)
        ground = Ground(config, store.labels, loaded, device, offline, place, seconds, folder, most)
        ground.known = before.known if before else frozenset()
        ground.read(store, wanted)
    return ground


def rows_of(
    config: Config, model: str, verb: Verb, store: Store, *, test: bool = True, final: bool = True
) -> dict[Split, int]:
    """How many rows of each split a command touches: samples are nested, so the largest holds the others."""
    section = config.model(model)
    parts = [section.train] if verb == "train" or final else []
    searched = [section.hpo] if verb == "optimize" else []
    include_valid = verb == "optimize" and final and section.hpo.final.include_valid
    train = [_least(one.sample_size, store.count("train")) for one in (*parts, *searched)]
    valid = [_least(one.valid_sample_size, store.count("valid")) for one in (*parts, *searched)]
    rows: dict[Split, int] = {"train": max(train), "valid": store.count("valid") if include_valid else max(valid)}
    if test and parts:
        rows["test"] = _least(config.test.sample_size, store.count("test"))
    return rows


def estimated(
    ground: Ground,
    model: str,
    verb: Verb,
    store: Store,
    *,
    seeds: int = 1,
    final: bool = True,
    test: bool = True,
    bundle: bool = False,
    speeds: Speeds | None = None,
) -> DryRun:
    """Count, measure (unless the speeds are known), and reckon for one model."""
    from sentiment_hybrid.console import progress
    from sentiment_hybrid.engine.device import resolve
    from sentiment_hybrid.engine.estimate import estimate
    from sentiment_hybrid.engine.training.session import open_session

    config = ground.config
    compute = resolve(ground.device, config.model(model).train.precision)
    session = open_session(
        config,
        model,
        ground.loaded,
        num_classes=len(ground.labels),
        compute=compute,
        cache=paths.cache_dir(config.paths.cache_dir),
    )
    trained = sum(weight.numel() for weight in session.classifier.parameters() if weight.requires_grad)
    with progress(f"counting and measuring {model}", unit="parts"):
        todo = _todo(ground, model, verb, store, session, seeds=seeds, final=final, test=test)
        speeds = speeds or _speeds(ground, model, verb, session, compute.precision)
    head = sum(weight.numel() for weight in session.single.head.parameters())
    inside = bundle or ground.loaded.source not in ("hub", "package") or config.encoder.trainable_layers != 0
    whole = sum(weight.numel() for weight in ground.loaded.model.parameters()) if inside else 0
    made = estimate(
        todo,
        speeds,
        hidden_size=ground.loaded.model.config.hidden_size,
        trained_parameters=trained,
        model_bytes=4 * (head + whole),
        notes=tuple(_notes(ground, model, verb, test=test)),
    )
    made = replace(made, notes=(*made.notes, *_without_room(config, made.bytes.get("token states", 0))))
    return DryRun(verb, model, compute.precision, made, 0.0)


def as_document(result: DryRun) -> dict[str, Any]:
    """An estimate as JSON-able facts."""
    from dataclasses import asdict

    made = result.estimate
    document = {**asdict(result), **asdict(made)}
    del document["estimate"]
    return {**document, "measured_seconds": result.seconds, "total_seconds": made.total_seconds}


def _check(config: Config, model: str, verb: Verb, store: Store, *, test: bool, final: bool) -> None:
    """Say now what the command itself would say before it begins."""
    if verb == "train" or final:
        asked: dict[Split, int | None] = {"train": config.model(model).train.sample_size}
        asked |= {"test": config.test.sample_size} if test else {}
        for split, rows in asked.items():
            if rows is not None and rows > store.count(split):
                store.read(split, rows)  # raises
    if verb == "optimize":
        from sentiment_hybrid.tuning.space import check_space

        if not config.model(model).hpo.enabled:
            raise UsageError(
                f"{model}.hpo.enabled is false: a search of {model} is switched off",
                hint=f"Switch it on with --set {model}.hpo.enabled=true.",
            )
        check_space(config, model)


def _todo(
    ground: Ground, model: str, verb: Verb, store: Store, session: Session, *, seeds: int, final: bool, test: bool
) -> Todo:
    from sentiment_hybrid.engine.estimate import Amount, Todo, Training

    section = ground.config.model(model)
    settings, hpo = section.train, section.hpo
    rows_per_step = settings.batch_size * settings.accumulation

    def training(train: int | None, valid: int | None, epochs: int, runs: int) -> Training:
        rows = _least(train, store.count("train")), _least(valid, store.count("valid"))
        amounts = ground.amount(session, "train", rows[0]), ground.amount(session, "valid", rows[1])
        return Training(*amounts, epochs, rows_per_step, runs)

    trials, done = None, 0
    if verb == "optimize":
        done = trials_done(ground, model)
        runs = max(0, hpo.n_trials - done)
        trials = training(hpo.sample_size, hpo.valid_sample_size, hpo.epochs, runs)
    trainer = None
    if verb == "train" or final:
        trainer = training(settings.sample_size, settings.valid_sample_size, settings.epochs, seeds)
        if verb == "optimize" and hpo.final.include_valid:
            rest = ground.amount(session, "valid", store.count("valid"))
            both = Amount(trainer.train.rows + rest.rows, trainer.train.tokens + rest.tokens)
            trainer = replace(trainer, train=both, valid=Amount(0, 0.0), epochs=hpo.epochs)
    tested = None
    if test and trainer is not None:
        tested = ground.amount(session, "test", _least(ground.config.test.sample_size, store.count("test")))
    return Todo(trainer, trials, done, tested, seeds, **ground.windows(session))  # type: ignore[arg-type]


def trials_done(ground: Ground, model: str) -> int:
    """Trials that the study of this search holds already, if it lies in an SQLite file; a copy of it is read."""
    from sentiment_hybrid.tuning.study import trials_in_copy
    from sentiment_hybrid.tuning.trials import TrialBench

    hpo = ground.config.model(model).hpo
    default = paths.study_db(ground.config.paths.results_dir, model)
    # A scratch encoder's tokenizer is learned on the rows at hand, which are fewer in a trial.
    loaded = None if ground.loaded.source == "scratch" else ground.loaded
    bench = TrialBench(
        ground.config, model, compute=ground.device, offline=ground.offline, encoder=ground.place, loaded=loaded
    )
    return trials_in_copy(hpo.storage, ground.config, model, bench.facts(), default=default)


def _speeds(ground: Ground, model: str, verb: Verb, session: Session, precision: str) -> Speeds:
    from sentiment_hybrid.engine.estimate import Speeds

    bench = ground.bench(model)
    encode = bench.encode(precision).tokens if session.states is not None else 0.0
    validate = bench.validate(precision).tokens
    ends = _ends(ground.config, model) if verb == "optimize" else []
    trials = tuple(bench.train(precision, config=end).tokens for end in ends)
    return Speeds(bench.train(precision).tokens, validate, encode, trials)


def _ends(config: Config, model: str) -> list[Config]:
    """The config with the smallest and with the largest head that the search space has; once where it has one."""
    from sentiment_hybrid.tuning.space import largest, smallest, with_params

    space = config.model(model).hpo.search_space
    sizes = [name for name in space if name in {"hidden", "layers"}]
    ends = []
    for end in (smallest, largest):
        params: dict[str, Any] = {name: int(value) for name in sizes if (value := end(space[name])) is not None}
        try:
            ends.append(with_params(config, model, params))
        except ConfigError:
            ends.append(config)
    return ends if ends[0] != ends[1] else ends[:1]


def _notes(ground: Ground, model: str, verb: Verb, *, test: bool) -> list[str]:
    section = ground.config.model(model)
    notes = ground.notes()
    if test and ground.config.test.baseline:
        notes.append("fitting the TF-IDF baseline and drawing figures are not in it")
    if section.train.patience is not None:
        notes.append("early stopping may end a training sooner")
    if verb == "optimize":
        if section.hpo.pruner != "none":
            notes.append("without what pruning saves")
        varied = [name for name in ("trainable_layers", "max_length", "batch_size") if name in section.hpo.search_space]
        if varied:
            notes.append(f"the space varies {', '.join(varied)}; reckoned with the config's own")
        if section.hpo.storage and not section.hpo.storage.startswith("sqlite"):
            notes.append("the server that keeps the study was not asked: all trials are counted")
    return notes


def _without_room(config: Config, needed: int) -> list[str]:
    """That so many bytes of token states are more than the budget leaves, if so."""
    from sentiment_hybrid.engine.states.shards import size_of

    most = config.cache.max_gb
    used = size_of(paths.states_dir(paths.cache_dir(config.paths.cache_dir)))
    if not needed or most is None or used + needed <= most * 1e9:
        return []
    return [
        f"the token states are more than cache.max_gb ({most:g}) has room for, so the encoder will run live in every "
        "epoch, which takes far longer: raise it, or see senthy cache"
    ]


def _least(wanted: int | None, there: int) -> int:
    return there if wanted is None else min(wanted, there)
