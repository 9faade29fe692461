"""A voice as a file: safetensors for this program, ONNX for machines without torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio.mel import MelFingerprint, mel_basis
from checkpointing import checkpoint_file, exported_voice
from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from exporting.card import Card
from exporting.graphs import Graph, graphs_of
from exporting.quantisation import in_int8
from player.archive import VOCODER, Archive, Description, write_archive
from speech.vocoders.onnx_export import export_graph
from speech.vocoders.vocoder import NeuralVocoder
from speech.voice import Voice


@dataclass(frozen=True)
class Exported:
    """largest_difference: between onnxruntime's numbers and torch's, by graph; nothing for safetensors."""

    path: Path
    n_bytes: int
    largest_difference: dict[str, float]


def export_safetensors(run_or_checkpoint: Path, path: Path, card: Card) -> Exported:
    """UserError if there is no checkpoint of ours, OSError from the disk."""
    source = checkpoint_dir.resolve(run_or_checkpoint)
    read = exported_voice.read_voice if exported_voice.is_exported(source) else checkpoint_file.load
    saved = read(source)
    return Exported(path, exported_voice.write_voice(path, saved, card.to_dict()), {})


def export_onnx(voice: Voice, path: Path, card: Card, *, is_int8: bool) -> Exported:
    """UserError where onnxruntime's numbers differ from torch's by more than 1e-4. is_int8: smaller, and less exact."""
    graphs = graphs_of(voice.model)
    if isinstance(voice.vocoder, NeuralVocoder):
        graphs[VOCODER] = Graph(*export_graph(_in_fp32(voice, voice.vocoder), path))
    contents = {name: graph.content for name, graph in graphs.items()}
    if is_int8:
        contents |= {name: in_int8(contents[name]) for name in ("encoder", "decoder_step")}
    basis = mel_basis(voice.hp).numpy()
    n_bytes = write_archive(path, Archive(description_of(voice, card), contents, np.ascontiguousarray(basis)))
    return Exported(path, n_bytes, {name: graph.largest_difference for name, graph in graphs.items()})


def _in_fp32(voice: Voice, vocoder: NeuralVocoder) -> NeuralVocoder:
    """From its file again where this processor speaks with it in bf16, which a graph does not."""
    if vocoder.precision == "fp32":
        return vocoder
    exact = voice.fitting_vocoder(vocoder.name, precision="fp32")
    assert isinstance(exact, NeuralVocoder)
    return exact


def description_of(voice: Voice, card: Card) -> Description:
    """All that the player needs beside the graphs."""
    hp, limits, decoder = voice.hp, voice.limits, voice.model.decoder
    neural = voice.vocoder if isinstance(voice.vocoder, NeuralVocoder) else None
    return Description(
        front_end=voice.front_end.to_dict(),
        speakers=list(voice.names),
        sampling_rate=hp.sampling_rate,
        filter_length=hp.filter_length,
        hop_length=hp.hop_length,
        win_length=hp.win_length,
        mel_mean=voice.stats.mean,
        mel_std=voice.stats.std,
        frames_per_step=voice.model.r,
        prenet_dim=hp.prenet_dim,
        prenet_dropout=decoder.prenet.speaking_dropout,
        widths={
            "attention_rnn": decoder.attention_rnn.hidden_size,
            "decoder_rnn": decoder.decoder_rnn.hidden_size,
            "encoder": hp.encoder_embedding_dim,
        },
        starts_on_first_symbol=hp.use_forward_attention,
        max_frames=limits.max_frames,
        frames_per_symbol=limits.frames_per_symbol,
        budget_offset=limits.budget_offset,
        dwell_frames=limits.dwell_frames,
        gate_threshold=limits.gate_threshold,
        longest_text=voice.longest_text,
        vocoder=None if neural is None else {"first_centre": neural.generator.config.mel.first_centre},
        mel_fingerprint=MelFingerprint.of(hp).to_dict(),
        card=card.to_dict(),
    )


def check_suffix(path: Path) -> str:
    """`.safetensors` or `.zip`; UserError for others."""
    suffix = path.suffix.lower()
    if suffix not in (exported_voice.SUFFIX, ".zip"):
        raise UserError(f"-o {path}: the suffix must be .safetensors, or .zip for ONNX")
    return suffix
