"""What a voice gives for training a vocoder elsewhere: its recordings, with their mels or with those it predicts."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from data_utils import load_corpus
from exporting import __main__ as command
from exporting.vocoder_data import export_vocoder_data, predicted_mel
from speech.vocoders import hifigan_dataset
from speech.voice import Voice
from support.voices import Tiny, save_voice


@pytest.fixture
def voice(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Voice:
    monkeypatch.setattr(hifigan_dataset, "SEGMENT_SAMPLES", 64)  # the recordings of tests are short
    hp = tiny("n_frames_per_step=2")
    save_voice(hp, load_corpus(hp), tmp_path / "run")
    return Voice.load(tmp_path / "run")


def test_recorded_mels_are_the_cached_ones_without_their_last_frame(voice: Voice, tmp_path: Path) -> None:
    made = export_vocoder_data(voice, tmp_path / "out", is_recorded=True)
    corpus = load_corpus(voice.hp)
    assert (made.n_training, made.n_validation, made.too_short) == (len(corpus.train), len(corpus.validation), ())
    for index, feature in enumerate(corpus.train.features):
        written = np.load(tmp_path / "out/mels" / f"{feature.utterance.audio_path.stem}.npy")
        np.testing.assert_array_equal(written, corpus.train[index].mel.numpy()[:, : written.shape[1]])
        assert written.shape[1] >= corpus.train[index].mel.shape[1] - 1


def test_predicted_mels_have_the_recordings_length_and_the_same_seed_the_same_bits(voice: Voice) -> None:
    item = load_corpus(voice.hp).train[0]
    first, again, other = (predicted_mel(voice, item, seed=seed) for seed in (1, 1, 2))
    assert first.shape == item.mel.shape and first.isfinite().all()
    assert first.equal(again) and not first.equal(other) and not first.equal(item.mel)


def test_the_command_writes_what_hifigan_reads_and_says_how_to_go_on(
    voice: Voice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["-c", str(tmp_path / "run"), "-o", str(tmp_path / "out")]) == 0
    names = [line.split("|")[0] for line in (tmp_path / "out/training.txt").read_text().splitlines()]
    assert sorted(names) == sorted(f.utterance.audio_path.stem for f in load_corpus(voice.hp).train.features)
    files = [f for name in names for f in (f"wavs/{name}.wav", f"mels/{name}.npy")]
    assert all((tmp_path / "out" / file).is_file() for file in files)
    assert "--fine_tuning True" in capsys.readouterr().out


def test_lines_that_training_left_out_can_be_left_out_here(
    voice: Voice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text(Path(voice.hp.training_files).read_text() + "wavs/nowhere.wav|not there\n")
    command_line = ["-c", str(tmp_path / "run"), "-o", str(tmp_path / "out"), "--training-files", str(bad)]
    assert command.main(command_line) == 3 and "leave them out by --skip-bad-data" in capsys.readouterr().err
    assert command.main([*command_line, "--skip-bad-data"]) == 0
    assert len((tmp_path / "out/training.txt").read_text().splitlines()) == 5


def test_lists_that_are_gone_are_named_both_at_once(voice: Voice, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.csv is not there: .*--training-files\n.*b\.csv .*--validation-files"):
        export_vocoder_data(
            voice, tmp_path / "out", training_files=tmp_path / "a.csv", validation_files=tmp_path / "b.csv"
        )
    assert not (tmp_path / "out").exists()
