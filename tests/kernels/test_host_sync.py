"""On the path that a GPU takes, nothing in a training step's forward and backward pass makes the host wait."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import backend_registration

from corpus.batch import Batch, gate_targets
from hparams import HParams, create_hparams
from kernels import inference
from kernels.chunked_steps import chunk_for
from kernels.host_sync import METHODS, HostSyncError, allow_host_sync, are_waits_forbidden, forbid_host_sync, read_async
from kernels.inference import TorchWeights
from loss_function import tacotron2_loss
from losses.auxiliary import AuxiliaryLosses
from model import DecodeLimits, Tacotron2
from modules.stopping import StopTracker
from recovery.ladder import StepLimits
from support.corpora import TINY
from support.decoding import LENGTHS, LIMITS, assert_same, speak, texts, voice
from support.gpu_path import take_gpu_path
from support.paths import REPOSITORY
from text.front_end import FrontEnd
from training.train_step import TrainStep

CORPUS = SimpleNamespace(front_end=FrontEnd.create())  # all that a step without dropped frames asks of it
SPOKEN = torch.tensor(CORPUS.front_end.table.needs_sound)
CPU = torch.device("cpu")
VALUES = torch.tensor([3.0, 1.0, 2.0])
IS_BIG = VALUES > 1.5


@pytest.fixture
def path_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    take_gpu_path(monkeypatch)
    yield
    chunk_for.cache_clear()


WAITS: dict[str, Callable[[], object]] = {
    "item": lambda: VALUES[0].item(),
    "tolist": lambda: VALUES.tolist(),
    "numpy": lambda: VALUES.numpy(),
    "an array": lambda: np.asarray(VALUES),
    "cpu": lambda: VALUES.cpu(),
    "to a device": lambda: VALUES.to("cpu"),
    "to a device, and another type": lambda: VALUES.to(device=CPU, dtype=torch.float64),
    "if": lambda: 1 if VALUES[0] > 2.0 else 2,
    "float": lambda: float(VALUES[0]),
    "int": lambda: int(VALUES[0]),
    "range": lambda: range(VALUES[0].long()),
    "max": lambda: max(VALUES),
    "in": lambda: 3.0 in VALUES,
    "a mask as an index": lambda: VALUES[IS_BIG],
    "a mask to set": lambda: VALUES.clone().__setitem__(IS_BIG, 0.0),
    "a list as an index": lambda: VALUES[[0, 2]],
    "masked_select": lambda: torch.masked_select(VALUES, IS_BIG),
    "nonzero": lambda: VALUES.nonzero(),
    "where": lambda: torch.where(IS_BIG),
    "unique": lambda: VALUES.unique(),
    "repeat_interleave": lambda: torch.repeat_interleave(VALUES, torch.tensor([1, 2, 1])),
    "a size": lambda: torch.zeros(IS_BIG.sum()),
    "a slice": lambda: VALUES[: IS_BIG.sum()],
    "equal": lambda: torch.equal(VALUES, VALUES),
    "allclose": lambda: torch.allclose(VALUES, VALUES),
    "a tensor of values": lambda: torch.tensor([1.0, 2.0], device=CPU),
    "packed sequences": lambda: nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), torch.tensor([3, 2])),
    "PyTorch's CTC": lambda: F.ctc_loss(
        torch.zeros(3, 1, 4), torch.ones(1, 1, dtype=torch.long), torch.tensor([3]), torch.tensor([1])
    ),
    "clipping that raises": lambda: nn.utils.clip_grad_norm_(_with_gradient(), 1.0, error_if_nonfinite=True),
    "in a backward pass": lambda: _Asking.apply(VALUES.clone().requires_grad_()).sum().backward(),
}


class _Asking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad if grad.sum() > 0 else -grad


def _with_gradient() -> nn.Parameter:
    parameter = nn.Parameter(VALUES.clone())
    parameter.grad = VALUES.clone()
    return parameter


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_waits_is_caught(wait: Callable[[], object]) -> None:
    wait()
    with forbid_host_sync(CPU), pytest.raises(HostSyncError):
        wait()
    with forbid_host_sync(CPU), allow_host_sync(CPU):
        wait()
    with forbid_host_sync(CPU), pytest.raises(HostSyncError):  # what may wait has an end
        wait()
    wait()


def test_what_does_not_wait_passes() -> None:
    with forbid_host_sync(CPU):
        x = VALUES.masked_fill(IS_BIG, 0.0).index_select(0, torch.arange(2)).to(torch.float64)
        assert x.shape == (2,) and len(VALUES) == 3
        VALUES.clone()[1:] = 0.0
        torch.where(IS_BIG, VALUES, 0.0).to(CPU, non_blocking=True)
        nn.utils.clip_grad_norm_(_with_gradient(), 1.0)


def test_values_may_be_asked_for_and_read_later() -> None:
    with forbid_host_sync(CPU):
        later = read_async(VALUES)
    assert later() == [3.0, 1.0, 2.0]


# ---- a training step


GST = "use_gst=True,ref_enc_filters=[4,4],ref_enc_gru_size=8,token_embedding_size=8,num_heads=2,token_num=3"
OPTIONS = {
    "nothing": "",
    "MMI": "use_mmi=True",
    "double decoder consistency": "use_ddc_loss=True,ddc_reduction_factor=4",
    "style tokens": GST,
    "two frames a step": "n_frames_per_step=2",
    "monotonicity": "attention_alignment_loss_weight=0.5",
    "frames fed back": "p_teacher_forcing=0.5",
    "no masks": "mask_padding=False",
    "no dropout": "p_attention_dropout=0,p_decoder_dropout=0,dropout_rate=0",
    "all": f"use_mmi=True,use_ddc_loss=True,ddc_reduction_factor=4,n_frames_per_step=2,{GST}",
}


def settings(options: str) -> HParams:
    return create_hparams(f"{TINY},use_guided_attn=True,{options}".rstrip(","))


def batch_for(model: Tacotron2, n_speakers: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(2)
    mel_lengths = torch.tensor([44, 30, 17])
    return Batch(
        text=torch.randint(1, 148, (3, 13), generator=generator),
        text_lengths=torch.tensor([13, 9, 4]),
        mel=torch.randn(3, model.decoder.n_mels, 44, generator=generator),
        mel_lengths=mel_lengths,
        gate=gate_targets(mel_lengths, 44, r=model.r),
        utterance_ids=("a", "b", "c"),
        speakers=torch.tensor([0, 2, 1]) if n_speakers else None,
    )


def pass_through(model: Tacotron2, losses: AuxiliaryLosses, batch: Batch, hp: HParams, *, bf16: bool) -> Tensor:
    """Forward, all losses, backward. -> the loss"""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = model(
            batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speakers=batch.speakers,
            teacher=batch.mel,
        )  # fmt: skip
    terms = tacotron2_loss(
        outputs, batch.mel, batch.gate, text_lengths=batch.text_lengths, mel_lengths=batch.mel_lengths, hp=hp,
        r=model.r, mask_padding=hp.mask_padding, guide=1.0,
    )  # fmt: skip
    share = torch.ones(())
    terms = losses.add(terms, outputs, batch, step=0, share=share, by_utterances=1.0)
    terms.total.backward()
    return terms.total.detach()


def gradients(model: Tacotron2) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_training_pass_never_waits(options: str, bf16: bool, path_of_a_gpu: None) -> None:
    hp = settings(options)
    torch.manual_seed(0)
    model = Tacotron2(hp, n_speakers=3).train()
    losses, batch = AuxiliaryLosses(hp, model, SPOKEN, CPU), batch_for(model, 3)
    with forbid_host_sync(CPU):
        loss = pass_through(model, losses, batch, hp, bf16=bf16)
    assert loss.isfinite() and gradients(model).isfinite().all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("bf16", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_whole_step_never_waits(options: str, bf16: bool, path_of_a_gpu: None) -> None:
    """Of two micro-batches: copying, forward, backward, clipping, the verdict, Adam, running statistics."""
    hp = create_hparams(f"{TINY},fp16_run={bf16},amp_dtype=bf16,{options}".rstrip(","))
    torch.manual_seed(0)
    model = Tacotron2(hp, n_speakers=3).train()
    train_step = TrainStep(hp, model, CORPUS, CPU)
    before = [p.detach().clone() for p in model.parameters()]
    train_step.forbids_waits = True
    for step, limits in enumerate((StepLimits(inf, inf), StepLimits(inf, 0.0)), 1):  # the second one is not taken
        result = train_step.run([batch_for(model, 3)] * 2, step=step, rate_scale=1.0, limits=limits)
        loss, norm, is_taken = result.numbers.tolist()
        assert loss > 0 and norm > 0 and is_taken == (step == 1)
    assert not all(map(torch.equal, before, model.parameters()))


def test_on_a_cpu_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TACOTRON2_FORBID_WAITS", "1")
    hp = settings("")
    assert not TrainStep(hp, Tacotron2(hp).train(), CORPUS, CPU).forbids_waits


def test_a_step_that_waits_says_so_where_that_is_forbidden(
    path_of_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, expected in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("TACOTRON2_FORBID_WAITS", value)
        assert are_waits_forbidden() == expected
    hp = settings("use_mmi=True")
    train_step = TrainStep(hp, Tacotron2(hp).train(), CORPUS, CPU)
    assert train_step.forbids_waits
    monkeypatch.setattr("losses.mmi.is_gpu", lambda device: False)
    with pytest.raises(HostSyncError, match="ctc"):
        train_step.run([batch_for(train_step.model)], step=1, rate_scale=1.0, limits=StepLimits(inf, inf))


def test_the_path_of_a_cpu_does_wait() -> None:
    """So the test above can fail."""
    hp = settings("use_mmi=True,decoder_backend=plain")
    model = Tacotron2(hp).train()
    losses, batch = AuxiliaryLosses(hp, model, SPOKEN, CPU), batch_for(model)
    with forbid_host_sync(CPU), pytest.raises(HostSyncError, match="_pack_padded_sequence|cpu"):
        pass_through(model, losses, batch, hp, bf16=False)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_both_paths_give_the_same_loss_and_gradients(
    options: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    without_dropout = "encoder_dropout_rate=0,postnet_dropout_rate=0"
    hp = settings(",".join(filter(None, (options, without_dropout))))
    found = []
    for is_gpu in (False, True):
        if is_gpu:
            request.getfixturevalue("path_of_a_gpu")
        torch.manual_seed(0)
        model = Tacotron2(hp).train().double()
        losses, batch = AuxiliaryLosses(hp, model, SPOKEN, CPU), batch_for(model)
        batch = Batch(**{**vars(batch), "mel": batch.mel.double(), "gate": batch.gate.double()})
        torch.manual_seed(1)
        found.append((pass_through(model, losses, batch, hp, bf16=False), gradients(model)))
    (loss, grads), (expected, expected_grads) = found
    # double precision, but for the adaptive factor of MMI and style, which are single
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert float((grads - expected_grads).norm() / expected_grads.norm()) < 1e-6


@pytest.mark.slow
def test_nothing_of_the_path_is_left_on_the_host() -> None:
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this PyTorch has no devices made of Python")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))}
    command = [sys.executable, "-m", "support.fake_device"]  # its own folder must not stand first in the path
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["a tensor on the host is noticed", "44 results, on ['standin']"]


# ---- speech


@pytest.mark.parametrize("options", ["", "n_frames_per_step=3", "use_forward_attention=True", "dropout_rate=0.0"])
@pytest.mark.parametrize("n", [1, 3])
def test_speech_on_the_path_of_a_gpu_is_the_same(
    n: int, options: str, path_of_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "STEPS_ON_DEVICE", 5)
    model = voice(options)
    expected = speak(model, "plain", n=n)
    model.decoder.prepare_for_inference("fp32")
    for backend in ("fast", "auto", "auto"):  # the last time with what the one before has recorded
        assert_same(speak(model, backend, n=n), expected, within=1e-11)


def test_a_loop_serves_all_texts_of_about_the_same_length(path_of_a_gpu: None) -> None:
    model = voice()
    model.decoder.prepare_for_inference("fp32")
    limits = DecodeLimits(max_frames=30)
    for n_symbols in (9, 4, 31):
        text, lengths = torch.randint(1, 148, (1, n_symbols)), torch.tensor([n_symbols])
        spoken = []
        for backend in ("plain", "auto"):
            model.decoder.backend = backend
            spoken.append(model.infer(text, lengths, limits, generator=torch.Generator().manual_seed(4)))
        assert_same(spoken[1], spoken[0], within=1e-11)
    assert model.decoder.prepared is not None and len(model.decoder.prepared.recorded) == 1


def test_a_run_of_speech_never_waits(path_of_a_gpu: None) -> None:
    model = voice()
    memory = model.decoder.attend(model.encode(texts(3), LENGTHS), LENGTHS)
    loop = TorchWeights(model.decoder, n_rows=3).begin(model.decoder, memory)
    tracker = StopTracker(LENGTHS, LIMITS, 1)
    with forbid_host_sync(CPU):
        loop.draw(torch.Generator().manual_seed(1))
        loop.run()
        said = loop.take()
        read_async(tracker.stop_signals(torch.sigmoid(said.gate_logits), said.weights))


# ---- the source

# What is recorded; and what may ask nevertheless, as it runs before any recording or only on a CPU
RECORDED = ("kernels/decoder_steps.py", "kernels/lstm_cell.py", "kernels/matmul.py", "kernels/chunked_steps.py",
            "kernels/ctc.py", "kernels/decoder_autograd.py", "kernels/inference.py", "kernels/packed_weights.py",
            "layers.py")  # fmt: skip
MAY_ASK = {"matmul.can_pack", "packed_weights.SparseColumns.add"}
ASKING = METHODS | {"nonzero", "unique", "masked_select", "equal", "allclose", "bincount"}


def asking_calls(node: ast.AST, place: str) -> Iterator[str]:
    """Module, class and function of every call that would ask a tensor for its value."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        place = f"{place}.{node.name}"
    if isinstance(node, ast.Call):
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr in ASKING
        is_cast = isinstance(node.func, ast.Name) and node.func.id in ("float", "int", "bool")
        if is_method or (is_cast and not isinstance(node.args[0], ast.Constant)):
            yield place
    for child in ast.iter_child_nodes(node):
        yield from asking_calls(child, place)


def test_what_is_recorded_asks_for_no_value() -> None:
    paths = [REPOSITORY / name for name in RECORDED]
    found = {place for path in paths for place in asking_calls(ast.parse(path.read_text("utf-8")), path.stem)}
    assert found == MAY_ASK
