"""The encoder's bidirectional LSTM over padded texts, each direction by itself; the host needs not know the lengths.

PyTorch's own LSTM on packed sequences needs them there, and on a CPU it makes its backward of hundreds of small steps,
each with a gradient of its weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kernels.decoder_autograd import RecurrentLoop
from kernels.matmul import linear_in
from kernels.native_loops import NativeRecurrentLoop, are_sizes_supported


class LstmWeights(NamedTuple):
    """Of one direction, in the order of `torch.lstm`."""

    of_input: Tensor  # [4D, in]
    recurrent: Tensor  # [4D, D]
    bias: Tensor  # [4D]
    bias_too: Tensor  # [4D]


OneDirection = Callable[[Tensor, LstmWeights], Tensor]  # x [T_text, B, in] -> [T_text, B, D]


def bidirectional_lstm(lstm: nn.LSTM, x: Tensor, lengths: Tensor, run: OneDirection) -> Tensor:
    """As `lstm` on packed sequences: x [B, T_text, in], lengths [B] -> [B, T_text, 2 D], zeros behind each text."""
    with torch.autocast(x.device.type, enabled=False):
        places = torch.arange(x.size(1), device=x.device)[:, None]  # [T_text, 1]
        behind = places >= lengths  # [T_text, B]
        mirrored = torch.where(behind, places, lengths - 1 - places).unsqueeze(2)  # [T_text, B, 1]
        forward = x.transpose(0, 1)  # [T_text, B, in]
        backward = forward.gather(0, mirrored.expand_as(forward))
        ahead, back = run(forward, weights_of(lstm, "l0")), run(backward, weights_of(lstm, "l0_reverse"))
        both = torch.cat((ahead, back.gather(0, mirrored.expand_as(back))), 2)
        return both.masked_fill(behind.unsqueeze(2), 0.0).transpose(0, 1)


def weights_of(lstm: nn.LSTM, suffix: str) -> LstmWeights:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return LstmWeights(*(getattr(lstm, f"{kind}_{suffix}") for kind in kinds))


def library_lstm(x: Tensor, weights: LstmWeights) -> Tensor:
    """x [T_text, B, in] -> [T_text, B, D] by PyTorch's LSTM: on a GPU that of cuDNN, all steps in one call."""
    # cuDNN wants the weights in one piece of memory and in this order; else it warns, and copies them once more
    flat = torch.cat([weight.flatten() for weight in weights])
    pieces = flat.split([weight.numel() for weight in weights])
    in_one = [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
    zeros = flat.new_zeros(1, x.size(1), weights.recurrent.size(1))
    states, _, _ = torch.lstm(
        x.to(flat.dtype), (zeros, zeros), in_one, True, 1, 0.0, torch.is_grad_enabled(), False, False
    )  # with biases, one layer, no dropout, perhaps training, one direction, time first
    return states


def loop_lstm(*, compute_dtype: torch.dtype | None, is_native: bool) -> OneDirection:
    """Two `kernels.decoder_autograd.RecurrentLoop`s, compiled where they can be and `is_native`."""

    def run(x: Tensor, weights: LstmWeights) -> Tensor:
        of_input, recurrent, bias, bias_too = weights
        dtype = compute_dtype or recurrent.dtype
        covered = dtype in (torch.float32, torch.bfloat16)
        if (
            is_native
            and covered
            and are_sizes_supported(recurrent.size(1), kernel_size=1, dtype=recurrent.dtype, device=x.device)
        ):
            return NativeRecurrentLoop.apply(x.to(dtype).contiguous(), of_input, bias + bias_too, recurrent, None)
        gates_in = linear_in(x.to(recurrent.dtype), of_input, bias + bias_too, compute_dtype)
        return RecurrentLoop.apply(gates_in, recurrent, None, compute_dtype, None)

    return run
