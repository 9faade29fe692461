"""Losses: padding never counts, guided attention costs what its formula says, and its weight follows its schedule."""

from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hparams import create_hparams
from layers import padding_mask
from loss_function import (
    LossTerms,
    gate_loss,
    guided_attention_loss,
    guided_attention_weights,
    masked_mean,
    tacotron2_loss,
    unmasked_nvidia_loss,
)
from model import GATE_OF_PADDING, Outputs, decoder_steps
from training.schedules import guide_weight

B, N_MELS = 3, 4
TEXT_LENGTHS, MEL_LENGTHS = torch.tensor([5, 7, 2]), torch.tensor([9, 4, 6])


def random_outputs(T_mel: int, T_text: int, *, r: int = 1) -> tuple[Outputs, Tensor, Tensor]:
    """-> outputs, target mel, target gate"""
    g = torch.Generator().manual_seed(1)
    mels = [torch.randn(B, N_MELS, T_mel, generator=g, dtype=torch.float64) for _ in range(3)]
    gate_logits = torch.randn(B, T_mel // r, generator=g, dtype=torch.float64)
    alignments = torch.rand(B, T_mel // r, T_text, generator=g, dtype=torch.float64)
    alignments = alignments.masked_fill(padding_mask(TEXT_LENGTHS, T_text).unsqueeze(1), 0.0)  # attention's own mask
    alignments = alignments / alignments.sum(2, keepdim=True)
    gate = padding_mask(decoder_steps(MEL_LENGTHS, r) - 1, T_mel // r).double()
    return Outputs(mels[0], mels[1], gate_logits, alignments), mels[2], gate


def loss_of(
    outputs: Outputs, mel: Tensor, gate: Tensor, *, r: int = 1, mask_padding: bool = True, guide: float = 1.0
) -> LossTerms:
    return tacotron2_loss(
        outputs, mel, gate, text_lengths=TEXT_LENGTHS, mel_lengths=MEL_LENGTHS, hp=create_hparams(), r=r,
        mask_padding=mask_padding, guide=guide,
    )  # fmt: skip


def padded(x: Tensor, *, right: int, below: int = 0) -> Tensor:
    """Garbage, not zeros, so that whatever reads it shows."""
    return F.pad(x, (0, right, 0, below), value=7.5)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_more_padding_changes_no_loss(r: int) -> None:
    T_mel = -(-9 // r) * r
    outputs, mel, gate = random_outputs(T_mel, 7, r=r)
    longer = Outputs(
        padded(outputs.mel, right=2 * r),
        padded(outputs.mel_post, right=2 * r),
        padded(outputs.gate_logits, right=2),
        padded(outputs.alignments, right=4, below=2),
    )
    before = loss_of(outputs, mel, gate, r=r)
    after = loss_of(longer, padded(mel, right=2 * r), padded(gate, right=2), r=r)
    assert before.parts.keys() == {"mel", "mel_post", "gate", "guided_attention"}
    for name, value in before.parts.items():
        torch.testing.assert_close(after.parts[name], value, rtol=1e-12, atol=0)


def test_each_part_is_the_mean_over_all_valid_positions() -> None:
    outputs, mel, gate = random_outputs(9, 7)
    parts = loss_of(outputs, mel, gate).parts
    squared, entropy = [], []
    for b, length in enumerate(MEL_LENGTHS.tolist()):
        squared += [float((outputs.mel[b, i, t] - mel[b, i, t]) ** 2) for i in range(N_MELS) for t in range(length)]
        for t in range(length):
            stop = 1.0 / (1.0 + exp(-float(outputs.gate_logits[b, t])))
            entropy.append(-log(stop if gate[b, t] == 1.0 else 1.0 - stop))
    assert parts["mel"].item() == pytest.approx(sum(squared) / len(squared))
    assert parts["gate"].item() == pytest.approx(sum(entropy) / len(entropy))


def test_the_total_is_the_sum_with_guided_attention_weighted() -> None:
    terms = loss_of(*random_outputs(9, 7), guide=0.25)
    parts = terms.parts
    expected = parts["mel"] + parts["mel_post"] + parts["gate"] + 0.25 * parts["guided_attention"]
    assert terms.total.item() == pytest.approx(expected.item())


def test_guided_attention_is_left_out_where_its_weight_is_zero() -> None:
    terms = loss_of(*random_outputs(9, 7), guide=0.0)
    assert terms.parts.keys() == {"mel", "mel_post", "gate"}


def test_silence_that_fills_the_last_group_of_frames_counts() -> None:
    outputs, mel, gate = random_outputs(10, 7, r=2)  # 9 frames make 5 steps of 2
    before = loss_of(outputs, mel, gate, r=2).parts["mel"]
    mel[0, :, 9] += 1.0
    assert loss_of(outputs, mel, gate, r=2).parts["mel"] != before


def test_frames_behind_the_last_group_do_not_count() -> None:
    outputs, mel, gate = random_outputs(10, 7, r=2)
    before = loss_of(outputs, mel, gate, r=2).parts["mel"]
    mel[1, :, 4:] += 100.0  # 4 frames make 2 steps of 2
    assert loss_of(outputs, mel, gate, r=2).parts["mel"] == before


def test_without_mask_padding_the_means_run_over_the_padding() -> None:
    outputs, mel, gate = random_outputs(9, 7)
    parts = loss_of(outputs, mel, gate, mask_padding=False).parts
    assert parts["mel"].item() == pytest.approx(F.mse_loss(outputs.mel, mel).item())
    assert parts["mel_post"].item() == pytest.approx(F.mse_loss(outputs.mel_post, mel).item())
    expected = F.binary_cross_entropy_with_logits(outputs.gate_logits, gate)
    assert parts["gate"].item() == pytest.approx(expected.item())


def test_not_a_number_in_the_padding_reaches_neither_loss_nor_gradient() -> None:
    values = torch.tensor([[1.0, 3.0, float("nan")]], requires_grad=True)
    loss = masked_mean(values, padding_mask(torch.tensor([2]), 3))
    loss.backward()
    assert loss.item() == 2.0
    assert values.grad is not None and values.grad.tolist() == [[0.5, 0.5, 0.0]]


def test_a_large_logit_of_the_right_sign_costs_nothing() -> None:
    logits, target = torch.tensor([[-1e3, 1e3]]), torch.tensor([[0.0, 1.0]])
    assert gate_loss(logits, target, torch.zeros(1, 2, dtype=torch.bool)).item() == 0.0


# Guided attention


def guided(alignments: Tensor, *, sigma: float = 0.2) -> float:
    """Cost of one utterance without padding: alignments [T_dec, T_text]."""
    T_dec, T_text = alignments.shape
    return guided_attention_loss(alignments[None], torch.tensor([T_text]), torch.tensor([T_dec]), sigma).item()


def diagonal(T_dec: int, T_text: int) -> Tensor:
    """Step t reads symbol floor(t / T_dec * T_text)."""
    return F.one_hot(torch.arange(T_dec) * T_text // T_dec, T_text).double()


def test_attention_on_the_diagonal_costs_nothing() -> None:
    assert guided(torch.eye(20)) == 0.0


@pytest.mark.parametrize(("T_dec", "T_text"), [(200, 50), (37, 50), (90, 31)])
def test_attention_on_the_nearest_symbol_costs_at_most_one_symbol_of_distance(T_dec: int, T_text: int) -> None:
    assert 0.0 < guided(diagonal(T_dec, T_text)) < 1.0 - exp(-((1 / T_text) ** 2) / (2 * 0.2**2))


def test_attention_far_from_the_diagonal_costs_nearly_one() -> None:
    weights = guided_attention_weights(torch.tensor([40]), torch.tensor([80]), (80, 40), 0.2)[0]
    assert weights[0, 39] > 0.9999 and weights[79, 0] > 0.9999


def test_half_a_text_off_costs_what_the_formula_says() -> None:
    around_the_end = torch.eye(400).roll(200, dims=1)
    assert guided(around_the_end) == pytest.approx(1.0 - exp(-0.25 / 0.08), abs=1e-6)


@pytest.mark.parametrize("shape", [(30, 15), (100, 20), (20, 100), (600, 300)])
def test_the_cost_does_not_depend_on_text_length(shape: tuple[int, int]) -> None:
    uniform = torch.full(shape, 1.0 / shape[1])
    # the mean of 1 - exp(-d^2 / 0.08) over the unit square, by the midpoint rule on 500 x 500
    grid = (torch.arange(500) + 0.5) / 500
    exact = (1.0 - torch.exp(-((grid[:, None] - grid[None, :]) ** 2) / 0.08)).mean().item()
    assert guided(uniform) == pytest.approx(exact, rel=0.03)  # t / T and n / N are left ends of their cells


def test_weights_equal_the_formula_cell_by_cell() -> None:
    text_lengths, steps, shape, sigma = torch.tensor([4, 6, 1]), torch.tensor([7, 3, 9]), (9, 6), 0.35
    actual = guided_attention_weights(text_lengths, steps, shape, sigma)
    for b, (N, T) in enumerate(zip(text_lengths.tolist(), steps.tolist(), strict=True)):
        for t in range(shape[0]):
            for n in range(shape[1]):
                inside = t < T and n < N
                expected = 1.0 - exp(-((n / N - t / T) ** 2) / (2 * sigma**2)) if inside else 0.0
                assert actual[b, t, n].item() == pytest.approx(expected, abs=1e-6), (b, t, n)


def test_every_utterance_has_its_own_diagonal_and_every_step_counts_once() -> None:
    outputs, _, _ = random_outputs(9, 7)
    together = guided_attention_loss(outputs.alignments, TEXT_LENGTHS, MEL_LENGTHS, 0.2).item()
    each = [
        guided(outputs.alignments[b, :T, :N]) * T
        for b, (T, N) in enumerate(zip(MEL_LENGTHS.tolist(), TEXT_LENGTHS.tolist(), strict=True))
    ]
    assert together == pytest.approx(sum(each) / int(MEL_LENGTHS.sum()))


def guide_weight_at(step: int, **overrides: object) -> float:
    return guide_weight(step, create_hparams(",".join(f"{name}={value}" for name, value in overrides.items())))


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 1.0), (3_000, 1.0), (18_000, 0.5), (25_500, 0.25), (33_000, 0.0), (10**9, 0.0)]
)
def test_by_default_guidance_fades_from_step_3000_to_step_33000(step: int, weight: float) -> None:
    assert guide_weight_at(step) == pytest.approx(weight)


SCHEDULE: dict[str, object] = {
    "guide_loss_weight": 2.0,
    "guide_loss_initial_weight": 0.75,
    "guide_loss_final_weight": 0.25,
    "guide_loss_decay_start": 100,
    "guide_loss_decay_steps": 200,
}


@pytest.mark.parametrize(
    ("overrides", "step", "weight"),
    [
        ({}, 0, 1.5),
        ({}, 100, 1.5),
        ({}, 150, 1.25),
        ({}, 200, 1.0),
        ({}, 300, 0.5),
        ({}, 301, 0.5),
        ({"guide_loss_decay_steps": 0}, 100, 1.5),
        ({"guide_loss_decay_steps": 0}, 101, 0.5),
        ({"guide_loss_initial_weight": 0.0, "guide_loss_final_weight": 1.0}, 200, 1.0),  # it may rise, too
        ({"use_dynamic_guide_loss": False}, 0, 2.0),
        ({"use_dynamic_guide_loss": False}, 10**9, 2.0),
        ({"no_dga": True}, 0, 0.0),
        ({"no_dga": True, "use_dynamic_guide_loss": False}, 0, 0.0),
        ({"use_guided_attn": False}, 0, 0.0),
        ({"guided_attention_enabled": False, "use_dynamic_guide_loss": False}, 0, 0.0),
        ({"guide_loss_weight": 0.0}, 0, 0.0),
    ],
)
def test_weight_of_guided_attention(overrides: dict[str, object], step: int, weight: float) -> None:
    assert guide_weight_at(step, **{**SCHEDULE, **overrides}) == pytest.approx(weight)


# NVIDIA's loss


def masked_outputs(outputs: Outputs) -> Outputs:
    behind = padding_mask(MEL_LENGTHS, outputs.gate_logits.size(1))
    return Outputs(
        outputs.mel.masked_fill(behind.unsqueeze(1), 0.0),
        outputs.mel_post.masked_fill(behind.unsqueeze(1), 0.0),
        outputs.gate_logits.masked_fill(behind, GATE_OF_PADDING),
        outputs.alignments,
    )


def test_nvidias_loss_is_the_masked_one_diluted_by_the_padding() -> None:
    outputs, mel, gate = random_outputs(9, 7)
    parts = loss_of(outputs, mel, gate).parts
    valid_share = int(MEL_LENGTHS.sum()) / (B * 9)
    expected = (parts["mel"] + parts["mel_post"] + parts["gate"]).item() * valid_share
    assert unmasked_nvidia_loss(masked_outputs(outputs), mel, gate, 1.0).item() == pytest.approx(expected)


def test_nvidias_loss_is_in_log_mel_units() -> None:
    outputs, mel, gate = random_outputs(9, 7)
    mean, std = -5.0, 2.0

    def log_mel(x: Tensor) -> Tensor:
        return x * std + mean

    scaled = Outputs(log_mel(outputs.mel), log_mel(outputs.mel_post), outputs.gate_logits, outputs.alignments)
    from_log_mels = unmasked_nvidia_loss(masked_outputs(scaled), log_mel(mel), gate, 1.0).item()
    assert unmasked_nvidia_loss(masked_outputs(outputs), mel, gate, std).item() == pytest.approx(from_log_mels)
