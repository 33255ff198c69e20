"""``senthy optimize``: searches hyperparameters on samples of the data, then trains and tests the best model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment_hybrid import console, distributed, paths, tables
from sentiment_hybrid.commands import test as test_command
from sentiment_hybrid.commands import train as train_command
from sentiment_hybrid.commands.train import TrainResult
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.config.sections import METRICS
from sentiment_hybrid.config.syntax import dump
from sentiment_hybrid.console import Progress, note, progress
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.inference.testing import TestResult, kept_result
from sentiment_hybrid.engine.training.fingerprint import can_resume, is_published
from sentiment_hybrid.errors import OutputError, StudyError, count
from sentiment_hybrid.files import check_writable, replace_text
from sentiment_hybrid.heads import display_name, encoder_family
from sentiment_hybrid.reporting import search_plots
from sentiment_hybrid.reporting.canvas import titled
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime
from sentiment_hybrid.tuning import study as studies
from sentiment_hybrid.tuning.search import Search, StudyStatus
from sentiment_hybrid.tuning.space import check_space, distributions, fragment, with_params
from sentiment_hybrid.tuning.study import Storage, TrialFacts
from sentiment_hybrid.tuning.trials import TrialTrainer, settled
from sentiment_hybrid.tuning.workers import open_runner

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class OptimizeResult:
    """The result of a search, and of the final model.

    Values of trials are scores: those of a loss are negative. ``epochs`` is the number of epochs of a trial that is not
    pruned. ``trained`` is None without a final model, and if it was published before; then there is only ``test``.
    """

    model: str
    study: str
    storage: str
    metric: str
    epochs: int
    trials: list[TrialFacts]
    importances: dict[str, float] | None
    data: str
    source: str
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    trained: TrainResult | None = None
    test: TestResult | None = None

    @property
    def top(self) -> list[TrialFacts]:
        """The ten best trials."""
        return studies.best_of(self.trials)[:10]

    @property
    def best(self) -> TrialFacts:
        """The best trial."""
        return self.top[0]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of trials that are ``finished``, ``pruned`` and ``failed``."""
        states: list[str] = [trial.state for trial in self.trials]
        named = {"finished": "complete", "pruned": "pruned", "failed": "failed"}
        return {name: states.count(state) for name, state in named.items()}


def optimize(
    config: Config,
    model: str = "lstm",
    *,
    final: bool = True,
    device: str = "auto",
    offline: bool = False,
    encoder: str | Path | None = None,
    bundle_encoder: bool = False,
) -> OptimizeResult:
    """Search to ``hpo.n_trials`` trials in all, then train, publish and test a model with the best parameters.

    Running it again continues where it stopped; if the total is reached, only the final model is trained.

    Args:
        config: the whole configuration; its ``data_db`` must have been prepared by ``senthy data``.
        model: ``lstm``, ``han`` or ``linear``.
        final: train the final model.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        offline: never use the network.
        encoder: a local copy of the encoder that the configuration names.
        bundle_encoder: store a frozen hub encoder in the final model's directory, too.

    Raises:
        SenthyError: of the kind that fits; see `sentiment_hybrid.errors`.
    """
    return run(config, model, Runtime(device, offline, encoder, bundle_encoder), final=final)


def run(config: Config, model: str, runtime: Runtime = Runtime(), *, final: bool = True) -> OptimizeResult:
    """As `optimize`."""
    started = time.perf_counter()
    check_space(config, model)
    distributed.refuse(
        "optimize", hint="Start one per machine: --workers N for several GPUs, --storage URL for several machines."
    )
    check_writable(config.paths.models_dir, config.paths.results_dir)
    result = _search(config, model, runtime)
    files = {"best_params": _write_best(config, model, result), **_draw(config, model, result)}
    trained, test = _train_final(config, model, result, runtime) if final else (None, None)
    return replace(result, files=files, trained=trained, test=test, seconds=time.perf_counter() - started)


# --- the search ------------------------------------------------------------------------------------------------------


def _search(config: Config, model: str, runtime: Runtime) -> OptimizeResult:
    """Run the trials that are missing. Raises StudyError if no trial has finished."""
    hpo = config.model(model).hpo
    default = paths.study_db(config.paths.results_dir, model)
    with studies.open_storage(hpo.storage, default=default) as storage:
        trial_trainer = TrialTrainer(config, model, runtime)
        study, replaced = studies.open_study(storage, studies.identity(config, model, trial_trainer.facts()), config)
        for text in (*trial_trainer.notes, *([replaced] if replaced else [])):
            note(text)
        note(f"study {study.study_name} in {storage.shown}")
        _run_trials(study, storage, trial_trainer)
        trials = studies.ended_trials(study)
        if not studies.best_of(trials):
            raise _no_best(study, storage, trials)
        return OptimizeResult(
            model=display_name(model, encoder_family(config.encoder.name)),
            study=study.study_name,
            storage=storage.shown,
            metric=config.model(model).train.metric,
            epochs=hpo.epochs,
            trials=trials,
            importances=studies.importances(study),
            data=trial_trainer.fingerprint,
            source=trial_trainer.source,
        )


