"""Who gets which trial: exact counts, whatever dies between any two changes of the database."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from smart_tuner import storage as storages
from smart_tuner.trial_queue import DONE, MAX_RETRIES, TrialQueue, counting, is_given_up, origin_of, origins


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrialQueue]:
    """`queue("worker", n_trials=3)`: of one study, each with a connection of its own."""
    monkeypatch.setattr(storages, "HEARTBEAT_S", 1)
    monkeypatch.setattr(storages, "GRACE_S", 300)

    def make(worker: str, *, n_trials: int) -> TrialQueue:
        storage = storages.open_storage(None, tmp_path)
        study = optuna.create_study(storage=storage, study_name="study", load_if_exists=True)
        return TrialQueue(study, storage, n_trials=n_trials, worker=worker)

    return make


def begun(queue: TrialQueue) -> optuna.Trial:
    trial = queue.take()
    assert isinstance(trial, optuna.Trial)
    return trial


def end(queue: TrialQueue, trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0, 1)
    queue.study.tell(trial, 1.0)


def lose(queue: TrialQueue, trial: optuna.Trial) -> None:
    """Its last heartbeat was long ago."""
    with queue.storage.engine.begin() as connection:
        old = "UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00' WHERE trial_id = :id"
        connection.execute(sqlalchemy.text(old), {"id": trial._trial_id})


def test_as_many_trials_as_asked_for_are_given_out_and_then_one_waits_for_them(queue) -> None:
    one, other = queue("one", n_trials=3), queue("other", n_trials=3)
    trials = [begun(one), begun(other), begun(one)]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert one.take() == "wait" and other.take() == "wait", "one of them may be lost yet"
    assert (one.n_running_elsewhere(), other.n_running_elsewhere()) == (1, 2)
    for trial in trials:
        end(one, trial)
    assert one.take() == other.take() == "done"
    assert isinstance(queue("one", n_trials=4).take(), optuna.Trial)


def test_many_that_ask_at_once_get_different_trials_and_none_too_many(queue) -> None:
    workers = [queue(f"worker {i}", n_trials=12) for i in range(4)]

    def work(mine: TrialQueue) -> None:
        while (trial := mine.take()) != "done":
            if isinstance(trial, optuna.Trial):
                end(mine, trial)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = workers[0].study.trials
    assert Counter(origin_of(trial) for trial in trials if trial.state in DONE) == Counter(range(12))
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]


def test_a_trial_whose_machine_is_lost_goes_to_another_with_the_same_parameters(queue) -> None:
    lost_one, other = queue("lost", n_trials=1), queue("other", n_trials=1)
    trial = begun(lost_one)
    x = trial.suggest_float("x", 0, 1)
    assert other.take() == "wait"
    lose(other, trial)
    again = begun(other)
    assert (again.suggest_float("x", 0, 1), origin_of(again), again.number) == (x, 0, 1)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.report(1.0, 1)  # who stood still for that long hears of it


def test_a_trial_lost_too_often_is_given_out_once_more_to_be_judged_as_failed(queue) -> None:
    worker = queue("worker", n_trials=1)
    for _ in range(MAX_RETRIES + 1):
        trial = begun(worker)
        assert not is_given_up(trial)
        lose(worker, trial)
    assert is_given_up(begun(worker))


def test_an_interruption_is_no_loss_and_is_gone_on_with(queue) -> None:
    worker = queue("worker", n_trials=1)
    for _ in range(MAX_RETRIES + 2):
        worker.interrupt(begun(worker))
    trial = begun(worker)
    assert not is_given_up(trial) and origin_of(trial) == 0


def test_what_a_killed_search_left_running_is_taken_back_at_once(queue) -> None:
    lost = begun(queue("mine", n_trials=2))
    others = begun(queue("other", n_trials=2))
    mine = queue("mine", n_trials=2)
    mine.reclaim()
    assert origin_of(begun(mine)) == lost.number
    assert mine.study.trials[others.number].state == TrialState.RUNNING


@pytest.mark.parametrize("killed_after", ["add", "heartbeat", "run", "fail"])
def test_a_worker_killed_between_two_changes_leaves_nothing_behind(queue, monkeypatch, killed_after: str) -> None:
    """Whatever was the last that it wrote, the next worker ends with exactly one finished trial."""

    class Killed(BaseException):
        pass

    def die_after(name: str, owner: object) -> None:
        original = getattr(owner, name)

        def method(*arguments, **more):
            original(*arguments, **more)
            raise Killed

        monkeypatch.setattr(owner, name, method)

    victim = queue("victim", n_trials=1)
    if killed_after == "fail":
        lose(victim, begun(victim))
        monkeypatch.setattr(victim, "_add", lambda *_, **__: (_ for _ in ()).throw(Killed))
    else:
        names = {"add": "create_new_trial", "heartbeat": "record_heartbeat", "run": "set_trial_state_values"}
        die_after(names[killed_after], victim.storage)
    with pytest.raises(Killed):
        victim.take()
    other = queue("other", n_trials=1)
    if killed_after == "run":
        assert other.take() == "wait"
        lose(other, next(trial for trial in other.study.trials if trial.state == TrialState.RUNNING))
    end(other, begun(other))
    assert other.take() == "done"
    assert [trial.state for trial in other.study.trials if trial.state != TrialState.FAIL] == [TrialState.COMPLETE]


def test_of_two_attempts_at_one_trial_the_later_is_withdrawn(queue) -> None:
    one, other = queue("one", n_trials=1), queue("other", n_trials=1)
    lost = begun(one)
    lose(one, lost)
    with storages.experimental_parts():
        optuna.storages.fail_stale_trials(one.study)
    for worker in (one, other):  # both saw it failed, and neither saw the other
        worker._add(worker.study.trials[0], origin=0)
    first = begun(one)
    assert first.number == 1 and other.take() == "wait"
    end(one, first)
    assert other.take() == "done"
    assert counting(origins(one.study)[0]).number == 1
    assert not one.study.get_trials(states=(TrialState.WAITING,)), "the later one was withdrawn"
