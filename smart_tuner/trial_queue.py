"""Which trial is next, so that a study gets exactly as many as asked for, on however many machines.

Trials of the database that belong together (one that was interrupted or lost, and its later attempts) share an
`origin`: the number of the first, which names their directory. Machines agree through the database alone: each reads
the same from these rules, and a machine may die between any two changes.

- The n lowest origins are the study's n trials.
- Of an origin's attempts a finished one counts, else the first that runs or waits. Others are withdrawn.
- An origin of which none counts is put into the queue again.
"""

from collections.abc import Sequence
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from smart_tuner.storage import experimental_parts

MAX_RETRIES = 2  # of a trial whose machine was lost; then it counts as failed, as it may be what its machines die of
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

Nothing = Literal["wait", "done"]


def origin_of(trial: FrozenTrial | optuna.Trial) -> int:
    return int(trial.user_attrs.get("origin", trial.number))


def trial_name(origin: int) -> str:
    """Of its run in the study's directory."""
    return f"trial_{origin:05d}"


def origins(study: optuna.Study) -> dict[int, list[FrozenTrial]]:
    """The attempts of each origin, both in the order of their numbers; without the withdrawn."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if not trial.user_attrs.get("withdrawn"):
            found.setdefault(origin_of(trial), []).append(trial)
    return dict(sorted(found.items()))


def first_origins(study: optuna.Study, n: int) -> dict[int, list[FrozenTrial]]:
    return dict(list(origins(study).items())[:n])


def counting(attempts: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The attempt that counts."""
    done = [trial for trial in attempts if trial.state in DONE]
    return next((trial for trial in [*done, *attempts] if trial.state != TrialState.FAIL), None)


def is_given_up(trial: optuna.Trial) -> bool:
    return int(trial.user_attrs.get("retries", 0)) > MAX_RETRIES


class TrialQueue:
    """One worker's view of the study's trials. worker: a name that no other worker has."""

    def __init__(self, study: optuna.Study, storage: RDBStorage, *, n_trials: int, worker: str) -> None:
        self.study, self.storage, self.n_trials, self.worker = study, storage, n_trials, worker
        self._study_id = storage.get_study_id_from_name(study.study_name)

    def take(self) -> optuna.Trial | Nothing:
        """A trial, which runs from now on; `wait` while others run that might get lost; `done` if all are finished."""
        self.put_back_lost()
        trials = self._trials()
        if len(trials) < self.n_trials and not any(_waits(attempts) for attempts in trials.values()):
            self._add()
            trials = self._trials()
        for attempts in trials.values():
            counted = counting(attempts)
            if counted is not None and _waits(attempts) and self._claim(counted):
                return self._begun(counted)
        is_done = len(trials) == self.n_trials and all(_is_done(attempts) for attempts in trials.values())
        if not is_done or self._has_unclaimed_surplus():
            return "wait"
        self._withdraw_surplus()
        return "done"

    def put_back_lost(self) -> None:
        """Fails what has had no heartbeat for too long, and queues whatever has no attempt that counts."""
        with experimental_parts():
            optuna.storages.fail_stale_trials(self.study)
        for origin, attempts in self._trials().items():
            counted = counting(attempts)
            if counted is None:
                self._add(attempts[-1], origin=origin)
            for trial in attempts:
                if trial.state == TrialState.WAITING and trial is not counted:  # two machines queued it
                    self._finish(trial, {"withdrawn": True})

    def reclaim(self) -> None:
        """Trials that this worker's earlier search left running: it is dead, or we could not run."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == self.worker:
                self.interrupt(trial)

    def interrupt(self, trial: FrozenTrial | optuna.Trial) -> None:
        """The trial waits to be gone on with, and that is no loss of it."""
        self._finish(trial, {"ending": "interrupted"})
        self.put_back_lost()

    def is_first(self, trial: optuna.Trial) -> bool:
        """Whether no trial before this one runs, on any machine."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return not any("worker" in one.user_attrs and one.number < trial.number for one in running)

    def n_running_elsewhere(self) -> int:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return sum(trial.user_attrs.get("worker") != self.worker for trial in running)

    def _trials(self) -> dict[int, list[FrozenTrial]]:
        return first_origins(self.study, self.n_trials)

    def _add(self, lost: FrozenTrial | None = None, *, origin: int | None = None) -> None:
        """Queues a new trial, or the same parameters as the lost attempt's once more."""
        attributes: dict[str, Any] = {}
        if lost is not None:
            is_loss = lost.user_attrs.get("ending") != "interrupted"
            attributes = {"origin": origin, "retries": int(lost.user_attrs.get("retries", 0)) + is_loss}
        template = optuna.create_trial(
            state=TrialState.WAITING,
            params=lost.params if lost else None,
            distributions=lost.distributions if lost else None,
            user_attrs=attributes,
        )
        self.storage.create_new_trial(self._study_id, template_trial=template)

    def _claim(self, trial: FrozenTrial) -> bool:
        """Whether it is ours. Not `Study.ask`, which takes the queue's first, whichever that is, or makes a new one."""
        try:
            # first, as a trial that runs without one would never be taken for lost
            self.storage.record_heartbeat(trial._trial_id)
            if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return False
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        counted = counting(self._trials().get(origin_of(trial), []))
        if counted is not None and counted.number == trial.number:
            self.storage.set_trial_user_attr(trial._trial_id, "worker", self.worker)
            return True
        self._finish(trial, {"withdrawn": True})  # another machine was quicker
        return False

    def _begun(self, trial: FrozenTrial) -> optuna.Trial:
        self.study._thread_local.cached_all_trials = None  # as `Study.ask` does: samplers look at all trials anew
        with experimental_parts():
            return optuna.Trial(self.study, trial._trial_id)

    def _finish(self, trial: FrozenTrial | optuna.Trial, attributes: dict[str, Any]) -> None:
        try:
            for name, value in attributes.items():
                self.storage.set_trial_user_attr(trial._trial_id, name, value)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:  # another machine took it for lost
            pass

    def _withdraw_surplus(self) -> None:
        """Trials that two machines added at the same time as the study's last, and that nobody has begun."""
        known = self._trials()
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if origin_of(trial) not in known and not trial.params:
                self._finish(trial, {"withdrawn": True})

    def _has_unclaimed_surplus(self) -> bool:
        """Whether a trial too many runs that nobody has claimed: it is about to be withdrawn, or its worker is lost."""
        known = self._trials()
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return any(origin_of(trial) not in known and "worker" not in trial.user_attrs for trial in running)


def _waits(attempts: Sequence[FrozenTrial]) -> bool:
    counted = counting(attempts)
    return counted is not None and counted.state == TrialState.WAITING


def _is_done(attempts: Sequence[FrozenTrial]) -> bool:
    counted = counting(attempts)
    return counted is not None and counted.state in DONE
