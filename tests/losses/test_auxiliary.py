"""Double decoder consistency, monotonicity, and all auxiliary losses together in a trainer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import train
from checkpointing import directory as checkpoint_dir
from corpus.batch import Batch
from corpus.loader import make_loader
from data_utils import load_corpus, plan_batches
from hparams import HParams
from layers import padding_mask
from losses.auxiliary import auxiliary_parts
from losses.ddc import alignment_distance, coarse_losses
from losses.monotonicity import monotonicity_loss
from model import CoarseOutputs, Outputs, Tacotron2
from support.losses import ALL, FrozenHead
from support.runs import NO_DROPOUT, Watched, assert_same_run, resumed, rows, trained, trainer_of, weights_of
from text.symbol_sets import named_table
from training.batches import StepData
from training.options import Options
from training.resume import load_initial_weights
from training.trainer import Limits
from training.validation import taught_alignments, teacher_forced_losses

Tiny = Callable[..., HParams]
CPU = torch.device("cpu")
SPOKEN = torch.tensor(named_table("nvidia").needs_sound)
EXTRA = {"mel_coarse", "gate_coarse", "ddc", "monotonicity", "mmi", "mmi_factor"}

B, T_TEXT = 3, 5
TEXT_LENGTHS, MEL_LENGTHS = torch.tensor([5, 3, 4]), torch.tensor([12, 7, 3])


def attention(T_dec: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    energies = torch.randn(B, T_dec, T_TEXT, generator=g, dtype=torch.float64)
    return energies.masked_fill(padding_mask(TEXT_LENGTHS, T_TEXT).unsqueeze(1), float("-inf")).softmax(2)


# ---- double decoder consistency


def test_equal_alignments_are_no_distance_apart_and_padding_never_counts() -> None:
    coarse = attention(4, 1)
    fine = coarse.repeat_interleave(3, 1)
    behind = padding_mask(MEL_LENGTHS, 12)
    assert float(alignment_distance(fine, coarse, behind)) == 0.0
    garbage = fine.masked_fill(behind.unsqueeze(2), 9.0)
    assert float(alignment_distance(garbage, coarse, behind)) == 0.0
    assert float(alignment_distance(garbage, coarse, behind & False)) > 0.0


def test_alignments_that_share_nothing_are_at_the_largest_distance() -> None:
    first, last = torch.zeros(1, 4, 9), torch.zeros(1, 2, 9)
    first[:, :, 0], last[:, :, 8] = 1.0, 1.0
    assert float(alignment_distance(first, last, torch.zeros(1, 4, dtype=torch.bool))) == 2.0


@pytest.mark.parametrize(("r", "k"), [(1, 6), (1, 3), (2, 3), (3, 1)])
def test_each_part_is_the_mean_over_what_is_valid_for_the_fine_decoder(r: int, k: int) -> None:
    T_dec, T_coarse = 12 // r, 12 // (r * k)
    g = torch.Generator().manual_seed(3)
    mel, predicted = (torch.randn(B, 2, 12, generator=g, dtype=torch.float64) for _ in range(2))
    logits = torch.randn(B, T_coarse, generator=g, dtype=torch.float64)
    fine, coarse = attention(T_dec, 4), attention(T_coarse, 5)
    squared, entropy, distance = [], [], []
    for b, length in enumerate(MEL_LENGTHS.tolist()):
        last = (length - 1) // (r * k)  # the coarse step that holds the last frame
        for t in range(-(-length // r)):
            c = t // k
            group = slice(t * r, t * r + r)
            squared += (predicted[b, :, group] - mel[b, :, group]).square().flatten().tolist()
            said = torch.sigmoid(logits[b, c])
            entropy.append(-float(torch.log(said if c >= last else 1 - said)))
            distance.append(sum(abs(float(fine[b, t, n] - coarse[b, c, n])) for n in range(T_TEXT)))
    parts = coarse_losses(CoarseOutputs(predicted, logits, coarse), fine, mel, MEL_LENGTHS, r)
    for name, values in (("mel_coarse", squared), ("gate_coarse", entropy), ("ddc", distance)):
        assert float(parts[name]) == pytest.approx(sum(values) / len(values), rel=1e-12), name


def corpus_batch(hp: HParams) -> Batch:
    corpus = load_corpus(hp)
    plan = plan_batches(corpus.train, hp)
    return next(iter(make_loader(corpus.train, plan, epoch=0, r=hp.n_frames_per_step)))


def outputs_of(hp: HParams, batch: Batch) -> tuple[Tacotron2, dict[str, Tensor]]:
    torch.manual_seed(1)
    model = Tacotron2(hp)
    outputs = model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)
    return model, auxiliary_parts(outputs, batch, hp, r=hp.n_frames_per_step, is_spoken=SPOKEN)


def reached(model: Tacotron2, loss: Tensor) -> set[str]:
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_the_coarse_decoder_teaches_the_encoder_nothing(tiny: Tiny) -> None:
    hp = tiny("use_ddc_loss=True")
    model, parts = outputs_of(hp, corpus_batch(hp))
    own = reached(model, parts["mel_coarse"] + parts["gate_coarse"])
    assert own and all(name.startswith("coarse_decoder.") for name in own)
    both = reached(model, parts["ddc"])  # moves both decoders, and the encoder through the fine one alone
    for decoder in ("decoder", "coarse_decoder"):
        assert f"{decoder}.attention_layer.v.linear_layer.weight" in both


@pytest.mark.parametrize("use_bands", [True, False])
@pytest.mark.parametrize(("r", "coarse"), [(1, 6), (2, 6), (3, 9), (5, 5)])
def test_every_batch_holds_whole_steps_of_both_decoders(tiny: Tiny, r: int, coarse: int, use_bands: bool) -> None:
    hp = tiny(f"use_ddc_loss=True,n_frames_per_step={r},ddc_reduction_factor={coarse},use_bucket_batching={use_bands}")
    batch = corpus_batch(hp)
    assert batch.mel.size(2) % r == 0 and batch.mel.size(2) % coarse == 0
    _, parts = outputs_of(hp, batch)
    assert parts.keys() == {"mel_coarse", "gate_coarse", "ddc"} and all(p.isfinite() for p in parts.values())


# ---- monotonicity


def test_only_backward_movement_costs_as_a_share_of_the_text() -> None:
    forward = F.one_hot(torch.tensor([[0, 0, 1, 3, 4, 4]]), 5).double()
    length, steps = torch.tensor([5]), torch.tensor([6])
    assert float(monotonicity_loss(forward, length, steps)) == 0.0
    assert float(monotonicity_loss(forward.flip(1), length, steps)) == pytest.approx(4 / 5 / 6)
    assert float(monotonicity_loss(forward.flip(1), length, torch.tensor([1]))) == 0.0


def test_monotonicity_is_the_mean_over_valid_steps() -> None:
    alignments, steps = attention(12, 7), MEL_LENGTHS
    costs = []
    for b, (n_symbols, n_steps) in enumerate(zip(TEXT_LENGTHS.tolist(), steps.tolist(), strict=True)):
        before = -1.0
        for t in range(n_steps):
            position = sum(n * float(alignments[b, t, n]) for n in range(n_symbols))
            costs.append(max(0.0, before - position) / n_symbols if t else 0.0)
            before = position
    garbage = alignments.masked_fill(padding_mask(steps, 12).unsqueeze(2), 9.0)
    for given in (alignments, garbage):
        assert float(monotonicity_loss(given, TEXT_LENGTHS, steps)) == pytest.approx(sum(costs) / len(costs), rel=1e-12)


def test_minimising_it_makes_attention_monotonic() -> None:
    energies = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = []
    for _ in range(100):
        loss = monotonicity_loss(energies.softmax(2), torch.tensor([8]), torch.tensor([20]))
        (slope,) = torch.autograd.grad(loss, [energies])
        energies.data -= slope / slope.norm()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# ---- in training


def losses_over(hp: HParams, directory: Path, steps: int) -> list[dict[str, float]]:
    """Losses of each step on one batch, always the same."""
    trainer = trainer_of(hp, directory)
    (batch,) = make_loader(trainer.corpus.train, trainer.batches.plan, epoch=0, r=hp.n_frames_per_step)
    for _ in range(steps):
        trainer._step(StepData([batch], (0, 0), 0.0))
    assert trainer.statistics.skipped == 0
    return [{name: float(value) for name, value in losses.items()} for losses in trainer.statistics.losses]


def test_a_model_that_sees_one_batch_learns_to_be_read_and_both_decoders_learn(tiny: Tiny, tmp_path: Path) -> None:
    wider = "decoder_rnn_dim=32,attention_rnn_dim=32,encoder_embedding_dim=16,symbols_embedding_dim=16,prenet_dim=16"
    losses = losses_over(tiny(f"{ALL},{wider},batch_size=5,learning_rate=1e-2"), tmp_path, 60)
    assert losses[0].keys() == {"total", "mel", "mel_post", "gate", "guided_attention"} | EXTRA
    first, last = ({n: sum(x[n] for x in part) / 3 for n in losses[0]} for part in (losses[:3], losses[-3:]))
    for name, share in (("mmi", 0.75), ("mel_coarse", 0.75), ("gate_coarse", 0.75), ("mel", 0.75)):
        assert last[name] < share * first[name], name
    assert all(0.0 < x["mmi_factor"] <= 0.5 for x in losses)


def test_the_factor_is_measured_every_so_many_optimiser_steps_not_micro_batches(tiny: Tiny, tmp_path: Path) -> None:
    measured: list[tuple[int | None, float]] = []
    hp = tiny("use_mmi=True,update_gaf_every_n_step=3,batch_size=1,gradient_accumulation_steps=2,max_gaf=1e9")
    trainer = trainer_of(hp, tmp_path, limits=Limits(max_steps=7))
    trainer.on_step = lambda t: measured.append(
        (t.train_step.auxiliary._measured_at, float(t.train_step.auxiliary.factor))
    )
    trainer.fit()
    assert [at for at, _ in measured] == [0, 0, 0, 3, 3, 3, 6]
    values = [value for _, value in measured]
    assert values[0] == values[1] == values[2] != values[3] == values[4] == values[5] != values[6]
    assert all(value > 0 for value in values)


@pytest.mark.parametrize("settings", ["", "n_frames_per_step=2"])
def test_accumulated_gradients_and_losses_are_those_of_one_large_batch(
    tiny: Tiny, tmp_path: Path, settings: str
) -> None:
    hp = tiny(f"batch_size=5,{NO_DROPOUT},{ALL},drop_frame_rate=0,use_gaf=False,{settings}")
    trainer = trainer_of(hp, tmp_path, train_step=FrozenHead)
    (large,) = make_loader(trainer.corpus.train, trainer.batches.plan, epoch=0, r=hp.n_frames_per_step)
    gradients, losses = [], []
    for micro_batches in ([large], [rows(large, slice(0, 1)), rows(large, slice(1, 3)), rows(large, slice(3, 5))]):
        trainer.train_step.optimizer.zero_grad()
        losses.append(trainer.train_step.accumulate(micro_batches, step=1))
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(trainer.model.named_parameters()).keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("k", "settings"), [(1, ""), (4, ""), (3, "batch_size=1,gradient_accumulation_steps=2,n_frames_per_step=2")]
)
def test_a_run_with_everything_on_resumes_to_the_bit(tiny: Tiny, tmp_path: Path, k: int, settings: str) -> None:
    hp, n = tiny(f"{ALL},{settings}"), 7
    straight = trained(hp, tmp_path / "straight", n)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=n))
    first.interrupt_at = k
    assert first.fit().step == k
    second = resumed(hp, tmp_path / "cut", n)
    assert first.seen + second.seen == straight.seen
    assert_same_run(straight, second)


def test_a_checkpoint_from_before_these_losses_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny(), tmp_path / "old", 2)
    saved = trainer.state()
    assert saved.training is not None
    del saved.training["auxiliary"]
    again = trainer_of(tiny(), tmp_path / "new")
    again.restore(saved)
    assert again.progress.step == 2


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ("use_mmi=True", "mmi_weight=3"),
        ("use_mmi=True", "use_gaf=False"),
        ("use_mmi=True", "max_gaf=0.001"),
        ("use_mmi=True,max_gaf=100", "update_gaf_every_n_step=2"),
        ("use_ddc=True", "ddc_consistency_weight=3"),
        ("use_ddc=True", "ddc_reduction_factor=3"),
        ("", "attention_alignment_loss_weight=2"),
        ("", "drop_frame_rate=0.5"),
        ("", "use_mmi=True"),
        ("", "use_ddc_loss=True"),
    ],
)
def test_every_setting_changes_what_is_learnt(tiny: Tiny, tmp_path: Path, base: str, change: str) -> None:
    a, b = (trained(tiny(settings), tmp_path / str(i), 4) for i, settings in enumerate((base, f"{base},{change}")))
    assert not torch.equal(a.model.encoder.lstm.weight_ih_l0, b.model.encoder.lstm.weight_ih_l0)


def test_parts_that_weigh_nothing_leave_the_others_as_without_them(tiny: Tiny, tmp_path: Path) -> None:
    settings = f"{NO_DROPOUT},grad_clip_thresh=1e9"
    parts = "use_mmi=True,mmi_weight=0,use_ddc=True,ddc_loss_weight=0,ddc_reduction_factor=4"  # 4: the same padding
    plain = trained(tiny(settings), tmp_path / "plain", 3)
    beside = trained(tiny(f"{settings},{parts}"), tmp_path / "beside", 3).model.state_dict()
    for name, tensor in weights_of(plain).items():
        torch.testing.assert_close(beside[name], tensor, rtol=1e-6, atol=1e-8)
    assert {name.partition(".")[0] for name in beside.keys() - plain.model.state_dict().keys()} == {
        "mmi",
        "coarse_decoder",
    }


# ---- validation, warm start


def validation_losses(hp: HParams, model: Tacotron2) -> dict[str, float]:
    corpus = load_corpus(hp)
    torch.manual_seed(5)
    batches = make_loader(
        corpus.validation, plan_batches(corpus.validation, hp, is_validation=True), epoch=0, r=hp.n_frames_per_step
    )
    return teacher_forced_losses(model, batches, hp, corpus, CPU)


def test_validation_reports_every_part_and_drops_no_frames(tiny: Tiny) -> None:
    on, off = tiny(f"{ALL},drop_frame_rate=0.9"), tiny(f"{ALL},drop_frame_rate=0")
    torch.manual_seed(1)
    model = Tacotron2(on).eval()
    with_drops = validation_losses(on, model)
    only_judged = {"mmi_error", "alignment_fine", "alignment_coarse"}
    assert EXTRA - {"mmi_factor"} | only_judged <= with_drops.keys()
    assert with_drops == validation_losses(off, model)


def test_validation_weighs_the_recogniser_by_utterances_and_its_error_is_that_of_the_whole_list(tiny: Tiny) -> None:
    hp = tiny("use_mmi=True,batch_size=1,dropout_rate=0")
    torch.manual_seed(1)
    model, corpus = Tacotron2(hp).eval(), load_corpus(hp)
    plan = plan_batches(corpus.validation, hp, is_validation=True)
    batches = list(make_loader(corpus.validation, plan, epoch=0, r=1))
    alone = [teacher_forced_losses(model, [batch], hp, corpus, CPU) for batch in batches]
    together = teacher_forced_losses(model, batches, hp, corpus, CPU)
    assert len({losses["mmi"] for losses in alone}) == len(alone) > 1
    for name in ("mmi", "mmi_error"):
        assert together[name] == pytest.approx(sum(losses[name] for losses in alone) / len(alone))


def test_the_scores_of_both_decoders_are_those_of_their_valid_parts() -> None:
    fine = torch.zeros(2, 12, 6)
    for t in range(12):
        fine[:, t, t // 2] = 1.0
    fine[1, 6:] = 0.5  # behind the second utterance, which has three symbols and six steps
    coarse = fine[:, ::2].clone()
    coarse[1, :3] = torch.tensor([1.0, 0, 0, 0, 0, 0])  # stays where it was
    text, lengths = torch.full((2, 6), 20), torch.tensor([6, 3])
    batch = Batch(text, lengths, torch.zeros(2, 1, 12), torch.tensor([12, 5]), torch.zeros(2, 12), ("a", "b"))
    nothing = torch.zeros(())
    outputs = Outputs(nothing, nothing, nothing, fine, coarse=CoarseOutputs(nothing, nothing, coarse))
    scores = taught_alignments(outputs, batch, torch.tensor([12, 5]), SPOKEN)
    assert scores["alignment_fine"] == 1.0
    assert scores["alignment_coarse"] == pytest.approx((1.0 + 1 / 3) / 2)


@pytest.mark.parametrize("ignored", [False, True])
def test_ignore_mmi_layers_keeps_the_head_new(tiny: Tiny, tmp_path: Path, ignored: bool) -> None:
    hp = tiny("use_mmi=True,mmi_ignore_layers=[mmi.output.weight]")
    trainer: Watched = trained(hp, tmp_path, 1)
    path = checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 1)
    model = Tacotron2(hp)
    args = train.parser().parse_args(["--warm-start", *["--ignore-mmi-layers"] * ignored])
    prefixes = train.ignored_prefixes(args, hp)
    options = Options(checkpoint=path, warm_start=True, ignore_prefixes=prefixes)
    assert load_initial_weights(path, model, hp, trainer.corpus, options) is None
    theirs, ours = trainer.model.state_dict(), model.state_dict()
    assert torch.equal(ours["mmi.hidden.weight"], theirs["mmi.hidden.weight"])
    assert torch.equal(ours["mmi.output.weight"], theirs["mmi.output.weight"]) is not ignored
