"""MMI: its loss is CTC's sum over all paths, its factor is what one computes by hand, and it reaches the decoder."""

import multiprocessing
from collections.abc import Callable
from itertools import groupby, product
from math import exp, inf, log, nan
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hparams import HParams, create_hparams
from losses.mmi import adaptive_factor, ctc_targets, mmi_loss
from model import Tacotron2
from modules.mmi_recognizer import Recognizer
from parallel.process_group import mean_over_processes
from text.front_end import FrontEnd
from text.symbol_sets import named_table
from text.symbols import symbols
from training.validation import reading_error

Tiny = Callable[..., HParams]
TABLE = named_table("nvidia")
SPOKEN = torch.tensor(TABLE.needs_sound)


def targets_of(text: str) -> list[str]:
    (reading,) = FrontEnd.create(cleaners=["basic_cleaners"]).read([text])
    padded = torch.tensor([[*reading.ids, 0, 0, 0]])
    targets, lengths = ctc_targets(padded, torch.tensor([len(reading.ids)]), SPOKEN)
    return TABLE.shown(targets[0, : int(lengths)].tolist())


def test_targets_are_letters_and_phonemes_in_order() -> None:
    assert targets_of("oh, a-b! (c?): d.") == list("ohabcd")
    assert targets_of("no {HH AW1 S}.") == ["n", "o", "{HH}", "{AW1}", "{S}"]
    assert targets_of("...!") == []


def test_padding_is_no_target() -> None:
    text, lengths = torch.tensor([[15, 16, 17, 18]]), torch.tensor([2])
    targets, n = ctc_targets(text, lengths, SPOKEN)
    assert n.tolist() == [2] and targets[0, :2].tolist() == [15, 16]


def ctc_by_enumeration(log_probs: Tensor, target: list[int], blank: int) -> float:
    """-log of the summed probability of every path that reads as `target`. log_probs [T, classes]"""
    total = 0.0
    for path in product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        if [c for c, _ in groupby(path) if c != blank] == target:
            total += exp(sum(float(log_probs[t, c]) for t, c in enumerate(path)))
    return -log(total) if total else inf


def test_the_loss_is_ctc_by_frames_averaged_over_utterances() -> None:
    n_symbols = 14  # up to the letters A and B, ids 12 and 13
    g = torch.Generator().manual_seed(2)
    log_probs = torch.randn(3, 3, n_symbols + 1, generator=g, dtype=torch.float64).log_softmax(2)
    text = torch.tensor([[12, 11, 13], [13, 10, 0], [12, 12, 12]])  # A B; B; A A A does not fit 3 steps
    text_lengths, steps = torch.tensor([3, 2, 3]), torch.tensor([3, 2, 3])
    expected = 0.0
    for b, (target, n) in enumerate([([12, 13], 3), ([13], 2), ([12, 12, 12], 3)]):
        cost = ctc_by_enumeration(log_probs[:n, b], target, n_symbols)
        expected += (cost / n if cost < inf else 0.0) / 3
    assert expected > 0
    assert float(mmi_loss(log_probs, text, text_lengths, steps, SPOKEN[:n_symbols])) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize(
    ("heard", "share"),
    [("ab-", 0.0), ("aab", 0.0), ("a-a", 0.5), ("---", 1.0), ("b--", 0.5), ("-ba", 1.0), ("bab", 0.5)],
)
def test_the_error_counts_what_must_be_mended_in_what_the_likeliest_path_reads(heard: str, share: float) -> None:
    n_symbols, classes = 14, {"a": 12, "b": 13, "-": 14}  # the text is A B, and the fourth step is padding
    log_probs = torch.full((4, 1, n_symbols + 1), -9.0)
    for t, c in enumerate(f"{heard}a"):
        log_probs[t, 0, classes[c]] = 0.0
    text = torch.tensor([[12, 11, 13, 0]])
    assert reading_error(log_probs, text, torch.tensor([3]), torch.tensor([3]), SPOKEN[:n_symbols]) == share


def test_a_text_without_a_sound_and_one_that_does_not_fit_give_finite_gradients() -> None:
    logits = torch.randn(3, 2, len(symbols) + 1, requires_grad=True)
    text = torch.tensor([[5, 6, 7, 11], [15, 15, 15, 15]])
    loss = mmi_loss(logits.log_softmax(2), text, torch.tensor([4, 4]), torch.tensor([3, 3]), SPOKEN)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_a_checkpoints_own_number_of_symbols_sizes_embedding_and_recogniser() -> None:
    widths = "encoder_embedding_dim=4,attention_rnn_dim=4,decoder_rnn_dim=4,prenet_dim=4,postnet_embedding_dim=4"
    model = Tacotron2(create_hparams(f"use_mmi=True,{widths}").model_copy(update={"n_symbols": 76}))
    assert model.embedding.num_embeddings == 76
    assert model.mmi is not None and model.mmi.output.out_features == 76 + 1  # CTC's blank


