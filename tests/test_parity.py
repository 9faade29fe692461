"""Equal weights give an independent implementation's outputs, loss and gradients; its checkpoints load.

The other side is the PyPI package `tacotron2-model`, NVIDIA's model with its hyperparameters as arguments. Both sides
run in float64: rounding then is far below 1e-9, and what differs by more is a difference of the maths.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from checkpointing.checkpoint_file import read
from checkpointing.weights import load_exactly, weights_of
from common.errors import UserError
from hparams import create_hparams
from layers import dropout_mask, padding_mask
from loss_function import unmasked_nvidia_loss
from model import Outputs, Tacotron2

SIZES = {
    "n_mel_channels": 6,
    "symbols_embedding_dim": 12,
    "encoder_embedding_dim": 12,
    "encoder_n_convolutions": 2,
    "attention_rnn_dim": 16,
    "attention_dim": 8,
    "attention_location_n_filters": 3,
    "attention_location_kernel_size": 5,
    "decoder_rnn_dim": 14,
    "prenet_dim": 10,
    "postnet_embedding_dim": 10,
    "postnet_n_convolutions": 3,
}
NO_DROPOUT = dict.fromkeys(
    ("encoder_dropout_rate", "dropout_rate", "p_attention_dropout", "p_decoder_dropout", "postnet_dropout_rate"), 0.0
)
MASKED_TOO_EARLY = "postnet.convolutions.0.0.conv.weight"
Dropout = Callable[[Tensor, float, bool], Tensor]


def theirs() -> Any:
    """Imported by the tests that need it: it brings librosa, and every test process reads this file."""
    return pytest.importorskip("tacotron2_model.model", reason="needs requirements-dev.txt: tacotron2-model")


@cache
def ancestor() -> type:
    """The other implementation, with outputs masked in a copy.

    It masks the mel in place after the postnet read it, and autograd then takes the gradient of the postnet's first
    convolution from the masked mel. `test_masking_in_place_spoils_one_gradient` shows that this is an error.
    """

    class Ancestor(theirs().Tacotron2):
        def parse_output(self, outputs: list[Tensor], output_lengths: Tensor | None = None) -> list[Tensor]:
            return super().parse_output([o.clone() for o in outputs], output_lengths)

    return Ancestor


@contextmanager
def nvidia_on_cpu(dropout: Dropout = lambda x, p, training: x) -> Iterator[None]:
    """Inside, its dropout is `dropout` (the prenet's can't be switched off otherwise), and its mask needs no GPU."""
    functional = SimpleNamespace(relu=F.relu, softmax=F.softmax, dropout=dropout)

    def valid(lengths: Tensor) -> Tensor:
        return ~padding_mask(lengths, int(lengths.max()))

    with patch.object(theirs(), "F", functional), patch.object(theirs(), "get_mask_from_lengths", valid):
        yield


@dataclass(frozen=True)
class RaggedBatch:
    """Sorted by text length, which the other side requires; zeros in the padding, as it has them."""

    text: Tensor
    text_lengths: Tensor
    mel: Tensor
    mel_lengths: Tensor
    gate: Tensor


def ragged_batch(n_mels: int, *, dtype: torch.dtype = torch.float64) -> RaggedBatch:
    generator = torch.Generator().manual_seed(3)
    text_lengths, mel_lengths = torch.tensor([9, 7, 4]), torch.tensor([11, 14, 6])
    text = torch.randint(1, 148, (3, 9), generator=generator).masked_fill(padding_mask(text_lengths, 9), 0)
    mel = torch.randn(3, n_mels, 14, generator=generator, dtype=dtype)
    mel = mel.masked_fill(padding_mask(mel_lengths, 14).unsqueeze(1), 0.0)
    gate = padding_mask(mel_lengths - 1, 14).to(dtype)  # 1 from the last frame on
    return RaggedBatch(text, text_lengths, mel, mel_lengths, gate)


def ours_with(**overrides: Any) -> Tacotron2:
    values = {**SIZES, **NO_DROPOUT, **overrides}
    return Tacotron2(create_hparams(",".join(f"{name}={value}" for name, value in values.items())))


def twins(*, training: bool, model_class: type | None = None, **overrides: Any) -> tuple[Tacotron2, nn.Module]:
    """Ours and the other, with the same weights, in float64."""
    torch.manual_seed(0)
    rates = {name: overrides[name] for name in ("p_attention_dropout", "p_decoder_dropout") if name in overrides}
    other = (model_class or ancestor())(**SIZES, **rates).double().train(training)
    for name, buffer in other.named_buffers():  # statistics of a trained model: neither mean 0 nor variance 1
        if buffer.is_floating_point():
            buffer.uniform_(-0.1, 0.1) if name.endswith("mean") else buffer.uniform_(0.5, 1.5)
    ours = ours_with(**overrides).double().train(training)
    ours.load_state_dict(other.state_dict())
    return ours, other


def run_ours(model: Tacotron2, batch: RaggedBatch) -> Outputs:
    return model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)


def run_other(model: nn.Module, batch: RaggedBatch) -> Outputs:
    inputs = (batch.text, batch.text_lengths, batch.mel, batch.text.size(1), batch.mel_lengths)
    return Outputs(*model(inputs))


def common_parts(outputs: Outputs) -> dict[str, Tensor]:
    """What both sides predict; the parts of ours that are off by default are None."""
    return {name: value for name, value in vars(outputs).items() if value is not None}


def other_loss(outputs: Outputs, batch: RaggedBatch) -> Tensor:
    from tacotron2_model import Tacotron2Loss

    return Tacotron2Loss()(list(common_parts(outputs).values()), (batch.mel, batch.gate))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def values_by_name(outputs: Outputs, batch: RaggedBatch) -> dict[str, Tensor]:
    """With the gate's valid logits apart: beside the 1000 of its padding they would all look equal."""
    behind = padding_mask(batch.mel_lengths, batch.gate.size(1))
    logits = outputs.gate_logits
    return {**common_parts(outputs), "gate_logits": logits[~behind], "gate_padding": logits[behind]}


