"""The mel cache: what is made once, what is made again, what is refused, and the corpus built on it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.mel import MelFingerprint, mel_spectrogram
from audio.recordings import read_audio
from common.errors import DataError, UserError
from corpus.filelists import Utterance
from corpus.mel_cache import FeatureSet, build_features, read_mel
from corpus.mel_statistics import MelStats, mel_stats, training_stats
from data_utils import Corpus, load_corpus
from hparams import HParams, create_hparams
from support.paths import REPOSITORY

RATE = 22050


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_tone(path: Path, *, seconds: float = 0.3, hz: float = 220.0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hz * time_s), rate, subtype="PCM_16")
    return path


def utterance(path: Path, line: int = 1) -> Utterance:
    return Utterance(path.stem, path, "hi", None, Path("train.txt"), line)


def build(*paths: Path, settings: str = "") -> FeatureSet:
    return build_features([utterance(path, i) for i, path in enumerate(paths, 1)], create_hparams(settings))


def corpus_hparams(folder: Path, settings: str = "") -> HParams:
    """Three training and one validation recording of different pitch and length."""
    for i in range(4):
        write_tone(folder / f"wavs/{i}.wav", seconds=0.2 + 0.1 * i, hz=200 + 50 * i)
    (folder / "train.txt").write_text("".join(f"wavs/{i}.wav|text {'abc'[i]}\n" for i in range(3)), encoding="utf-8")
    (folder / "val.txt").write_text("wavs/3.wav|other text\n", encoding="utf-8")
    return create_hparams(
        f"training_files={folder}/train.txt,validation_files={folder}/val.txt,dataset_path={folder},{settings}".rstrip(
            ","
        )
    )


# ---- the cache


def test_cached_mel_is_the_mel_of_the_recording(tmp_path: Path) -> None:
    import torch

    audio = create_hparams()
    path = write_tone(tmp_path / "a.wav")
    feature = build(path).features[0]
    expected = mel_spectrogram(torch.from_numpy(read_audio(path, audio)), audio).numpy()
    np.testing.assert_allclose(read_mel(feature.mel_path), expected, atol=1e-5)  # thread counts may differ
    assert feature.n_frames == expected.shape[1]


def test_second_build_makes_nothing_and_gives_the_same_paths(tmp_path: Path) -> None:
    paths = [write_tone(tmp_path / f"{i}.wav", hz=200 + i) for i in range(3)]
    first, second = build(*paths), build(*paths)
    assert (first.n_built, second.n_built) == (3, 0)
    assert first.features == second.features


def test_moved_recording_keeps_its_mel(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav")
    before = build(path).features[0]
    moved = path.rename(tmp_path / "b.wav")
    after = build(moved)
    assert after.n_built == 0
    assert after.features[0].mel_path == before.mel_path


def test_changed_recording_of_the_same_size_gets_a_new_mel(tmp_path: Path) -> None:
    before = build(write_tone(tmp_path / "a.wav", hz=220)).features[0]
    path = write_tone(tmp_path / "a.wav", hz=440)
    os.utime(path, ns=(0, 0))
    assert build(path).features[0].mel_path != before.mel_path


@pytest.mark.parametrize("setting", ["hop_length=200", "mel_fmax=7600", "max_wav_value=30000", "n_mel_channels=40"])
def test_every_setting_that_shapes_a_mel_has_its_own_cache(tmp_path: Path, setting: str) -> None:
    path = write_tone(tmp_path / "a.wav")
    assert build(path).features[0].mel_path != build(path, settings=setting).features[0].mel_path


@pytest.mark.parametrize("n_bytes", [0, 60, 400])
def test_damaged_cache_entry_is_rebuilt_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n_bytes: int
) -> None:
    paths = [write_tone(tmp_path / f"{i}.wav", hz=200 + i) for i in range(2)]
    sound = build(*paths)
    wanted = [read_mel(feature.mel_path).copy() for feature in sound.features]
    for feature in sound.features:
        feature.mel_path.write_bytes(feature.mel_path.read_bytes()[:n_bytes])
    again = build(*paths)
    assert again.n_rebuilt == 2
    assert "2 mel spectrograms in the cache were damaged" in caplog.text
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    for feature, mel in zip(again.features, wanted, strict=True):
        np.testing.assert_array_equal(read_mel(feature.mel_path), mel)


def test_broken_index_costs_only_hashing(tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tone(tmp_path / "a.wav")
    first = build(path)
    (own_cache / "features/index.json").write_text('{"a": 1', encoding="utf-8")
    assert build(path).features == first.features
    assert "what it held is computed again" in caplog.text


@pytest.mark.slow
def test_who_makes_the_first_mels_of_a_process_computes_with_all_threads_afterwards(tmp_path: Path) -> None:
    """PyTorch tells a thread that asks for the first time what was last set anywhere: 1, by the cache's threads."""
    build_first = (
        "import sys; from pathlib import Path; from corpus.mel_cache import build_features; "
        "from corpus.filelists import Utterance; from hparams import create_hparams; "
        "build_features([Utterance('a', Path(sys.argv[1]), 'hi', None, Path('train.txt'), 1)], create_hparams()); "
    )
    tone, tell = write_tone(tmp_path / "a.wav"), "import torch; print(torch.get_num_threads())"
    alone, after = (
        subprocess.run(
            [sys.executable, "-c", code, str(tone)], cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=True,
        ).stdout
        for code in (tell, build_first + tell)
    )  # fmt: skip
    assert after == alone


