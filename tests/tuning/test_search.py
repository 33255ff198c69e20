"""A search holds exactly its total, goes on, survives crashes, prunes, and shares a study with others."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from sentiment_hybrid.errors import ConfigError, StudyError, TrainingError
from sentiment_hybrid.tuning import search as search_module
from sentiment_hybrid.tuning import study as studies
from sentiment_hybrid.tuning.trials import Outcome

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
SAMPLERS = ["tpe", "random", "gp", "qmc", "nsgaii"]


def states(result):
    return [trial.state for trial in result.trials]


def other_study(path, shared_storage):
    """The study as another process would have it."""
    return optuna.load_study(study_name="s", storage=shared_storage(path).__enter__().optuna)


# --- the total -------------------------------------------------------------------------------------------------------


def test_the_total_is_exact_and_a_larger_one_goes_on(searching):
    assert states(searching(3)) == [COMPLETE] * 3
    assert states(searching(3)) == [COMPLETE] * 3, "nothing is added to a total that is reached"
    assert states(searching(5)) == [COMPLETE] * 5


def test_a_trials_value_is_its_best_epoch(searching):
    def falling(params):
        yield from (0.5, 0.9, 0.7)

    (trial,) = searching(1, epochs=falling).trials
    assert trial.value == 0.9
    assert trial.user_attrs["best_epoch"] == 2
    assert trial.intermediate_values == {1: 0.5, 2: 0.9, 3: 0.7}


def test_the_epochs_inside_a_trial_are_shown(searching):
    shown = []

    def steps(params):
        yield from (Outcome("step", 0.5), 0.5, Outcome("step", 1.25), 0.7, 0.6)

    searching(2, epochs=steps, show_trials=shown.append)
    one_trial = [0.0, 0.5, 1, 1.25, 2, 3]
    assert shown == [*({0: done} for done in one_trial), {}, *({1: done} for done in one_trial), {}]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_goes_on_draws_what_one_in_one_piece_draws(searching, sampler):
    total = 11 if sampler in {"tpe", "gp"} else 4  # one beyond their random start
    whole = [trial.params["x"] for trial in searching(total, sampler=sampler, file="whole.db").trials]
    searching(total - 1, sampler=sampler, file="parts.db")
    parts = [trial.params["x"] for trial in searching(total, sampler=sampler, file="parts.db").trials]
    assert parts == pytest.approx(whole)
    assert len(set(whole[:10])) == len(whole[:10]), "no draw is repeated"


def test_after_the_timeout_no_trial_starts(searching):
    times = iter(range(100))
    result = searching(10, timeout=4, clock=lambda: float(next(times)))
    assert 0 < len(result.trials) < 10
    assert set(states(result)) == {COMPLETE}


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_crash_is_failed_with_its_traceback_and_never_scored_and_retried(searching):
    left = [2]

    def fails_twice(params):
        yield 0.9
        if left[0]:
            left[0] -= 1
            raise MemoryError("out of memory")
        yield 0.95

    result = searching(2, epochs=fails_twice)
    assert states(result) == [FAIL, FAIL, COMPLETE, COMPLETE]
    for trial in result.trials[:2]:
        assert trial.value is None
        assert "MemoryError: out of memory" in trial.user_attrs["failure"]
        assert "Traceback" in trial.user_attrs["failure"]
    assert result.trials[0].params == result.trials[1].params == result.trials[2].params
    assert result.trials[3].params != result.trials[2].params
    assert (result.status.finished, result.status.failed) == (2, 2)
    assert any("queued again" in note for note in result.notes)


def test_parameters_that_crash_are_retried_three_times_and_then_given_up(searching):
    first = []

    def crash_for_the_first(params):
        first.append(params["x"])
        if params["x"] == first[0]:
            raise RuntimeError("always")
        yield 0.5

    result = searching(2, epochs=crash_for_the_first)
    assert states(result) == [FAIL] * 4 + [COMPLETE] * 2
    assert len({trial.params["x"] for trial in result.trials[:4]}) == 1


def test_where_everything_crashes_the_search_stops_says_why_and_keeps_the_study(searching):
    def crash(params):
        raise RuntimeError("no such device")
        yield

    with pytest.raises(StudyError, match="no such device"):
        searching(5, epochs=crash)
    result = searching(2)
    assert states(result) == [FAIL] * 12 + [COMPLETE] * 2


@pytest.mark.parametrize("error", [ConfigError("heads must divide"), TrainingError("the loss became nan")])
def test_what_is_the_parameters_own_fault_is_failed_at_once_and_not_retried(searching, error):
    def unusable(params):
        if params["x"] < 0.5:
            raise error
        yield params["x"]

    result = searching(4, epochs=unusable, sampler="random")
    assert states(result).count(COMPLETE) == 4
    failed = [trial for trial in result.trials if trial.state == FAIL]
    assert failed
    assert len({trial.params["x"] for trial in result.trials}) == len(result.trials)
    assert all(trial.user_attrs["failure"] == error.message for trial in failed)


def test_a_space_without_usable_parameters_ends(searching, monkeypatch):
    def unusable(params):
        raise ConfigError("never usable")
        yield

    monkeypatch.setattr(search_module, "MAX_UNUSABLE", 4)
    with pytest.raises(StudyError, match="never usable"):
        searching(5, epochs=unusable)


def test_what_a_killed_process_left_is_failed_and_queued_again(searching, tmp_path, shared_storage):
    searching(1)
    left = other_study(tmp_path / "study.db", shared_storage)
    trial = left.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
    trial.set_user_attr("owner", "there:1")
    trial.report(0.9, 1)
    result = searching(3)
    assert states(result) == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert result.trials[2].params == trial.params
    assert result.trials[2].user_attrs["attempt"] == 2
    assert result.trials[1].value is None
    assert any("killed" in note for note in result.notes)


def test_parameters_whose_process_is_killed_each_time_are_given_up_too(searching, tmp_path, shared_storage):
    searching(1)
    for _ in range(4):
        other = other_study(tmp_path / "study.db", shared_storage)
        killed = other.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
        killed.set_user_attr("owner", "there:1")
        searching(1)  # the total is reached: only looks after what was left
    result = searching(3)
    assert result.trials[-1].params != killed.params
    assert states(result) == [COMPLETE] + [FAIL] * 4 + [COMPLETE] * 2


def rising(params):
    for epoch in range(1, 6):
        yield params["x"] * (1 - 0.5**epoch) + 0.1 * (epoch % 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")
@pytest.mark.parametrize(
    ("sampler", "pruner", "total"), [("tpe", "median", 12), ("qmc", "none", 6), ("nsgaii", "hyperband", 8)]
)
def test_a_search_that_is_killed_again_and_again_ends_like_one_that_is_not(
    searching, monkeypatch, sampler, pruner, total
):
    # Parameters whose process is killed too often are given up, which is not what is tested here.
    monkeypatch.setattr(studies, "MOST_RETRIES", 100)

    def search(file):
        return searching(total, sampler=sampler, pruner=pruner, file=file, epochs=rising, max_epochs=5)

    def killed_at(statement):
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done = itertools.count(1)

        def count(*arguments):
            if next(done) == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", count)
        try:
            search("killed.db")
            os._exit(0)
        finally:
            os._exit(1)

    moments = random.Random(3)
    codes = [killed_at(moments.randrange(150, 400))]
    while codes[-1] == -signal.SIGKILL:
        codes.append(killed_at(moments.randrange(150, 400)))
    assert codes[-1] == 0
    assert len(codes) > 2
    ended = [
        [(trial.state, trial.params, trial.intermediate_values) for trial in search(file).trials if trial.state != FAIL]
        for file in ("killed.db", "whole.db")
    ]
    assert ended[0] == ended[1]
    assert len(ended[0]) == total


def test_a_trial_whose_process_died_between_failing_and_queueing_it_is_queued_again(searching, monkeypatch):
    first = []

    def interrupted(params):
        first.append(params["x"])
        yield 0.5
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "requeue", lambda *arguments, **options: True)
    with pytest.raises(KeyboardInterrupt):
        searching(2, epochs=interrupted)
    monkeypatch.undo()
    result = searching(2)
    assert states(result) == [FAIL, COMPLETE, COMPLETE]
    assert result.trials[1].params == {"x": first[0]}
    assert states(searching(3)) == [FAIL, COMPLETE, COMPLETE, COMPLETE], "once is enough"


def test_ctrl_c_puts_the_trial_back_and_costs_no_attempt(searching):
    def interrupted(params):
        yield 0.5
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searching(2, epochs=interrupted)
    result = searching(2)
    assert states(result) == [FAIL, COMPLETE, COMPLETE]
    assert result.trials[1].params == result.trials[0].params
    assert result.trials[1].user_attrs["attempt"] == 1
    assert result.status.failed == 0, "nobody's fault"


# --- pruning ---------------------------------------------------------------------------------------------------------


def played(curves, pruner):
    """Epochs that the pruner lets pass of recorded trials, and the best of those that finished."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    passed, finished = 0, {}
    for number, curve in enumerate(curves):
        trial = study.ask()
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
            passed += 1
            if epoch < len(curve) and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            finished[number] = curve.max()
            study.tell(trial, curve.max())
    return passed, max(finished, key=finished.__getitem__)


