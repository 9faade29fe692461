"""Which device a command takes, and what it says where that has no memory left."""

import pytest
import torch

from common.errors import UserError
from parallel.devices import NoMemory, device_of, explain_no_memory


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_a_gpu_the_processor_computes(no_gpu: None, wanted: str) -> None:
    assert device_of(wanted) == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_an_error_with_the_way_out(no_gpu: None, wanted: str) -> None:
    with pytest.raises(UserError, match=f"device {wanted}: .*; leave --device out to take what there is, or say cpu"):
        device_of(wanted)


def test_where_there_are_gpus_the_first_or_the_named_one_is_taken(two_gpus: None) -> None:
    assert [str(device_of(wanted)) for wanted in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(UserError, match="device cuda:2: there is no such GPU; this machine has cuda:0 to cuda:1"):
        device_of("cuda:2")


@pytest.mark.parametrize(("device", "way_out"), [("cuda", "try --device cpu"), ("cpu", "fewer or shorter texts")])
def test_the_end_of_memory_is_one_message(device: str, way_out: str) -> None:
    expected = pytest.raises(NoMemory, match=f"too little memory on {device} .*{way_out}")
    with expected, explain_no_memory(torch.device(device)):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")


def test_another_error_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explain_no_memory(torch.device("cpu")):
        raise RuntimeError("shapes differ")
