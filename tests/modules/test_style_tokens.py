"""Style tokens: each parameter acts, padding has no part in a style, who learns from what, and what a style changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from corpus.loader import make_loader
from data_utils import load_corpus, plan_batches
from hparams import HParams, create_hparams
from loss_function import LossTerms, style_loss, tacotron2_loss
from model import DecodeLimits, Outputs, Tacotron2
from modules.style_tokens import FrameNorm, Style, StyleTokens

Tiny = Callable[..., HParams]
SMALL = (
    "use_gst=True,n_mel_channels=8,symbols_embedding_dim=12,encoder_embedding_dim=12,encoder_n_convolutions=1,"
    "attention_rnn_dim=16,attention_dim=8,attention_location_n_filters=3,attention_location_kernel_size=5,"
    "decoder_rnn_dim=14,prenet_dim=10,postnet_embedding_dim=10,postnet_n_convolutions=2,dropout_rate=0"
)
STYLE = {
    "ref_enc_filters": "[4,6]", "ref_enc_size": "[3,3]", "ref_enc_strides": "[2,2]", "ref_enc_pad": "[1,1]",
    "ref_enc_gru_size": "8", "token_embedding_size": "12", "token_num": "5", "num_heads": "3",
}  # fmt: skip
TEXT_LENGTHS, MEL_LENGTHS = torch.tensor([5, 9, 3]), torch.tensor([17, 30, 9])


def small(more: str = "", **style: str) -> HParams:
    values = ",".join(f"{name}={value}" for name, value in (STYLE | style).items())
    return create_hparams(",".join(filter(None, [SMALL, values, more])))


def tokens_of(hp: HParams) -> StyleTokens:
    torch.manual_seed(1)
    return StyleTokens(hp)


def model_of(hp: HParams) -> Tacotron2:
    torch.manual_seed(1)
    return Tacotron2(hp)


def mels() -> Tensor:
    return torch.randn(3, 8, 30, generator=torch.Generator().manual_seed(2))


def texts() -> Tensor:
    return torch.randint(1, 148, (3, 9), generator=torch.Generator().manual_seed(3))


def teach(model: Tacotron2, style: Tensor | None = None) -> Outputs:
    return model(texts(), TEXT_LENGTHS, mels(), MEL_LENGTHS, style=style)


def loss_of(outputs: Outputs, hp: HParams) -> LossTerms:
    gate, lengths = torch.zeros(3, 30), {"text_lengths": TEXT_LENGTHS, "mel_lengths": MEL_LENGTHS}
    return tacotron2_loss(outputs, mels(), gate, **lengths, hp=hp, r=1, mask_padding=True, guide=0)


# -- layout and configuration


def test_off_there_is_no_tensor_of_style() -> None:
    keys = Tacotron2(create_hparams(SMALL.replace("use_gst=True", "use_gst=False"))).state_dict()
    assert not [key for key in keys if key.startswith(("gst.", "tpgst.", "speaker"))]


def test_style_changes_no_shape_of_the_rest_and_no_random_draw_of_its_weights() -> None:
    off = model_of(create_hparams(SMALL.replace("use_gst=True", "use_gst=False"))).state_dict()
    on = model_of(small()).state_dict()
    assert all(torch.equal(on[key], tensor) for key, tensor in off.items())
    assert {key.split(".")[0] for key in on.keys() - off.keys()} == {"gst", "tpgst"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ref_enc_filters", "[4,5]"), ("ref_enc_filters", "[4,6,6]"), ("ref_enc_size", "[3,5]"),
        ("ref_enc_size", "[5,3]"),
        ("ref_enc_strides", "[2,1]"), ("ref_enc_strides", "[1,2]"), ("ref_enc_pad", "[1,2]"), ("ref_enc_pad", "[2,1]"),
        ("ref_enc_gru_size", "6"), ("token_embedding_size", "24"), ("token_num", "4"), ("num_heads", "4"),
    ],
)  # fmt: skip
def test_each_parameter_changes_shapes_or_the_style(name: str, value: str) -> None:
    usual, other = tokens_of(small()).eval(), tokens_of(small(**{name: value})).eval()
    shapes = [{key: t.shape for key, t in each.state_dict().items()} for each in (usual, other)]
    if shapes[0] == shapes[1]:
        other.load_state_dict(usual.state_dict())
        assert not torch.allclose(usual.weights(mels(), MEL_LENGTHS), other.weights(mels(), MEL_LENGTHS), atol=1e-6)


def test_use_gst_adds_the_style_loss_and_acts_on_the_mels() -> None:
    hp, plain = small(), create_hparams(SMALL.replace("use_gst=True", "use_gst=False"))
    with_style, without = (loss_of(teach(model_of(each)), each).parts for each in (hp, plain))
    assert with_style.keys() - without.keys() == {"style"} and with_style["mel"] != without["mel"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("token_embedding_size=30,num_heads=4", "must be a multiple of num_heads"),
        ("ref_enc_filters=[]", "at least one convolution"),
        ("ref_enc_filters=[4,0]", "ref_enc_filters=.*must be list of int"),
        ("ref_enc_size=[3]", "must hold two numbers"),
        ("ref_enc_strides=[2,2,2]", "must hold two numbers"),
        ("ref_enc_pad=[1,-1]", "ref_enc_pad=.*must be list of int.*>= 0"),
        ("use_gst=True,ref_enc_pad=[1,0]", "must leave something of the mel bands"),
        ("use_gst=True,n_mel_channels=2,ref_enc_pad=[0,0],ref_enc_filters=[4]", "must leave something"),
    ],
)
def test_impossible_combinations_are_refused(overrides: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"1 problem in the hyperparameters\n.*{expected}"):
        create_hparams(overrides)


def test_a_reference_encoder_that_nobody_uses_may_be_impossible() -> None:
    assert not create_hparams("n_mel_channels=2,ref_enc_pad=[0,0]").use_gst


# -- padding


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pad", ["[1,1]", "[0,1]", "[3,1]"])
@pytest.mark.parametrize("size_stride", [("[3,3]", "[2,2]"), ("[4,3]", "[3,2]"), ("[5,3]", "[1,2]")])
def test_padding_does_not_change_a_style(training: bool, pad: str, size_stride: tuple[str, str]) -> None:
    """In training too: the statistics of the normalisation are those of true frames."""
    hp = small(ref_enc_pad=pad, ref_enc_size=size_stride[0], ref_enc_strides=size_stride[1])
    tight, wide = tokens_of(hp).train(training), tokens_of(hp).train(training)
    expected = tight.weights(mels(), MEL_LENGTHS)
    filled = torch.cat((mels(), torch.full((3, 8, 25), 7.0)), 2)
    for b, length in enumerate(MEL_LENGTHS.tolist()):
        filled[b, :, length:] = -9.0 + b
    assert torch.allclose(expected, wide.weights(filled, MEL_LENGTHS), atol=1e-6)
    for key, tensor in tight.state_dict().items():
        assert torch.allclose(tensor.float(), wide.state_dict()[key].float(), atol=1e-6), key


def test_an_utterance_has_the_same_style_alone_as_in_a_batch() -> None:
    tokens = tokens_of(small()).eval()
    together = tokens.weights(mels(), MEL_LENGTHS)
    for b, n in enumerate(MEL_LENGTHS.tolist()):
        alone = tokens.weights(mels()[b : b + 1, :, :n], MEL_LENGTHS[b : b + 1])
        assert torch.allclose(together[b : b + 1], alone, atol=1e-6)


def test_styles_of_different_recordings_differ() -> None:
    weights = tokens_of(small()).eval().weights(mels(), MEL_LENGTHS)
    assert weights.shape == (3, 3, 5) and torch.allclose(weights.sum(2), torch.ones(3, 3))
    assert (weights[0] - weights[1]).abs().max() > 1e-4


@pytest.mark.parametrize("training", [False, True])
def test_a_recording_shorter_than_the_convolutions_need_still_has_a_style(training: bool) -> None:
    tokens = tokens_of(small(ref_enc_pad="[0,1]")).train(training)
    assert tokens.reference_encoder.least_frames == 7
    assert torch.isfinite(tokens.weights(mels()[:1, :, :2], torch.tensor([2]))).all()


def test_a_single_value_is_normalised_by_the_running_statistics() -> None:
    one, inside = torch.full((1, 1, 2, 1), 3.0), torch.ones(1, 1, dtype=torch.bool)
    norm = FrameNorm(2).train()
    assert torch.equal(norm(one, inside), FrameNorm(2).eval()(one, inside))
    assert torch.equal(norm.running_mean, torch.zeros(2)) and int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize("training", [True, False])
def test_frames_inside_are_normalised_as_if_there_were_no_others(training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 2, 4, dtype=torch.float64, requires_grad=True)
    inside = torch.arange(7) < torch.tensor([[7], [2], [5]])
    ours, theirs = FrameNorm(2).double().train(training), torch.nn.BatchNorm1d(2).double().train(training)
    found, expected = ours(x, inside)[inside], theirs(x[inside])
    torch.testing.assert_close(found, expected)
    factors = torch.randn_like(expected)
    grads = torch.autograd.grad((found * factors).sum(), [x, *ours.parameters()])
    torch.testing.assert_close(grads, torch.autograd.grad((expected * factors).sum(), [x, *theirs.parameters()]))
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def test_the_encoded_padding_stays_zero() -> None:
    model = model_of(small()).eval()
    memory = model.encode(texts(), TEXT_LENGTHS)
    styled, _ = model.apply_style(memory, TEXT_LENGTHS, recordings=(mels(), MEL_LENGTHS))
    assert styled[2, 3:].abs().max() == 0.0 and (styled - memory)[2, :3].abs().min() > 0


# -- who learns from what


def test_the_mel_loss_reaches_tokens_and_reference_encoder() -> None:
    hp = small()
    model = model_of(hp)
    loss_of(teach(model), hp).parts["mel_post"].backward()
    assert model.gst is not None
    for name, parameter in model.gst.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_style_loss_reaches_the_predictor_alone() -> None:
    hp = small()
    model = model_of(hp)
    loss_of(teach(model), hp).parts["style"].backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"tpgst"}


def test_the_style_loss_is_zero_where_the_text_foresees_the_mel_and_counts_decoder_steps() -> None:
    weights = torch.softmax(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1)), 2)
    flat = torch.full_like(weights, 1 / 5).log()
    assert style_loss(Style(weights, weights.log()), torch.tensor([3, 4])).abs() < 1e-6
    each = [float(style_loss(Style(weights[i : i + 1], flat[i : i + 1]), torch.tensor([1]))) for i in range(2)]
    both = float(style_loss(Style(weights, flat), torch.tensor([3, 1])))
    assert both == pytest.approx(0.75 * each[0] + 0.25 * each[1], rel=1e-5) and min(each) > 0.01


def test_the_predicted_style_approaches_that_of_the_mels() -> None:
    """Overfitting three utterances whose styles are far apart; all of the model learns."""
    hp = small()
    model = model_of(hp)
    assert model.gst is not None
    with torch.no_grad():
        model.gst.query.linear_layer.weight.mul_(8.0)  # decided styles, so that there is something to foresee
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        terms = loss_of(teach(model), hp)
        terms.total.backward()
        optimizer.step()
        losses.append(float(terms.parts["style"].detach()))
    assert losses[-1] < 0.2 * losses[0], (losses[0], losses[-1])


# -- what a style changes


def spoken(model: Tacotron2, style: Tensor | None) -> Tensor:
    limits = DecodeLimits(max_frames=12, gate_threshold=1.0, dwell_frames=1000)
    return model.infer(texts()[:1, :5], TEXT_LENGTHS[:1], limits, style=style)[0].mel


def test_without_a_style_the_text_decides() -> None:
    model = model_of(small()).eval()
    assert model.tpgst is not None
    predicted = model.tpgst(model.encode(texts()[:1, :5], TEXT_LENGTHS[:1]), TEXT_LENGTHS[:1]).exp()
    assert torch.allclose(spoken(model, None), spoken(model, predicted), atol=1e-6)


def test_tokens_and_their_weights_change_what_is_spoken() -> None:
    model = model_of(small()).eval()
    assert model.gst is not None
    said = [spoken(model, model.gst.single_token_style(k, w)) for k, w in ((0, 1.0), (1, 1.0), (0, 0.3), (0, -1.0))]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(said) for b in said[:i])


def test_teacher_forcing_takes_the_style_of_the_mel_unless_told() -> None:
    model = model_of(small()).eval()
    assert model.gst is not None
    own = model.gst.weights(mels(), MEL_LENGTHS)
    assert torch.equal(teach(model).mel, teach(model, own).mel)
    assert not torch.equal(teach(model).mel, teach(model, own.flip(2)).mel)


def test_micro_batches_weigh_the_style_as_they_weigh_the_rest(tiny: Tiny) -> None:
    """In eval mode, where batches don't share statistics: mean by decoder steps = mean over all."""
    hp = tiny("use_gst=True,ref_enc_filters=[4],dropout_rate=0,encoder_kernel_size=1,postnet_kernel_size=1")
    corpus, totals = load_corpus(hp), []
    model = model_of(hp).eval()
    for batch_size in (1, 5):
        plan = plan_batches(corpus.train, hp.model_copy(update={"batch_size": batch_size}))
        sums = torch.zeros(2)
        for batch in make_loader(corpus.train, plan, epoch=0, r=1):
            outputs = model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)
            assert outputs.style is not None
            n = batch.mel_lengths.sum()
            sums += torch.stack((style_loss(outputs.style, batch.mel_lengths) * n, n)).detach()
        totals.append(float(sums[0] / sums[1]))
    assert totals[0] == pytest.approx(totals[1], rel=1e-4) and totals[0] > 0
