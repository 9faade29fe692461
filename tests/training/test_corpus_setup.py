"""What a run says of its data before the first step: a stand-in for recordings, and too few of them."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from corpus.amount import little_speech
from hparams import HParams, Resolved, resolve_hparams
from training.corpus_setup import demo_notice, read_corpus
from training.options import Options

Tiny = Callable[..., HParams]


@pytest.mark.parametrize(
    ("preset", "said"), [("small", "--preset small is meant"), (None, "the full-size model is meant"), ("demo", "")]
)
def test_settings_for_recordings_on_the_demo_corpus_are_told_so(preset: str | None, said: str) -> None:
    notice = demo_notice(resolve_hparams(preset=preset))
    assert said in notice and bool(notice) == bool(said)
    assert not notice or "python prepare_data.py import FOLDER -o data/mine" in notice


@pytest.mark.parametrize(("minutes", "is_little"), [(3, True), (44, True), (46, False)])
def test_minutes_of_speech_are_little_and_an_hour_is_not(minutes: float, is_little: bool) -> None:
    said = little_speech(60 * minutes, Path("a b.csv"))
    assert bool(said) == is_little
    assert not said or f"{minutes} minutes" in said and "--from-base" in said and "record-next 'a b.csv'" in said


@pytest.mark.parametrize(("options", "advises_base"), [(Options(), True), (Options(base_steps=10), False)])
def test_too_little_speech_is_said_once_before_the_first_step(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, options: Options, advises_base: bool
) -> None:
    origins: Mapping[str, str] = {"training_files": "--hparams"}
    with caplog.at_level(logging.WARNING):
        read_corpus(Resolved(tiny(), dict(origins), {}), options, is_demo=False)
    (said,) = [record.getMessage() for record in caplog.records if "little speech" in record.getMessage()]
    assert "seconds to train on" in said and ("--from-base" in said) == advises_base