def test_the_default_pruner_saves_a_third_of_20_x_9_epochs_and_keeps_the_best_trial_but_for_noise():
    from sentiment_hybrid.config.schema import Config

    hpo = Config().lstm.hpo.model_copy(update={"n_trials": 20, "epochs": 9})
    passed = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        peaks = random.uniform(0.70, 0.80, size=20)
        curves = peaks[:, None] - 0.08 * 0.6 ** np.arange(9) + random.normal(0, 0.002, size=(20, 9))
        epochs, best = played(curves, studies.pruner_of(hpo))
        assert curves[best].max() > curves.max() - 0.004, "noise has a deviation of 0.002"
        passed += epochs
    assert passed <= 2 / 3 * 8 * 20 * 9


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruning_saves_epochs_and_keeps_the_best_trial(searching, pruner):
    trained = []

    def counted(params):
        for value in (params["x"] * 0.8, params["x"] * 0.9, params["x"]):
            trained.append(value)
            yield value

    whole = searching(16, epochs=counted, sampler="random", file="none.db")
    assert len(trained) == 48
    trained.clear()
    result = searching(16, epochs=counted, sampler="random", pruner=pruner)
    assert len(trained) < 44
    assert states(result).count(PRUNED) > 2
    assert result.status.finished + result.status.pruned == 16
    assert [t.params for t in result.trials] == [t.params for t in whole.trials]
    best = max(whole.trials, key=lambda trial: trial.value)
    assert result.status.best == best.value


