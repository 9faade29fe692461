"""The model: NVIDIA's layout, teacher forcing, padding, and speaking without a teacher."""

from collections.abc import Iterator
from math import sqrt

import pytest
import torch

from hparams import create_hparams
from layers import padding_mask
from model import (
    GATE_OF_PADDING,
    Decoded,
    DecodeLimits,
    StopTracker,
    Tacotron2,
    decoder_steps,
    pad_texts,
)
from modules.stopping import StopReason
from support.models import MEL_LENGTHS, TEXT_LENGTHS, limits, mels, set_gate, small, speak, teach, texts


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(before)


# Layout


def nvidia_layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of NVIDIA/tacotron2, written out from its published source and not from ours."""
    layout: dict[str, tuple[int, ...]] = {"embedding.weight": (148, 512)}

    def convolution(key: str, n_in: int, n_out: int) -> None:
        layout.update({f"{key}.0.conv.weight": (n_out, n_in, 5), f"{key}.0.conv.bias": (n_out,)})
        layout.update({f"{key}.1.{name}": (n_out,) for name in ("weight", "bias", "running_mean", "running_var")})
        layout[f"{key}.1.num_batches_tracked"] = ()

    def lstm(key: str, n_in: int, n_hidden: int, suffix: str = "") -> None:
        layout.update({f"{key}.{name}{suffix}": (4 * n_hidden,) for name in ("bias_ih", "bias_hh")})
        layout[f"{key}.weight_ih{suffix}"] = (4 * n_hidden, n_in)
        layout[f"{key}.weight_hh{suffix}"] = (4 * n_hidden, n_hidden)

    for i in range(3):
        convolution(f"encoder.convolutions.{i}", 512, 512)
    lstm("encoder.lstm", 512, 256, "_l0")
    lstm("encoder.lstm", 512, 256, "_l0_reverse")
    lstm("decoder.attention_rnn", 256 + 512, 1024)
    lstm("decoder.decoder_rnn", 1024 + 512, 1024)
    for i, (n_in, n_out) in enumerate([(80, 512), (512, 512), (512, 512), (512, 512), (512, 80)]):
        convolution(f"postnet.convolutions.{i}", n_in, n_out)
    linear: dict[str, tuple[int, ...]] = {
        "prenet.layers.0.linear_layer.weight": (256, 80),
        "prenet.layers.1.linear_layer.weight": (256, 256),
        "attention_layer.query_layer.linear_layer.weight": (128, 1024),
        "attention_layer.memory_layer.linear_layer.weight": (128, 512),
        "attention_layer.v.linear_layer.weight": (1, 128),
        "attention_layer.location_layer.location_conv.conv.weight": (32, 2, 31),
        "attention_layer.location_layer.location_dense.linear_layer.weight": (128, 32),
        "linear_projection.linear_layer.weight": (80, 1536),
        "linear_projection.linear_layer.bias": (80,),
        "gate_layer.linear_layer.weight": (1, 1536),
        "gate_layer.linear_layer.bias": (1,),
    }
    return layout | {f"decoder.{name}": shape for name, shape in linear.items()}


@pytest.fixture(scope="module")
def default_model() -> Tacotron2:
    torch.manual_seed(0)
    return Tacotron2(create_hparams())


def test_the_default_layout_is_nvidias(default_model: Tacotron2) -> None:
    layout = nvidia_layout()
    assert len(layout) == 84
    assert {name: tuple(tensor.shape) for name, tensor in default_model.state_dict().items()} == layout
    assert sum(p.numel() for p in default_model.parameters()) == 28_193_153


def test_two_frames_a_step_widen_only_the_projection() -> None:
    one, two = (small(n_frames_per_step=r).state_dict() for r in (1, 2))
    wider = {name: tuple(two[name].shape) for name in one if one[name].shape != two[name].shape}
    key = "decoder.linear_projection.linear_layer"
    assert one.keys() == two.keys() and wider == {f"{key}.weight": (12, 26), f"{key}.bias": (12,)}


@pytest.mark.parametrize(
    ("key", "gain", "fan_sum"),
    [
        ("encoder.convolutions.1.0.conv.weight", sqrt(2.0), 5 * (512 + 512)),
        ("decoder.prenet.layers.0.linear_layer.weight", 1.0, 80 + 256),
        ("decoder.attention_layer.query_layer.linear_layer.weight", 5 / 3, 1024 + 128),
        ("decoder.attention_layer.memory_layer.linear_layer.weight", 5 / 3, 512 + 128),
        ("decoder.attention_layer.location_layer.location_dense.linear_layer.weight", 5 / 3, 32 + 128),
        ("decoder.linear_projection.linear_layer.weight", 1.0, 1536 + 80),
        ("postnet.convolutions.0.0.conv.weight", 5 / 3, 5 * (80 + 512)),
        ("postnet.convolutions.4.0.conv.weight", 1.0, 5 * (512 + 80)),
        ("embedding.weight", 1.0, 148 + 512),
    ],
)
def test_weights_start_within_xaviers_bound(default_model: Tacotron2, key: str, gain: float, fan_sum: int) -> None:
    limit = gain * sqrt(6 / fan_sum)
    assert 0.99 * limit < default_model.state_dict()[key].abs().max() <= limit * (1 + 1e-6)


def test_without_xavier_weights_start_as_pytorchs() -> None:
    state = small(xavier_init=False, symbols_embedding_dim=64).state_dict()
    assert state["embedding.weight"].std().item() == pytest.approx(1.0, abs=0.05)  # 9,472 normal draws
    for name, weight in state.items():
        if name.endswith(("linear_layer.weight", "conv.weight")):
            bound = 1 / sqrt(weight[0].numel())  # torch.nn.Linear and Conv1d: uniform within 1 / sqrt(fan_in)
            assert weight.abs().max() <= bound, name


# Teacher forcing


@pytest.mark.parametrize("r", [1, 2, 3])
def test_shapes_with_r_frames_a_step(r: int) -> None:
    outputs = teach(small(n_frames_per_step=r))
    assert outputs.mel.shape == outputs.mel_post.shape == (3, 6, 12)
    assert outputs.gate_logits.shape == (3, 12 // r)
    assert outputs.alignments.shape == (3, 12 // r, 9)


@pytest.mark.parametrize(("r", "shown"), [(1, [0, *range(1, 12)]), (2, [0, 2, 4, 6, 8, 10]), (3, [0, 3, 6, 9])])
def test_each_step_is_shown_the_last_frame_of_the_group_before(r: int, shown: list[int]) -> None:
    numbered = torch.arange(1.0, 13.0).expand(3, 6, 12)  # frame i holds i + 1; 0 is the silence before the first
    frames = small(n_frames_per_step=r).decoder.teacher_frames(numbered)
    assert frames.shape == (12 // r, 3, 6)
    assert frames[:, 0, 0].tolist() == shown


@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_frame_changes_only_what_is_predicted_after_it(r: int) -> None:
    model = small(n_frames_per_step=r, dropout_rate=0.0)
    changed = mels()
    changed[:, :, 5] += 1.0  # with r = 1, 2, 3 the last of its group
    with torch.no_grad():
        memory = model.encode(texts(), TEXT_LENGTHS)
        before, after = (model.decoder(memory, mel, TEXT_LENGTHS)[0] for mel in (mels(), changed))
    same = (before == after).all(1).all(0)  # [T_mel]
    assert same.tolist() == [True] * 6 + [False] * 6


def test_frames_of_a_group_come_in_order() -> None:
    decoder = small(n_frames_per_step=3).decoder
    projected = torch.arange(2 * 3 * 6.0).view(2, 1, 18)  # 2 steps, each 3 frames of 6 channels
    assert decoder.frames_of(projected)[0].t().flatten().tolist() == list(range(36))


def test_the_hidden_state_that_is_fed_back_is_the_dropped_one() -> None:
    model = small()
    decoder, width = model.decoder, 16
    keep = (torch.rand(2, 3, width, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    with torch.no_grad():
        memory = decoder.attend(model.encode(texts(), TEXT_LENGTHS), TEXT_LENGTHS)
        state, frames = decoder.first_state(memory.values), torch.rand(2, 3, 10)
        first = decoder.attention_step(frames[0], state, memory, keep[0])
        second = decoder.attention_step(frames[1], first, memory, keep[1])
        inputs = torch.cat((frames[1], first.context), 1)
        hidden, cell = decoder.attention_rnn(inputs, (first.hidden, first.cell))
    assert bool((first.hidden[keep[0] == 0] == 0).all()) and bool((first.cell != 0).all())
    torch.testing.assert_close(second.hidden, hidden * keep[1])
    torch.testing.assert_close(second.cell, cell)


@pytest.mark.parametrize("rate", ["p_attention_dropout", "p_decoder_dropout"])
def test_lstm_dropout_acts_in_training_only(rate: str) -> None:
    off = {"dropout_rate": 0.0, "encoder_dropout_rate": 0.0, "postnet_dropout_rate": 0.0}
    off |= {"p_attention_dropout": 0.0, "p_decoder_dropout": 0.0}
    model = small(**{**off, rate: 0.5})
    assert torch.equal(teach(model).mel, teach(model).mel)
    model.decoder.train()
    assert not torch.equal(teach(model).mel, teach(model).mel)


def test_prenet_dropout_stays_on_in_eval_mode() -> None:
    model = small(dropout_rate=0.5)
    assert not torch.equal(teach(model).mel, teach(model).mel)


# Padding


@pytest.mark.parametrize(("r", "valid_steps"), [(1, [7, 12, 4]), (2, [4, 6, 2]), (3, [3, 4, 2])])
def test_outputs_behind_an_utterance_are_silence_and_stop(r: int, valid_steps: list[int]) -> None:
    outputs = teach(small(n_frames_per_step=r))
    for b, steps in enumerate(valid_steps):
        for mel in (outputs.mel, outputs.mel_post):
            assert bool((mel[b, :, steps * r :] == 0).all()) and bool((mel[b, :, : steps * r] != 0).all())
        assert bool((outputs.gate_logits[b, steps:] == GATE_OF_PADDING).all())
        assert bool((outputs.gate_logits[b, :steps].abs() < 10).all())


def test_without_mask_padding_outputs_stay_as_predicted() -> None:
    plain, masked = (teach(small(mask_padding=mask, dropout_rate=0.0)) for mask in (False, True))
    assert bool((plain.mel[2, :, 4:] != 0).all()) and bool((plain.gate_logits.abs() < 10).all())
    assert torch.equal(plain.mel[1], masked.mel[1])


def test_memory_behind_a_text_is_zero() -> None:
    with torch.no_grad():
        memory = small().encode(texts(), TEXT_LENGTHS)
    for b, length in enumerate(TEXT_LENGTHS.tolist()):
        assert bool((memory[b, length:] == 0).all()) and bool((memory[b, :length] != 0).all())


def test_attention_reads_no_padding() -> None:
    alignments = teach(small()).alignments
    assert bool((alignments.masked_select(padding_mask(TEXT_LENGTHS, 9).unsqueeze(1)) == 0).all())
    torch.testing.assert_close(alignments.sum(2), torch.ones(3, 12))


def test_the_order_of_a_batch_does_not_matter() -> None:
    model, order = small(dropout_rate=0.0), torch.tensor([2, 0, 1])
    expected = teach(model)
    with torch.no_grad():
        actual = model(texts()[order], TEXT_LENGTHS[order], mels()[order], MEL_LENGTHS[order])
    assert expected.style is None
    for name in ("mel", "mel_post", "gate_logits", "alignments"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name)[order])


def test_more_frames_of_padding_do_not_change_what_the_decoder_predicts() -> None:
    model = small(dropout_rate=0.0)
    longer = torch.cat((mels(), torch.full((3, 6, 4), 7.5)), 2)
    with torch.no_grad():
        more = model(texts(), TEXT_LENGTHS, longer, MEL_LENGTHS)
    expected = teach(model)
    torch.testing.assert_close(more.mel[:, :, :12], expected.mel)
    torch.testing.assert_close(more.gate_logits[:, :12], expected.gate_logits)
    torch.testing.assert_close(more.alignments[:, :12], expected.alignments)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_the_gate_stops_speech(r: int) -> None:
    for spoken in speak(set_gate(small(n_frames_per_step=r), 100.0), limits()):
        assert spoken.stop_reason == "gate"
        assert spoken.mel.shape == (6, r) and spoken.gate.tolist() == [1.0]


def test_the_threshold_decides_what_the_gate_means() -> None:
    model = set_gate(small(), 0.0)  # a stop probability of exactly one half
    assert {s.stop_reason for s in speak(model, limits(gate_threshold=0.49))} == {"gate"}
    assert {s.stop_reason for s in speak(model, limits(gate_threshold=0.5))} == {"budget"}


@pytest.mark.parametrize(("r", "n_frames"), [(1, 10), (2, 10), (3, 12)])
def test_dwelling_on_the_last_symbol_stops_speech(r: int, n_frames: int) -> None:
    model = set_gate(small(n_frames_per_step=r), -100.0)
    one_symbol = torch.tensor([[40]])  # its only symbol is its last one
    [spoken] = model.infer(one_symbol, torch.tensor([1]), limits(dwell_frames=10, budget_offset=50))
    assert spoken.stop_reason == "dwell" and spoken.mel.shape == (6, n_frames)


@pytest.mark.parametrize(("r", "n_frames"), [(1, [26, 42, 18]), (4, [28, 44, 20])])
def test_the_budget_of_its_text_stops_speech(r: int, n_frames: list[int]) -> None:
    model = set_gate(small(n_frames_per_step=r), -100.0)
    spoken = speak(model, limits(dwell_frames=1000))  # 6 + 4 for each of 5, 9 and 3 symbols
    assert [s.stop_reason for s in spoken] == ["budget"] * 3
    assert [s.mel.size(1) for s in spoken] == n_frames  # whole groups of r


def test_the_limit_for_any_text_stops_speech() -> None:
    spoken = speak(set_gate(small(), -100.0), limits(dwell_frames=1000, max_frames=26))
    assert [s.stop_reason for s in spoken] == ["limit", "limit", "budget"]  # 26, 42 and 18 frames by their texts
    assert [s.mel.size(1) for s in spoken] == [26, 26, 18]


def test_what_is_spoken_has_the_shapes_of_its_own_text() -> None:
    for spoken, symbols in zip(speak(set_gate(small(), -100.0), limits(dwell_frames=1000)), [5, 9, 3], strict=True):
        steps = spoken.mel.size(1)
        assert spoken.gate.shape == (steps,) and spoken.alignment.shape == (steps, symbols)
        torch.testing.assert_close(spoken.alignment.sum(1), torch.ones(steps))


@pytest.mark.parametrize("r", [1, 2, 3])
def test_speaking_equals_being_taught_ones_own_frames(r: int) -> None:
    model = small(n_frames_per_step=r, dropout_rate=0.0)
    with torch.no_grad():
        memory = model.encode(texts(), TEXT_LENGTHS)
        mel, gates, alignments, _ = model.decoder.infer(memory, TEXT_LENGTHS, limits(dwell_frames=1000), None)
        taught_mel, logits, taught_alignments, _ = model.decoder(memory, mel, TEXT_LENGTHS)
    torch.testing.assert_close(taught_mel, mel)
    torch.testing.assert_close(logits.sigmoid(), gates)
    torch.testing.assert_close(taught_alignments, alignments)


def alone(model: Tacotron2, b: int, how: DecodeLimits) -> Decoded:
    length = int(TEXT_LENGTHS[b])
    return model.infer(texts()[b : b + 1, :length], TEXT_LENGTHS[b : b + 1], how)[0]


def test_a_batch_says_what_each_text_alone_says_where_padding_embeds_to_zero() -> None:
    # One convolution then sees the zeros that a text alone has around it. Dropout would draw other masks.
    model = small(dropout_rate=0.0, encoder_n_convolutions=1)
    torch.nn.init.zeros_(model.embedding.weight[0])
    how = limits(dwell_frames=1000, gate_threshold=0.9)
    for b, spoken in enumerate(speak(model, how)):
        single = alone(model, b, how)
        assert single.stop_reason == spoken.stop_reason
        for name in ("mel", "gate", "alignment"):
            torch.testing.assert_close(getattr(spoken, name), getattr(single, name))


def test_encoder_convolutions_see_the_padding_of_a_shorter_text() -> None:
    """As NVIDIA's do: the longest text of a batch is spoken as alone, a shorter one only nearly so."""
    model, how = small(dropout_rate=0.0), limits(dwell_frames=1000)
    spoken = speak(model, how)
    torch.testing.assert_close(spoken[1].mel, alone(model, 1, how).mel)
    assert not torch.allclose(spoken[2].mel, alone(model, 2, how).mel)


