"""The search itself: asks the study for trials, has them trained, and tells it what came of them, to an exact total."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from sentiment_hybrid.errors import StudyError
from sentiment_hybrid.tuning import study as studies
from sentiment_hybrid.tuning.study import Storage
from sentiment_hybrid.tuning.trials import Outcome
from sentiment_hybrid.tuning.workers import Lanes

#: Parameter sets in a row that crash again and again, or cannot be trained at all, after which a search gives up.
MOST_GIVEN_UP = 3
MOST_UNUSABLE = 30
POLL_SECONDS = 2.0

_SPOKEN_FOR = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
_ENTITLED = (*_SPOKEN_FOR, TrialState.WAITING)


@dataclass(frozen=True)
class Standing:
    """Where a study stands; ``best`` is the best selection_score so far."""

    finished: int
    pruned: int
    failed: int
    running: int
    best: float | None


@dataclass
class _Running:
    """A trial that this process has under way."""

    trial: optuna.Trial
    started: float
    heart: _Heart | None
    values: list[float] = field(default_factory=list)


class Search:
    """Runs trials until the study holds ``n_trials`` that finished or were pruned, whoever else works on it.

    A trial that crashed is failed, never scored, and its parameters are queued again, at most three times.

    Args:
        study: the study.
        storage: what it lies in.
        lanes: who trains the trials.
        space: Optuna's distributions.
        n_trials: the total.
        epochs: of a trial that is not pruned.
        timeout: seconds after which no new trial starts.
        note: hears what a person should know.
        show: hears of every change.
        wait: waits so many seconds; only where other processes may be at work.
        clock: seconds, from anywhere on.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: Storage,
        lanes: Lanes,
        *,
        space: dict[str, optuna.distributions.BaseDistribution],
        n_trials: int,
        epochs: int,
        timeout: float | None = None,
        note: Callable[[str], object] = lambda text: None,
        show: Callable[[Standing], object] = lambda standing: None,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.storage, self.lanes = study, storage, lanes
        self.space, self.n_trials, self.epochs, self.timeout = space, n_trials, epochs, timeout
        self.note, self.show = note, show
        self._wait, self._clock = wait, clock
        self._started = clock()
        self._running: dict[int, _Running] = {}
        self._unclaimed: dict[int, float] = {}
        self._given_up = self._unusable = 0

    def run(self) -> None:
        """Search to the total, or to the timeout; returns when no trial of this process is under way.

        Raises:
            StudyError: parameters fail again and again; the study is kept.
            KeyboardInterrupt: after the trials under way were put back into the queue.
        """
        try:
            if self.storage.alone:
                self._recover()
            self._tell()
            while self._go_on():
                pass
        except BaseException:
            self._put_back()
            raise

    def missing(self) -> int:
        """Trials that the total still lacks."""
        return max(0, self.n_trials - self._done())

    def standing(self) -> Standing:
        """Counts of the study, over all processes."""
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
        return Standing(
            finished=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=sum(trial.state == TrialState.FAIL and not studies.given_back(trial) for trial in trials),
            running=states.count(TrialState.RUNNING),
            best=max(values, default=None),
        )

    def _go_on(self) -> bool:
        """One round: fill the lanes, take one outcome; False when there is nothing left to do."""
        for lane in self.lanes.idle():
            trial = None if self._out_of_time() else self._next()
            if trial is None:
                break
            self._start(lane, trial)
        if self._running:
            event = self.lanes.next_event(POLL_SECONDS)
            if event is not None and event[0] in self._running:
                self._take(*event)
            return True
        if self._out_of_time() or not self.missing():
            return False
        # What is missing runs elsewhere; should that fail, the place is free for us.
        self._wait(POLL_SECONDS)
        return True

    def _out_of_time(self) -> bool:
        return self.timeout is not None and self._clock() - self._started >= self.timeout

    def _done(self) -> int:
        return self._count((TrialState.COMPLETE, TrialState.PRUNED))

    def _count(self, states: tuple[TrialState, ...]) -> int:
        return len(self.study.get_trials(deepcopy=False, states=states))

    # --- asking ---

    def _next(self) -> optuna.Trial | None:
        """A trial that the total has room for, or None where all places are taken, be it by trials that still run."""
        if not self.storage.alone:
            self._fail_the_dead()
        if self._count(_SPOKEN_FOR) >= self.n_trials:
            return None
        trial = studies.ask(self.study, self.space)
        # Several processes may have asked for the last place: it goes to the lowest number. What has failed frees its
        # place for good, and numbers only grow, so no two can both believe that they have it.
        before = sum(one.number < trial.number for one in self.study.get_trials(deepcopy=False, states=_ENTITLED))
        if before < self.n_trials:
            return trial
        trial.set_user_attr(studies.ENDED, studies.SURPLUS)
        self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _start(self, lane: int, trial: optuna.Trial) -> None:
        heart = None if self.storage.alone else _Heart(self.storage, trial)
        trial.set_user_attr(studies.OWNER, f"{socket.gethostname()}:{os.getpid()}")
        self._running[lane] = _Running(trial, self._clock(), heart)
        self.lanes.start(lane, trial.number, trial.params)
        self._tell()

    # --- telling ---

    def _take(self, lane: int, outcome: Outcome) -> None:
        run = self._running[lane]
        try:
            if outcome.kind == "epoch":
                self._take_epoch(lane, run, outcome.value)
            elif outcome.kind == "done" and run.values:
                self._finish(run)
                self._forget(lane)
            else:
                self._forget(lane)
                self._fail(run, outcome)
        except UpdateFinishedTrialError:
            # Its signs of life were late (a machine that slept): another process has it in its queue by now.
            self.note(f"trial {run.trial.number} was given up by another process and is dropped here")
            if outcome.kind == "epoch":
                self.lanes.stop(lane)
            if lane in self._running:
                self._forget(lane)
        if outcome.kind != "epoch":
            self._tell()

    def _take_epoch(self, lane: int, run: _Running, value: float) -> None:
        run.values.append(value)
        run.trial.report(value, len(run.values))
        # After the last epoch there is nothing to save, and the trial deserves its score.
        if len(run.values) >= self.epochs or not run.trial.should_prune():
            self.lanes.go_on(lane)
            return
        self._note_course(run)
        self.study.tell(run.trial, state=TrialState.PRUNED)
        self.lanes.stop(lane)
        self._forget(lane)
        self._given_up = self._unusable = 0
        self._tell()

    def _finish(self, run: _Running) -> None:
        self._note_course(run)
        self.study.tell(run.trial, max(run.values))
        self._given_up = self._unusable = 0

    def _note_course(self, run: _Running) -> None:
        run.trial.set_user_attr(studies.BEST_EPOCH, run.values.index(max(run.values)) + 1)
        run.trial.set_user_attr(studies.SECONDS, round(self._clock() - run.started, 3))

    def _fail(self, run: _Running, outcome: Outcome) -> None:
        number = run.trial.number
        reason = (outcome.text or "it ended before its first epoch").strip()
        run.trial.set_user_attr(studies.FAILURE, reason)
        frozen = self.study.tell(run.trial, state=TrialState.FAIL)
        if outcome.kind == "unusable":
            self._unusable += 1
            self.note(f"trial {number} failed: {_last_line(reason)}")
        elif studies.requeue(self.study, frozen):
            self.note(f"trial {number} failed and is queued again: {_last_line(reason)}")
        else:
            self._given_up += 1
            self.note(f"trial {number} failed for the last time: {_last_line(reason)}")
        if self._given_up >= MOST_GIVEN_UP or self._unusable >= MOST_UNUSABLE:
            raise StudyError(
                f"trials of the study {self.study.study_name} fail again and again; the last: {_last_line(reason)}",
                hint=f"Its traceback is an attribute of trial {number}. Mend the cause and run the command again: the "
                "study is kept.",
            )

    def _forget(self, lane: int) -> None:
        run = self._running.pop(lane)
        if run.heart is not None:
            run.heart.stop()

    def _tell(self) -> None:
        self.show(self.standing())

    # --- what was left behind ---

    def _recover(self) -> None:
        """The storage is ours alone, so a trial that runs is one whose process was killed."""
        left = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self._drop_dead(trial)
        if left:
            count = "1 trial" if len(left) == 1 else f"{len(left)} trials"
            self.note(f"{count} of a process that was killed: queued again")

    def _fail_the_dead(self) -> None:
        """Trials of processes that show no sign of life, or that died before their first one."""
        with studies.quiet():
            optuna.storages.fail_stale_trials(self.study)
        now = self._clock()
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        unclaimed = {trial.number: trial for trial in running if studies.OWNER not in trial.user_attrs}
        # Watched by our own clock: those of other machines may differ.
        self._unclaimed = {number: self._unclaimed.get(number, now) for number in unclaimed}
        for number, since in self._unclaimed.items():
            if now - since > self.storage.grace:
                self._drop_dead(unclaimed[number])

    def _drop_dead(self, trial: optuna.trial.FrozenTrial) -> None:
        # Failed first: were it queued first, a kill in between would have it run twice.
        with suppress(UpdateFinishedTrialError, ValueError):  # another process was faster
            self.storage.optuna.set_trial_user_attr(trial._trial_id, studies.FAILURE, "its process was killed")
            studies.requeue(self.study, self.study.tell(trial.number, state=TrialState.FAIL))

    def _put_back(self) -> None:
        """Queue again what is under way; nobody's fault, so it costs no attempt."""
        for lane in list(self._running):
            run = self._running[lane]
            # The storage may be the very thing that failed; what cannot be told now is found at the next start.
            with suppress(Exception):
                run.trial.set_user_attr(studies.ENDED, studies.INTERRUPTED)
                studies.requeue(self.study, self.study.tell(run.trial, state=TrialState.FAIL), counts=False)
            self._forget(lane)


class _Heart:
    """Records a trial's signs of life from a thread, as Optuna's own loop would."""

    def __init__(self, storage: Storage, trial: optuna.Trial) -> None:
        self._storage, self._trial_id = storage.optuna, trial._trial_id
        self._stopped = threading.Event()
        self._storage.record_heartbeat(self._trial_id)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; returns once the thread has let go of its connection."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(self._storage.heartbeat_interval):
            # A beat that is lost is followed by others; a server that stays away stops the search itself.
            with suppress(Exception):
                self._storage.record_heartbeat(self._trial_id)
        self._storage.remove_session()


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1].strip()
