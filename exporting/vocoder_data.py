"""A voice's mels beside the recordings they belong to, for training a vocoder elsewhere on what it will be given."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from audio.mel import MelFingerprint
from audio.recordings import read_audio
from common.errors import UserError
from common.log import LOG
from corpus.batch import Item, MelDataset, collate
from data_utils import Corpus, load_corpus
from hparams import HParams
from monitoring.progress_bar import counted_progress
from speech.vocoders.hifigan_dataset import Clip, HifiGanDataset, unique_names, write_hifigan_dataset
from speech.voice import Voice


def export_vocoder_data(
    voice: Voice,
    folder: Path,
    *,
    training_files: Path | None = None,
    validation_files: Path | None = None,
    dataset_path: Path | None = None,
    is_recorded: bool = False,
    seed: int = 1234,
    skip_bad: bool = False,
) -> HifiGanDataset:
    """Both lists of the voice, or those that are named, in the form of HiFi-GAN's fine-tuning.

    is_recorded: mels of the recordings; otherwise what the voice predicts when it is taught each recording frame by
    frame, which lies on the recording and has the voice's own faults. UserError where a list is missing.
    """
    hp = _with_lists(voice.hp, training_files, validation_files, dataset_path)
    corpus = load_corpus(hp, skip_bad=skip_bad, progress=counted_progress, front_end=voice.front_end)
    if corpus.problems:
        LOG.warning("--skip-bad-data left out %d, the first: %s", len(corpus.problems), corpus.problems[0].message)
    return write_hifigan_dataset(folder, _clips(voice, corpus, is_recorded, seed), MelFingerprint.of(hp))


def _with_lists(hp: HParams, training: Path | None, validation: Path | None, dataset_path: Path | None) -> HParams:
    if hp.load_mel_from_disk:
        raise UserError("the voice was trained on mels, without recordings; name lists of recordings to go with them")
    chosen = {
        "training_files": str(training or hp.training_files),
        "validation_files": str(validation or hp.validation_files),
    }
    missing = [
        f"{path} is not there: name the voice's list with --{name.replace('_', '-')}"
        for name, path in chosen.items()
        if not Path(path).is_file()
    ]
    if missing:
        raise UserError("\n".join(missing))
    return hp.model_copy(update=chosen | ({} if dataset_path is None else {"dataset_path": str(dataset_path)}))


def _clips(voice: Voice, corpus: Corpus, is_recorded: bool, seed: int) -> Iterator[Clip]:
    sets = ((corpus.train, False), (corpus.validation, True))
    names = iter(unique_names([f.utterance.audio_path for dataset, _ in sets for f in dataset.features]))
    told = counted_progress("mels")
    done, total = 0, sum(len(dataset) for dataset, _ in sets)
    for dataset, is_validation in sets:
        for index, feature in enumerate(dataset.features):
            item = dataset[index]
            log_mel = item.mel if is_recorded else predicted_mel(voice, _of_voice(voice, item, dataset), seed=seed)
            wav = read_audio(feature.utterance.audio_path, voice.hp)
            yield Clip(next(names), feature.utterance.text, wav, log_mel, is_validation)
            done += 1
            told(done, total)


def _of_voice(voice: Voice, item: Item, dataset: MelDataset) -> Item:
    """The lists may know fewer speakers than the voice: the row is the voice's own."""
    name = dataset.features[item.index].utterance.speaker
    if not voice.names:
        return replace(item, speaker=None)
    if name not in voice.names:
        raise UserError(f"{dataset.features[item.index].utterance.where}: the voice has no speaker {name!r}")
    return replace(item, speaker=voice.names.index(name))


@torch.inference_mode()
def predicted_mel(voice: Voice, item: Item, *, seed: int) -> Tensor:
    """item.mel [n_mels, T_mel] as the voice foresees each frame from the recorded ones before it: the same shape."""
    batch = collate([item], r=voice.model.r, stats=voice.stats).to(voice.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the prenet's dropout stays on
        outputs = voice.model(batch.text, batch.text_lengths, batch.mel, batch.mel_lengths, speakers=batch.speakers)
    return outputs.mel_post[0, :, : item.mel.size(1)].cpu() * voice.stats.std + voice.stats.mean
