"""export.py as a person meets it; what its files hold is tested beside their code."""

from pathlib import Path

import pytest

import export
import synthesize
from checkpointing import exported_voice
from data_utils import load_corpus
from support.voices import Tiny, save_voice


@pytest.fixture(scope="module")
def voice(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hp = tiny()
    return save_voice(hp, load_corpus(hp), tmp_path_factory.mktemp("voice"))


def test_one_file_speaks_as_the_checkpoint_does(
    voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "anna.safetensors"
    assert export.main(["-c", str(voice), "-o", str(path), "--licence", "CC0"]) == 0
    out = capsys.readouterr().out
    assert "anna.safetensors: 0." in out and "add --origin" in out
    assert exported_voice.read_card(path)["licence"] == "CC0"
    sounds = []
    for i, checkpoint in enumerate((voice, path)):
        wav = tmp_path / f"{i}.wav"
        quick = ["--no-pictures", "--griffin-lim-iterations", "1"]
        assert synthesize.main(["-c", str(checkpoint), "hi there", "-o", str(wav), *quick]) == 0
        sounds.append(wav.read_bytes())
    assert sounds[0] == sounds[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "a.pt"), "-o a.pt: the suffix must be .safetensors, or .zip for ONNX"),
        (("-o", "a.safetensors", "--int8"), "--int8 and --vocoder are for ONNX"),
        (("-o", "a.zip", "--vocoder", "absent.pth"), "absent.pth: no such file"),
        (("-o", "a.safetensors", "--evaluation", "absent"), "--evaluation absent: not written by evaluate.py"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    voice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main(["-c", str(voice), *arguments]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
