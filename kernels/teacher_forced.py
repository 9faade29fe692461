r"""The teacher-forced decoder as two step loops that hold only what is sequential.

Equal to `Decoder.reference_teacher_forced` with the same dropout masks: outputs and every gradient.

Forward. Products of inputs known beforehand (prenet output, and for the decoder LSTM the whole output of the
attention loop) are one product each. Convolution and projection of the location features are both linear, so they
fold into one kernel K [A, 2, kernel_size]. With U_t the windows of (last, summed) weights before step t:

    a_t = gates_in_t + [h_, x_] W^T         c_t, h_t = LSTM cell with mask        (kernels.lstm_cell)
    z_t = query h_t + keys + U_t K          w_t = softmax(v . tanh(z_t))          -inf in padding
    s_t = s_ + w_t                          x_t = w_t values

Backward, last step first. dx_t and dh_t begin with what the loss sends plus da_{t+1} W; p is the gradient that
later windows send to w_t, both as the last weights and as a part of every later sum:

    dw = values dx_t + (loss) + p           de = w_t (dw - <w_t, dw>)             <..> over the text
    dz = de v (1 - tanh(z_t)^2)             dq = sum over the text of dz
    p <- transposed convolution of dz with K, summed parts kept
    dh_t += dq query                        da_t by the cell

(1 - tanh^2) v and its product with K do not depend on later steps. So z is not stored but recomputed, for as many
steps at once as fit the cache, and de is all the loop adds. Gradients of weights, keys, values and v are products
over many steps after the loop over them.
"""

import torch
from torch import Tensor

from kernels.chunked_steps import TEXT_MULTIPLE, pad_to_multiple
from kernels.decoder_autograd import AttentionLoop, RecurrentLoop
from kernels.matmul import linear_in
from kernels.native_loops import NativeAttentionLoop, NativeRecurrentLoop, are_sizes_supported
from layers import Memory
from modules.decoder_loops import DecoderParts, Masks


def fast_teacher_forced(
    decoder: DecoderParts,
    prenet_out: Tensor,
    memory: Memory,
    masks: Masks,
    *,
    compute_dtype: torch.dtype | None = None,
    is_native: bool = False,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The twin of `Decoder.reference_teacher_forced`, differentiable once.

    decoder: owner of attention_rnn, attention_layer, decoder_rnn. prenet_out [T_dec, B, prenet_dim]; masks of the
    attention and decoder hidden states [T_dec, B, D] or None. `compute_dtype` torch.bfloat16 rounds the factors of
    the LSTM products to it; sums and everything else keep the type of the weights. `is_native` takes the compiled loops
    where they cover the case; in bf16 these round all that they keep and give. `chunk` cuts the others into chunks of
    so many steps, on a GPU recorded as CUDA graphs. Autocast is off inside.
    ->  features [T_dec, B, D + E], alignments [T_dec, B, T_text].
    """
    with torch.autocast(prenet_out.device.type, enabled=False):
        if is_native and is_supported(decoder, memory, compute_dtype):
            return _natively(decoder, prenet_out, memory, masks, compute_dtype or torch.float32)
        if chunk is not None:
            return _in_chunks(decoder, prenet_out, memory, masks, compute_dtype, chunk)
        return _in_pytorch(decoder, prenet_out, memory, masks, compute_dtype)


def is_supported(decoder: DecoderParts, memory: Memory, compute_dtype: torch.dtype | None) -> bool:
    """Whether the compiled loops know these widths and types."""
    attention, layer = decoder.attention_rnn, decoder.attention_layer
    return compute_dtype in (None, torch.bfloat16) and are_sizes_supported(
        attention.hidden_size, decoder.decoder_rnn.hidden_size, *memory.values.shape[2:], *memory.keys.shape[2:],
        kernel_size=layer.location_layer.location_conv.conv.kernel_size[0],
        dtype=attention.weight_ih.dtype, device=memory.values.device,
    )  # fmt: skip


def _natively(
    decoder: DecoderParts,
    prenet_out: Tensor,
    memory: Memory,
    masks: Masks,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    attention, decoder_rnn, layer = decoder.attention_rnn, decoder.decoder_rnn, decoder.attention_layer
    states, alignments = NativeAttentionLoop.apply(
        prenet_out.to(dtype), attention.weight_ih, attention.bias_ih + attention.bias_hh, attention.weight_hh,
        layer.query_layer.linear_layer.weight,
        layer.location_layer.folded_kernel(), layer.v.linear_layer.weight.squeeze(0),
        memory.keys.float(), memory.values.float(), (~memory.padding).sum(1), masks[0],
    )  # fmt: skip
    bias = decoder_rnn.bias_ih + decoder_rnn.bias_hh
    E = memory.values.size(2)
    features = NativeRecurrentLoop.apply(states, decoder_rnn.weight_ih, bias, decoder_rnn.weight_hh, masks[1], E)
    return features, alignments


def _in_chunks(
    decoder: DecoderParts,
    prenet_out: Tensor,
    memory: Memory,
    masks: Masks,
    compute_dtype: torch.dtype | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """As `_in_pytorch`, filled up to whole chunks: what lies behind the last step or symbol reaches nothing before."""
    T_dec, T_text = len(prenet_out), memory.padding.size(1)
    values, keys, padding = (
        pad_to_multiple(x, 1, TEXT_MULTIPLE) for x in (memory.values, memory.keys, ~memory.padding)
    )
    attention_mask, decoder_mask = (None if mask is None else pad_to_multiple(mask, 0, chunk) for mask in masks)
    features, alignments = _in_pytorch(
        decoder, pad_to_multiple(prenet_out, 0, chunk), Memory(values, keys, ~padding), (attention_mask, decoder_mask),
        compute_dtype, chunk,
    )  # fmt: skip
    return features[:T_dec], alignments[:T_dec, :, :T_text]


def _in_pytorch(
    decoder: DecoderParts,
    prenet_out: Tensor,
    memory: Memory,
    masks: Masks,
    compute_dtype: torch.dtype | None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    attention, decoder_rnn = decoder.attention_rnn, decoder.decoder_rnn
    layer, dtype = decoder.attention_layer, attention.weight_ih.dtype
    keys, values = memory.keys.to(dtype), memory.values.to(dtype)
    attention_mask, decoder_mask = (None if mask is None else mask.to(dtype) for mask in masks)
    padding_bias = torch.zeros_like(memory.padding, dtype=dtype).masked_fill_(memory.padding, float("-inf"))
    prenet_dim, D = prenet_out.size(2), attention.hidden_size
    from_prenet, from_context = attention.weight_ih.split([prenet_dim, values.size(2)], 1)
    gates_in = linear_in(prenet_out.to(dtype), from_prenet, attention.bias_ih + attention.bias_hh, compute_dtype)
    states, alignments = AttentionLoop.apply(
        gates_in,
        torch.cat((attention.weight_hh, from_context), 1),
        layer.query_layer.linear_layer.weight,
        layer.location_layer.folded_kernel(),
        layer.v.linear_layer.weight.squeeze(0),
        keys,
        values,
        padding_bias,
        attention_mask,
        compute_dtype,
        chunk,
    )
    gates_in = linear_in(states, decoder_rnn.weight_ih, decoder_rnn.bias_ih + decoder_rnn.bias_hh, compute_dtype)
    hidden = RecurrentLoop.apply(gates_in, decoder_rnn.weight_hh, decoder_mask, compute_dtype, chunk)
    return torch.cat((hidden, states[:, :, D:]), 2), alignments
