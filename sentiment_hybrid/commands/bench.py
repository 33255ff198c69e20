"""``senthy bench``: measures the speed of this machine, and estimates the time of train and optimize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentiment_hybrid import console
from sentiment_hybrid.commands import data as data_command
from sentiment_hybrid.commands import dry_run
from sentiment_hybrid.commands.dry_run import DryRun
from sentiment_hybrid.config.schema import Config, Data
from sentiment_hybrid.data.store import Store, open_store
from sentiment_hybrid.engine.device import Compute
from sentiment_hybrid.engine.training.probe import Probe, Rate
from sentiment_hybrid.engine.training.runs import versions
from sentiment_hybrid.errors import SenthyError, first_line
from sentiment_hybrid.heads import display_name, encoder_family
from sentiment_hybrid.models.processor import computes_int8
from sentiment_hybrid.runtime import Runtime

_MOST_COUNTED = 20_000  # texts of a split; a dry run counts more


@dataclass(frozen=True)
class BenchResult:
    """Rates by kind of work and precision, and estimates of ``train`` and ``optimize``.

    ``missing`` gives the reason for each missing measurement.
    """

    model: str
    encoder: str
    texts: str
    device: str
    threads: int
    rates: list[Rate]
    estimates: list[DryRun]
    missing: dict[str, str]
    notes: list[str]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "estimates": [one.as_dict() for one in self.estimates]}


def run(config: Config, model: str = "lstm", runtime: Runtime = Runtime(), *, seconds: float = 3.0) -> BenchResult:
    """Measure encoding, training, validation and prediction at each supported precision; nothing is kept.

    Raises:
        SenthyError: the database is damaged, or the encoder or the device is unavailable.
    """
    with dry_run.temporary() as folder, _texts(config, folder) as (store, config, notes):
        verbs: list[dry_run.Verb] = ["train", "optimize"] if config.model(model).hpo.enabled else ["train"]
        surveys = [dry_run.Survey(config, model, verb, store, runtime, most=_MOST_COUNTED) for verb in verbs]
        compute = surveys[-1].compute
        rates, missing = _measured(surveys[-1].probe(folder, seconds), compute)
        usable = {rate.work for rate in rates if rate.precision == compute.precision} >= {"train", "validate"}
        return BenchResult(
            model=display_name(model, encoder_family(config.encoder.name)),
            encoder=config.encoder.name,
            texts=store.source,
            device=compute.device.type,
            threads=int(compute.describe()["threads"]),
            rates=rates,
            estimates=[one.estimate(rates, set()) for one in surveys] if usable else [],
            missing=missing,
            notes=notes,
            versions=versions(),
        )


@contextmanager
def _texts(config: Config, folder: Path) -> Iterator[tuple[Store, Config, list[str]]]:
    """The configured database, else one of the bundled sample in ``folder``, with a note."""
    notes = []
    if not config.paths.data_db.exists():
        notes.append(f"there is no {config.paths.data_db} yet: measured and estimated with the bundled sample's texts")
        config = config.changed({"paths.data_db": folder / "sample.db"})
        data_command.run(config.changed({"data": Data(source="sample")}), offline=True)
    with open_store(config.paths.data_db) as store:
        yield store, config, notes


def _measured(probe: Probe, compute: Compute) -> tuple[list[Rate], dict[str, str]]:
    """Training and prediction in fp32 and in the config's precision; prediction also in int8, if supported."""
    precisions = list(dict.fromkeys(("fp32", compute.precision)))
    int8 = ["int8"] if compute.device.type == "cpu" and computes_int8() else []
    # Training last, because it changes the weights.
    work = [(f"prediction in {one}", partial(probe.prediction, one)) for one in (*precisions, *int8)]
    work += [(f"training in {one}", partial(probe.training, one)) for one in precisions]
    rates: list[Rate] = []
    missing: dict[str, str] = {}
    with console.progress("measuring", total=len(work), unit="measurements") as bar:
        for what, measure in work:
            bar.update(description=f"measuring {what}")
            try:
                rates += measure()
            except (SenthyError, RuntimeError) as error:
                missing[what] = first_line(error)
            bar.advance()
    return rates, missing


def show(result: BenchResult) -> None:
    """Show rates by kind of work and precision, and the estimates."""
    console.say(f"{result.model}, {result.encoder}, {result.device}, threads: {result.threads}; {result.texts}")
    rows = [[one.work, one.precision, f"{one.tokens:,.0f}", f"{one.texts:,.4g}"] for one in result.rates]
    console.table("Rates", ["work", "precision", "tokens/s", "texts/s"], rows, left=2)
    for what, why in result.missing.items():
        console.warn(f"not measured: {what}: {why}")
    for text in result.notes:
        console.say(text)
    for estimate in result.estimates:
        dry_run.show_estimate(estimate)
