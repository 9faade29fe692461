"""The corpus of a run: read, the demo corpus in its place, the same on every machine."""

from collections.abc import Sequence

from common.errors import DataError
from common.log import LOG
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
    if not is_demo and settings.origins.get("training_files") == DEFAULT:
        LOG.info("no dataset is named: training on %s, which is there", settings.hparams.training_files)
    corpus = load_corpus(
        with_demo_files(settings.hparams) if is_demo else settings.hparams,
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
    return corpus