def relative_difference(ours: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((ours - other).detach().abs().max() / other.detach().abs().max())


def worst_gradient(ours: Mapping[str, Tensor], other: Mapping[str, Tensor], *, zero: Callable[[str], bool]) -> float:
    """Largest relative difference of any tensor; where the truth is `zero`, against the largest gradient of all."""
    assert ours.keys() == other.keys()
    scale = max(float(g.abs().max()) for g in other.values())
    differences = {
        name: float((ours[name] - g).abs().max()) / scale if zero(name) else relative_difference(ours[name], g)
        for name, g in other.items()
    }
    return max(differences.values())


def cancelled_by_batch_norm(name: str) -> bool:
    """Batch normalisation subtracts the mean, and with it the bias of the convolution before it."""
    return name.endswith(".conv.bias")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


backends = pytest.mark.parametrize("backend", ["plain", "fast"])
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@backends
@modes
def test_outputs_equal_the_other_implementation(training: bool, backend: str) -> None:
    ours, other = twins(training=training, decoder_backend=backend)
    batch = ragged_batch(SIZES["n_mel_channels"])
    with torch.no_grad(), nvidia_on_cpu():
        expected, actual = run_other(other, batch), run_ours(ours, batch)
    found = values_by_name(actual, batch)
    for name, value in values_by_name(expected, batch).items():
        assert found[name].dtype == value.dtype, name
        assert relative_difference(found[name], value) < 1e-9, name


@backends
@modes
def test_loss_and_gradients_equal_the_other_implementation(training: bool, backend: str) -> None:
    ours, other = twins(training=training, decoder_backend=backend)
    batch = ragged_batch(SIZES["n_mel_channels"])
    with nvidia_on_cpu():
        expected = other_loss(run_other(other, batch), batch)
    actual = unmasked_nvidia_loss(run_ours(ours, batch), batch.mel, batch.gate, 1.0)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-9)
    pair = gradients(ours, actual), gradients(other, expected)
    assert worst_gradient(*pair, zero=lambda name: training and cancelled_by_batch_norm(name)) < 1e-9


def test_batch_statistics_are_tracked_as_the_other_implementation_does() -> None:
    ours, other = twins(training=True)
    batch = ragged_batch(SIZES["n_mel_channels"])
    with torch.no_grad(), nvidia_on_cpu():
        run_ours(ours, batch), run_other(other, batch)
    expected = dict(other.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=1e-9, atol=0)


@backends
def test_hidden_states_are_dropped_where_the_other_implementation_drops_them(backend: str) -> None:
    rates = {"p_attention_dropout": 0.25, "p_decoder_dropout": 0.5}
    ours, other = twins(training=True, decoder_backend=backend, **rates)
    batch = ragged_batch(SIZES["n_mel_channels"])
    B, T_dec = batch.gate.shape
    like = batch.mel
    torch.manual_seed(11)  # our forward pass draws exactly these two, in this order
    drawn = {
        0.25: iter(dropout_mask((T_dec, B, SIZES["attention_rnn_dim"]), 0.25, like=like)),
        0.5: iter(dropout_mask((T_dec, B, SIZES["decoder_rnn_dim"]), 0.5, like=like)),
    }

    def same_dropout(x: Tensor, p: float, training: bool) -> Tensor:
        return x * next(drawn[p]) if x.dim() == 2 and x.size(1) > SIZES["prenet_dim"] else x

    with nvidia_on_cpu(same_dropout):
        expected = other_loss(run_other(other, batch), batch)
    assert all(next(masks, None) is None for masks in drawn.values()), "every mask was used"
    torch.manual_seed(11)
    actual = unmasked_nvidia_loss(run_ours(ours, batch), batch.mel, batch.gate, 1.0)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-9)
    assert worst_gradient(gradients(ours, actual), gradients(other, expected), zero=cancelled_by_batch_norm) < 1e-9


