"""Leaf modules: initialisation, dropout masks, prenet, and what attention promises."""

from collections.abc import Iterator
from math import sqrt
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers import (
    Attention,
    ConvNorm,
    Gain,
    LinearNorm,
    LocationLayer,
    Prenet,
    activation_dropout,
    bernoulli_mask,
    dropout_mask,
    padding_mask,
)  # fmt: skip

TANH_GAIN = 5.0 / 3.0  # torch.nn.init.calculate_gain, from Glorot and He
GAINS: dict[Gain, float] = {"linear": 1.0, "sigmoid": 1.0, "tanh": TANH_GAIN, "relu": sqrt(2.0)}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("gain", GAINS)
def test_xavier_fills_the_interval_that_its_activation_asks_for(gain: Gain) -> None:
    linear = LinearNorm(60, 40, gain=gain).linear_layer.weight
    conv = ConvNorm(12, 8, 5, gain=gain).conv.weight
    for weight, bound in ((linear, sqrt(6 / (60 + 40))), (conv, sqrt(6 / ((12 + 8) * 5)))):
        limit = GAINS[gain] * bound
        assert 0.97 * limit < weight.abs().max() <= limit * (1 + 1e-6)


def test_without_xavier_a_layer_starts_as_pytorchs() -> None:
    pairs = [
        (lambda: LinearNorm(6, 4, gain="tanh", xavier=False).linear_layer, lambda: nn.Linear(6, 4)),
        (lambda: ConvNorm(6, 4, 3, gain="tanh", xavier=False).conv, lambda: nn.Conv1d(6, 4, 3)),
    ]
    for ours, pytorchs in pairs:
        torch.manual_seed(1)
        actual = ours()
        torch.manual_seed(1)
        expected = pytorchs()
        assert torch.equal(actual.weight, expected.weight) and torch.equal(actual.bias, expected.bias)


def test_a_convolution_keeps_the_length() -> None:
    assert ConvNorm(3, 5, 7)(torch.randn(2, 3, 11)).shape == (2, 5, 11)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(AssertionError, match="shift"):
        ConvNorm(3, 5, 4)


def test_a_dropout_mask_keeps_the_mean() -> None:
    mask = dropout_mask((400, 500), 0.3, like=torch.zeros(1))
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    # 200,000 draws: the share of zeros has a standard deviation of 0.001
    assert (mask == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.999])
def test_units_are_dropped_at_the_given_rate_and_independently(rate: float) -> None:
    n = 1_000_000
    torch.manual_seed(3)
    is_kept = bernoulli_mask(n, rate)
    spread = (rate * (1 - rate) / n) ** 0.5  # of the share of dropped ones; 2^-17 is what rounding the rate may do
    assert (~is_kept).float().mean().item() == pytest.approx(rate, abs=5 * spread + 2**-17)
    centred = is_kept.double() - is_kept.double().mean()
    for distance in (1, 2, 3, 4, 1024):  # four units come from one draw
        together = (centred[:-distance] * centred[distance:]).mean() / centred.var()
        assert abs(together.item()) < 5 / n**0.5


