"""Options that meet: a reduction schedule, own frames and recomputed activations beside the auxiliary losses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from corpus.loader import make_loader
from data_utils import plan_batches
from hparams import HParams, create_hparams
from support.losses import ALL, FrozenHead
from support.models import MEL_LENGTHS, TEXT_LENGTHS, mels, small, texts
from support.runs import NO_DROPOUT, assert_same_run, resumed, rows, trained, trainer_of
from training.trainer import Limits

Tiny = Callable[..., HParams]
SCHEDULE = "reduction_schedule=[0:6,3:3,5:1]"
ALSO = "use_gst=True,p_teacher_forcing=0.6,use_forward_attention=True,use_attention_smoothing=True"
EVERYTHING = f"{ALL},{ALSO},use_memory_efficient_attention=True,{SCHEDULE}"


# ---- the coarse decoder beside a schedule


@pytest.mark.parametrize("schedule", ["[0:4]", "[0:6,10:4]", "[0:12,10:6]"])
def test_the_coarse_steps_must_be_whole_steps_of_every_phase(schedule: str) -> None:
    with pytest.raises(UserError, match="must be a multiple of n_frames_per_step, or of every R of reduction_schedule"):
        create_hparams(f"use_ddc_loss=True,ddc_reduction_factor=6,reduction_schedule={schedule}")
    create_hparams(f"ddc_reduction_factor=6,reduction_schedule={schedule}")  # no second decoder, no conflict


def test_with_a_schedule_n_frames_per_step_need_not_divide_the_coarse_steps() -> None:
    create_hparams("use_ddc_loss=True,ddc_reduction_factor=6,n_frames_per_step=5,reduction_schedule=[0:3,9:2]")


def test_a_wrong_schedule_is_one_error_though_two_rules_read_it() -> None:
    with pytest.raises(UserError) as caught:
        create_hparams("use_ddc_loss=True,reduction_schedule=[5:4]")
    assert "must list STEP:R" in str(caught.value) and "ddc" not in str(caught.value)


@pytest.mark.parametrize(("coarse", "expected"), [(6, 6), (12, 12)])
def test_batches_hold_whole_steps_of_both_decoders_in_every_phase(
    tiny: Tiny, tmp_path: Path, coarse: int, expected: int
) -> None:
    hp = tiny(f"use_ddc_loss=True,ddc_reduction_factor={coarse},{SCHEDULE},use_bucket_batching=False")
    assert plan_batches(trainer_of(hp, tmp_path).corpus.train, hp).frame_multiple == expected


def test_the_coarse_decoder_keeps_its_r_and_its_own_attention() -> None:
    options = {"use_ddc_loss": True, "ddc_reduction_factor": 12, "use_forward_attention": True}
    model = small(**options, reduction_schedule="[0:6,1:3,2:1]")
    for r in (6, 3, 1):
        model.r = r
        outputs = model(texts(), TEXT_LENGTHS, mels(), MEL_LENGTHS)
        assert outputs.alignments.shape[1] == 12 // r
        assert outputs.coarse.mel.shape == (3, 6, 12) and outputs.coarse.alignments.shape[1] == 1
        assert bool((outputs.alignments[0, 0, 2:] == 0).all())  # forward: one symbol a step
        assert bool((outputs.coarse.alignments[0, 0, :5] > 0).all())  # of 5 symbols, all reachable


def test_both_decoders_hear_themselves() -> None:
    model = small(use_ddc_loss=True, ddc_reduction_factor=3)
    changed = torch.cat((mels()[:, :, :6] + 1.0, mels()[:, :, 6:]), 2)
    for p_teacher, same in ((0.0, True), (1.0, False)):
        outputs = []
        for mel in (mels(), changed):
            torch.manual_seed(0)
            outputs.append(model(texts(), TEXT_LENGTHS, mel, MEL_LENGTHS, p_teacher=p_teacher))
        assert torch.equal(outputs[0].mel, outputs[1].mel) is same
        assert torch.equal(outputs[0].coarse.mel, outputs[1].coarse.mel) is same


# ---- in a trainer


@pytest.mark.parametrize("r", [6, 3, 1])
def test_accumulation_gives_the_gradient_of_one_large_batch_in_every_phase(tiny: Tiny, tmp_path: Path, r: int) -> None:
    off = f"{NO_DROPOUT},drop_frame_rate=0,use_gaf=False"
    hp = tiny(f"batch_size=5,{ALL},use_gst=True,{SCHEDULE},{off}")
    trainer = trainer_of(hp, tmp_path, train_step=FrozenHead)
    trainer.model.r = r
    (large,) = make_loader(trainer.corpus.train, trainer.batches.plan, epoch=0, r=6)  # loaded ahead, in the first phase
    gradients = []
    for micro_batches in ([large], [rows(large, slice(0, 2)), rows(large, slice(2, 5))]):
        trainer.train_step.optimizer.zero_grad()
        trainer.train_step.accumulate(micro_batches, step=1)
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == dict(trainer.model.named_parameters()).keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.spec
@pytest.mark.parametrize("k", [2, 4])
def test_a_run_with_everything_on_resumes_to_the_bit(tiny: Tiny, tmp_path: Path, k: int) -> None:
    hp = tiny(f"{EVERYTHING},validate_interval=2")
    straight = trained(hp, tmp_path / "straight", 6)
    assert all(torch.isfinite(t).all() for t in straight.model.state_dict().values())
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=6))
    first.interrupt_at = k
    first.fit()
    assert_same_run(straight, resumed(hp, tmp_path / "cut", 6))


@pytest.mark.slow
@pytest.mark.parametrize("base", ["decoder_backend=plain", "p_teacher_forcing=0.5"])
def test_recomputing_changes_no_bit_where_the_adaptive_factor_walks_the_graph_thrice(
    tiny: Tiny, tmp_path: Path, base: str
) -> None:
    hp = f"use_mmi=True,update_gaf_every_n_step=1,use_ddc_loss=True,{base}"
    kept = trained(tiny(hp), tmp_path / "kept", 3)
    again = trained(tiny(f"{hp},use_memory_efficient_attention=True,attention_chunk_size=2"), tmp_path / "again", 3)
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in kept.model.state_dict().items())
    assert float(kept.train_step.auxiliary.factor) == float(again.train_step.auxiliary.factor) > 0.0