def test_the_recogniser_ignores_autocast() -> None:
    recogniser = Recognizer(6, create_hparams("decoder_rnn_dim=8")).eval()
    features = torch.randn(4, 2, 6)
    plain = recogniser(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(recogniser(features), plain)
        assert recogniser(features.bfloat16()).dtype == torch.float32


# ---- the adaptive factor


def shared_parameters() -> tuple[Tensor, ...]:
    return tuple(torch.tensor([float(i), -2.0], requires_grad=True) for i in range(1, 4))


def test_the_factor_is_the_least_ratio_of_the_largest_gradients() -> None:
    a, b, alone = shared_parameters()
    # max|g|: 3 and 6 at a, 0.5 and 4 at b; the third one is the task's alone
    task, mmi = 3 * a[0] + 0.1 * a[1] - 0.5 * b[1] + 1e-3 * alone[0], -6 * a[1] + 2 * b[0] + 4 * b[1]
    before = torch.tensor(0.3)
    assert float(adaptive_factor(task, mmi, (a, b, alone), most=0.5, before=before)) == 0.125
    assert float(adaptive_factor(task, mmi, (a, b, alone), most=0.1, before=before)) == pytest.approx(0.1)
    assert float(adaptive_factor(task, mmi, (a, alone), most=9.0, before=before)) == 0.5


def test_a_gradient_of_rounding_noise_does_not_decide() -> None:
    a, noise, _ = shared_parameters()
    task, mmi = 3 * a[0] + 3e-8 * noise[0], 6 * a[0] + noise[0]
    assert float(adaptive_factor(task, mmi, (a, noise), most=9.0, before=torch.tensor(0.3))) == 0.5


@pytest.mark.parametrize("bad", [nan, inf, 0.0])
@pytest.mark.parametrize("which", ["task", "mmi"])
def test_without_a_measurement_the_factor_stays(bad: float, which: str) -> None:
    a, b, _ = shared_parameters()
    losses = {"task": a[0] + b[0], "mmi": a[0] + b[0]}
    losses[which] = bad * a[0] + (0.0 if bad == 0.0 else 1.0) * b[0]
    before = torch.tensor(0.3)
    assert float(adaptive_factor(losses["task"], losses["mmi"], (a, b), most=0.5, before=before)) == pytest.approx(0.3)


@pytest.mark.parametrize("backend", ["plain", "fast"])
def test_measuring_leaves_the_real_gradients_alone(tiny: Tiny, backend: str) -> None:
    hp = tiny(f"use_mmi=True,decoder_backend={backend}")
    torch.manual_seed(1)
    model = Tacotron2(hp)
    text, text_lengths = torch.randint(12, 60, (2, 6)), torch.tensor([6, 4])
    mel, mel_lengths = torch.randn(2, 8, 12), torch.tensor([12, 9])

    def gradients(*, measured: bool) -> dict[str, Tensor]:
        torch.manual_seed(2)
        model.zero_grad()
        outputs = model(text, text_lengths, mel, mel_lengths)
        task = (outputs.mel_post - mel).square().mean() + outputs.gate_logits.square().mean()
        mmi = mmi_loss(outputs.ctc_log_probs, text, text_lengths, mel_lengths, SPOKEN)
        if measured:
            adaptive_factor(task, mmi, list(model.parameters()), most=0.5, before=torch.zeros(()))
            assert all(p.grad is None for p in model.parameters())
        (task + 0.25 * mmi).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected, actual = gradients(measured=False), gradients(measured=True)
    assert actual.keys() == expected.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def in_a_process(rank: int, meeting: Path, results: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Both processes measure, then go backward through a data-parallel wrapper; each has losses of its own."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = nn.Linear(1, 1, bias=False)
    parallel = nn.parallel.DistributedDataParallel(model)
    out = parallel(torch.ones(1, 1)).sum()
    task, mmi = (1.0 + rank) * out, 4.0 * out
    factor = mean_over_processes(adaptive_factor(task, mmi, list(model.parameters()), most=9.0, before=torch.zeros(())))
    task.backward()
    assert model.weight.grad is not None
    results.put((factor.item(), model.weight.grad.item()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_on_the_factor_and_their_gradients_are_still_averaged(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of other threads
    results = context.Queue()
    processes = [context.Process(target=in_a_process, args=(i, tmp_path / "meeting", results)) for i in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [((0.25 + 0.5) / 2, 1.5)] * 2


def test_mmi_reaches_encoder_and_decoder_but_neither_postnet_nor_projections(tiny: Tiny) -> None:
    torch.manual_seed(1)
    model = Tacotron2(tiny("use_mmi=True"))
    text, lengths = torch.randint(12, 60, (2, 6)), torch.tensor([6, 4])
    outputs = model(text, lengths, torch.randn(2, 8, 12), torch.tensor([12, 9]))
    mmi_loss(outputs.ctc_log_probs, text, lengths, torch.tensor([12, 9]), SPOKEN).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    for name in ("embedding.weight", "encoder.lstm.weight_ih_l0", "decoder.attention_rnn.weight_hh",
                 "decoder.attention_layer.v.linear_layer.weight", "decoder.decoder_rnn.weight_hh",
                 "decoder.prenet.layers.0.linear_layer.weight", "mmi.hidden.weight"):  # fmt: skip
        assert name in reached, name
    assert not [name for name in reached if name.startswith(("postnet", "decoder.linear_projection", "decoder.gate"))]


def test_the_head_is_all_that_mmi_adds(tiny: Tiny) -> None:
    torch.manual_seed(1)
    without = Tacotron2(tiny()).state_dict()
    torch.manual_seed(1)
    hp = tiny("use_mmi=True")
    model: nn.Module = Tacotron2(hp)
    all_reduce_sum = {name: t for name, t in model.state_dict().items() if name not in without}
    assert set(all_reduce_sum) == set(hp.mmi_ignore_layers)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in without.items())
    assert all_reduce_sum["mmi.output.weight"].shape == (len(symbols) + 1, hp.decoder_rnn_dim)
