"""The reduction factor over a run: its schedule, and what follows it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from common.step_schedule import Reduction
from corpus.batch import Batch, gate_targets
from data_utils import plan_batches
from hparams import HParams, create_hparams, resolve_hparams
from loss_function import tacotron2_loss
from model import decoder_steps
from speech.voice import Speaker
from support.models import MEL_LENGTHS, TEXT_LENGTHS, limits, mels, set_gate, small, speak, teach
from support.runs import Watched, assert_same_run, logs_are_closed, resumed, trained, trainer_of
from training.train_step import TrainStep
from training.trainer import Limits

__all__ = ["logs_are_closed"]  # a fixture
Tiny = Callable[..., HParams]
SCHEDULE = "reduction_schedule=[0:6,3:3,5:1]"


def test_phases_begin_at_their_optimiser_step() -> None:
    reduction = Reduction.of(("0:6", "10000:3", "30000:1"), 2)
    assert [reduction.at(s) for s in (0, 1, 9999, 10000, 29999, 30000, 10**6)] == [6, 6, 6, 3, 3, 1, 1]
    assert (reduction.largest, reduction.multiple, reduction.last_change) == (6, 6, 30000)
    assert Reduction.of(("0:4", "5:6"), 1).multiple == 12


def test_without_a_schedule_r_is_n_frames_per_step_throughout() -> None:
    reduction = Reduction.of((), 2)
    assert (reduction.at(0), reduction.at(10**6), reduction.largest, reduction.multiple) == (2, 2, 2, 2)


@pytest.mark.parametrize(
    "bad", ["[5:2]", "[0:2,0:1]", "[0:3,20:2,10:1]", "[0:0]", "[0:-1]", "[0:1.5]", "[0]", "[0:2:3]"]
)
def test_what_is_no_schedule_is_a_configuration_error(bad: str) -> None:
    with pytest.raises(UserError, match=r"reduction_schedule must list STEP:R .* as \[0:6,10000:3,30000:1\]"):
        create_hparams(f"reduction_schedule={bad}")


def test_a_schedule_reads_alike_from_the_command_line_and_from_yaml(tmp_path: Path) -> None:
    path, expected = tmp_path / "mine.yaml", ("0:6", "10000:3", "30000:1")
    path.write_text("reduction_schedule: [0:6,10000:3,30000:1]\n", encoding="utf-8")  # YAML 1.1: a number to base 60
    assert resolve_hparams(hparams_file=path).hparams.reduction_schedule == expected
    assert create_hparams("reduction_schedule=[0:6,10000:3,30000:1]").reduction_schedule == expected


def test_the_projection_is_sized_for_the_largest_r_and_a_smaller_one_reads_its_first_outputs() -> None:
    model = small(dropout_rate=0.0, reduction_schedule="[0:3,5:1]")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert model.r == 3 and model.decoder.linear_projection.linear_layer.weight.shape == (18, 26)
    model.r = 1
    narrow = small(dropout_rate=0.0, n_frames_per_step=1)
    first = {n: t[:6] if "linear_projection" in n else t for n, t in before.items()}
    narrow.load_state_dict(first)
    torch.testing.assert_close(teach(model).mel_post, teach(narrow).mel_post)
    torch.testing.assert_close(speak(model, limits())[0].mel, speak(narrow, limits())[0].mel)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("r", [6, 3, 2, 1])
def test_shapes_and_losses_of_each_phase(r: int) -> None:
    model = small(dropout_rate=0.0, reduction_schedule="[0:6,1:3,2:2,3:1]")
    model.r = r
    outputs = teach(model)
    assert outputs.mel.shape == (3, 6, 12) and outputs.alignments.shape == (3, 12 // r, 9)
    gate = gate_targets(MEL_LENGTHS, 12, r=r)
    assert gate.shape == outputs.gate_logits.shape
    assert gate.sum(1).tolist() == (12 // r + 1 - decoder_steps(MEL_LENGTHS, r)).tolist()
    terms = tacotron2_loss(
        outputs, mels(), gate, text_lengths=TEXT_LENGTHS, mel_lengths=MEL_LENGTHS, hp=create_hparams(), r=r,
        mask_padding=True, guide=1.0,
    )  # fmt: skip
    valid = torch.arange(12)[None] < (decoder_steps(MEL_LENGTHS, r) * r)[:, None]
    squared = (outputs.mel - mels()).square().mean(1)
    torch.testing.assert_close(terms.parts["mel"], squared[valid].mean())


@pytest.mark.parametrize(("r", "shown"), [(1, [0, *range(1, 12)]), (2, [0, 2, 4, 6, 8, 10]), (6, [0, 6])])
def test_the_prenet_reads_the_last_frame_of_the_group_in_every_phase(r: int, shown: list[int]) -> None:
    model = small(reduction_schedule="[0:6,1:2,2:1]")
    model.r = r
    numbered = torch.arange(1.0, 13.0).expand(3, 6, 12)
    assert model.decoder.teacher_frames(numbered)[:, 0, 0].tolist() == shown


def test_speech_comes_in_groups_of_the_r_of_the_moment() -> None:
    model = set_gate(small(reduction_schedule="[0:6,1:3]"), 100.0)  # stops after one step
    assert speak(model, limits())[0].mel.shape == (6, 6)
    model.r = 3
    assert speak(model, limits())[0].mel.shape == (6, 3)


# Training


class Phases(TrainStep):
    """Keeps r, the gate's length and T_mel of every forward pass."""

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        self.phases = [*getattr(self, "phases", []), (self.model.r, *(b.mel.size(2) for b in micro_batches))]
        self.shapes = {n: tuple(t.shape) for n, t in self.model.state_dict().items()}
        self.weights_before = {n: t.clone() for n, t in self.model.state_dict().items()}
        return super().accumulate(micro_batches, step=step)


