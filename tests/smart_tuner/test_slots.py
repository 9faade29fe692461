"""What of the machine each trial gets."""

import pytest

from common.errors import UserError
from smart_tuner import slots
from smart_tuner.slots import check_gpus, dealt, environment, visible_gpus

FOUR = ["0", "1", "2", "3"]


@pytest.mark.parametrize(("n_jobs", "each"), [(4, 1), (2, 2), (1, 4), (1, 3)])
def test_no_two_trials_have_the_same_gpu_while_there_are_enough(n_jobs: int, each: int) -> None:
    hands = [dealt(FOUR, slot, each=each) for slot in range(n_jobs)]
    given = [gpu for hand in hands for gpu in hand]
    assert all(len(hand) == each for hand in hands) and len(set(given)) == n_jobs * each


def test_more_trials_than_gpus_share_them_in_turn() -> None:
    assert [dealt(FOUR, slot, each=1) for slot in range(6)] == [["0"], ["1"], ["2"], ["3"], ["0"], ["1"]]
    check_gpus(FOUR, n_jobs=6, each=1)


@pytest.mark.parametrize(
    ("n_jobs", "each", "message"),
    [
        (3, 2, r"--gpus-per-trial 2 needs 6 GPUs, and 4 can be seen \(0,1,2,3\); at most --n-jobs 2 fit"),
        (1, 8, r"needs 8 GPUs, and 4 can be seen \(0,1,2,3\); ask for at most 4"),
    ],
)
def test_trials_of_several_gpus_never_share_them(n_jobs: int, each: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_gpus(FOUR, n_jobs=n_jobs, each=each)


def test_only_the_gpus_that_this_command_may_see_are_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f2c, 6,7,3")
    assert environment(1, n_jobs=2, each=2)["CUDA_VISIBLE_DEVICES"] == "7,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == [] and environment(1, n_jobs=2, each=2)["CUDA_VISIBLE_DEVICES"] == ""


def test_processors_are_shared_by_all_processes_of_all_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(slots, "n_processors", lambda: 16)
    assert environment(0, n_jobs=2, each=4)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in environment(0, n_jobs=1, each=1)