def test_nothing_to_drop_needs_no_mask_and_no_random_numbers() -> None:
    before = torch.get_rng_state()
    assert dropout_mask((3,), 0.0, like=torch.zeros(1)) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_decides_the_mask() -> None:
    def draw(seed: int) -> Tensor | None:
        return dropout_mask((50,), 0.5, like=torch.zeros(1), generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("training", [True, False])
def test_prenet_dropout_stays_on_in_eval_mode(training: bool) -> None:
    prenet = Prenet(8, 200, dropouts=(0.5, None), xavier=True).train(training)
    frame = torch.randn(1, 8)
    without = F.relu(prenet.layers[1](F.relu(prenet.layers[0](frame))))
    reachable = (without > 0).sum()
    assert (prenet(frame) > 0).sum() < 0.8 * reachable
    assert not torch.equal(prenet(frame), prenet(frame))


def test_speaking_has_a_prenet_dropout_of_its_own() -> None:
    prenet, frame = Prenet(8, 200, dropouts=(0.5, 0.0), xavier=True), torch.randn(1, 8)
    assert not torch.equal(prenet.train()(frame), prenet(frame))
    assert torch.equal(prenet.eval()(frame), prenet(frame))


def test_prenet_without_dropout_is_two_relu_layers() -> None:
    prenet = Prenet(8, 20, dropouts=(0.0, None), xavier=True)
    frame = torch.randn(3, 8)
    first, second = (layer.linear_layer.weight for layer in prenet.layers)
    expected = (second @ (first @ frame.t()).clamp(min=0)).clamp(min=0).t()
    torch.testing.assert_close(prenet(frame), expected)


def attention_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """query, memory, processed memory, last and summed weights, padding of two texts of 6 and 4 symbols."""
    padding = padding_mask(torch.tensor([6, 4]), 6)
    shapes = [(2, 10), (2, 6, 7), (2, 6, 5), (2, 2, 6)]
    return (*(torch.randn(shape, dtype=dtype) for shape in shapes), padding)


def attention() -> Attention:
    return Attention(10, 7, 5, 3, 5, xavier=True)


def test_attention_weights_sum_to_one_and_skip_the_padding() -> None:
    _, weights = attention()(*attention_inputs())
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[1, 4:].tolist() == [0.0, 0.0] and bool((weights[0] > 0).all())


def test_the_context_is_the_weighted_memory() -> None:
    query, memory, *rest = attention_inputs()
    context, weights = attention()(query, memory, *rest)
    torch.testing.assert_close(context, (weights.unsqueeze(2) * memory).sum(1))


def test_memory_behind_a_text_is_never_read() -> None:
    layer = attention()
    query, memory, keys, previous, padding = attention_inputs()
    context, weights = layer(query, memory, keys, previous, padding)
    spoiled = padding.unsqueeze(2)
    again = layer(query, memory.masked_fill(spoiled, 9.0), keys.masked_fill(spoiled, 9.0), previous, padding)
    torch.testing.assert_close(again[0], context)
    torch.testing.assert_close(again[1], weights)


def test_attention_weights_follow_the_formula() -> None:
    layer, (query, memory, keys, previous, padding) = attention().double(), attention_inputs(torch.float64)
    _, weights = layer(query, memory, keys, previous, padding)
    location = layer.location_layer
    filters, dense = location.location_conv.conv.weight, location.location_dense.linear_layer.weight
    for b, length in enumerate((6, 4)):
        energies = []
        for n in range(length):
            window = F.pad(previous[b], (2, 2))[:, n : n + 5]  # [2, kernel_size]
            f = (filters * window).sum((1, 2))
            energies.append(layer.v(torch.tanh(layer.query_layer(query[b]) + keys[b, n] + dense @ f)))
        torch.testing.assert_close(weights[b, :length], torch.cat(energies).softmax(0), rtol=1e-12, atol=0)


def test_attention_weights_are_at_least_single_precision() -> None:
    layer, inputs = attention(), attention_inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(*inputs)[1].dtype == torch.float32
    assert layer.double()(*attention_inputs(torch.float64))[1].dtype == torch.float64


def test_the_folded_kernel_equals_convolution_and_projection() -> None:
    layer = LocationLayer(3, 5, 7, xavier=True).double()
    weights = torch.randn(2, 2, 11, dtype=torch.float64)
    folded = F.conv1d(weights, layer.folded_kernel(), padding=2).transpose(1, 2)
    torch.testing.assert_close(folded, layer(weights), rtol=1e-12, atol=1e-14)


def test_padding_lies_behind_the_length() -> None:
    assert padding_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [False, False, True], [True, True, True], [False, False, False],
    ]  # fmt: skip


ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh}


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("rate", [0.5, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropped_equals_activation_times_the_mask_of_the_same_seed(
    activation: Literal["relu", "tanh"], rate: float, dtype: torch.dtype
) -> None:
    x = torch.randn(3, 40, 7, dtype=dtype).requires_grad_()
    results = []
    for is_ours in (True, False):
        torch.manual_seed(4)
        if is_ours:
            y = activation_dropout(x, rate, activation=activation)
        else:
            y = ACTIVATIONS[activation](x) * dropout_mask((3, 40, 7), rate, like=x.detach())
        results.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    (ours, gradient), (expected, expected_gradient) = results
    assert torch.equal(ours, expected)
    # tanh is read back from its activation_dropout, rescaled value: one rounding more
    rounding = 3e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(gradient, expected_gradient, rtol=rounding, atol=rounding)


def test_dropped_keeps_one_tensor_and_a_byte_a_unit_for_its_gradient() -> None:
    kept: list[int] = []
    x = torch.randn(64, 64, requires_grad=True) * 1.0
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        activation_dropout(x, 0.5, activation="tanh")
        assert sum(kept) == x.nbytes + x.numel()
        kept.clear()
        activation_dropout(x, 0.5, activation="relu")
        assert sum(kept) == x.nbytes


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_without_a_rate_nothing_is_dropped(activation: Literal["relu", "tanh"]) -> None:
    x = torch.randn(5, 6)
    assert torch.equal(activation_dropout(x, 0.0, activation=activation), ACTIVATIONS[activation](x))
