"""How large gradients and weights are, module by module: where a run that goes wrong begins to."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

SPLIT = ("decoder.",)  # modules whose parts are told apart


def module_of(parameter: str) -> str:
    """`decoder.prenet.layers.0...` -> `decoder.prenet`, `encoder.lstm...` -> `encoder`."""
    return ".".join(parameter.split(".")[: 2 if parameter.startswith(SPLIT) else 1])


@torch.no_grad()
def module_norms(model: nn.Module) -> Mapping[str, Mapping[str, float]]:
    """Norms of gradients (as they are now: clipped) and weights by module. Waits once for the device."""
    weights, gradients = defaultdict[str, list[Tensor]](list), defaultdict[str, list[Tensor]](list)
    for name, parameter in model.named_parameters():
        weights[module_of(name)].append(parameter)
        if parameter.grad is not None:
            gradients[module_of(name)].append(parameter.grad)
    norms = [_norm(tensors) for kind in (gradients, weights) for tensors in (kind[name] for name in weights)]
    values = torch.stack([norm.to(norms[-1].device) for norm in norms]).tolist()
    n = len(weights)
    return {
        name: {"gradient": gradient, "weight": weight}
        for name, gradient, weight in zip(weights, values[:n], values[n:], strict=True)
    }


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm([t.float() for t in tensors])))
