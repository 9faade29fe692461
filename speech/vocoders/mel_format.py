"""What a mel must be like for a vocoder to understand it, and the one comparison with the mel that a voice makes."""

from dataclasses import dataclass, fields
from typing import Self

from audio.mel import MEL_FLOOR, MelFingerprint

UNITS = {
    "sampling_rate": " Hz",
    "hop_length": " samples",
    "filter_length": " samples",
    "win_length": " samples",
    "n_mel_channels": " bands",
    "mel_fmin": " Hz",
    "mel_fmax": " Hz",
}
COMPENSATED = "first_centre"  # the one property in which both may differ: the sound is shifted back


@dataclass(frozen=True)
class MelFormat:
    """Every property of a log-mel. first_centre: the sample on which frame 0 is centred; 0 is ours, hop / 2 HiFi-GAN's.

    The defaults of mel_scale to magnitude_power are those of NVIDIA/tacotron2 and of HiFi-GAN alike.
    """

    sampling_rate: int
    hop_length: int
    filter_length: int
    win_length: int
    n_mel_channels: int
    mel_fmin: float
    mel_fmax: float
    first_centre: int
    mel_scale: str = "slaney"
    mel_norm: str = "slaney"
    magnitude_power: float = 1.0
    log_base: str = "e"
    floor: float = MEL_FLOOR

    @classmethod
    def of_voice(cls, mel: MelFingerprint) -> Self:
        """What `audio.mel_spectrogram` makes. The scale of 16-bit samples does not count: any loudness is followed."""
        return cls(
            sampling_rate=mel.sampling_rate,
            hop_length=mel.hop_length,
            filter_length=mel.filter_length,
            win_length=mel.win_length,
            n_mel_channels=mel.n_mel_channels,
            mel_fmin=mel.mel_fmin,
            mel_fmax=mel.mel_fmax,
            first_centre=0,
        )

    def differences_from(self, vocoder: "MelFormat") -> list[str]:
        """One line for each property in which this mel of a voice is not what the vocoder knows; empty if it fits."""
        pairs = [(field.name, getattr(self, field.name), getattr(vocoder, field.name)) for field in fields(self)]
        return [
            f"{name}: {_shown(here, name)} in the voice, {_shown(there, name)} in the vocoder"
            for name, here, there in pairs
            if name != COMPENSATED and here != there
        ]


def _shown(value: float | str, name: str) -> str:
    number = value if isinstance(value, str) else f"{value:g}"
    return f"{number}{UNITS.get(name, '')}"
