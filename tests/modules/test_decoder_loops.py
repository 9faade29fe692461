"""Own frames in place of the teacher's, activations computed again, and which loop runs."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hparams import HParams, create_hparams
from model import Tacotron2
from modules import activation_checkpointing
from modules.decoder_loops import log_fast_loop_recomputes, warn_of_plain_loop
from support.models import MEL_LENGTHS, SMALL, TEXT_LENGTHS, limits, mels, set_gate, small, speak, texts
from support.paths import REPOSITORY
from support.runs import assert_same_run, logs_are_closed, resumed, trained, trainer_of
from training.schedules import teacher_forcing_ratio
from training.trainer import Limits

__all__ = ["logs_are_closed"]  # a fixture
Tiny = Callable[..., HParams]
NO_DROPOUT = dict.fromkeys(
    ("dropout_rate", "encoder_dropout_rate", "postnet_dropout_rate", "p_attention_dropout", "p_decoder_dropout"), 0.0
)


# The share of steps that hear the recording


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [1.0] * 6),
        ("p_teacher_forcing=0.7", [0.7] * 6),
        ("use_scheduled_teacher_forcing=True", [1.0, 1.0, 0.9, 0.75, 0.5, 0.5]),
        ("use_scheduled_teacher_forcing=True,p_teacher_forcing=0.2", [1.0, 1.0, 0.9, 0.75, 0.5, 0.5]),
        ("use_scheduled_teacher_forcing=True,teacher_forcing_start_ratio=0.8", [0.8, 0.8, 0.74, 0.65, 0.5, 0.5]),
        ("use_scheduled_teacher_forcing=True,teacher_forcing_end_ratio=0.0", [1.0, 1.0, 0.8, 0.5, 0.0, 0.0]),
        ("use_scheduled_teacher_forcing=True,teacher_forcing_decay_start=20000", [1.0, 1.0, 1.0, 0.85, 0.6, 0.5]),
        ("use_scheduled_teacher_forcing=True,teacher_forcing_decay_steps=10000", [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]),
        ("use_scheduled_teacher_forcing=True,teacher_forcing_decay_steps=0", [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_the_ratio_follows_its_settings(settings: str, expected: list[float]) -> None:
    hp = create_hparams(settings)
    ratios = [teacher_forcing_ratio(step, hp) for step in (1, 10_000, 20_000, 35_000, 60_000, 1_000_000)]
    assert ratios == pytest.approx(expected)


def decoded(model: Tacotron2, p: float, *, mel: Tensor | None = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    memory = model.encode(texts(), TEXT_LENGTHS)
    return model.decoder(memory, mels() if mel is None else mel, TEXT_LENGTHS, p_teacher=p)[:3]


@pytest.mark.parametrize("r", [1, 3])
def test_taught_nothing_the_model_says_what_it_says_alone(r: int) -> None:
    model = set_gate(small(**NO_DROPOUT, n_frames_per_step=r), -100.0)
    with torch.no_grad():
        mel, _, alignments = decoded(model, 0.0)
        spoken, _, spoken_alignments, _ = model.decoder.infer(
            model.encode(texts(), TEXT_LENGTHS), TEXT_LENGTHS, limits(max_frames=12, dwell_frames=99), None
        )
    torch.testing.assert_close(mel, spoken)
    torch.testing.assert_close(alignments, spoken_alignments)


def test_taught_everything_the_two_loops_agree() -> None:
    model = small(**NO_DROPOUT, decoder_backend="plain")
    with torch.no_grad():
        for expected, actual in zip(decoded(model, 1.0), decoded(model, 1.0 - 1e-12), strict=True):
            torch.testing.assert_close(actual, expected)


def test_each_step_of_each_utterance_draws_for_itself() -> None:
    model = small(**NO_DROPOUT)
    mel = mels().requires_grad_()
    out = decoded(model, 0.5, mel=mel)[0]
    heard = torch.autograd.grad(out.square().sum(), mel)[0].abs().amax(1) > 0  # [B, T_mel]
    assert 8 < int(heard[:, :11].sum()) < 25 and not bool(heard[:, 11].any())  # of 33, half; nobody hears the last
    assert len({tuple(row) for row in heard.tolist()}) == 3


def test_no_gradient_flows_through_what_a_step_said_before() -> None:
    model = small(**NO_DROPOUT)
    weight = model.decoder.linear_projection.linear_layer.weight
    mel = decoded(model, 0.0)[0]
    gradient = torch.autograd.grad(mel[:, :, 0].sum(), weight, retain_graph=True)[0]
    later = torch.autograd.grad(mel[:, 0, 5].sum(), weight)[0]
    assert bool((gradient != 0).any())
    assert bool((later[0] != 0).any()) and bool((later[1:] == 0).all())  # its own row, and no other by way of frames


def test_a_run_feeds_its_own_frames_and_resumes_bit_exactly(tiny: Tiny, tmp_path: Path) -> None:
    half, full = tiny("p_teacher_forcing=0.5"), tiny()
    straight = trained(half, tmp_path / "straight", 4)
    assert straight.losses != trained(full, tmp_path / "full", 4).losses
    first = trainer_of(half, tmp_path / "cut", limits=Limits(max_steps=4))
    first.interrupt_at = 2
    first.fit()
    assert_same_run(straight, resumed(half, tmp_path / "cut", 4))


def test_a_schedule_acts_from_its_step_on(tiny: Tiny, tmp_path: Path) -> None:
    schedule = "use_scheduled_teacher_forcing=True,teacher_forcing_decay_start=9,teacher_forcing_decay_steps=4"
    scheduled, plain = (trained(tiny(s), tmp_path / str(len(s)), 20) for s in (schedule, ""))
    assert scheduled.losses[0] == plain.losses[0] or len(scheduled.losses) == 2
    assert scheduled.losses[1] != plain.losses[1]


def test_validation_stays_fully_taught(tiny: Tiny, tmp_path: Path) -> None:
    records = []
    for p in (1.0, 0.0):
        trainer = trainer_of(tiny(f"p_teacher_forcing={p}"), tmp_path / str(p))
        records.append(trainer.validate().losses)
    assert records[0] == records[1]


# Activations computed again

VARIANTS = {
    "taught": ({}, 1.0),
    "partly taught": ({}, 0.5),
    "forward": ({"use_forward_attention": True, "use_attention_smoothing": True}, 1.0),
    "content": ({"use_location_sensitive_attention": False}, 1.0),
}


def loss_and_gradients(p: float, **options: object) -> tuple[Tensor, dict[str, Tensor]]:
    model = small(**options).train()
    torch.manual_seed(4)
    o = model(texts(), TEXT_LENGTHS, mels(), MEL_LENGTHS, p_teacher=p)
    loss = o.mel_post.square().mean() + o.gate_logits[:, :4].square().mean() + o.alignments.square().mean()
    loss.backward()
    return loss.detach(), {n: x.grad for n, x in model.named_parameters() if x.grad is not None}


@pytest.mark.parametrize(("options", "p"), VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("size", ["None", 1, 5, 12, 100])
def test_chunks_of_any_size_give_the_same_bits(options: dict[str, object], p: float, size: object) -> None:
    loss, gradients = loss_and_gradients(p, decoder_backend="plain", **options)
    chunked_loss, chunked = loss_and_gradients(
        p, **options, decoder_backend="plain", use_memory_efficient_attention=True, attention_chunk_size=size
    )
    assert torch.equal(loss, chunked_loss) and gradients.keys() == chunked.keys()
    assert [name for name, gradient in gradients.items() if not torch.equal(gradient, chunked[name])] == []


def test_recomputing_draws_no_further_random_numbers() -> None:
    states = []
    for option in (False, True):
        loss_and_gradients(0.5, decoder_backend="plain", use_memory_efficient_attention=option)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def bytes_kept(**options: object) -> int:
    """By autograd for the backward pass, each storage once."""
    model = small(**{**SMALL, "attention_dim": 64}, **options).train()
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    memory = model.encode(texts(), TEXT_LENGTHS).detach()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = model.decoder(memory, mels().repeat(1, 1, 4), TEXT_LENGTHS)
    assert kept[0].requires_grad  # the graph is alive, so no storage was used twice
    return sum(storages.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    plain = bytes_kept(decoder_backend="plain")
    assert bytes_kept(decoder_backend="plain", use_memory_efficient_attention=True) < 0.3 * plain
    forward = bytes_kept(use_forward_attention=True)
    assert bytes_kept(use_forward_attention=True, use_memory_efficient_attention=True) < 0.3 * forward


def test_the_steps_are_computed_again_in_such_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[tuple[int, int]] = []

    def watched(run: Callable[..., object], start: int, stop: int, *args: object, **options: object) -> object:
        chunks.append((start, stop))
        return checkpoint(run, start, stop, *args, **options)

    monkeypatch.setattr(activation_checkpointing, "checkpoint", watched)
    for size, expected in (("None", [(0, 3), (3, 6), (6, 9), (9, 12)]), (5, [(0, 5), (5, 10), (10, 12)])):
        chunks.clear()
        loss_and_gradients(0.5, decoder_backend="plain", use_memory_efficient_attention=True, attention_chunk_size=size)
        assert chunks == expected


# Which loop


@pytest.mark.parametrize(
    "option",
    [
        "use_forward_attention=True",
        "use_attention_smoothing=True",
        "use_location_sensitive_attention=False",
        "p_teacher_forcing=0.5",
    ],
)
def test_what_the_fast_loop_does_not_know_takes_the_plain_one_said_once(
    tiny: Tiny, tmp_path: Path, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_plain_loop.cache_clear()
    with caplog.at_level(logging.WARNING, logger="tacotron2"):
        trained(tiny(option), tmp_path, 3)
    said = [r.getMessage() for r in caplog.records if "plain decoder loop" in r.getMessage()]
    name = option.partition("=")[0]
    assert len(said) == 1 and name in said[0]


def test_what_it_knows_is_not_talked_about(tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_plain_loop.cache_clear()
    for i, option in enumerate(("", "decoder_backend=plain,use_forward_attention=True", "reduction_schedule=[0:2]")):
        trained(tiny(option), tmp_path / str(i), 1)
    assert "plain decoder loop" not in caplog.text


def test_the_fast_loop_stays_where_memory_is_to_be_saved_and_says_why(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_fast_loop_recomputes.cache_clear()
    with caplog.at_level(logging.INFO, logger="tacotron2"):
        efficient = trained(tiny("use_memory_efficient_attention=True"), tmp_path / "a", 2)
    assert caplog.text.count("the fast one always computes again") == 1 and "is slower" not in caplog.text
    assert efficient.losses == trained(tiny("decoder_backend=fast"), tmp_path / "b", 2).losses


def test_torch_stays_out_of_the_declarations() -> None:
    code = "import hparams, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_spoken_alignments_follow_the_attention_that_was_asked_for() -> None:
    plain, smooth = (speak(small(use_attention_smoothing=on), limits())[0] for on in (False, True))
    n = min(len(plain.gate), len(smooth.gate))
    assert not torch.equal(plain.alignment[:n], smooth.alignment[:n])