def test_no_temporary_file_stays_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    build(write_tone(tmp_path / "a.wav"))
    assert [path for path in own_cache.rglob("*.tmp")] == []


def test_cache_that_cannot_be_written_names_its_variable(tmp_path: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder belongs", encoding="utf-8")
    with pytest.raises(UserError, match="TACOTRON2_CACHE"):
        build(write_tone(tmp_path / "a.wav"))


def test_progress_counts_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    utterances = [utterance(write_tone(tmp_path / f"{i}.wav", hz=200 + i)) for i in range(3)]
    build_features(utterances, create_hparams(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- recordings that give no mel


def test_bad_recordings_are_collected_with_their_lines(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no audio at all" * 10)
    infinite = tmp_path / "inf.wav"
    soundfile.write(infinite, np.full(4000, np.inf), RATE, subtype="FLOAT")
    short = write_tone(tmp_path / "short.wav", seconds=1023 / RATE)
    made = build(empty, noise, write_tone(tmp_path / "fine.wav"), infinite, short)
    assert [problem.message.split(": ")[0] for problem in made.problems] == [f"train.txt:{i}" for i in (1, 2, 4, 5)]
    assert [problem.kind for problem in made.problems] == ["unreadable audio"] * 3 + ["too short"]
    assert [feature.utterance.utterance_id for feature in made.features] == ["fine"]


def test_resampled_recordings_are_counted_and_refusable(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav", rate=16000)
    assert build(path).n_resampled == 1
    refused = build(path, settings="resample=False")  # though its mel is in the cache by now
    assert "16000 Hz" in refused.problems[0].message


# ---- statistics


def test_stats_equal_numpy_over_all_values() -> None:
    random = np.random.default_rng(0)
    mels = [random.normal(-5, 2, (80, n)).astype(np.float32) for n in (10, 300, 77)]
    values = np.concatenate([mel.ravel() for mel in mels]).astype(np.float64)
    stats = mel_stats(mels)
    assert stats.mean == pytest.approx(values.mean(), rel=1e-12)
    assert stats.std == pytest.approx(values.std(), rel=1e-10)  # one pass loses a few digits of 16


def test_stats_are_remembered_for_the_set_in_any_order(tmp_path: Path, own_cache: Path) -> None:
    features = build(*(write_tone(tmp_path / f"{i}.wav", hz=200 + i) for i in range(3))).features
    first = training_stats(features, create_hparams())
    for feature in features:
        feature.mel_path.unlink()
    assert training_stats(features[::-1], create_hparams()) == first


def test_stats_of_another_set_are_computed_anew(tmp_path: Path) -> None:
    features = build(write_tone(tmp_path / "a.wav"), write_tone(tmp_path / "b.wav", hz=900)).features
    assert training_stats(features, create_hparams()) != training_stats(features[:1], create_hparams())


def test_digital_silence_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), RATE)
    with pytest.raises(DataError, match="digital silence"):
        training_stats(build(tmp_path / "a.wav").features, create_hparams())


# ---- the corpus


def load(folder: Path, settings: str = "", **options: bool) -> Corpus:
    return load_corpus(corpus_hparams(folder, settings), **options)


def test_corpus_has_both_sets_and_the_training_stats(tmp_path: Path) -> None:
    corpus = load(tmp_path)
    assert (len(corpus.train), len(corpus.validation)) == (3, 1)
    assert corpus.stats == mel_stats(read_mel(feature.mel_path) for feature in corpus.train.features)
    assert corpus.problems == ()


def test_without_normalisation_mels_stay_as_they_are(tmp_path: Path) -> None:
    assert load(tmp_path, "normalize_mel=False").stats == MelStats(0.0, 1.0)


def test_problems_of_both_lists_and_of_recordings_come_in_one_error(tmp_path: Path) -> None:
    hp = corpus_hparams(tmp_path)
    (tmp_path / "train.txt").write_text("wavs/0.wav|fine\nwavs/gone.wav|x\n", encoding="utf-8")
    (tmp_path / "wavs/3.wav").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_corpus(hp)
    message = str(caught.value)
    assert "2 unusable lines in the filelists (1 missing file, 1 empty)" in message
    assert f"{tmp_path}/train.txt:2: " in message
    assert f"{tmp_path}/val.txt:1: " in message
    assert caught.value.exit_code == 3


def test_skip_bad_trains_on_the_rest_and_lists_what_was_left_out(tmp_path: Path) -> None:
    hp = corpus_hparams(tmp_path)
    with (tmp_path / "train.txt").open("a", encoding="utf-8") as filelist:
        filelist.write("wavs/gone.wav|x\n")
    corpus = load_corpus(hp, skip_bad=True)
    assert len(corpus.train) == 3
    assert [problem.kind for problem in corpus.problems] == ["missing file"]


@pytest.mark.parametrize("content", ["", "wavs/gone.wav|x\n"])
def test_list_without_a_usable_utterance_is_an_error_even_when_skipping(tmp_path: Path, content: str) -> None:
    hp = corpus_hparams(tmp_path)
    (tmp_path / "val.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.txt: no usable utterance"):
        load_corpus(hp, skip_bad=True)


def test_missing_filelists_are_named_with_where_the_paths_came_from(tmp_path: Path) -> None:
    hp = create_hparams(f"training_files={tmp_path}/no.txt,validation_files={tmp_path}/neither.txt")
    with pytest.raises(DataError) as caught:
        load_corpus(hp, origins={"training_files": "--hparams"})
    assert f"training_files={tmp_path}/no.txt is no file (set by: --hparams)" in str(caught.value)
    assert f"validation_files={tmp_path}/neither.txt" in str(caught.value)


def test_validation_on_training_recordings_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hp = corpus_hparams(tmp_path)
    (tmp_path / "val.txt").write_text("wavs/0.wav|text a\n", encoding="utf-8")
    load_corpus(hp)
    assert "of the validation recordings are in the training list, too" in caplog.text


def test_one_list_for_both_sets_works(tmp_path: Path) -> None:
    hp = corpus_hparams(tmp_path)
    corpus = load_corpus(hp.model_copy(update={"validation_files": hp.training_files}))
    assert len(corpus.train) == len(corpus.validation) == 3


def test_fingerprint_follows_content_and_texts_but_not_the_place(tmp_path: Path) -> None:
    original = load(tmp_path / "a").fingerprint
    assert load(tmp_path / "b").fingerprint == original
    hp = corpus_hparams(tmp_path / "b")
    write_tone(tmp_path / "b/wavs/0.wav", hz=999)
    assert load_corpus(hp).fingerprint != original
    hp = corpus_hparams(tmp_path / "b")
    (tmp_path / "b/val.txt").write_text("wavs/3.wav|changed text\n", encoding="utf-8")
    assert load_corpus(hp).fingerprint != original


def test_cache_folder_is_named_by_the_fingerprint(tmp_path: Path, own_cache: Path) -> None:
    feature = build(write_tone(tmp_path / "a.wav")).features[0]
    digest = MelFingerprint.of(create_hparams()).digest
    assert feature.mel_path == own_cache / "features" / digest / feature.sha256[:2] / f"{feature.sha256}.npy"


def test_a_recording_changed_under_its_old_size_and_date_gets_a_new_mel(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav", hz=220.0)
    before, status = build(path).features[0].sha256, path.stat()
    write_tone(path, hz=330.0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert build(path).features[0].sha256 != before
