"""``senthy bench``: what this machine does with a config, by kind of work and precision, and what that means for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import paths
from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.commands import estimating
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.errors import SenthyError

if TYPE_CHECKING:
    from sentiment_hybrid.commands.estimating import DryRun, Ground
    from sentiment_hybrid.data.store import Store
    from sentiment_hybrid.engine.bench import Bench, Rate

#: Texts of a split that are tokenised to count their windows; a dry run counts more.
_MOST_COUNTED = 20_000


@dataclass(frozen=True)
class BenchResult:
    """Rates, the machine's limits beside them, and what `train` and `optimize` of this config would take.

    ``matrix_rates`` are FLOP/s by precision, ``copy_rate`` is bytes/s. ``missing`` says why a measurement is not there.
    """

    model: str
    encoder: str
    trainable_layers: int | str
    texts: str
    device: str
    threads: int
    rates: list[Rate]
    matrix_rates: dict[str, float]
    copy_rate: float
    estimates: list[DryRun]
    missing: dict[str, str]
    notes: list[str]
    versions: dict[str, str]
    seconds: float


def run(
    config: Config,
    model: str = "lstm",
    *,
    seconds: float = 3.0,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
) -> BenchResult:
    """Measure encoding, judging, predicting and training at each precision that this machine has; nothing is kept.

    Args:
        config: the whole configuration; texts come from its database, else from the bundled sample.
        model: ``lstm``, ``han`` or ``linear``.
        seconds: of each measurement, about.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never reach a network.
        encoder: where a copy of the encoder lies that the config names.

    Raises:
        SenthyError: the database is damaged, or the encoder or the device cannot be had.
    """
    from sentiment_hybrid.engine import limits
    from sentiment_hybrid.engine.device import resolve
    from sentiment_hybrid.engine.training.runs import versions

    started = time.perf_counter()
    compute = resolve(device, config.model(model).train.precision)
    with estimating.temporary() as folder, _texts(config, folder) as (store, config, notes):
        wanted = estimating.rows_of(config, model, "optimize", store)
        ground = estimating.opened(
            config,
            store,
            wanted,
            device=device,
            offline=offline,
            place=encoder,
            folder=folder,
            seconds=seconds,
            most=_MOST_COUNTED,
        )
        rates, missing, matrix_rates = _measured(ground, model)
        return BenchResult(
            model=paths.DISPLAY_NAMES[model],
            encoder=config.encoder.name,
            trainable_layers=config.encoder.trainable_layers,
            texts=store.source,
            device=compute.device.type,
            threads=int(compute.describe()["threads"]),
            rates=rates,
            matrix_rates=matrix_rates,
            copy_rate=limits.copy_rate(seconds=min(1.0, seconds), device=compute.device),
            estimates=_estimates(ground, model, store, rates, compute.precision),
            missing=missing,
            notes=notes,
            versions=versions(),
            seconds=time.perf_counter() - started,
        )


@contextmanager
def _texts(config: Config, folder: Path) -> Iterator[tuple[Store, Config, list[str]]]:
    """The config's database, else one of the bundled sample in ``folder``, and what to say of that."""
    from sentiment_hybrid.data.store import open_store

    notes = []
    if not config.paths.data_db.exists():
        notes.append(f"there is no {config.paths.data_db} yet: measured and reckoned with the bundled sample's texts")
        plain = {"source": "sample", "train_source": None, "valid_source": None, "test_source": None, "table": None}
        columns = {"text_column": None, "raw_text_column": None, "label_column": None, "label_map": None}
        data = config.data.model_copy(update={**plain, **columns, "normalizer": "tweet", "encoding": "utf-8"})
        place = config.paths.model_copy(update={"data_db": folder / "sample.db"})
        sample = config.model_copy(update={"data": data, "paths": place})
        data_command.run(sample, offline=True)
        config = config.model_copy(update={"paths": place})
    with open_store(config.paths.data_db) as store:
        yield store, config, notes


def _measured(ground: Ground, model: str) -> tuple[list[Rate], dict[str, str], dict[str, float]]:
    """Each kind of work at each precision; predicting may have a precision more."""
    from sentiment_hybrid.console import progress

    bench = ground.bench(model)
    rates, missing = [], {}
    # Training last: it moves the weights, if only by rounding.
    todo = [(work, precision) for work, precisions in _works(bench) for precision in precisions]
    with progress("measuring", total=len(todo), unit="measurements") as bar:
        for work, precision in todo:
            bar.update(description=f"measuring {work} in {precision}")
            try:
                rates.append(getattr(bench, work)(precision))
            except (SenthyError, RuntimeError) as error:
                missing[f"{work} in {precision}"] = str(error).strip().splitlines()[0]
            bar.advance()
        ceilings = {precision: bench.ceiling(precision) for precision in bench.precisions()}
    return rates, missing, {name: rate for name, rate in ceilings.items() if rate}


def _works(bench: Bench) -> list[tuple[str, tuple[str, ...]]]:
    usual = bench.precisions()
    return [
        ("encode", usual),
        ("validate", usual),
        ("predict", bench.predict_precisions()),
        ("train", usual),
    ]


def _estimates(ground: Ground, model: str, store: Store, rates: list[Rate], precision: str) -> list[DryRun]:
    """Of `train` and of `optimize`, from the rates at the config's precision; none where one of them is missing."""
    from sentiment_hybrid.engine.estimate import Speeds

    found = {rate.work: rate.tokens for rate in rates if rate.precision == precision}
    if not {"encode", "validate", "train"} <= found.keys():
        return []
    speeds = Speeds(found["train"], found["validate"], found["encode"], trials=(found["train"],))
    verbs: list[estimating.Verb] = ["train"]
    if ground.config.model(model).hpo.enabled:
        verbs.append("optimize")
    made = []
    for verb in verbs:
        ground.known = frozenset()
        made.append(estimating.estimated(ground, model, verb, store, speeds=speeds))
    return made


def as_document(result: BenchResult) -> dict[str, Any]:
    """The result as JSON-able facts."""
    from dataclasses import asdict

    document = {**asdict(result), "rates": [asdict(rate) for rate in result.rates]}
    return {**document, "estimates": [estimating.as_document(one) for one in result.estimates]}
