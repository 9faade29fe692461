"""A corpus ready to train on: filelists, features and batches behind one call.

`load_corpus(hp)` reads both filelists, makes or finds every mel and reports all that is wrong at once; `plan_batches`
and `make_loader` turn it into the batches of an epoch.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.cache_dir import cache_directory
from common.errors import DataError
from common.log import LOG
from common.step_schedule import Reduction
from corpus.batch import MelDataset
from corpus.batch_plan import LEAST_FRAME_MULTIPLE, BatchPlan
from corpus.doctor import Examination, examine
from corpus.filelists import Filelist, data_error, usable_filelists
from corpus.findings import Finding, counts_by_kind
from corpus.hash_index import HashIndex
from corpus.measuring import MeasureIndex
from corpus.mel_cache import Feature, FeatureSet, Progress, build_features
from corpus.mel_statistics import IDENTITY, MelStats, training_stats
from corpus.near_files import list_that_is_there
from corpus.precomputed_mels import read_mel_files
from corpus.readings import front_end_of, log_what_was_guessed, with_readings
from corpus.recording_checks import Wanted
from corpus.speakers import speaker_names, speaker_rows, with_agreed_speakers
from hparams import HParams
from text.front_end import FrontEnd


@dataclass(frozen=True)
class Corpus:
    """Training and validation data.

    stats: of the training mels, 0 and 1 without normalize_mel. fingerprint: hex of all recordings and texts. problems:
    the lines that were skipped, empty unless asked for. speakers: those of the training list, in the order of rows.
    front_end: what turned the texts into symbol ids.
    """

    train: MelDataset
    validation: MelDataset
    stats: MelStats
    fingerprint: str
    front_end: FrontEnd
    problems: tuple[Finding, ...] = ()
    speakers: tuple[str, ...] = ()


def load_corpus(
    hp: HParams,
    *,
    skip_bad: bool = False,
    progress: Callable[[str], Progress] | None = None,
    origins: Mapping[str, str] | None = None,
    front_end: FrontEnd | None = None,
) -> Corpus:
    """Both sets of `hp`, checked line by line, with every mel in the cache.

    skip_bad: leave out what cannot be used and list it in `problems`; otherwise DataError names all of it.
    progress(label) gives a callback (done, total) for each stage. origins: which layer set each hyperparameter, for
    messages. front_end: of a voice that goes on; without one it is made as `hp` says.
    DataError too if a filelist is missing, or nothing is left of one.
    """
    examination = _examine(hp, origins or {}, progress)
    _log_warnings(examination)
    listed = _agreed_lists(hp, examination)
    front_end = front_end or front_end_of(hp, [u.text for filelist in listed for u in filelist.utterances])
    lists, ledger = with_readings(listed, front_end)
    front_end.close()  # its processes must not be copied into those that load batches
    log_what_was_guessed(ledger, lists[0].path, front_end)
    speakers = speaker_names(lists[0].utterances)
    # one list may serve as both sets: each of its lines counts once
    utterances = list(dict.fromkeys(utterance for filelist in lists for utterance in filelist.utterances))
    make = read_mel_files if hp.load_mel_from_disk else build_features
    made = make(utterances, hp, progress=progress("mel features") if progress else None)
    problems = list(dict.fromkeys(problem for filelist in lists for problem in filelist.problems))
    problems += made.problems
    if problems and not skip_bad:
        raise data_error(problems)
    train, validation = (_features_of(filelist, made) for filelist in lists)
    _warn_about_leaks(train, validation)
    stats = training_stats(train, hp) if hp.normalize_mel else IDENTITY
    return Corpus(
        train=_dataset(train, hp, stats, speakers),
        validation=_dataset(validation, hp, stats, speakers),
        stats=stats,
        fingerprint=corpus_fingerprint([*train, *validation], front_end),
        front_end=front_end,
        problems=tuple(problems),
        speakers=speakers,
    )


def _examine(hp: HParams, origins: Mapping[str, str], progress: Callable[[str], Progress] | None) -> Examination:
    """The training and the validation list with all their recordings; what is missing of both in one DataError."""
    missing = [
        f"{name}={path} is no file{list_that_is_there(Path(path))} (set by: {origins.get(name, 'hyperparameters')}); "
        f'write the filelist there, or pass --hparams "{name}=PATH,dataset_path=FOLDER"'
        for name, path in (("training_files", hp.training_files), ("validation_files", hp.validation_files))
        if not Path(path).is_file()
    ]
    if missing:
        raise DataError("\n".join(missing))
    hashes = HashIndex(cache_directory() / "features" / "index.json")
    found = examine(
        [Path(hp.training_files), Path(hp.validation_files)],
        dataset_path=Path(hp.dataset_path),
        data_roots=[Path(root) for root in hp.data_roots],
        wanted=Wanted(hp.sampling_rate, hp.mel_fmax, hp.win_length / hp.sampling_rate),
        hash_of=hashes.sha256,
        index=MeasureIndex(cache_directory() / "recordings.json"),
        names_mels=hp.load_mel_from_disk,
        progress=progress("recordings") if progress else None,
    )
    hashes.write()
    return found


def _agreed_lists(hp: HParams, examination: Examination) -> tuple[Filelist, ...]:
    by_path = {filelist.path: filelist for filelist in usable_filelists(examination)}
    return tuple(with_agreed_speakers(by_path[Path(hp.training_files)], by_path[Path(hp.validation_files)]))


def _log_warnings(examination: Examination) -> None:
    """What trains and should be listened to: counts, and the first of each kind."""
    found = [finding for finding in examination.findings if finding.severity == "warning"]
    if not found:
        return
    first = {finding.kind: finding for finding in reversed(found)}.values()
    shown = "\n  ".join(finding.message for finding in first)
    lists = " ".join(str(checked.path) for checked in examination.lists)
    LOG.warning(
        "worth a look (%s), the first of each kind:\n  %s\nsee and hear them all: python prepare_data.py check %s",
        counts_by_kind(found), shown, lists,
    )  # fmt: skip


def _features_of(filelist: Filelist, made: FeatureSet) -> list[Feature]:
    kept = [feature for feature in made.features if feature.utterance.source == filelist.path]
    if not kept:
        problems = [*filelist.problems, *(p for p in made.problems if p.source == filelist.path)]
        found = counts_by_kind(problems) or "the file has no lines"
        raise DataError(f"{filelist.path}: no usable utterance ({found}); correct the filelist")
    return kept


def _warn_about_leaks(train: Sequence[Feature], validation: Sequence[Feature]) -> None:
    """Validating on what was trained on says nothing; it is legal, as in a smoke test."""
    shared = {feature.sha256 for feature in train} & {feature.sha256 for feature in validation}
    if shared:
        LOG.warning(
            "%d of the validation recordings are in the training list, too: they can't tell how good the voice is on "
            "new texts; leave them out of one list",
            len(shared),
        )


def _dataset(features: Sequence[Feature], hp: HParams, stats: MelStats, speakers: Sequence[str]) -> MelDataset:
    texts = [feature.utterance.symbol_ids for feature in features]
    rows = speaker_rows([feature.utterance for feature in features], speakers)
    return MelDataset(features, texts, stats=stats, speakers=rows)


def spoken_symbols(corpus: Corpus) -> Tensor:
    """True for the ids that sound: not for padding, punctuation, spaces, marks. [n_symbols]"""
    return torch.tensor(corpus.front_end.table.needs_sound)


def corpus_fingerprint(features: Iterable[Feature], front_end: FrontEnd) -> str:
    """64 hex digits that change with any recording's content, any text or speaker, or the order; not with paths.

    Where a text is not spelled as it is written, what it is read as counts too: dictionaries and models change.
    """
    digest = hashlib.sha256()
    for feature in features:
        fields = [feature.sha256, feature.utterance.text, feature.utterance.speaker or ""]
        if front_end.is_slow:
            fields.append(" ".join(map(str, feature.utterance.symbol_ids)))
        digest.update("\0".join(fields).encode("utf-8") + b"\n")
    return digest.hexdigest()


def plan_batches(dataset: MelDataset, hp: HParams, *, is_validation: bool = False, n_parts: int = 1) -> BatchPlan:
    """The batches that `hp` asks for: in the same order every epoch for validation, shuffled for training.

    n_parts: processes that share each of them.
    """
    multiple = Reduction.of(hp.reduction_schedule, hp.n_frames_per_step).multiple  # whole steps in every phase
    if hp.use_ddc_loss:
        multiple = math.lcm(multiple, hp.ddc_reduction_factor)  # and of both decoders
    return BatchPlan(
        lengths=dataset.lengths,
        batch_size=hp.batch_size,
        seed=hp.seed,
        frame_multiple=math.lcm(multiple, LEAST_FRAME_MULTIPLE) if hp.use_bucket_batching else multiple,
        max_batch_frames=hp.max_batch_frames,
        use_bands=hp.use_bucket_batching,
        shuffle=not is_validation,
        speakers=dataset.speaker_names if hp.use_balanced_sampling and not is_validation else (),
        n_parts=n_parts,
    )
