"""The corpus of a run: read, the demo corpus in its place, the same on every machine."""

from collections.abc import Sequence
from pathlib import Path

from common.cache_dir import cache_directory
from common.errors import DataError, UserError
from common.log import LOG
from corpus.amount import little_speech
from corpus.demo.builder import ensure_demo_corpus
from data_utils import Corpus, load_corpus
from hparams import DEFAULT, HParams, Resolved
from monitoring.progress_bar import counted_progress
from text.front_end import FrontEnd
from training.options import Options


def check_same_data(fingerprints: Sequence[str]) -> None:
    if len(set(fingerprints)) > 1:
        others = [str(rank) for rank, other in enumerate(fingerprints) if other != fingerprints[0]]
        raise DataError(
            f"process {', '.join(others)} of {len(fingerprints)} found other recordings or texts than process 0: copy "
            "the same filelists and recordings to every machine, or let training_files name a shared folder"
        )


RULE = "=" * 88
FOR_THE_DEMO = "preset demo"


def demo_notice(settings: Resolved) -> str:
    """For who trains the demo corpus with settings that are meant for recordings; "" with the demo's own preset."""
    presets = {origin for origin in settings.origins.values() if origin.startswith("preset ")}
    if FOR_THE_DEMO in presets:
        return ""
    chosen = f"--{presets.pop()}" if presets else "the full-size model"
    return (
        "THESE ARE NOT YOUR RECORDINGS: this voice learns 600 sentences that another synthetic voice reads aloud, and "
        f"{chosen} is meant for recordings of your own.\n"
        "To train on yours, with a text file beside each:\n"
        "  1. python prepare_data.py import FOLDER -o data/mine\n"
        "  2. this command again, with --fresh --hparams-file data/mine/hparams.yaml\n"
        "More, also on lists that you have: docs/your_own_voice.md"
    )


def with_demo_files(hp: HParams) -> HParams:
    """The embedded demo corpus in place of files that nobody named and that don't exist."""
    corpus = ensure_demo_corpus(progress=counted_progress("speaking the demo corpus"))
    LOG.warning("no dataset is configured: training on the embedded demo corpus in %s", corpus.root)
    return hp.model_copy(
        update={
            "training_files": str(corpus.training_files),
            "validation_files": str(corpus.validation_files),
            "dataset_path": str(corpus.root),
        }
    )


def read_corpus(settings: Resolved, options: Options, *, is_demo: bool, front_end: FrontEnd | None = None) -> Corpus:
    """front_end: of the voice that goes on; None for a new one."""
    if is_demo and options.base_steps is not None:
        raise UserError(
            f"--from-base: nothing names recordings, and training_files={settings.hparams.training_files} is no file; "
            "a base voice says the words of your recordings (docs/your_own_voice.md)"
        )
    if not is_demo and settings.origins.get("training_files") == DEFAULT:
        LOG.info("no dataset is named: training on %s, which is there", settings.hparams.training_files)
    hp = with_demo_files(settings.hparams) if is_demo else settings.hparams
    if is_demo and (notice := demo_notice(settings)):
        LOG.warning("%s\n%s\n%s", RULE, notice, RULE)
    corpus = load_corpus(
        hp,
        skip_bad=options.skip_bad_data,
        progress=counted_progress,
        origins=settings.origins,
        front_end=front_end,
    )
    if corpus.problems:
        LOG.warning(
            "--skip-bad-data left out %d lines or recordings, the first: %s",
            len(corpus.problems),
            corpus.problems[0].message,
        )
    if warning := _little_speech(hp, corpus, options):
        LOG.warning("%s", warning)
    return corpus


def training_seconds(hp: HParams, corpus: Corpus) -> float:
    return sum(feature.n_frames for feature in corpus.train.features) * hp.hop_length / hp.sampling_rate


def _little_speech(hp: HParams, corpus: Corpus, options: Options) -> str:
    """Of recordings; "" of synthetic speech, for the demo or a base voice, which lies in the cache."""
    listed = Path(hp.training_files)
    if listed.absolute().is_relative_to(cache_directory().absolute()):
        return ""
    has_base = options.base_steps is not None or options.checkpoint is not None
    return little_speech(training_seconds(hp, corpus), listed, begins_with_voice=has_base)
