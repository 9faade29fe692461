"""Drop frame rate (arXiv 1909.01145): teacher frames replaced by the mean frame, so that the text must be heeded."""

import torch
from torch import Tensor

from corpus.batch import Batch
from corpus.mean_frame import standardised_mean_frame
from data_utils import Corpus
from hparams import HParams
from layers import padding_mask


class FrameDropper:
    """The teacher frames of a batch, some of them dropped; all of them where `drop_frame_rate` is 0."""

    def __init__(self, hp: HParams, corpus: Corpus, device: torch.device) -> None:
        self.rate = hp.drop_frame_rate
        self.mean_frame: Tensor | None = None  # [n_mels]
        if self.rate > 0.0:
            self.mean_frame = standardised_mean_frame(corpus.train.features, hp, corpus.stats).to(device)

    def teacher_frames(self, batch: Batch) -> Tensor:
        """What the decoder is shown in training. [B, n_mels, T_mel]"""
        if self.mean_frame is None:
            return batch.mel
        return drop_frames(batch.mel, batch.mel_lengths, self.mean_frame, self.rate)


def drop_frames(mel: Tensor, mel_lengths: Tensor, mean_frame: Tensor, rate: float) -> Tensor:
    """Each valid frame becomes the mean frame with probability `rate`.

    mel [B, n_mels, T_mel] standardised, mel_lengths [B] frames, mean_frame [n_mels] -> [B, n_mels, T_mel]
    """
    B, _, T_mel = mel.shape
    dropped = torch.rand(B, T_mel, device=mel.device) < rate
    dropped &= ~padding_mask(mel_lengths, T_mel)
    return torch.where(dropped.unsqueeze(1), mean_frame[:, None], mel)
