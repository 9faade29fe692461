"""A whole evaluation: sources, files, pages, refusals; with the judges that are installed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import evaluate
from common.errors import DataError, UserError
from data_utils import load_corpus
from evaluation.blind_test import write_blind_test
from evaluation.chosen_list import chosen_list
from evaluation.judge import Judgement, Judges, judge
from evaluation.page import write_page
from evaluation.table import MEASURES, as_json, as_text
from hparams import HParams
from listeners.recogniser import lacks
from run_directory.run_info import write_run_info
from speech.voice import Speaker
from support.corpora import write_corpus
from support.voices import save_voice

Tiny = Callable[..., HParams]


@pytest.fixture
def voice(tiny: Tiny, tmp_path: Path) -> Path:
    hp = tiny()
    save_voice(hp, load_corpus(hp), tmp_path / "voice")
    return tmp_path / "voice"


@pytest.fixture(scope="module")
def judged_once(tiny: Tiny, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Judgement, Path]:
    """Two voices judged, and the folder of sounds and pictures."""
    folder, hp = tmp_path_factory.mktemp("judged"), tiny()
    for seed, name in enumerate(("voice", "other"), start=1):
        save_voice(hp, load_corpus(hp), folder / name, seed=seed)
    judgement = judge(
        folder / "voice", filelist=corpus_folder / "val.txt", dataset_path=corpus_folder, output=folder / "out", n=2,
        seeds=[1, 2], against=[folder / "other"],
    )  # fmt: skip
    return judgement, folder / "out"


@pytest.fixture
def judged(judged_once: tuple[Judgement, Path], tmp_path: Path) -> Judgement:
    """With a copy of its folder."""
    shutil.copytree(judged_once[1], tmp_path / "out")
    return judged_once[0]


def test_every_source_says_every_text_and_is_summed_up(judged: Judgement) -> None:
    assert list(judged.estimates) == ["voice", "other", "copy-synthesis", "recordings"]
    assert [(row["id"], row["seed"]) for row in judged.rows] == [("5", 1), ("6", 1), ("5", 2), ("6", 2)]
    assert judged.step == 3
    assert all(np.isfinite(value) for value in judged.summary.values())
    assert judged.estimates["voice"]["mel_distance"].value != judged.estimates["other"]["mel_distance"].value
    assert judged.estimates["recordings"] == {}  # nobody was asked about sounds


def test_the_sounds_of_all_lie_beside_the_pictures(judged: Judgement, tmp_path: Path) -> None:
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "5.png", "5.wav", "6.png", "6.wav", "copy_synthesis/5.wav", "copy_synthesis/6.wav",
        "other/5.wav", "other/6.wav", "recordings/5.wav", "recordings/6.wav",
    ]  # fmt: skip
    same, rate = soundfile.read(tmp_path / "out/recordings/5.wav")
    assert rate == 8000 and np.abs(same).max() == pytest.approx(0.5, abs=0.01)  # the recorded tone


def test_the_page_holds_the_table_and_every_sound_and_nothing_from_outside(judged: Judgement, tmp_path: Path) -> None:
    page = write_page(judged, tmp_path / "out", "en").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * 4 and page.count("<img") == 2
    assert "mel distance" in page and "copy-synthesis" in page and "unheard" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "<script" not in page
    assert "\u043a\u043e\u043f" not in page  # English is English
    assert "\u0440\u0430\u0441\u0441\u0442\u043e\u044f\u043d\u0438\u0435" in write_page(
        judged, tmp_path / "out", "ru"
    ).read_text(encoding="utf-8")


def test_the_blind_test_holds_every_pair_and_no_text_acts(judged: Judgement, tmp_path: Path) -> None:
    page = write_blind_test(judged, tmp_path / "out", "en").read_text(encoding="utf-8")
    trial = json.loads(re.search(r'id="trial">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert trial["sources"] == ["voice", "other", "copy-synthesis", "recordings"]
    assert [len(text["sounds"]) for text in trial["texts"]] == [4, 4]
    assert trial["asked"] == [{"text": 0, "pair": [0, 1]}, {"text": 1, "pair": [0, 2]}]


def test_the_text_table_and_the_json_tell_the_same(judged: Judgement) -> None:
    table, content = as_text(judged), as_json(judged)
    value = content["sources"]["voice"]["mel_distance"]
    assert f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" in table
    assert content["mel_distance"] == value["value"]
    assert table.startswith("4 readings of 2 texts, checkpoint of step 3\n")
    assert {name for source in content["sources"].values() for name in source} <= {m.name for m in MEASURES}


def test_voices_are_enhanced_where_asked_and_recordings_never_are(
    judged: Judgement, corpus_folder: Path, voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, out = tmp_path / "out", tmp_path / "enhanced"
    command = ["-c", str(voice), "--filelist", str(corpus_folder / "val.txt"), "--dataset-path", str(corpus_folder)]
    assert evaluate.main([*command, "-n", "1", "--seed", "1", "--enhanced", "-o", str(out)]) == 0
    assert "voices are enhanced as synthesize.py does it" in capsys.readouterr().out
    assert (out / "5.wav").read_bytes() != (plain / "5.wav").read_bytes()
    for kept in ("copy_synthesis/5.wav", "recordings/5.wav"):
        assert (out / kept).read_bytes() == (plain / kept).read_bytes()


def test_several_vocoders_are_told_apart(voice: Path, corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows other mels than the voice makes"):  # 22 kHz beside 8 kHz
        judge(
            voice, filelist=corpus_folder / "val.txt", dataset_path=None, output=tmp_path / "out", n=1, seeds=[1],
            vocoders=["griffin-lim", "universal"],
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_missing_filelist_is_a_data_error(voice: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        judge(voice, filelist=tmp_path / "no.txt", dataset_path=None, output=tmp_path, n=1, seeds=[1])


def test_lines_that_cannot_be_used_are_left_out_if_asked(
    voice: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    bad, out = tmp_path / "bad.csv", str(tmp_path / "out")
    bad.write_text((corpus_folder / "val.txt").read_text() + "wavs/nowhere.wav|not there\n")
    command = ["-c", str(voice), "--filelist", str(bad), "--dataset-path", str(corpus_folder), "-o", out]
    assert evaluate.main(command) == 3
    assert "bad.csv:3: " in (said := capsys.readouterr().err) and "leave them out by --skip-bad-data" in said
    assert evaluate.main([*command, "--skip-bad-data"]) == 0
    assert "--skip-bad-data left out 1 lines, the first: " in caplog.text


@pytest.mark.slow
def test_folders_that_were_trusted_in_training_are_trusted_in_judging(tiny: Tiny, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "elsewhere")
    (tmp_path / "lists").mkdir()
    for name in ("train", "val"):
        lines = (corpus / f"{name}.txt").read_text().replace("wavs/", f"{corpus}/wavs/")
        (tmp_path / "lists" / f"{name}.txt").write_text(lines)
    lists = tmp_path / "lists"
    files = f"training_files={lists}/train.txt,validation_files={lists}/val.txt,dataset_path={lists}"
    hp, voice = tiny(f"{files},data_roots=[{corpus}]"), tmp_path / "voice"
    save_voice(hp, load_corpus(hp), voice)
    for filelist in (None, lists / "val.txt"):
        judged = judge(voice, filelist=filelist, dataset_path=None, output=tmp_path / "out", n=2, seeds=[1])
        assert [row["id"] for row in judged.rows] == ["5", "6"]


@pytest.mark.slow
def test_without_a_list_a_voice_is_judged_on_its_own_validation_list(
    voice: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint,) = (voice / "checkpoints").glob("*.pt")
    for named in (voice, checkpoint):
        assert evaluate.main(["-c", str(named), "-o", str(tmp_path / "out")]) == 0
        printed = capsys.readouterr().out
        assert f"on {corpus_folder}/val.txt, by which training chose its best checkpoint" in printed
        texts = json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))["texts"]
        assert [row["id"] for row in texts] == ["5", "6"]


def test_a_relative_validation_list_is_found_where_the_voice_was_trained(
    tiny: Tiny, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus_folder)
    hp = tiny("validation_files=val.txt,dataset_path=.")
    voice = tmp_path / "voice"
    save_voice(hp, load_corpus(hp), voice)
    write_run_info(voice, hp, data="train.txt")
    monkeypatch.chdir(tmp_path)
    chosen = chosen_list(voice, Speaker.load(voice), None, None)
    assert chosen.path == corpus_folder / "val.txt" and chosen.dataset_path == corpus_folder


def test_a_voice_whose_list_is_gone_is_not_judged_on_the_demo_unasked(
    tiny: Tiny, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], isolated_cache: Path
) -> None:
    own_list = tmp_path / "mine.txt"
    own_list.write_text((corpus_folder / "val.txt").read_text())
    hp = tiny(f"validation_files={own_list}")
    save_voice(hp, load_corpus(hp), tmp_path / "voice")
    own_list.unlink()
    assert evaluate.main(["-c", str(tmp_path / "voice"), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{own_list}, is not there any more; name recordings of its own speaker" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists() and not list(isolated_cache.glob("demo-*"))


def test_a_voice_is_not_compared_with_itself(voice: Path, corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names a voice twice"):
        judge(
            voice, filelist=corpus_folder / "val.txt", dataset_path=None, output=tmp_path / "o", n=1, seeds=[1],
            against=[voice / "../voice"],
        )  # fmt: skip


needs_recogniser = pytest.mark.skipif(bool(lacks("en")), reason="pip install -r requirements-eval.txt")


@pytest.mark.slow
@needs_recogniser
def test_phonemes_are_compared_by_their_words_or_not_at_all(voice: Path, corpus_folder: Path, tmp_path: Path) -> None:
    spoken = tmp_path / "spoken.txt"
    spoken.write_text("wavs/5.wav|unheard, {AH0 N}\nwavs/6.wav|not heard\n")
    asked = {
        "filelist": spoken, "dataset_path": corpus_folder, "output": tmp_path / "out", "n": 2, "seeds": [1],
        "judges": Judges(words=True),
    }  # fmt: skip
    with pytest.raises(DataError, match=r"1 texts hold phonemes(.|\n)*spoken\.txt:1: unheard, \{AH0 N\}"):
        judge(voice, **asked)
    judged = judge(voice, words=corpus_folder / "val.txt", **asked)
    assert [row["text"] for row in judged.rows] == ["unheard", "not heard"]
    assert {"wer", "cer", "wer_recordings", "wer_copy_synthesis", "repeated_words"} <= judged.summary.keys()
    assert any("words heard by Whisper tiny.en" in note for note in judged.notes)


@needs_recogniser
def test_a_language_without_a_recogniser_is_refused_before_anything_is_said(
    tiny: Tiny, tmp_path: Path, corpus_folder: Path
) -> None:
    hp = tiny("language=gn,symbol_set=corpus")
    corpus = load_corpus(hp)
    save_voice(hp.model_copy(update={"n_symbols": len(corpus.front_end.table)}), corpus, tmp_path / "voice")
    with pytest.raises(UserError, match="no words can be heard in language=gn"):
        judge(
            tmp_path / "voice", filelist=corpus_folder / "val.txt", dataset_path=None, output=tmp_path / "out", n=1,
            seeds=[1], judges=Judges(words=True),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_words_that_nothing_would_compare_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["-c", "run", "--words", "words.csv"]) == 2
    assert "--words needs --asr or --full" in capsys.readouterr().err
