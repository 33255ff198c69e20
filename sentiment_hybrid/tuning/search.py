"""The search loop: asks the study for trials, trains them, and reports their results, up to an exact total."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from sentiment_hybrid.errors import StudyError, count
from sentiment_hybrid.tuning import study as studies
from sentiment_hybrid.tuning.study import Storage
from sentiment_hybrid.tuning.trials import Outcome
from sentiment_hybrid.tuning.workers import TrialRunner

#: The search stops after this many consecutive parameter sets that crashed in every attempt, or cannot be trained.
MAX_ABANDONED = 3
MAX_UNUSABLE = 30
POLL_SECONDS = 2.0

_OCCUPYING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
_CANDIDATES = (*_OCCUPYING, TrialState.WAITING)


@dataclass(frozen=True)
class StudyStatus:
    """Counts of a study's trials; ``best`` is the best selection_score so far."""

    finished: int
    pruned: int
    failed: int
    best: float | None


@dataclass
class _Running:
    trial: optuna.Trial
    started: float
    heartbeat: _Heartbeat | None
    values: list[float] = field(default_factory=list)
    epochs: float = 0.0


@dataclass
class Search:
    """Runs trials until ``n_trials`` of the study are finished or pruned, also if other processes work on it.

    A trial that crashes is marked as failed, never scored, and its parameters are queued again, at most three times.
    """

    study: optuna.Study
    storage: Storage
    runner: TrialRunner
    _: KW_ONLY
    space: dict[str, optuna.distributions.BaseDistribution]
    n_trials: int
    epochs: int  # of a trial that is not pruned
    timeout: float | None = None  # seconds after which no new trial starts
    note: Callable[[str], object] = lambda text: None  # receives messages for the user
    show: Callable[[StudyStatus], object] = lambda status: None  # receives the status after every change
    #: Receives the number of each trial of this process and the epochs that it has done, after every change.
    show_trials: Callable[[Mapping[int, float]], object] = lambda epochs: None
    wait: Callable[[float], object] = time.sleep  # used only if other processes may be searching
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._running: dict[int, _Running] = {}
        self._unclaimed: dict[int, float] = {}
        self._abandoned = self._unusable = 0

    def run(self) -> None:
        """Search up to the total or the timeout; returns when this process runs no trial.

        Raises:
            StudyError: too many trials fail; the study is kept.
            KeyboardInterrupt: after the running trials were put back into the queue.
        """
        try:
            if self.storage.exclusive:
                self._recover()
            self._show_status()
            while self._step():
                pass
        except BaseException:
            self._requeue_running()
            raise

    def missing(self) -> int:
        """Number of trials still needed to reach the total."""
        return max(0, self.n_trials - self._count((TrialState.COMPLETE, TrialState.PRUNED)))

    def status(self) -> StudyStatus:
        """The status of the study, over all processes."""
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        return StudyStatus(
            finished=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=sum(trial.state == TrialState.FAIL and not studies.is_cancelled(trial) for trial in trials),
            best=max(values, default=None),
        )

    def _step(self) -> bool:
        """Start trials in idle slots, then handle one outcome; False when there is nothing left to do."""
        for slot in self.runner.idle():
            trial = None if self._out_of_time() else self._next()
            if trial is None:
                break
            self._start(slot, trial)
        if self._running:
            event = self.runner.next_event(POLL_SECONDS)
            if event is not None and event[0] in self._running:
                self._handle(*event)
            return True
        if self._out_of_time() or not self.missing():
            return False
        # The remaining trials run in other processes; if one fails, another can be started here.
        self.wait(POLL_SECONDS)
        return True

    def _out_of_time(self) -> bool:
        return self.timeout is not None and self.clock() - self._started >= self.timeout

    def _count(self, states: tuple[TrialState, ...]) -> int:
        return len(self.study.get_trials(deepcopy=False, states=states))

    # --- asking for trials ---

    def _next(self) -> optuna.Trial | None:
        """A new trial, or None if finished, pruned and running trials reach the total."""
        if not self.storage.exclusive:
            self._fail_stale()
        if self._count(_OCCUPYING) >= self.n_trials:
            return None
        trial = studies.ask(self.study, self.space)
        # Several processes may have asked for the last trial: the lowest number wins. Failed trials never count again,
        # and numbers only grow, so two processes cannot both win.
        before = sum(one.number < trial.number for one in self.study.get_trials(deepcopy=False, states=_CANDIDATES))
        if before < self.n_trials:
            return trial
        trial.set_user_attr(studies.ENDED, studies.SURPLUS)
        self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _start(self, slot: int, trial: optuna.Trial) -> None:
        heartbeat = None if self.storage.exclusive else _Heartbeat(self.storage, trial)
        trial.set_user_attr(studies.OWNER, f"{socket.gethostname()}:{os.getpid()}")
        self._running[slot] = _Running(trial, self.clock(), heartbeat)
        self.runner.start(slot, trial.params)
        self._show_status()
        self._show_trials()

    # --- reporting outcomes ---

    def _handle(self, slot: int, outcome: Outcome) -> None:
        run = self._running[slot]
        if outcome.kind == "step":
            run.epochs = outcome.value
            self._show_trials()
            return
        try:
            if outcome.kind == "epoch":
                self._report_epoch(slot, run, outcome.value)
            elif outcome.kind == "done" and run.values:
                self._record_result(run)
                self.study.tell(run.trial, max(run.values))
                self._abandoned = self._unusable = 0
                self._release(slot)
            else:
                self._release(slot)
                self._fail(run, outcome)
        except UpdateFinishedTrialError:
            # Its heartbeat was late, for example because the machine slept, and another process has queued it again.
            self.note(f"trial {run.trial.number} was declared dead by another process, so it is abandoned here")
            if outcome.kind == "epoch":
                self.runner.stop(slot)
            if slot in self._running:
                self._release(slot)
        if outcome.ends:
            self._show_status()
        self._show_trials()

    def _report_epoch(self, slot: int, run: _Running, value: float) -> None:
        run.values.append(value)
        run.epochs = len(run.values)
        run.trial.report(value, len(run.values))
        # After the last epoch, pruning would save nothing, so the trial keeps its score.
        if len(run.values) >= self.epochs or not run.trial.should_prune():
            self.runner.resume(slot)
            return
        self._record_result(run)
        self.study.tell(run.trial, state=TrialState.PRUNED)
        self.runner.stop(slot)
        self._release(slot)
        self._abandoned = self._unusable = 0
        self._show_status()

    def _record_result(self, run: _Running) -> None:
        run.trial.set_user_attr(studies.BEST_EPOCH, run.values.index(max(run.values)) + 1)
        run.trial.set_user_attr(studies.SECONDS, round(self.clock() - run.started, 3))
        run.trial.set_user_attr(studies.CHECKSUM, studies.checksum(run.trial.params, run.values))

    def _fail(self, run: _Running, outcome: Outcome) -> None:
        number = run.trial.number
        reason = (outcome.text or "the trial ended before its first epoch").strip()
        last_line = reason.splitlines()[-1].strip()
        run.trial.set_user_attr(studies.FAILURE, reason)
        frozen = self.study.tell(run.trial, state=TrialState.FAIL)
        if outcome.kind == "unusable":
            self._unusable += 1
            self.note(f"trial {number} failed: {last_line}")
        elif studies.requeue(self.study, frozen):
            self.note(f"trial {number} failed and is queued again: {last_line}")
        else:
            self._abandoned += 1
            self.note(f"trial {number} failed for the last time: {last_line}")
        if self._abandoned >= MAX_ABANDONED or self._unusable >= MAX_UNUSABLE:
            raise StudyError(
                f"too many trials of the study {self.study.study_name} fail; the last error: {last_line}",
                hint=f"The traceback is an attribute of trial {number}. Fix the cause and run the command again; the "
                "study is kept.",
            )

    def _release(self, slot: int) -> None:
        run = self._running.pop(slot)
        if run.heartbeat is not None:
            run.heartbeat.stop()

    def _show_status(self) -> None:
        self.show(self.status())

    def _show_trials(self) -> None:
        self.show_trials({run.trial.number: run.epochs for run in self._running.values()})

    # --- dead and interrupted trials ---

    def _recover(self) -> None:
        """Queue the trials of killed processes again; no other process uses the storage, so all running ones are."""
        for trial in studies.lost_trials(self.study):
            studies.requeue(self.study, trial, counts=not studies.is_cancelled(trial))
        left = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self._fail_dead(trial)
        if left:
            self.note(f"queued again: {count(len(left), 'trial')} of a killed process")

    def _fail_stale(self) -> None:
        """Fail trials of processes without a heartbeat, or that died before their first one."""
        with studies.quiet():
            optuna.storages.fail_stale_trials(self.study)
        now = self.clock()
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        unclaimed = {trial.number: trial for trial in running if studies.OWNER not in trial.user_attrs}
        # Measured with our own clock, because those of other machines may differ.
        self._unclaimed = {number: self._unclaimed.get(number, now) for number in unclaimed}
        for number, since in self._unclaimed.items():
            if now - since > studies.GRACE_SECONDS:
                self._fail_dead(unclaimed[number])

    def _fail_dead(self, trial: optuna.trial.FrozenTrial) -> None:
        # Fail first, then queue: in the other order, a kill in between would run the trial twice; in this order,
        # `studies.lost_trials` finds it.
        with suppress(UpdateFinishedTrialError, ValueError):  # another process has done so already
            self.storage.optuna.set_trial_user_attr(trial._trial_id, studies.FAILURE, studies.KILLED)
            studies.requeue(self.study, self.study.tell(trial.number, state=TrialState.FAIL))

    def _requeue_running(self) -> None:
        """Queue the running trials again, without counting it as an attempt."""
        for slot in list(self._running):
            run = self._running[slot]
            # If the storage itself has failed, the trial is recovered at the next start.
            with suppress(Exception):
                run.trial.set_user_attr(studies.ENDED, studies.INTERRUPTED)
                studies.requeue(self.study, self.study.tell(run.trial, state=TrialState.FAIL), counts=False)
            self._release(slot)


class _Heartbeat:
    """Records a trial's heartbeat from a thread, as Optuna's own loop would."""

    def __init__(self, storage: Storage, trial: optuna.Trial) -> None:
        self._storage, self._trial_id = storage.optuna, trial._trial_id
        self._stopped = threading.Event()
        self._storage.record_heartbeat(self._trial_id)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; returns once the thread has closed its connection."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(self._storage.heartbeat_interval):
            # A missed heartbeat does no harm; if the server stays unreachable, the search fails anyway.
            with suppress(Exception):
                self._storage.record_heartbeat(self._trial_id)
        self._storage.remove_session()