def test_masking_in_place_spoils_one_gradient() -> None:
    ours, spoiled = twins(training=False, model_class=theirs().Tacotron2)
    batch = ragged_batch(SIZES["n_mel_channels"])
    with nvidia_on_cpu():
        wrong = gradients(spoiled, other_loss(run_other(spoiled, batch), batch))
    right = gradients(ours, unmasked_nvidia_loss(run_ours(ours, batch), batch.mel, batch.gate, 1.0))
    off = [name for name in right if relative_difference(wrong[name], right[name]) > 1e-9]
    assert off == [MASKED_TOO_EARLY]
    assert relative_difference(wrong[MASKED_TOO_EARLY], right[MASKED_TOO_EARLY]) > 0.01


@modes
def test_our_gradient_of_the_first_postnet_convolution_is_the_slope_of_the_loss(training: bool) -> None:
    ours, _ = twins(training=training)
    batch = ragged_batch(SIZES["n_mel_channels"])
    weight = ours.get_parameter(MASKED_TOO_EARLY)

    def loss() -> Tensor:
        return unmasked_nvidia_loss(run_ours(ours, batch), batch.mel, batch.gate, 1.0)

    gradient = gradients(ours, loss())[MASKED_TOO_EARLY]
    step = 1e-5  # central differences: error about step^2, rounding about 1e-16 / step
    for index in [(0, 0, 0), (3, 2, 1), (9, 5, 4), (6, 4, 2)]:
        at = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                weight[index] += sign * step
                at.append(loss().item())
                weight[index] -= sign * step
        slope = (at[0] - at[1]) / (2 * step)
        assert abs(float(gradient[index]) - slope) < 1e-7 * float(gradient.abs().max())


@pytest.fixture(scope="module")
def full_size() -> nn.Module:
    torch.manual_seed(1)
    return ancestor()().eval()


def test_full_size_outputs_in_single_precision_agree_to_1e_5(full_size: nn.Module) -> None:
    ours = Tacotron2(create_hparams(",".join(f"{name}={rate}" for name, rate in NO_DROPOUT.items()))).eval()
    ours.load_state_dict(full_size.state_dict())
    batch = ragged_batch(80, dtype=torch.float32)
    with torch.no_grad(), nvidia_on_cpu():
        expected, actual = run_other(full_size, batch), run_ours(ours, batch)
    found = values_by_name(actual, batch)
    for name, value in values_by_name(expected, batch).items():
        assert relative_difference(found[name], value) < 1e-5, name


def nvidia_file(path: Path, model: nn.Module, *, prefix: str = "") -> Path:
    """A file as NVIDIA's train.py saves it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    content = {"iteration": 1000, "state_dict": state, "optimizer": optimizer.state_dict(), "learning_rate": 1e-3}
    torch.save(content, path)
    return path


# DeepLearningExamples' files carry "module." or "module.1." from its data-parallel wrappers
@pytest.mark.parametrize("prefix", ["", "module.", "module.1."])
def test_a_checkpoint_of_nvidia_loads_whole(tmp_path: Path, prefix: str) -> None:
    other = ancestor()(**SIZES)
    path = nvidia_file(tmp_path / "checkpoint_1000", other, prefix=prefix)
    ours = ours_with()
    load_exactly(ours, read(path), path=path)
    for name, tensor in other.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


def test_a_bare_full_size_state_dict_loads_into_the_default_model(tmp_path: Path, full_size: nn.Module) -> None:
    path = tmp_path / "tacotron2_statedict.pt"
    torch.save({"state_dict": full_size.state_dict()}, path)
    ours = Tacotron2(create_hparams())
    load_exactly(ours, read(path), path=path)
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in full_size.state_dict().items())


def test_a_bare_state_dict_is_recognised() -> None:
    state = ancestor()(**SIZES).state_dict()
    assert weights_of(state).keys() == state.keys()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    state = ancestor()(**SIZES).state_dict()
    del state["decoder.gate_layer.linear_layer.bias"]
    with pytest.raises(UserError, match=r"x\.pt does not fit .* 1 places:\n  missing: decoder\.gate_layer"):
        load_exactly(ours_with(), {"state_dict": state}, path=tmp_path / "x.pt")


def test_a_tensor_that_this_model_lacks_is_named(tmp_path: Path) -> None:
    state = {**ancestor()(**SIZES).state_dict(), "mi.proj.0.weight": torch.zeros(2)}
    with pytest.raises(UserError, match=r"not in this model: mi\.proj\.0\.weight"):
        load_exactly(ours_with(), {"state_dict": state}, path=tmp_path / "x.pt")


def test_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    ours = ours_with()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    state = {**ancestor()(**SIZES).state_dict(), "embedding.weight": torch.zeros(40, 12)}
    with pytest.raises(UserError, match=r"embedding\.weight is \(40, 12\) there, \(148, 12\) here") as caught:
        load_exactly(ours, {"state_dict": state}, path=tmp_path / "x.pt")
    assert "--warm-start" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items()), "nothing was loaded"
