"""The `config.json` beside a generator, as HiFi-GAN and BigVGAN publish it: shape of the network, and its mel."""

import json
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from audio.mel import MEL_FLOOR
from common.errors import UserError, format_problems
from speech.vocoders.mel_format import MelFormat

CONFIG_NAME = "config.json"

Positive = Annotated[int, Field(gt=0)]
Positives = Annotated[tuple[Positive, ...], Field(min_length=1)]


class GeneratorConfig(BaseModel):
    """What inference reads of the authors' configuration; the settings of their training are passed over.

    A BigVGAN names its activation, a HiFi-GAN has none (it is a leaky rectifier). The last five tell of a mel that is
    not the authors' own: their files never hold them, and without them the authors' code means the defaults.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    resblock: Literal["1", "2"]
    upsample_rates: Positives
    upsample_kernel_sizes: Positives
    upsample_initial_channel: Positive
    resblock_kernel_sizes: Positives
    resblock_dilation_sizes: Annotated[tuple[Positives, ...], Field(min_length=1)]

    activation: Literal["snake", "snakebeta"] | None = None
    snake_logscale: StrictBool | None = None
    use_tanh_at_final: StrictBool = True
    use_bias_at_final: StrictBool = True

    num_mels: Positive
    n_fft: Positive
    hop_size: Positive
    win_size: Positive
    sampling_rate: Positive
    fmin: Annotated[float, Field(ge=0)]
    fmax: Annotated[float, Field(gt=0)] | None

    center: StrictBool = False
    mel_scale: str = "slaney"
    mel_norm: str = "slaney"
    log_base: str = "e"
    mel_floor: float = MEL_FLOOR

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        problems = self._problems()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> list[str]:
        n_stages = len(self.upsample_rates)
        problems = []
        if len(self.upsample_kernel_sizes) != n_stages:
            problems.append(f"{n_stages} upsample_rates but {len(self.upsample_kernel_sizes)} upsample_kernel_sizes")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=False):
            if kernel < rate or (kernel - rate) % 2:
                problems.append(f"upsample_kernel_sizes: {kernel} must exceed its rate {rate} by an even number")
        if len(self.resblock_dilation_sizes) != len(self.resblock_kernel_sizes):
            problems.append(
                f"{len(self.resblock_kernel_sizes)} resblock_kernel_sizes but "
                f"{len(self.resblock_dilation_sizes)} resblock_dilation_sizes"
            )
        problems += [f"resblock_kernel_sizes: {k} must be odd" for k in self.resblock_kernel_sizes if k % 2 == 0]
        if self.upsample_initial_channel % 2**n_stages:
            problems.append(
                f"upsample_initial_channel={self.upsample_initial_channel} can't be halved {n_stages} times, once for "
                "each of upsample_rates"
            )
        product = math.prod(self.upsample_rates)
        if product != self.hop_size:
            problems.append(f"hop_size={self.hop_size} but the product of upsample_rates is {product}")
        if self.activation and self.snake_logscale is None:
            problems.append(f"activation={self.activation} needs snake_logscale (true or false)")
        return problems

    @property
    def is_bigvgan(self) -> bool:
        return self.activation is not None

    @property
    def mel(self) -> MelFormat:
        return MelFormat(
            sampling_rate=self.sampling_rate,
            hop_length=self.hop_size,
            filter_length=self.n_fft,
            win_length=self.win_size,
            n_mel_channels=self.num_mels,
            mel_fmin=self.fmin,
            mel_fmax=self.sampling_rate / 2 if self.fmax is None else self.fmax,
            # padded by (n_fft - hop) / 2 on both sides and not centred
            first_centre=0 if self.center else self.hop_size // 2,
            mel_scale=self.mel_scale,
            mel_norm=self.mel_norm,
            log_base=self.log_base,
            floor=self.mel_floor,
        )


def read_generator_config(path: Path) -> GeneratorConfig:
    """UserError names the file and everything that is wrong in it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: without it the shape of the generator and its mel are not known; copy the "
            f"configuration that it was trained with to {path} (config_v1.json, config_v2.json or config_v3.json of "
            "HiFi-GAN, or the config.json published beside a BigVGAN)"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} can't be read as JSON ({error}); copy it anew from where the generator is") from error
    try:
        return GeneratorConfig.model_validate(values)
    except ValidationError as error:
        problems = _readable(error)
        headline = f"{path} is no configuration of a HiFi-GAN or BigVGAN generator: {len(problems)} problem(s)"
        raise UserError(format_problems(problems, headline=headline)) from error


def _readable(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            lines.append(f"{where} is missing")
        elif problem["type"] == "value_error":
            lines += str(problem["ctx"]["error"]).split("\n")
        else:
            lines.append(f"{where}={problem['input']!r}: {problem['msg'].lower()}" if where else problem["msg"])
    return lines
