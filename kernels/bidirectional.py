"""The encoder's bidirectional LSTM over padded texts, as two `kernels.loops.RecurrentLoop`s.

PyTorch's own LSTM on packed sequences makes its backward of hundreds of small steps, each with a gradient of its
weights.
"""

import torch
from torch import Tensor, nn

from kernels.loops import RecurrentLoop
from kernels.native_loops import DeferredLinear, NativeRecurrentLoop, can_run
from kernels.products import linear_in


def bidirectional(
    lstm: nn.LSTM, x: Tensor, lengths: Tensor, *, compute_dtype: torch.dtype | None, is_native: bool
) -> Tensor:
    """As `lstm` on packed sequences: x [B, T_text, in], lengths [B] -> [B, T_text, 2 D], zeros behind each text."""
    with torch.autocast(x.device.type, enabled=False):
        places = torch.arange(x.size(1), device=x.device)[:, None]  # [T_text, 1]
        behind = places >= lengths  # [T_text, B]
        mirrored = torch.where(behind, places, lengths - 1 - places).unsqueeze(2)  # [T_text, B, 1]
        forward = x.transpose(0, 1)  # [T_text, B, in]
        backward = forward.gather(0, mirrored.expand_as(forward))
        ahead = _one_direction(lstm, forward, "l0", compute_dtype, is_native)
        back = _one_direction(lstm, backward, "l0_reverse", compute_dtype, is_native)
        both = torch.cat((ahead, back.gather(0, mirrored.expand_as(back))), 2)
        return both.masked_fill(behind.unsqueeze(2), 0.0).transpose(0, 1)


def _one_direction(
    lstm: nn.LSTM, x: Tensor, suffix: str, compute_dtype: torch.dtype | None, is_native: bool
) -> Tensor:
    """x [T_text, B, in] -> [T_text, B, D]"""
    from_input, recurrent, bias, bias_too = (
        getattr(lstm, f"{kind}_{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    dtype = compute_dtype or recurrent.dtype
    covered = dtype in (torch.float32, torch.bfloat16)
    if is_native and covered and can_run(lstm.hidden_size, kernel_size=1, dtype=recurrent.dtype, device=x.device):
        gates_in = DeferredLinear.apply(x.to(dtype).contiguous(), from_input)
        return NativeRecurrentLoop.apply(gates_in, bias + bias_too, recurrent, None)
    gates_in = linear_in(x.to(recurrent.dtype), from_input, bias + bias_too, compute_dtype)
    return RecurrentLoop.apply(gates_in, recurrent, None, compute_dtype, None)