def _no_best(study: optuna.Study, storage: Storage, trials: Sequence[TrialFacts]) -> StudyError:
    failed = [trial for trial in trials if trial.failure]
    why = f"; the last one failed: {failed[-1].failure.strip().splitlines()[-1]}" if failed else ""
    pruned = sum(trial.state == "pruned" for trial in trials)
    return StudyError(
        f"no trial of the study {study.study_name} has finished "
        f"({pruned} were pruned, {len(trials) - pruned} failed){why}",
        hint=f"The study is kept in {storage.shown}: run the command again with a longer --timeout or more "
        "--n-trials, or fix the cause.",
    )


def _run_trials(study: optuna.Study, storage: Storage, trial_trainer: TrialTrainer) -> None:
    settings = trial_trainer.config.model(trial_trainer.model)
    hpo, metric = settings.hpo, settings.train.metric
    runner = open_runner(trial_trainer, hpo.workers)

    def show(status: StudyStatus) -> None:
        best = None if status.best is None else console.metric_value(metric, figure(status.best, metric))
        facts: dict[str, Any] = {
            f"best {console.metric_name(metric)}": best,
            "pruned": status.pruned,
            "failed": status.failed,
        }
        bar.update(completed=status.finished + status.pruned, **facts)

    with closing(runner), progress("searching", hpo.n_trials, unit="trials") as bar, ExitStack() as stack:
        search = Search(
            study,
            storage,
            runner,
            space=distributions(hpo.search_space),
            n_trials=hpo.n_trials,
            epochs=hpo.epochs,
            timeout=hpo.timeout,
            note=note,
            show=show,
            show_trials=_TrialBars(stack, bar, hpo.epochs).show,
        )
        if search.missing() > 0:
            trial_trainer.prepare(_encoding)
        try:
            with settled():
                search.run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the study {study.study_name} is kept in {storage.shown}; "
                "run the same command to continue"
            ) from None


@contextmanager
def _encoding(split: str) -> Iterator[Callable[..., object]]:
    with progress(f"encoding {split}", unit="windows") as bar:
        yield bar.advance


class _TrialBars:
    """The epochs of running trials: a bar for each below that of the search; without a terminal, part of its line."""

    def __init__(self, stack: ExitStack, search: Progress, epochs: int) -> None:
        self._search, self._epochs = search, epochs
        self._bars: dict[int, tuple[ExitStack, Progress]] = {}
        stack.callback(self.show, {})

    def show(self, running: Mapping[int, float]) -> None:
        """Show these trials, and how many epochs each has done."""
        if not self._search.is_bar:
            each = [f"{number} in epoch {min(int(done) + 1, self._epochs)}" for number, done in running.items()]
            self._search.update(trial=f"{', '.join(each)} of {self._epochs}" if each else None)
            return
        for number in self._bars.keys() - running.keys():
            self._bars.pop(number)[0].close()
        for number, done in running.items():
            if number not in self._bars:
                stack = ExitStack()
                self._bars[number] = (
                    stack,
                    stack.enter_context(progress(f"trial {number}", self._epochs, unit="epochs")),
                )
            self._bars[number][1].update(completed=done)


def figure(value: float, metric: str) -> float:
    """A selection_score as the metric itself."""
    return value if METRICS[metric] else -value


# --- files -----------------------------------------------------------------------------------------------------------


def _write_best(config: Config, model: str, found: OptimizeResult) -> Path:
    """Write the best parameters as a part of a configuration, to be merged into any other."""
    best = found.best
    assert best.value is not None
    path = paths.best_params(config.paths.results_dir, model)
    of = console.metric_values({found.metric: figure(best.value, found.metric)})
    lines = [
        f"# The best parameters of the study {found.study!r} in {found.storage}:",
        f"# trial {best.number}, validation {of} in epoch {best.best_epoch}.",
        "# A part of a configuration; all other settings stay as they are.",
    ]
    replace_text(path, "\n".join(lines) + "\n" + dump(fragment(model, best.params)))
    return path


def _draw(config: Config, model: str, found: OptimizeResult) -> dict[str, Path]:
    section = config.model(model)
    metric, rows = section.train.metric, section.hpo.sample_size

    def title(shows: str) -> str:
        return titled(
            f"{display_name(model, encoder_family(config.encoder.name))}: {shows}",
            data=found.source,
            rows="all training texts" if rows is None else f"at most {count(rows, 'training text')}",
            encoder=config.encoder.name,
        )

    return search_plots.draw(
        config.paths.results_dir,
        f"{model}_roberta_search",
        [_plotted(trial) for trial in found.trials],
        found.importances,
        metric=f"{'' if METRICS[metric] else 'negative '}validation {console.metric_name(metric)}",
        space={name: entry.model_dump() for name, entry in section.hpo.search_space.items()},
        suffix=config.project.figure_format,
        title=title,
    )


def _plotted(trial: TrialFacts) -> Mapping[str, Any]:
    """A trial as the figures need it: a pruned one has the value of its completed epochs."""
    value = max(trial.epochs, default=None) if trial.state == "pruned" else trial.value
    facts = {"number": trial.number, "state": trial.state, "value": value}
    return {**facts, "params": trial.params, "epochs": trial.epochs}


