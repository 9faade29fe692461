"""The voices and vocoders that a server offers: chosen when it starts, so that no request names a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError
from kernels.packed_weights import PrecisionChoice
from speech.voice import Manner, Voice

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """voices, in the order of the command line; one of them with each vocoder: voices[name][vocoder]."""

    voices: dict[str, dict[str, Voice]]

    @classmethod
    def load(
        cls, checkpoints: Sequence[Path], vocoders: Sequence[str], *, precision: PrecisionChoice, device: str = "auto"
    ) -> "Offer":
        """UserError as `Voice.load`, or where a vocoder doesn't fit a voice."""
        names = names_of(checkpoints)
        voices = {}
        for name, path in zip(names, checkpoints, strict=True):
            plain = Voice.load(path, precision=precision, device=device)
            voices[name] = {
                Path(each).name: replace(plain, chosen_vocoder=plain.fitting_vocoder(each)) for each in vocoders
            }
        return cls(voices)

    def voice(self, name: str | None, vocoder: str | None) -> Voice:
        """The first one where no name is given. UserError lists what there is."""
        by_vocoder = _chosen(self.voices, name, "voice")
        return _chosen(by_vocoder, vocoder, "vocoder")

    def described(self) -> list[dict[str, Any]]:
        """What a page needs to know to offer a choice."""
        return [_described(name, by_vocoder) for name, by_vocoder in self.voices.items()]


def manner_of(
    voice: Voice, *, speaker: str | None, style_token: int | None, style_weight: float, speed: float
) -> Manner:
    """UserError where the voice has no such speaker or token."""
    style = None if style_token is None else voice.style_token(style_token, style_weight)
    return Manner(speaker=speaker, style=style, speed=speed, enhanced=voice.hp.use_audio_quality_enhancement)


def _chosen(offered: dict[str, T], name: str | None, kind: str) -> T:
    if name is None:
        return next(iter(offered.values()))
    if name not in offered:
        raise UserError(f"{kind}: no such {kind} here; choose one of {', '.join(offered)}")
    return offered[name]


def _described(name: str, by_vocoder: dict[str, Voice]) -> dict[str, Any]:
    voice = next(iter(by_vocoder.values()))
    return {
        "name": name,
        "step": voice.step,
        "language": voice.front_end.language.code,
        "sampling_rate": voice.sampling_rate,
        "speakers": list(voice.names),
        "style_tokens": 0 if voice.model.gst is None else voice.hp.token_num,
        "vocoders": list(by_vocoder),
    }


def names_of(checkpoints: Sequence[Path]) -> list[str]:
    """The folder of a run or the stem of a file, numbered where that is not enough to tell them apart."""
    stems = [path.resolve().stem for path in checkpoints]
    return [f"{stem}_{i}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems, start=1)]
