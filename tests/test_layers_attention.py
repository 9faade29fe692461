"""From energies to weights: forward attention, smoothing, and attention to content alone."""

import math

import pytest
import torch
from torch import Tensor

from layers import AlignmentFunction, padding_mask
from support.models import MEL_LENGTHS, TEXT_LENGTHS, mels, small, teach, texts

LENGTHS, T_TEXT = torch.tensor([7, 4, 1]), 7
PADDING = padding_mask(LENGTHS, T_TEXT)
WAYS = {
    "softmax": AlignmentFunction(),
    "smoothed": AlignmentFunction(smoothing=0.3),
    "forward": AlignmentFunction(is_forward=True),
    "both": AlignmentFunction(smoothing=0.3, is_forward=True),
}


def energies_of(step: int, *, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(3, T_TEXT, generator=torch.Generator().manual_seed(step))


def walk(how: AlignmentFunction, n_steps: int, *, scale: float = 3.0) -> Tensor:
    """Weights of n_steps steps, [n_steps, 3, T_text]."""
    weights = [how.first_weights(torch.zeros(3, 2, T_TEXT))[:, 0]]
    for t in range(n_steps):
        weights.append(how(energies_of(t, scale=scale), PADDING, weights[-1]))
    return torch.stack(weights[1:])


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_rows_sum_to_one_and_padding_gets_nothing(how: AlignmentFunction, scale: float) -> None:
    weights = walk(how, 30, scale=scale)
    torch.testing.assert_close(weights.sum(2), torch.ones(30, 3))
    assert bool((weights.masked_select(PADDING) == 0).all())


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_gradients_stay_finite_where_energies_are_extreme(how: AlignmentFunction) -> None:
    energies = energies_of(0, scale=300.0).requires_grad_()
    last = how.first_weights(torch.zeros(3, 2, T_TEXT))[:, 0].clone().requires_grad_()
    second = how(energies.flip(1), PADDING, how(energies, PADDING, last))
    (second * torch.arange(T_TEXT)).sum().backward()
    assert energies.grad is not None and bool(torch.isfinite(energies.grad).all())
    assert last.grad is None or bool(torch.isfinite(last.grad).all())


def test_the_default_is_softmax() -> None:
    energies = energies_of(1)
    assert torch.equal(
        AlignmentFunction()(energies, PADDING, torch.zeros(3, T_TEXT)),
        torch.softmax(energies.masked_fill(PADDING, -math.inf), 1),
    )


# Smoothing


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_smoothing_mixes_in_sigmoids_divided_by_their_sum(share: float) -> None:
    energies = energies_of(2)
    weights = AlignmentFunction(smoothing=share)(energies, PADDING, torch.zeros(3, T_TEXT))
    for b, length in enumerate(LENGTHS.tolist()):
        e = [float(x) for x in energies[b, :length]]
        exps, sigmoids = [math.exp(x) for x in e], [1 / (1 + math.exp(-x)) for x in e]
        expected = [
            (1 - share) * x / sum(exps) + share * s / sum(sigmoids) for x, s in zip(exps, sigmoids, strict=True)
        ]
        torch.testing.assert_close(weights[b, :length], torch.tensor(expected))


def test_smoothing_lowers_the_peak() -> None:
    sharp, smooth = walk(WAYS["softmax"], 1), walk(WAYS["smoothed"], 1)
    assert bool((smooth[0, :2].amax(1) < sharp[0, :2].amax(1)).all())


# Forward attention


def slow_forward_attention(n_steps: int) -> Tensor:
    """The recursion of arXiv 1807.06736 with u = 0.5, number by number in double precision."""
    rows = torch.zeros(n_steps, 3, T_TEXT, dtype=torch.float64)
    for b, length in enumerate(LENGTHS.tolist()):
        last = [1.0] + [0.0] * (length - 1)
        for t in range(n_steps):
            e = energies_of(t)[b].tolist()
            mass = [(0.5 * last[n] + 0.5 * (last[n - 1] if n else 0.0)) * math.exp(e[n]) for n in range(length)]
            last = [m / sum(mass) for m in mass]
            rows[t, b, :length] = torch.tensor(last, dtype=torch.float64)
    return rows


def test_forward_attention_is_the_papers_recursion() -> None:
    torch.testing.assert_close(walk(WAYS["forward"], 12).double(), slow_forward_attention(12), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["forward", "both"])
def test_forward_attention_moves_on_by_one_symbol_at_most_and_never_back(name: str) -> None:
    how = WAYS[name]
    after_first = walk(how, 4)
    for t in range(4):
        assert bool((after_first[t, :, t + 2 :] == 0).all())  # one symbol a step from the first
    at_third = torch.zeros(3, T_TEXT)
    at_third[:, 2] = 1.0
    luring = torch.zeros(3, T_TEXT)
    luring[:, 0] = luring[:, 6] = 100.0  # nothing that energies say opens a closed position
    weights = how(luring, padding_mask(torch.tensor([7, 7, 7]), T_TEXT), at_third)
    assert bool((weights[:, [0, 1, 4, 5, 6]] == 0).all()) and bool((weights[:, 2:4] > 0).all())


def test_forward_attention_stays_on_the_last_symbol() -> None:
    at_last = torch.nn.functional.one_hot(LENGTHS - 1, T_TEXT).float()
    assert torch.equal(WAYS["forward"](energies_of(3), PADDING, at_last), at_last)


# In the model


@pytest.mark.parametrize(
    "option",
    [
        {"use_forward_attention": True},
        {"use_attention_smoothing": True},
        {"use_attention_smoothing": True, "attention_smoothing_factor": 0.4},
        {"use_location_sensitive_attention": False},
    ],
)
def test_each_option_changes_what_is_predicted_and_no_weight(option: dict[str, object]) -> None:
    default, other = small(dropout_rate=0.0), small(dropout_rate=0.0, **option)
    assert {k: v.shape for k, v in default.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in default.state_dict().items())  # the same draws
    assert not torch.allclose(teach(default).alignments, teach(other).alignments, atol=1e-4)


def test_the_smoothing_factor_acts_only_with_smoothing() -> None:
    default, factor = small(dropout_rate=0.0), small(dropout_rate=0.0, attention_smoothing_factor=0.9)
    assert torch.equal(teach(default).alignments, teach(factor).alignments)


def test_forward_attention_holds_when_speaking_too() -> None:
    from support.models import limits, set_gate, speak

    model = set_gate(small(use_forward_attention=True), -100.0)
    for spoken in speak(model, limits(dwell_frames=1000)):
        reachable = torch.arange(spoken.alignment.size(1))[None] <= torch.arange(spoken.alignment.size(0))[:, None] + 1
        assert bool((spoken.alignment[~reachable] == 0).all())
        position = (spoken.alignment * torch.arange(spoken.alignment.size(1))).sum(1)
        assert bool((position.diff() > -1.0).all())


def test_without_location_its_weights_get_no_gradient_and_all_others_do() -> None:
    model = small(use_location_sensitive_attention=False).train()
    outputs = model(texts(), TEXT_LENGTHS, mels(), MEL_LENGTHS)
    (outputs.mel_post.square().mean() + outputs.gate_logits[:, :4].sum()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if "location_layer" in name} and len(without) == 2


def test_without_location_where_attention_was_does_not_matter() -> None:
    for use_location in (True, False):
        layer = small(use_location_sensitive_attention=use_location).decoder.attention_layer
        query, memory, keys = torch.randn(1, 16), torch.randn(1, 4, 12), torch.randn(1, 4, 8)
        padding = torch.zeros(1, 4, dtype=torch.bool)
        with torch.no_grad():
            a, b = (layer(query, memory, keys, torch.full((1, 2, 4), x), padding)[1] for x in (0.0, 1.0))
        assert torch.equal(a, b) is not use_location
