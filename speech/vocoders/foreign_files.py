"""Vocoders of other programs, told by what their files hold, and why they are refused."""

import re
from typing import Any

SUPPORTED = "HiFi-GAN (V1, V2, V3) and BigVGAN generators as their authors publish them"
WAVEGLOW = (
    "this is a WaveGlow, which isn't supported: 88 million weights, several times slower than real time on a "
    "processor; HiFi-GAN takes the same mels and sounds better: --vocoder universal, or a generator of HiFi-GAN"
)
PICKLED_WAVEGLOW = (
    "WaveGlow's file is pickled program code, which could run anything on this machine when opened, so it isn't "
    "opened; HiFi-GAN takes the same mels and sounds better: --vocoder universal, or a generator of HiFi-GAN"
)


def pickled_code_reason(error: str) -> str:
    """Why a file was not opened that torch.load refused with this message."""
    found = re.search(r"GLOBAL ([\w.]+)", error)
    name = found[1] if found else ""
    if "waveglow" in name.lower() or name.startswith("glow."):
        return PICKLED_WAVEGLOW
    if not name:
        return f"it can't be read as a PyTorch file of weights; --vocoder takes {SUPPORTED}"
    return (
        f"it holds pickled program code ({name}), which could run anything on this machine when opened, so it isn't "
        f"opened; --vocoder takes {SUPPORTED}, which hold only tensors"
    )


def reason_to_refuse(payload: Any) -> str | None:
    """Why the content of a file is no generator; None if it has one. Only looks at names."""
    if not isinstance(payload, dict):
        return f"it holds a {type(payload).__name__}, not a dictionary of tensors; --vocoder takes {SUPPORTED}"
    if isinstance(payload.get("generator"), dict):
        return None
    names = [str(name) for name in payload]
    for is_it, reason in RECOGNISED:
        if is_it(payload, names):
            return reason
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"no 'generator' in it (it holds: {shown or 'nothing'}); --vocoder takes {SUPPORTED}"


def _is_waveglow(payload: dict[str, Any], names: list[str]) -> bool:
    inner = payload.get("state_dict", payload)
    return isinstance(inner, dict) and any(str(name).removeprefix("module.").startswith("WN.0.") for name in inner)


def _is_vocos(payload: dict[str, Any], names: list[str]) -> bool:
    inner = payload.get("state_dict", payload)
    return isinstance(inner, dict) and any(str(name).startswith(("backbone.", "head.istft")) for name in inner)


def _is_parallel_wavegan(payload: dict[str, Any], names: list[str]) -> bool:
    model = payload.get("model")
    return isinstance(model, dict) and "generator" in model


def _is_coqui(payload: dict[str, Any], names: list[str]) -> bool:
    model = payload.get("model")
    is_generator = isinstance(model, dict) and any("conv_pre" in str(name) or "model_g." in str(name) for name in model)
    return is_generator or "model_disc" in names


def _is_discriminator(payload: dict[str, Any], names: list[str]) -> bool:
    return {"mpd", "optim_g"} <= set(names)


RECOGNISED = (
    (_is_waveglow, WAVEGLOW),
    (
        _is_vocos,
        "this is a Vocos, which isn't supported; the published one (mel-24khz) knows other mels than these: 24000 Hz, "
        "100 bands on the HTK scale without norm, floor 1e-7",
    ),
    (
        _is_parallel_wavegan,
        "this is a file of ParallelWaveGAN (or ESPnet), which isn't supported: its mels are log10, scaled by the mean "
        f"and variance in its stats file, and these are natural logarithms; --vocoder takes {SUPPORTED}",
    ),
    (
        _is_coqui,
        "this is a vocoder of Coqui TTS, which isn't supported: its mels are scaled by its own statistics "
        f"(scale_stats.npy) or to decibels, and these are natural logarithms; --vocoder takes {SUPPORTED}",
    ),
    (
        _is_discriminator,
        "this is the discriminators and the optimiser of a HiFi-GAN (do_*); the generator is in the file beside it "
        "whose name begins with g_",
    ),
)
