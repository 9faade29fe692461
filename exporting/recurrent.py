"""LSTM and GRU as ONNX's own operators: torch.export unrolls those of torch for the length it traces."""

from typing import Any

import torch
from torch import Tensor, nn

OPSET = 22
# torch keeps its gates as i f g o and r z n; ONNX wants i o f g and z r n
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


class OnnxRecurrent(nn.Module):
    """Stands for a batch-first nn.LSTM or nn.GRU of one layer while a graph is made. Run by torch, it gives zeros."""

    W: Tensor
    R: Tensor
    B: Tensor

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        assert layer.num_layers == 1 and layer.batch_first and layer.bias
        self.kind, self.hidden_size = layer.mode, layer.hidden_size
        self.endings = ("", "_reverse") if layer.bidirectional else ("",)
        self.register_buffer("W", self._stacked(layer, "weight_ih_l0"))  # [directions, gates * H, in]
        self.register_buffer("R", self._stacked(layer, "weight_hh_l0"))  # [directions, gates * H, H]
        biases = [self._stacked(layer, name) for name in ("bias_ih_l0", "bias_hh_l0")]
        self.register_buffer("B", torch.cat(biases, 1))  # [directions, 2 * gates * H]

    def _stacked(self, layer: nn.Module, name: str) -> Tensor:
        each = [getattr(layer, name + ending).detach() for ending in self.endings]
        order = list(GATES[self.kind])
        return torch.stack([x.unflatten(0, (len(order), self.hidden_size))[order].flatten(0, 1) for x in each])

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """[B, T, in] -> [B, T, directions * H], and nothing in the place of the last state"""
        attributes: dict[str, Any] = {"hidden_size": self.hidden_size}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1
        if len(self.endings) == 2:
            attributes["direction"] = "bidirectional"
        shape = [x.size(1), len(self.endings), x.size(0), self.hidden_size]
        (states,) = torch.onnx.ops.symbolic_multi_out(
            self.kind,
            (x.transpose(0, 1), self.W, self.R, self.B),
            attributes,
            dtypes=[x.dtype],
            shapes=[shape],
            version=OPSET,
        )  # [T, directions, B, H]
        return states.permute(2, 0, 1, 3).flatten(2), None
