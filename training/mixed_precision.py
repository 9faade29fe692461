"""Mixed precision: which half type a run computes in, and the loss scale that keeps fp16 gradients from vanishing.

bf16 has the range of fp32 and needs no scale. fp16 ends at 6e-8 below and at 65504 above: the loss is multiplied by a
scale before the backward pass, gradients are divided by it before they are clipped, and the scale halves (by
`loss_scale_factor`) when they overflow and doubles after `GROWTH_INTERVAL` steps in which they didn't.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from hparams import OptimisationParams
from kernels.matmul import has_bf16_products
from run_directory.records import Event

GROWTH_INTERVAL = 2000  # steps without overflow before the scale grows; torch.amp.GradScaler's own default
LEAST_SCALE = 1.0  # a scale below one makes small gradients vanish sooner: what still overflows has diverged


def half_type(hp: OptimisationParams, device: torch.device) -> torch.dtype | None:
    """The type of products under mixed precision; None without it. UserError where the device lacks it."""
    if not hp.fp16_run:
        return None
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if hp.amp_dtype == "bf16" and not has_bf16:
        raise UserError(
            f"amp_dtype=bf16, but {torch.cuda.get_device_name(device)} computes no bf16; set amp_dtype=fp16 or auto"
        )
    if hp.amp_dtype == "auto":
        return torch.bfloat16 if has_bf16 else torch.float16
    return torch.bfloat16 if hp.amp_dtype == "bf16" else torch.float16


def bf16_hint(hp: OptimisationParams, device: torch.device) -> str | None:
    """What a person gains who has left mixed precision off on a processor that was built for it."""
    can_multiply = torch.backends.mkldnn.is_available() and has_bf16_products()
    if hp.fp16_run or device.type != "cpu" or not can_multiply:
        return None
    return "this processor multiplies in bf16: from the start --hparams fp16_run=True makes steps up to twice as fast"


class Precision:
    """How a trainer computes: autocast around the model, and for fp16 a loss scale around the backward pass."""

    def __init__(self, hp: OptimisationParams, device: torch.device) -> None:
        self.dtype, self.device = half_type(hp, device), device
        self.is_dynamic, self.fixed_scale = hp.dynamic_loss_scaling, hp.loss_scale_init
        self.factor = hp.loss_scale_factor
        self.scaler = self._new_scaler() if self.dtype == torch.float16 else None

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(
            self.device.type,
            init_scale=self.fixed_scale,
            growth_factor=self.factor,
            backoff_factor=1.0 / self.factor,
            growth_interval=GROWTH_INTERVAL,
        )

    def autocast(self) -> torch.autocast:
        """Half-precision products; weights, losses, softmax and norms stay fp32."""
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss [] times the loss scale, where there is one."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients as they are; before clipping, whose threshold is meant for them."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    @property
    def is_looking_for_its_scale(self) -> bool:
        """Whether a gradient that overflows only says that the loss scale is still too high."""
        return self.scaler is not None and self.is_dynamic and self.scaler.get_scale() > LEAST_SCALE

    def forget_step(self) -> None:
        """After a step that failed in the middle: the next may unscale again. The scale stays."""
        if self.scaler is not None:
            state = self.scaler.state_dict()
            self.scaler = self._new_scaler()
            self.scaler.load_state_dict(state)

    def after_step(self, step: int) -> Event | None:
        """Moves the scale, taken or skipped step alike. -> what a person should know of it."""
        if self.scaler is None:
            return None
        if not self.is_dynamic:
            self.scaler.update(self.fixed_scale)
            return None
        before = self.scaler.get_scale()
        self.scaler.update()
        after = self.scaler.get_scale()
        if after < LEAST_SCALE:
            self.scaler.update(LEAST_SCALE)
            message = (
                f"fp16 gradients overflow at a loss scale of {before:g}, which is not lowered under {LEAST_SCALE:g}: "
                "the numbers have outgrown fp16; lower learning_rate or grad_clip_thresh, or set amp_dtype=bf16"
            )
            return Event(step, "loss_scale_floor", message, {"scale": LEAST_SCALE})
        if after < before:
            message = f"fp16 gradients overflowed: {before:g} -> {after:g}"
            return Event(step, "loss_scale_cut", message, {"scale": after})
        return None

    def state(self) -> dict[str, Any]:
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def restore(self, saved: dict[str, Any]) -> None:
        """A dynamic scale goes on where it was; factors and interval are those of this run's settings."""
        if self.scaler is not None and self.is_dynamic and saved:
            current = self.scaler.state_dict()
            kept = {name: saved[name] for name in ("scale", "_growth_tracker")}
            self.scaler.load_state_dict(current | kept)