@pytest.mark.parametrize(("step", "state"), [(2, PRUNED), (3, COMPLETE)])
def test_after_its_last_epoch_a_trial_is_never_pruned(searching, monkeypatch, step, state):
    class AtStep(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.last_step == step

    monkeypatch.setattr(studies, "pruner_of", lambda hpo: AtStep())
    result = searching(3)
    assert states(result) == [state] * 3
    assert all(len(trial.intermediate_values) == step for trial in result.trials)
    if state == COMPLETE:
        assert [trial.value for trial in result.trials] == pytest.approx([trial.params["x"] for trial in result.trials])


# --- several processes -----------------------------------------------------------------------------------------------


def test_places_that_others_have_taken_are_waited_for(searching, tmp_path, shared_storage):
    searching(1, alone=False)
    other = other_study(tmp_path / "study.db", shared_storage)
    theirs = [other.ask(), other.ask()]
    waited = []

    def wait(seconds):
        waited.append(seconds)
        other.tell(theirs.pop(), 0.1)

    result = searching(3, alone=False, wait=wait)
    assert states(result) == [COMPLETE] * 3
    assert len(waited) == 2


def test_a_place_that_another_process_frees_is_taken_over(searching, tmp_path, shared_storage):
    searching(1, alone=False)
    other = other_study(tmp_path / "study.db", shared_storage)
    theirs = other.ask()
    result = searching(2, alone=False, wait=lambda seconds: other.tell(theirs, state=FAIL))
    assert states(result) == [COMPLETE, FAIL, COMPLETE]


def test_of_two_that_ask_for_the_last_place_one_gives_its_trial_back(searching, tmp_path, shared_storage, monkeypatch):
    searching(1, alone=False)
    other = other_study(tmp_path / "study.db", shared_storage)
    real = studies.ask
    theirs = []

    def beaten(study, space):
        if not theirs:
            theirs.append(other.ask())
        return real(study, space)

    monkeypatch.setattr(studies, "ask", beaten)
    result = searching(2, alone=False, wait=lambda seconds: other.tell(theirs[0], 0.3))
    assert states(result) == [COMPLETE, COMPLETE, FAIL]
    assert result.trials[2].value is None
    assert (result.status.finished, result.status.failed) == (2, 0)


def test_a_trial_without_a_sign_of_life_is_queued_again(searching, tmp_path, shared_storage):
    searching(1, alone=False)
    with shared_storage(tmp_path / "study.db") as storage:
        other = optuna.load_study(study_name="s", storage=storage.optuna)
        dead = other.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
        storage.optuna.record_heartbeat(dead._trial_id)
        dead.set_user_attr("owner", "elsewhere:1")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    result = searching(2, alone=False)
    assert states(result) == [COMPLETE, FAIL, COMPLETE]
    assert result.trials[2].params == dead.params
    assert result.trials[2].user_attrs["attempt"] == 2


def test_a_trial_that_died_before_its_first_sign_of_life_is_found_by_our_own_clock(searching, tmp_path, shared_storage):
    searching(1, alone=False)
    dead = other_study(tmp_path / "study.db", shared_storage).ask()
    now = [0.0]

    def wait(seconds):
        now[0] += 100.0

    result = searching(2, alone=False, wait=wait, clock=lambda: now[0])
    assert states(result) == [COMPLETE, FAIL, COMPLETE]
    assert result.trials[1].number == dead.number
    assert now[0] >= 180


def test_a_trial_that_others_took_for_dead_is_dropped(searching, tmp_path, shared_storage):
    searching(1, alone=False)
    other = other_study(tmp_path / "study.db", shared_storage)
    taken = []

    def slow(params):
        if not taken:
            taken.append(max(trial.number for trial in other.get_trials()))
            other.tell(taken[0], state=FAIL)
        yield 0.5

    result = searching(2, epochs=slow, alone=False)
    assert states(result) == [COMPLETE, FAIL, COMPLETE]
    assert any("declared dead by another process" in note for note in result.notes)