# --- the final model -------------------------------------------------------------------------------------------------


def _train_final(
    config: Config, model: str, found: OptimizeResult, runtime: Runtime
) -> tuple[TrainResult | None, TestResult | None]:
    """Train with the best parameters, or resume that; if the model is already published, only return its test."""
    config, purpose = final_training(config, model, found)
    include_valid = purpose.include_valid
    if (warning := shorter_than_the_best(config, model, found.best)) and not include_valid:
        note(warning)
    resume = can_resume(config, model, found.data, include_valid=include_valid)
    if not resume and _is_done(config, model, found.data, purpose, bundle=runtime.bundle_encoder):
        note("the final model with these parameters has already been published")
        directory = paths.published_model(config.paths.models_dir, model)
        kept = kept_result(config, directory, read_info(directory))
        return None, kept or test_command.run(config, model, runtime)
    trained = train_command.run(config, model, replace(runtime, resume=resume), purpose=purpose)
    return trained, trained.test


def final_training(config: Config, model: str, found: OptimizeResult) -> tuple[Config, train_command.Purpose]:
    """The configuration of the final model, and the facts about the search for its entry in the results file."""
    best = found.best
    config = with_params(config, model, best.params)
    hpo = config.model(model).hpo
    include_valid = hpo.final.include_valid
    if include_valid:
        # No validation rows are left for early stopping, so it trains for as many epochs as the best trial needed.
        config = config.changed({f"{model}.train.epochs": best.best_epoch, f"{model}.train.patience": None})
    facts = {
        "study": found.study,
        "storage": found.storage,
        "trials": found.counts,
        "best_trial": best.number,
        "best_value": best.value,
        "best_params": best.params,
    }
    return config, train_command.Purpose(
        "Optimize", include_valid=include_valid, searched=hpo.valid_sample_size, facts=facts
    )


def shorter_than_the_best(config: Config, model: str, best: TrialFacts) -> str:
    """A note if the final training is shorter than the best epoch of the best trial, else empty.

    Its learning-rate schedule ends earlier, too, so it may not reach the score of the search.
    """
    epochs = config.model(model).train.epochs
    if best.best_epoch is None or epochs >= best.best_epoch:
        return ""
    return (
        f"the final model trains for {epochs} epochs, but the best trial reached its score in epoch {best.best_epoch}: "
        f"consider --final-epochs {best.best_epoch} or more"
    )


def _is_done(
    config: Config, model: str, data_fingerprint: str, purpose: train_command.Purpose, *, bundle: bool
) -> bool:
    """Whether the published model is the final one, and has an entry in the results file."""
    if not is_published(config, model, data_fingerprint, include_valid=purpose.include_valid, bundle=bundle):
        return False
    info = read_info(paths.published_model(config.paths.models_dir, model))
    name = f"{info.display_name}_{purpose.name}"
    try:
        entries = read_results(paths.results_json(config.paths.results_dir))
    except OutputError:
        return False
    return any(entry.get("name") == name and entry.get("run") == info.run_id for entry in entries)


def show(result: OptimizeResult) -> None:
    """Show a search and its final model."""
    show_search(result)
    if result.trained is not None:
        tables.training(result.trained)
    elif result.test is not None:
        tables.test(result.test)


def show_search(result: OptimizeResult) -> None:
    """Show the trials of a search: counts, savings by pruning, best trials, importances, and files."""
    console.say(f"study {result.study} in {result.storage}")
    trained = sum(len(trial.epochs) for trial in result.trials if trial.state != "failed")
    saved = sum(result.epochs - len(trial.epochs) for trial in result.trials if trial.state == "pruned")
    console.say(
        "{finished:,} trials finished, {pruned:,} pruned, {failed:,} failed; ".format(**result.counts)
        + f"{trained:,} epochs trained, {saved:,} saved by pruning"
    )
    sign = 1 if METRICS[result.metric] else -1
    names = list(result.best.params)
    rows = [
        [
            trial.number,
            console.metric_value(result.metric, sign * trial.value),
            trial.best_epoch,
            *(f"{value:.4g}" if isinstance(value := trial.params[name], float) else value for name in names),
        ]
        for trial in result.top
        if trial.value is not None
    ]
    columns = ["trial", f"valid {console.metric_name(result.metric)}", "epoch", *names]
    if not console.fits(columns, rows):  # then one column per trial, for as many of the best ones as fit
        shown = [*zip(columns, *rows, strict=True)]
        while len(shown[0]) > 2 and not console.fits(shown[0], shown[1:]):
            shown = [line[:-1] for line in shown]
        columns, rows = list(shown[0]), [list(line) for line in shown[1:]]
    console.table("Best trials", columns, rows)
    if result.importances:
        ordered = sorted(result.importances.items(), key=lambda item: -item[1])
        rows = [[name, f"{100 * value:.1f} %"] for name, value in ordered]
        console.table("Hyperparameter importance", ["hyperparameter", "importance"], rows)
    else:
        console.say("hyperparameter importance is unknown: too few trials, or results that are too similar")
    tables.files(result.files)
