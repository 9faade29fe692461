"""Small models, batches for them, and calls that teach them or let them decode freely."""

import torch
from torch import Tensor

from hparams import create_hparams
from layers import padding_mask
from model import (
    Decoded,
    DecodeLimits,
    Outputs,
    Tacotron2,
)

SMALL: dict[str, object] = {
    "n_mel_channels": 6,
    "symbols_embedding_dim": 12,
    "encoder_embedding_dim": 12,
    "encoder_n_convolutions": 2,
    "attention_rnn_dim": 16,
    "attention_dim": 8,
    "attention_location_n_filters": 3,
    "attention_location_kernel_size": 5,
    "decoder_rnn_dim": 14,
    "prenet_dim": 10,
    "postnet_embedding_dim": 10,
    "postnet_n_convolutions": 3,
}
TEXT_LENGTHS, MEL_LENGTHS = torch.tensor([5, 9, 3]), torch.tensor([7, 12, 4])


def small(*, seed: int = 0, **overrides: object) -> Tacotron2:
    torch.manual_seed(seed)
    values = {**SMALL, **overrides}
    return Tacotron2(create_hparams(",".join(f"{name}={value}" for name, value in values.items()))).eval()


def texts() -> Tensor:
    ids = torch.randint(1, 148, (3, 9), generator=torch.Generator().manual_seed(1))
    return ids.masked_fill(padding_mask(TEXT_LENGTHS, 9), 0)


def mels() -> Tensor:
    return torch.randn(3, 6, 12, generator=torch.Generator().manual_seed(2))


def teach(model: Tacotron2) -> Outputs:
    with torch.no_grad():
        return model(texts(), TEXT_LENGTHS, mels(), MEL_LENGTHS)


# Speaking


def limits(**overrides: float | int) -> DecodeLimits:
    values: dict[str, float | int] = {"max_frames": 60, "frames_per_symbol": 4.0, "budget_offset": 6}
    return DecodeLimits(**{**values, **overrides})  # type: ignore[arg-type]


def set_gate(model: Tacotron2, bias: float) -> Tacotron2:
    """The gate says the same at every step: a bias of 100 stops at once, -100 never."""
    layer = model.decoder.gate_layer.linear_layer
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, bias)
    return model


def speak(model: Tacotron2, how: DecodeLimits, *, seed: int = 0) -> list[Decoded]:
    return model.infer(texts(), TEXT_LENGTHS, how, generator=torch.Generator().manual_seed(seed))
