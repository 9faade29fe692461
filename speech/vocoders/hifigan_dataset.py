"""Mels and recordings in the form in which HiFi-GAN (and BigVGAN) are fine-tuned on mels that are not their own.

HiFi-GAN's frame t covers the samples around (t + 1/2) * hop, ours those around t * hop. The recordings are therefore
written half a hop later, and mel frame t then means the same samples in both. Their count is L // hop: ours is one
more, and the last is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from torch import Tensor

from audio.mel import MelFingerprint
from audio.recordings import write_wav
from common.errors import DataError, format_problems
from common.files import write_atomic

SEGMENT_SAMPLES = 8192  # of the authors' configurations: what they cut out of a recording in one step


@dataclass(frozen=True)
class Clip:
    """One recording, wav float32 [L] at the mel's rate, and its log-mel [n_mels, L // hop + 1], recorded or predicted.

    The name (from `unique_names`) becomes the name of both files.
    """

    name: str
    text: str
    wav: np.ndarray
    log_mel: Tensor
    is_validation: bool = False


@dataclass(frozen=True)
class HifiGanDataset:
    """What was written; too_short: names of clips that were left out, as HiFi-GAN can't cut a segment from them."""

    folder: Path
    n_training: int
    n_validation: int
    too_short: tuple[str, ...]

    @property
    def command(self) -> str:
        """To be run in a checkout of HiFi-GAN; `--checkpoint_path` holds the g_* and do_* to begin from."""
        folder = self.folder.absolute()
        return (
            f"python train.py --fine_tuning True --config config_v1.json --checkpoint_path CHECKPOINTS "
            f"--input_wavs_dir '{folder / 'wavs'}' --input_mels_dir '{folder / 'mels'}' "
            f"--input_training_file '{folder / 'training.txt'}' --input_validation_file '{folder / 'validation.txt'}'"
        )


def write_hifigan_dataset(folder: Path, clips: Iterable[Clip], mel: MelFingerprint) -> HifiGanDataset:
    """wavs/NAME.wav (16 bit), mels/NAME.npy (float32 [n_mels, L // hop]), training.txt and validation.txt (NAME|text).

    The lists are written last: without them the folder is not finished. DataError names every clip whose mel has
    another length than its recording, or holds NaN.
    """
    lists: dict[bool, list[str]] = {False: [], True: []}
    too_short, problems = [], []
    for clip in clips:
        problem = _problem(clip, mel)
        n_frames = len(clip.wav) // mel.hop_length
        if problem:
            problems.append(problem)
        elif n_frames * mel.hop_length <= SEGMENT_SAMPLES:
            too_short.append(clip.name)
        else:
            _write_pair(folder, clip, mel, n_frames=n_frames)
            lists[clip.is_validation].append(f"{clip.name}|{' '.join(clip.text.split())}\n")
    if problems:
        raise DataError(format_problems(problems, headline=f"{len(problems)} mel(s) do not belong to their recordings"))
    for name, lines in (("training.txt", lists[False]), ("validation.txt", lists[True])):
        write_atomic(folder / name, "".join(lines))
    return HifiGanDataset(folder, len(lists[False]), len(lists[True]), tuple(too_short))


def _problem(clip: Clip, mel: MelFingerprint) -> str | None:
    expected = (mel.n_mel_channels, len(clip.wav) // mel.hop_length + 1)
    if tuple(clip.log_mel.shape) != expected:
        return f"{clip.name}: mel {list(clip.log_mel.shape)}, but {len(clip.wav)} samples make {list(expected)}"
    if not clip.log_mel.isfinite().all():
        return f"{clip.name}: mel holds NaN or infinity"
    return None


def _write_pair(folder: Path, clip: Clip, mel: MelFingerprint, *, n_frames: int) -> None:
    write_wav(folder / "wavs" / f"{clip.name}.wav", half_a_hop_later(clip.wav, mel.hop_length), mel.sampling_rate)
    content = BytesIO()
    np.save(content, clip.log_mel[:, :n_frames].float().cpu().numpy())
    write_atomic(folder / "mels" / f"{clip.name}.npy", content.getvalue())


def half_a_hop_later(wav: np.ndarray, hop_length: int) -> np.ndarray:
    """[L] -> [L // hop * hop]: reflected at the beginning, as our mel's first frame is, and cut at the end."""
    delay = hop_length // 2
    return np.concatenate([wav[delay:0:-1], wav])[: len(wav) // hop_length * hop_length]


def unique_names(recordings: Sequence[Path]) -> list[str]:
    """A name for each: its file's, with its folders' where two files have the same. DataError if that isn't enough."""
    stems = Counter(path.stem for path in recordings)
    names = [
        path.stem if stems[path.stem] == 1 else "_".join(path.with_suffix("").parts[-3:]).replace("/", "")
        for path in recordings
    ]
    names = [name.replace("|", "_") for name in names]
    twice = sorted(_repeated(names))
    if twice:
        raise DataError(
            format_problems(
                twice, headline=f"{len(twice)} name(s) stand for several recordings; HiFi-GAN finds mels by name"
            )
        )
    return names


def _repeated(names: Sequence[str]) -> Iterator[str]:
    return (name for name, count in Counter(names).items() if count > 1)