def test_the_generators_seed_decides_what_is_spoken() -> None:
    model, how = small(dropout_rate=0.5), limits(dwell_frames=1000)
    first, again, other = (speak(model, how, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.mel, b.mel) and torch.equal(a.alignment, b.alignment)
        assert not torch.equal(a.mel, c.mel)


def test_without_prenet_dropout_the_seed_does_not_matter() -> None:
    model, how = small(dropout_rate=0.0), limits()
    for a, b in zip(speak(model, how, seed=1), speak(model, how, seed=2), strict=True):
        assert torch.equal(a.mel, b.mel)


# The stop tracker on its own: gate probabilities and attended symbols of one text of 4 symbols, step by step


@pytest.mark.parametrize(
    ("gates", "symbols", "r", "reason", "n_steps"),
    [
        ([0.1, 0.6, 0.1], [0, 1, 2], 1, "gate", 2),
        ([0.5] * 8, [0] * 8, 1, "budget", 8),  # the threshold itself is not yet "stop"
        ([0.0] * 8, [0, 3, 3, 3, 0, 0, 0, 0], 1, "dwell", 4),
        ([0.0] * 8, [3, 3, 0, 3, 3, 3, 0, 0], 1, "dwell", 6),  # leaving the last symbol starts the count again
        ([0.0] * 8, [0, 3, 3, 0, 0, 0, 0, 0], 2, "dwell", 3),  # 2 steps are 4 frames
        ([0.0, 0.0, 0.0, 0.9], [0, 3, 3, 3], 1, "gate", 4),  # both at once: the gate's word counts
        ([0.0] * 8, [0] * 8, 3, "budget", 3),  # 9 frames cover a budget of 8
        ([0.9, 0.0, 0.9], [0, 0, 0], 1, "gate", 1),  # only the first reason counts
    ],
)
def test_stop_watch(gates: list[float], symbols: list[int], r: int, reason: StopReason, n_steps: int) -> None:
    how = DecodeLimits(max_frames=100, frames_per_symbol=1.0, budget_offset=4, dwell_frames=3)
    tracker = StopTracker(torch.tensor([4]), how, r)
    for gate, symbol in zip(gates, symbols, strict=True):
        tracker.observe(torch.tensor([gate]), torch.nn.functional.one_hot(torch.tensor([symbol]), 4).float())
    assert tracker.all_stopped and tracker.reasons == [reason] and tracker.n_steps.tolist() == [n_steps]


def test_the_watch_runs_until_the_last_text_has_stopped() -> None:
    tracker = StopTracker(torch.tensor([4, 4]), DecodeLimits(max_frames=3, budget_offset=50), 1)
    attended = torch.eye(4)[:1].expand(2, 4)
    tracker.observe(torch.tensor([0.9, 0.1]), attended)
    assert not tracker.all_stopped
    for _ in range(2):
        tracker.observe(torch.tensor([0.9, 0.1]), attended)
    assert tracker.all_stopped and tracker.reasons == ["gate", "limit"] and tracker.n_steps.tolist() == [1, 3]


def test_a_budget_rounds_up_and_obeys_the_limit() -> None:
    how = DecodeLimits(max_frames=30, frames_per_symbol=2.5, budget_offset=3)
    assert how.budget(torch.tensor([1, 2, 5, 100])).tolist() == [6, 8, 16, 30]


def test_decoder_steps_cover_all_frames() -> None:
    lengths = torch.tensor([1, 2, 3, 4, 6, 7])
    assert decoder_steps(lengths, 1).tolist() == lengths.tolist()
    assert decoder_steps(lengths, 3).tolist() == [1, 1, 1, 2, 2, 3]


def test_texts_are_padded_with_zero_behind() -> None:
    text, lengths = pad_texts([[5, 6], [7, 8, 9], [1]])
    assert text.tolist() == [[5, 6, 0], [7, 8, 9], [1, 0, 0]] and lengths.tolist() == [2, 3, 1]
