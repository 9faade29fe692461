"""A recognizer hears trials: what it mishears is part of their value."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from data_utils import load_corpus
from hparams import HParams
from listeners import packages
from listeners.recogniser import lacks
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trial_words import TrialListener
from support.searches import table
from support.voices import save_voice
from training.listening import Text

Tiny = Callable[..., HParams]
needs_recogniser = pytest.mark.skipif(bool(lacks("en")), reason="pip install -r requirements-eval.txt")
FINISHED = TrialOutcome("finished", 0, [])


def never() -> bool:
    return False


@pytest.mark.spec
@needs_recogniser
def test_a_finished_trial_is_heard_with_its_last_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    corpus = load_corpus(tiny())
    save_voice(tiny(), corpus, tmp_path)
    listener = TrialListener.of(corpus)
    heard = listener.hear(FINISHED, tmp_path, is_ending=never)
    assert heard.ending == "finished" and heard.misheard is not None and 0.5 < heard.misheard <= 1.0  # noise
    began = time.monotonic()
    assert listener.hear(FINISHED, tmp_path, is_ending=lambda: True).ending == "interrupted"
    assert time.monotonic() - began < 5, "the listener is not waited for"


@needs_recogniser
def test_what_cannot_be_heard_counts_as_misheard_and_is_said(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = TrialListener.of(load_corpus(tiny()))
    with caplog.at_level(logging.WARNING):
        assert listener.hear(FINISHED, tmp_path / "trial_00007", is_ending=never).misheard == 1.0
    assert "trial_00007: all of it counts as misheard, as it has no checkpoint" in caplog.text
    for ending in ("pruned", "died", "interrupted"):
        outcome = TrialOutcome(ending, 1, [])  # type: ignore[arg-type]
        assert listener.hear(outcome, tmp_path, is_ending=never) is outcome


def test_a_voice_that_cannot_be_heard_ends_the_search_and_gets_no_value(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_voice(tiny(), load_corpus(tiny()), tmp_path / "trial_00007")
    listener = TrialListener("tlh", (Text("qapla", None),), between_s=0.0)
    with pytest.raises(UserError, match="trial_00007 can't be heard, see above; the same command hears it again"):
        listener.hear(FINISHED, tmp_path / "trial_00007", is_ending=never)
    assert "attempt 3 of 3 to hear it failed: " in caplog.text
    patient = replace(listener, between_s=60.0)
    looks = iter(range(10**6))
    heard = patient.hear(FINISHED, tmp_path / "trial_00007", is_ending=lambda: next(looks) > 100)
    assert heard.ending == "interrupted"


def test_without_a_recognizer_the_search_does_not_begin(tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--score-words: counting word errors needs jiwer"):
        tune(n_trials=1, scores_words=True)
    assert not (tmp_path / "output/study/optuna.db").exists()


@needs_recogniser
def test_a_study_with_words_is_not_gone_on_with_without_them(tune, tmp_path: Path) -> None:
    assert tune(n_trials=1, scores_words=True) == 0
    (row,) = table(tmp_path / "output")
    assert row["misheard"] == "1.0", "the stand-in for training leaves no voice"
    with pytest.raises(UserError, match="--score-words: True there, nothing here"):
        tune(n_trials=2)
