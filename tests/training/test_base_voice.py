"""A base voice says the words of the user's texts, is made once, and a run begins with what it has learnt."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import train
from checkpointing import checkpoint_file
from common.errors import TimeIsUp, UserError
from corpus.demo.builder import DemoCorpus
from corpus.demo.teachers import Teacher, espeak, hibari
from data_utils import load_corpus
from hparams import HParams
from support.corpora import TRAINING_TEXTS, tiny_settings, write_corpus
from support.paths import REPOSITORY
from training import base_voice, corpus_setup, session
from training.base_voice import (
    HELD_OUT,
    LONGEST,
    SHORTEST,
    base_recipe,
    base_settings,
    digest_of,
    files_of,
    recombined,
    synthetic_corpus,
    teacher_of,
)

Tiny = Callable[..., HParams]
TEXTS = ("The grey horse runs fast.", "Nobody saw it, I think!", "A cold river - and old stones?")


def test_sentences_are_new_made_of_known_words_and_the_same_each_time() -> None:
    made = recombined(TEXTS, 50)
    assert len(set(made)) == 50 and made == recombined(TEXTS, 50)
    known = {word for text in TEXTS for word in text.split()}
    for sentence in made:
        assert sentence.endswith(".") and SHORTEST <= len(sentence.split()) <= LONGEST
        assert all(word in known for word in sentence.split()[:-1])


def test_texts_of_too_few_words_are_refused() -> None:
    with pytest.raises(UserError, match="hold 2 words, too few"):
        recombined(["hello there", "hello"], 5)


def spoken(n: int = 3) -> DemoCorpus:
    return synthetic_corpus(TRAINING_TEXTS, n, teacher=teacher_of("en", speech_s=1.0))


def test_the_base_has_the_layers_of_the_run_and_data_of_its_own(tiny: Tiny) -> None:
    hp = tiny("ema_decay=0.9,listen_every=7,anneal_steps=5")
    corpus = spoken()
    assert len(corpus.training_files.read_text(encoding="utf-8").splitlines()) == 3
    assert len(list((corpus.root / "wavs").iterdir())) == 3 + 2 * HELD_OUT
    made = base_settings(hp, files_of(corpus))
    assert (made.ema_decay, made.listen_every, made.anneal_steps) == (0, 0, 0)
    assert made.encoder_embedding_dim == hp.encoder_embedding_dim and made.training_files != hp.training_files


@pytest.mark.parametrize(
    ("language", "minutes", "teacher"),
    [("en", 10, hibari()), ("EN", 10, hibari()), ("en", 57, espeak("en")), ("en-gb", 57, espeak("en")),
     ("it", 10, espeak("it"))],
)  # fmt: skip
def test_hibari_says_what_is_english_and_little_and_espeak_the_rest(
    language: str, minutes: int, teacher: Teacher
) -> None:
    assert teacher_of(language, speech_s=60.0 * minutes) == teacher


@pytest.mark.usefixtures("isolated_cache")
def test_bad_data_is_told_before_a_base_voice_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "data")
    with (corpus / "train.txt").open("a") as listed:
        listed.write("wavs/absent.wav|Nobody has said this.\n")
    monkeypatch.setattr(session, "base_voice", lambda *_, **__: pytest.fail("made before the data was checked"))
    command = ["-o", str(tmp_path / "run"), "-l", str(tmp_path / "logs"), "--hparams", tiny_settings(corpus)]
    assert train.main([*command, "--from-base"]) == 3
    assert "absent.wav" in capsys.readouterr().err


def test_what_may_change_on_the_way_and_the_seed_need_no_other_base(tiny: Tiny) -> None:
    files = files_of(spoken())
    same = tiny("seed=7,validate_interval=33,anneal_start=5,anneal_steps=9,epochs=2,keep_checkpoints=9,ema_decay=0.5")
    assert base_settings(same, files) == base_settings(tiny(), files)
    assert base_settings(tiny("batch_size=3"), files) != base_settings(tiny(), files)
    assert base_settings(tiny("symbol_set=nvidia"), files) == base_settings(tiny(), files)


def test_frames_are_dropped_for_the_base_also_where_the_run_drops_none(tiny: Tiny) -> None:
    files = files_of(spoken())
    assert all(base_settings(tiny(f"drop_frame_rate={rate}"), files).drop_frame_rate == 0.2 for rate in (0, 0.1))


def test_a_base_made_by_this_version_is_found_by_a_later_one_with_more_parameters() -> None:
    assert digest_of(HParams(batch_size=16), 10) == "ad2b5ba2c58b"  # it changes if it goes by more than what was chosen
    assert digest_of(HParams(batch_size=17), 10) != digest_of(HParams(batch_size=16), 10)


@pytest.mark.parametrize("more", [[], ["--optimize-hyperparams"]], ids=["run", "search"])
def test_a_base_without_recordings_of_ones_own_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus_setup, "ensure_demo_corpus", lambda **_: pytest.fail("the demo is spoken"))
    assert train.main(["-o", "run", "-l", "logs", "--preset", "small", "--from-base", *more]) == 2
    said = capsys.readouterr().err
    assert "--from-base: nothing names recordings, and training_files=" in said and "is no file" in said


def test_two_beginnings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--from-base", "-c", "a.pt"]) == 2
    assert "--from-base and -c both say where to begin" in capsys.readouterr().err


@pytest.mark.spec
def test_a_run_begins_from_a_base_that_is_made_once(
    tmp_path: Path, isolated_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_voice, "SENTENCES", 4)
    corpus = write_corpus(tmp_path / "data")
    settings = tiny_settings(corpus, "learning_rate=1e-9,learning_rate_min=0")
    made = []
    for name in ("one", "two"):
        command = ["-o", str(tmp_path / name), "-l", str(tmp_path / "logs"), "--max-steps", "1", "--hparams", settings]
        assert train.main([*command, "--from-base", "--base-steps", "2"]) == 0
        made.append([(path, path.stat().st_mtime_ns) for path in isolated_cache.glob("base-*/checkpoints/*.pt")])
    assert len(made[0]) == 1 and made[0] == made[1]
    base = checkpoint_file.load(made[0][0][0])
    begun = checkpoint_file.load(tmp_path / "one/checkpoints/step_00000001.pt")
    assert base.step == 2
    for name in ("embedding.weight", "decoder.attention_rnn.weight_ih"):
        assert torch.allclose(base.model[name], begun.model[name], atol=1e-6)


@pytest.mark.spec
def test_all_trials_of_a_search_begin_from_the_base_voice_of_its_settings(
    tmp_path: Path, isolated_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base_voice, "SENTENCES", 4)
    closed = ("batch_size=", "validation_attention_analysis=")
    settings = tiny_settings(write_corpus(tmp_path / "data"))
    settings = ",".join(pair for pair in settings.split(",") if not pair.startswith(closed))
    command = ["-o", str(tmp_path / "run"), "-l", str(tmp_path / "logs"), "--max-steps", "1", "--hparams", settings]
    command += ["--optimize-hyperparams", "--n-trials"]
    assert train.main([*command, "1", "--from-base", "--base-steps", "2"]) == 0
    (base,) = isolated_cache.glob("base-*/checkpoints/*.pt")
    trial = json.loads((tmp_path / "run/study/trial_00000/run.json").read_text())
    assert f"-c {base} --warm-start" in " ".join(trial["command"])
    assert train.main([*command, "2"]) == 2
    assert re.search(r"trials begin with: a base voice \w{12} of 2 steps there, nothing here", capsys.readouterr().err)
    best = (tmp_path / "run/study/best_hparams.yaml").read_text()
    assert f"# Begin as the trials did: -c {base} --warm-start\n" in best


def test_time_that_is_up_ends_the_making_of_a_base_voice_which_is_kept(
    tiny: Tiny, isolated_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_voice, "SENTENCES", 3)
    recordings = load_corpus(tiny())
    with pytest.raises(TimeIsUp, match="not spoken yet"):
        base_voice.base_voice(tiny(), recordings, steps=4, ends_at=time.monotonic())
    corpus = spoken()
    with pytest.raises(TimeIsUp, match="saved as far as it came"):
        base_voice.base_voice(tiny(), recordings, steps=10**6, ends_at=time.monotonic() + 1)
    directory = isolated_cache / f"base-{digest_of(base_settings(tiny(), files_of(corpus)), 4)}"
    with FileLock(f"{directory}.lock"), pytest.raises(TimeIsUp, match="another run is still making"):
        base_voice.base_voice(tiny(), recordings, steps=4, ends_at=time.monotonic())


@pytest.mark.spec
def test_a_base_voice_that_was_begun_in_another_precision_is_gone_on_with(
    tiny: Tiny, isolated_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_voice, "SENTENCES", 3)
    settings = base_settings(tiny(), files_of(spoken()))
    base_voice.train_base(settings, isolated_cache / f"base-{digest_of(settings, 4)}", 2)
    made = base_voice.base_voice(tiny("fp16_run=True"), load_corpus(tiny()), steps=4)
    assert checkpoint_file.load(made).step == 4 and len([*isolated_cache.glob("base-*/checkpoints")]) == 1


def test_the_recipe_of_a_base_voice_is_the_same_on_all_machines(tiny: Tiny, tmp_path: Path) -> None:
    there = tiny(f"training_files={tmp_path}/train.txt,dataset_path={tmp_path}")
    assert base_recipe(tiny(), steps=4) == base_recipe(there, steps=4) != base_recipe(tiny(), steps=5)
    assert base_recipe(tiny("batch_size=3"), steps=4) != base_recipe(tiny(), steps=4)


def test_a_second_run_waits_for_the_base_that_another_makes(
    tiny: Tiny, isolated_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = threading.Event()
    monkeypatch.setattr(base_voice, "is_made", lambda directory, steps: made.is_set())
    monkeypatch.setattr(base_voice, "train_base", lambda *_, **__: pytest.fail("made twice"))
    directory = isolated_cache / f"base-{digest_of(base_settings(tiny(), files_of(spoken())), 4)}"
    monkeypatch.setattr(base_voice, "SENTENCES", 3)
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING):
        with FileLock(f"{directory}.lock"):
            second = pool.submit(base_voice.base_voice, tiny(), load_corpus(tiny()), steps=4)
            while "waiting for it" not in caplog.text:
                assert not second.done()
                time.sleep(0.05)
            made.set()
        assert second.result(timeout=30) == directory / "checkpoints" / "step_00000004.pt"


@pytest.mark.campaign  # 3000 sentences are spoken before the signal comes
def test_a_signal_reaches_the_base_voice_which_saves_and_ends(tmp_path: Path, isolated_cache: Path) -> None:
    corpus = write_corpus(tmp_path / "data")
    command = [sys.executable, "train.py", "-o", str(tmp_path / "run"), "-l", str(tmp_path / "logs"), "--from-base",
               "--base-steps", "1000000", "--hparams", tiny_settings(corpus)]  # fmt: skip
    parent = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 1200  # on a busy machine
    while not (records := [*isolated_cache.glob("base-*/metrics.jsonl")]) or '"step"' not in records[0].read_text():
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    pid = json.loads(records[0].with_name("run.json").read_text())["pid"]
    parent.terminate()
    assert parent.wait(60) == 143
    assert [*isolated_cache.glob("base-*/checkpoints/step_*.pt")]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
