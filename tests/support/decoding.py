"""A small voice decoding freely, by each implementation of the loop."""

import torch
from torch import Tensor

from hparams import create_hparams
from model import Decoded, DecodeLimits, Tacotron2

SMALL = (
    "n_mel_channels=6,symbols_embedding_dim=8,encoder_embedding_dim=12,encoder_n_convolutions=1,attention_dim=5,"
    "attention_rnn_dim=10,decoder_rnn_dim=14,prenet_dim=7,attention_location_n_filters=4,"
    "attention_location_kernel_size=5,postnet_embedding_dim=4,postnet_n_convolutions=2,max_decoder_steps=60"
)
LENGTHS = torch.tensor([5, 9, 3])
GATE_BIAS = -1.0  # texts then end for other reasons: by dwelling on the last symbol, or at their budget
LIMITS = DecodeLimits(max_frames=60, frames_per_symbol=4.0, budget_offset=6, dwell_frames=20)


def voice(settings: str = "", *, widths: str = SMALL, dtype: torch.dtype = torch.float64) -> Tacotron2:
    """With random weights large enough for attention to move and the gate to waver."""
    torch.manual_seed(3)
    model = Tacotron2(create_hparams(f"{widths},{settings}".rstrip(","))).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(1.5)
        model.decoder.gate_layer.linear_layer.bias.fill_(GATE_BIAS)
    return model


def texts(n: int) -> Tensor:
    return torch.randint(1, 148, (n, 9), generator=torch.Generator().manual_seed(5))


def speak(model: Tacotron2, backend: str, *, n: int = 3, seed: int = 1, limits: DecodeLimits = LIMITS) -> list[Decoded]:
    model.decoder.backend = backend  # type: ignore[assignment]
    lengths = LENGTHS[:n]
    text = texts(n)[:, : int(lengths.max())]
    return model.infer(text, lengths, limits, generator=torch.Generator().manual_seed(seed))


def assert_same(fast: list[Decoded], plain: list[Decoded], *, within: float) -> None:
    assert [(d.stop_reason, len(d.gate)) for d in fast] == [(d.stop_reason, len(d.gate)) for d in plain]
    for a, b in zip(fast, plain, strict=True):
        for name in ("mel", "gate", "alignment"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0.0, atol=within)