def test_a_run_goes_through_its_phases_with_weights_of_one_shape(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(SCHEDULE), tmp_path, limits=Limits(max_steps=6), train_step=Phases)
    after: list[dict[str, Tensor]] = []
    kept: list[bool] = []

    def compare(t: Watched) -> None:
        if after:
            kept.append(all(torch.equal(x, after[-1][n]) for n, x in t.train_step.weights_before.items()))  # type: ignore[attr-defined]
        after.append({n: x.clone() for n, x in t.model.state_dict().items()})

    trainer.on_step = compare
    trainer.fit()
    phases = trainer.train_step.phases  # type: ignore[attr-defined]
    assert [r for r, *_ in phases] == [6, 6, 3, 3, 1, 1]
    assert all(T_mel % 12 == 0 for _, *lengths in phases for T_mel in lengths)  # of 6, and of 4 with bands
    assert kept == [True] * 5  # a change of phase touches no weight
    assert [(e.step, e.data["r"]) for e in trainer.events("reduction")] == [(3, 3), (5, 1)]


def test_batches_are_padded_for_every_r_in_use(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("reduction_schedule=[0:4,3:6],use_bucket_batching=False")
    assert plan_batches(trainer_of(hp, tmp_path).corpus.train, hp).frame_multiple == 12


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_a_run_is_resumed_bit_exactly_in_any_phase(tiny: Tiny, tmp_path: Path, k: int) -> None:
    hp = tiny(SCHEDULE)
    straight = trained(hp, tmp_path / "straight", 6)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=6))
    first.interrupt_at = k
    first.fit()
    assert_same_run(straight, resumed(hp, tmp_path / "cut", 6))


def test_a_checkpoint_speaks_with_the_r_it_was_trained_with(tiny: Tiny, tmp_path: Path) -> None:
    trained(tiny(f"{SCHEDULE},iters_per_checkpoint=1,keep_checkpoints=9"), tmp_path, 6)
    for path in checkpoint_dir.all_checkpoints(tmp_path / "checkpoints"):
        saved = checkpoint_file.load(path)
        r = [6, 6, 3, 3, 1, 1][saved.step - 1]
        speaker = Speaker.load(path)
        assert saved.voice.frames_per_step == speaker.model.r == r
        sample = speaker.speak(["one"], n_iter=1)[0].sample
        assert sample.mel.shape[1] == r * len(sample.gate) and speaker.limits.max_frames == 2500 * r


def test_a_checkpoint_older_than_schedules_speaks_with_its_hyperparameters_r(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny("n_frames_per_step=2"), tmp_path, 1)
    older = replace(trainer.state(), voice=replace(trainer.state().voice, frames_per_step=None))
    assert Speaker.load(checkpoint_dir.save(older, tmp_path / "older")).model.r == 2


def test_validation_uses_the_r_of_the_step_it_judges(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny(f"{SCHEDULE},validate_interval=1,validation_attention_analysis=True")
    trainer = trained(hp, tmp_path, 3)
    (sample, *_) = trainer.validate().samples
    assert trainer.model.r == 3 and sample.mel.shape[1] == 3 * len(sample.gate)


def test_early_stopping_waits_for_the_last_phase_and_counts_anew_there(tiny: Tiny, tmp_path: Path) -> None:
    patience = "early_stopping=True,early_stopping_patience=2,early_stopping_min_delta=1e6,validate_interval=1"
    hp = tiny(f"reduction_schedule=[0:2,8:1],alignment_diagonal_threshold=0,{patience}")
    assert trained(hp, tmp_path, 50).progress.step == 9  # steps 8 and 9 are the two bad validations
