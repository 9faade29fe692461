"""Which utterances go together, in which order, and how they become tensors.

Lengths fall into a few fixed bands. Every batch of a band has the band's padded shape, so that shapes repeat from batch
to batch (a compiled or captured graph is made once per band) and little is padded. The order depends only on
(lengths, settings, seed, epoch): a run that stops in the middle of an epoch goes on with exactly the remaining batches,
whatever the number of loader processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from corpus.batch_plan import round_up
from corpus.mel_cache import Feature, read_mel
from corpus.mel_statistics import MelStats
from corpus.speakers import row_tensor


@dataclass(frozen=True)
class Item:
    """One utterance before padding: text int64 [T_text], mel float32 log-mel [n_mels, n_frames]."""

    index: int
    utterance_id: str
    text: Tensor
    mel: Tensor
    speaker: int | None = None  # row of the speaker table


@dataclass(frozen=True)
class Batch:
    """Padded utterances, in the order of the plan (not sorted by length).

    text [B, T_text] int64, padded with 0; text_lengths [B] int64; mel [B, n_mels, T_mel] float32, standardised, padded
    with standardised silence; mel_lengths [B] int64, true frames; gate [B, T_mel / r] float32, 1 from the last valid
    decoder step on; n_frames: sum of mel_lengths, known on the host; speakers [B] int64 where the corpus names them.
    counts=False: another process has these utterances too, and they count there; see `BatchPlan.part`.
    """

    text: Tensor
    text_lengths: Tensor
    mel: Tensor
    mel_lengths: Tensor
    gate: Tensor
    utterance_ids: tuple[str, ...]
    n_frames: int = -1
    speakers: Tensor | None = None
    counts: bool = True

    def __post_init__(self) -> None:
        if self.n_frames < 0:
            object.__setattr__(self, "n_frames", int(self.mel_lengths.sum()))

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch with all tensors on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def with_frames_per_step(self, r: int) -> "Batch":
        """The same batch with the gate of r frames a step; it was loaded ahead, perhaps before r changed."""
        n_frames = self.mel.size(2)
        if self.gate.size(1) * r == n_frames:
            return self
        return replace(self, gate=gate_targets(self.mel_lengths, n_frames, r=r))

    def split(self, n: int) -> list["Batch"]:
        """At most n batches of nearly as many utterances each, in order, with the same padding."""
        n = min(n, len(self))
        if n == 1:
            return [self]
        bounds = [len(self) * i // n for i in range(n + 1)]
        return [self._rows(slice(*pair)) for pair in pairwise(bounds)]

    def _rows(self, part: slice) -> "Batch":
        cut = self._mapped(lambda tensor: tensor[part])
        return replace(cut, utterance_ids=self.utterance_ids[part], n_frames=int(cut.mel_lengths.sum()))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; called by the loader."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            text=move(self.text),
            text_lengths=move(self.text_lengths),
            mel=move(self.mel),
            mel_lengths=move(self.mel_lengths),
            gate=move(self.gate),
            speakers=None if self.speakers is None else move(self.speakers),
        )


def collate(items: Sequence[Item], *, r: int, stats: MelStats, pad_to: tuple[int, int] | None = None) -> Batch:
    """Pads items into one batch of shape (T_text, T_mel) = pad_to, or of their maxima, T_mel up to a multiple of r."""
    if pad_to is None:
        longest = max(item.mel.shape[1] for item in items)
        pad_to = max(len(item.text) for item in items), round_up(longest, r)
    n_tokens, n_frames = pad_to
    n_mels = items[0].mel.shape[0]
    text = torch.zeros(len(items), n_tokens, dtype=torch.int64)
    mel = torch.full((len(items), n_mels, n_frames), stats.padding_value)
    for b, item in enumerate(items):
        length = item.mel.shape[1]
        assert len(item.text) <= n_tokens and length <= n_frames, f"{item.utterance_id} is longer than {pad_to}"
        text[b, : len(item.text)] = item.text
        mel[b, :, :length] = (item.mel - stats.mean) / stats.std
    mel_lengths = torch.tensor([item.mel.shape[1] for item in items])
    return Batch(
        text=text,
        text_lengths=torch.tensor([len(item.text) for item in items]),
        mel=mel,
        mel_lengths=mel_lengths,
        gate=gate_targets(mel_lengths, n_frames, r=r),
        utterance_ids=tuple(item.utterance_id for item in items),
        speakers=row_tensor([item.speaker for item in items]),
    )


def gate_targets(mel_lengths: Tensor, n_frames: int, *, r: int) -> Tensor:
    """1 from the last decoder step that has speech: [B] -> [B, n_frames / r] float32."""
    assert n_frames % r == 0, f"T_mel={n_frames} is no multiple of r={r}"
    step = torch.arange(n_frames // r, device=mel_lengths.device)
    return ((step[None] + 1) * r >= mel_lengths[:, None]).float()


class MelDataset(Dataset[Item]):
    """Utterances as items; mels are read from their files on demand. Small enough to send to loader processes."""

    def __init__(
        self,
        features: Sequence[Feature],
        texts: Sequence[Sequence[int]],
        *,
        stats: MelStats,
        speakers: Sequence[int] | None = None,
    ) -> None:
        """texts: symbol ids of each feature; speakers: its row of the speaker table."""
        assert len(texts) == len(features), "one text for each feature"
        self.features = tuple(features)
        self.stats, self.speakers = stats, speakers
        self._texts = tuple(np.asarray(text, dtype=np.int64) for text in texts)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> Item:
        feature = self.features[index]
        return Item(
            index=index,
            utterance_id=feature.utterance.utterance_id,
            text=torch.from_numpy(self._texts[index].copy()),
            mel=torch.from_numpy(read_mel(feature.mel_path, mapped=False).astype(np.float32, copy=False)),
            speaker=None if self.speakers is None else self.speakers[index],
        )

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(T_text, T_mel) of each utterance."""
        return [(len(text), feature.n_frames) for text, feature in zip(self._texts, self.features, strict=True)]

    def symbol_counts(self, n_symbols: int) -> list[int]:
        """How often each symbol occurs in all texts."""
        return np.bincount(np.concatenate(self._texts), minlength=n_symbols).tolist()

    @property
    def speaker_names(self) -> list[str | None]:
        """The speaker of each utterance; None where its line names none."""
        return [feature.utterance.speaker for feature in self.features]
