"""Tacotron 2 as four projects build it, behind one face: a training step, and free-running frames.

All train the full-size model (NVIDIA's sizes) on the same batch with the same losses: mean squared error of the mel
before and after the postnet and binary cross-entropy of the gate, means over the padded tensors, outputs behind each
utterance masked. Gradients are clipped to a norm of 1, then fused Adam. Losses of their own that some add by default
(guided attention, SSIM, differences) are left out for all.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REPOSITORY = Path(__file__).resolve().parents[1]
N_SYMBOLS, N_MELS = 148, 80


@dataclass(frozen=True)
class Shape:
    """Of a batch: its longest utterance has T_mel frames and T_text symbols, its shortest half of both."""

    B: int = 16
    T_mel: int = 800
    T_text: int = 120


@dataclass(frozen=True)
class TrainingBatch:
    """Random, and the same for every system."""

    text: Tensor  # [B, T_text]
    text_lengths: Tensor  # [B], falling
    mel: Tensor  # [B, n_mels, T_mel], zeros behind each utterance
    mel_lengths: Tensor  # [B]
    gate: Tensor  # [B, T_mel]

    @classmethod
    def of(cls, shape: Shape) -> "TrainingBatch":
        generator = torch.Generator().manual_seed(0)
        text_lengths = torch.linspace(shape.T_text, shape.T_text // 2, shape.B).long()
        mel_lengths = torch.linspace(shape.T_mel, shape.T_mel // 2, shape.B).long()
        text = torch.randint(1, N_SYMBOLS, (shape.B, shape.T_text), generator=generator)
        mel = torch.randn(shape.B, N_MELS, shape.T_mel, generator=generator)
        frames = torch.arange(shape.T_mel)[None]  # [1, T_mel]
        return cls(
            text.masked_fill_(torch.arange(shape.T_text)[None] >= text_lengths[:, None], 0),
            text_lengths,
            mel.masked_fill_((frames >= mel_lengths[:, None]).unsqueeze(1), 0.0),
            mel_lengths,
            (frames >= mel_lengths[:, None] - 1).float(),
        )

    def to(self, device: torch.device) -> "TrainingBatch":
        return TrainingBatch(*(getattr(self, each.name).to(device) for each in fields(self)))


Predicted = tuple[Tensor, Tensor, Tensor]  # mel and mel_post [B, n_mels, T_mel], gate logits [B, T_mel]


class System(Protocol):
    """What is measured."""

    model: Any
    decode: str  # the method of its decoder that speaks

    def predict(self, batch: TrainingBatch) -> Predicted: ...
    def precisions(self) -> list[str]:
        """That it can speak in here."""
        ...

    def get_ready(self, precision: str, n_texts: int) -> None:
        """What is done once before many texts are spoken."""
        ...

    def speak(self, n_frames: int) -> int:
        """Texts of 100 symbols until exactly `n_frames` frames are said. -> frames"""
        ...


class Ours:
    """This project. `overrides` as for --hparams."""

    def __init__(self, overrides: str = "") -> None:
        sys.path.insert(0, str(REPOSITORY))  # not for the others: coqui-tts needs another `trainer` than ours
        from hparams import create_hparams
        from model import Tacotron2

        self.model: Any = Tacotron2(create_hparams(overrides))
        self.decode, self.n_texts = "infer", 1

    def precisions(self) -> list[str]:
        from kernels.backend import why_unsupported

        return [name for name in ("fp32", "bf16", "int8") if why_unsupported(self.model.decoder, name) is None]

    def get_ready(self, precision: str, n_texts: int) -> None:
        self.n_texts = n_texts
        self.model.decoder.prepare_for_inference(precision)

    def predict(self, batch: TrainingBatch) -> Predicted:
        out = self.model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths)
        return out.mel, out.mel_post, out.gate_logits

    def speak(self, n_frames: int) -> int:
        from model import DecodeLimits

        long = float(n_frames)
        limits = DecodeLimits(n_frames, gate_threshold=2.0, frames_per_symbol=long, dwell_frames=10 * n_frames)
        text, lengths = hundred_symbols()
        texts = text.repeat(self.n_texts, 1), lengths.repeat(self.n_texts)
        spoken = self.model.infer(*texts, limits, generator=torch.Generator().manual_seed(0))
        return spoken[0].mel.size(1)


class Peer:
    """What the others have in common."""

    decode = "inference"

    def precisions(self) -> list[str]:
        return ["fp32"]

    def get_ready(self, precision: str, n_texts: int) -> None:
        assert (precision, n_texts) == ("fp32", 1)


class Tacotron2Model(Peer):
    """tacotron2-model: NVIDIA/tacotron2, kept running."""

    def __init__(self) -> None:
        import tacotron2_model.model as theirs

        theirs.get_mask_from_lengths = is_inside  # its own makes a CUDA tensor, whatever the device
        self.model: Any = theirs.Tacotron2()

    def predict(self, batch: TrainingBatch) -> Predicted:
        inputs = batch.text, batch.text_lengths, batch.mel, int(batch.text_lengths.max()), batch.mel_lengths
        mel, mel_post, gate, _ = self.model(inputs)
        return mel, mel_post, gate

    def speak(self, n_frames: int) -> int:
        self.model.decoder.gate_threshold, self.model.decoder.max_decoder_steps = 2.0, n_frames
        return int(self.model.inference(hundred_symbols()[0])[1].size(2))


class SpeechBrain(Peer):
    """speechbrain.lobes.models.Tacotron2"""

    decode = "infer"

    def __init__(self) -> None:
        from speechbrain.lobes.models.Tacotron2 import Tacotron2

        self.model: Any = Tacotron2()

    def predict(self, batch: TrainingBatch) -> Predicted:
        inputs = batch.text, batch.text_lengths, batch.mel, int(batch.text_lengths.max()), batch.mel_lengths
        mel, mel_post, gate, *_ = self.model(inputs)
        return mel, mel_post, gate

    def speak(self, n_frames: int) -> int:
        self.model.decoder.gate_threshold, self.model.decoder.max_decoder_steps = 2.0, n_frames
        return int(self.model.infer(*hundred_symbols())[0].size(2))


class Coqui(Peer):
    """TTS.tts.models.tacotron2 at one frame a step."""

    def __init__(self) -> None:
        from TTS.tts.configs.tacotron2_config import Tacotron2Config
        from TTS.tts.models.tacotron2 import Tacotron2

        self.model: Any = Tacotron2(Tacotron2Config(r=1))
        self.model.embedding = nn.Embedding(N_SYMBOLS, 512, padding_idx=0)  # else it has as many rows as its symbols
        self.model.decoder.set_r(1)

    def predict(self, batch: TrainingBatch) -> Predicted:
        out = self.model(batch.text, batch.text_lengths, batch.mel.transpose(1, 2), batch.mel_lengths)
        mel, mel_post = out["decoder_outputs"].transpose(1, 2), out["model_outputs"].transpose(1, 2)
        return mel, mel_post, out["stop_tokens"].view(batch.gate.shape)

    def speak(self, n_frames: int) -> int:
        self.model.decoder.stop_threshold, self.model.decoder.max_decoder_steps = 2.0, n_frames
        return int(self.model.inference(hundred_symbols()[0])["model_outputs"].size(1))


def is_inside(lengths: Tensor) -> Tensor:
    """lengths [B] -> [B, longest] True where the sequence is."""
    return torch.arange(int(lengths.max()), device=lengths.device)[None] < lengths[:, None]


def hundred_symbols() -> tuple[Tensor, Tensor]:
    """One text: ids [1, 100], lengths [1]."""
    return torch.arange(100)[None] % (N_SYMBOLS - 1) + 1, torch.tensor([100])


BUILDERS: dict[str, Callable[[], System]] = {
    "ours": Ours,
    "ours, PyTorch alone": lambda: Ours("decoder_backend=fast"),
    "ours, plain": lambda: Ours("decoder_backend=plain"),
    "tacotron2-model": Tacotron2Model,
    "coqui-tts": Coqui,
    "speechbrain": SpeechBrain,
}


class Training:
    """A system and its optimiser."""

    def __init__(self, system: System, device: torch.device | str = "cpu") -> None:
        self.system, self.model = system, system.model.to(device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, batch: TrainingBatch, *, bf16: bool) -> Tensor:
        """Forward, backward, clip, update. -> loss []"""
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.system, batch, bf16=bf16)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()


def loss_of(system: System, batch: TrainingBatch, *, bf16: bool) -> Tensor:
    """Of one batch, the same for all systems: []"""
    with torch.autocast(batch.mel.device.type, torch.bfloat16, enabled=bf16):
        mel, mel_post, gate = (x.to(batch.mel.dtype) for x in system.predict(batch))
    frames = torch.arange(mel.size(2), device=mel.device)[None]
    behind = (frames >= batch.mel_lengths[:, None]).unsqueeze(1)
    squared = sum(F.mse_loss(x.masked_fill(behind, 0.0), batch.mel) for x in (mel, mel_post))
    return squared + F.binary_cross_entropy_with_logits(gate, batch.gate)


def training_flops(shape: Shape) -> float:
    """Multiplications and additions of one step of the full-size model; the backward pass counts twice the forward."""
    frames, text = shape.B * shape.T_mel, shape.B * shape.T_text
    lstms = 4096 * (256 + 512 + 1024) + 4096 * (1024 + 512 + 1024)
    postnet = 5 * (80 * 512 + 3 * 512 * 512 + 512 * 80)
    per_frame = lstms + postnet + (80 * 256 + 256 * 256) + 1024 * 128 + 1536 * 81
    per_cell = 2 * 31 * 32 + 32 * 128 + 128 + 512  # of the alignment: location features, energy, context
    per_symbol = 3 * 5 * 512 * 512 + 2 * 1024 * (512 + 256) + 512 * 128
    return 3 * 2.0 * (frames * per_frame + frames * shape.T_text * per_cell + text * per_symbol)
