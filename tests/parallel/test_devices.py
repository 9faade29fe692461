"""Which device a command takes, and what it says where that has no memory left."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from parallel import devices
from parallel.devices import NoMemory, device_of, explain_no_memory, idle_gpu


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


@pytest.fixture(params=["its driver's folder", "nvidia-smi"])
def machine_with_a_gpu(
    request: pytest.FixtureRequest, no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two signs of an NVIDIA GPU that PyTorch can't use."""
    folder, command = tmp_path / "gpus", tmp_path / "nvidia-smi"
    if request.param == "nvidia-smi":
        command.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA GeForce RTX 3060 (UUID: GPU-1)'\n")
        command.chmod(0o755)
    else:
        (folder / "0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_a_cpu_build_leaves_idle_is_told(machine_with_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "has an NVIDIA GPU, but computes on the CPU: this PyTorch" in (idle_gpu() or "")
    assert "built without CUDA (see docs/quickstart.md#install)" in (idle_gpu() or "")


def test_a_gpu_that_its_driver_or_a_variable_hides_is_told(
    machine_with_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert (idle_gpu() or "").endswith("nvidia-smi tells what the driver sees)")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    assert (idle_gpu() or "").endswith("CUDA_VISIBLE_DEVICES=9 may name none that is there")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_hidden_on_purpose_is_not_told(
    machine_with_a_gpu: None, hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert idle_gpu() is None


def test_nothing_is_told_where_there_is_no_gpu_or_its_tool_fails(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert idle_gpu() is None
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    command.chmod(0o755)
    assert idle_gpu() is None


def test_where_the_gpu_works_nothing_is_told(two_gpus: None) -> None:
    assert idle_gpu() is None
