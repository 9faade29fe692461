"""Style and speakers as a person meets them: two steps of training, then each switch of synthesize.py."""

from pathlib import Path

import pytest
import soundfile
import torch

import evaluate
import synthesize
import train
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from data_utils import load_corpus
from hparams import create_hparams
from model import Tacotron2
from run_directory.metrics_log import read_metrics
from support.commands import run
from support.corpora import TINY, write_corpus
from training.options import Options
from training.resume import load_initial_weights

NAMES = ("anna", "bert")
STYLE = "use_gst=True,ref_enc_filters=[4,4],token_embedding_size=8,token_num=3,num_heads=2,max_decoder_steps=30"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ (two speakers), and a voice with style tokens after two steps in output/."""
    cwd = tmp_path_factory.mktemp("styled")
    data = write_corpus(cwd / "data")
    for name in ("train", "val"):
        lines = (data / f"{name}.txt").read_text().splitlines()
        (data / f"{name}.txt").write_text("".join(f"{line}|{NAMES[i % 2]}\n" for i, line in enumerate(lines)))
    done = run("train.py", "-o", "output", "-l", "logs", "--max-steps", "2", "--hparams", hparams_of(cwd), cwd=cwd,
               cache=cwd / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cwd


def hparams_of(cwd: Path) -> str:
    analysed = TINY.replace("validation_attention_analysis=False", "validation_attention_analysis=True")
    data = f"training_files={cwd}/data/train.txt,validation_files={cwd}/data/val.txt,dataset_path={cwd}/data"
    return f"{analysed},{STYLE},{data}"


def say(trained: Path, output: Path, *switches: str, step: str = "output") -> int:
    return synthesize.main(["hi", "-c", str(trained / step), "-o", str(output), "--no-pictures",
                            "--griffin-lim-iterations", "2", *switches])  # fmt: skip


def test_training_records_the_style_loss_and_speaks_in_validation(trained: Path) -> None:
    step, validation = read_metrics(trained / "output")
    assert step["losses"]["style"] > 0 and validation["losses"]["style"] > 0
    assert "alignment" in validation["free_running"]
    assert checkpoint_file.load(checkpoint_dir.resolve(trained / "output")).voice.speakers == ["anna", "bert"]


def test_every_switch_speaks_in_its_own_way(trained: Path, tmp_path: Path) -> None:
    switches = {
        "anna": ["--speaker", "anna"],
        "bert": ["--speaker", "bert"],
        "from": ["--speaker", "anna", "--style-from", str(trained / "data/wavs/4.wav")],
        "token": ["--speaker", "anna", "--style-token", "2"],
        "weighed": ["--speaker", "anna", "--style-token", "2", "--style-weight", "-40"],
    }
    sounds = {}
    for name, chosen in switches.items():
        assert say(trained, tmp_path / f"{name}.wav", *chosen) == 0
        sounds[name] = soundfile.read(tmp_path / f"{name}.wav")[0].tobytes()
    assert len(set(sounds.values())) == len(switches)


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ([], "this voice has several speakers; choose one: --speaker anna | bert"),
        (["--speaker", "carl"], "--speaker carl: no such speaker; the voice has anna, bert"),
        (["--speaker", "anna", "--style-token", "3"], "--style-token 3: the voice has the tokens 0 to 2"),
        (["--speaker", "anna", "--style-weight", "2"], "--style-weight is the weight of a --style-token"),
        (["--speaker", "anna", "--style-token", "1", "--style-weight", "nan"], "must be a finite number"),
        (["--speaker", "anna", "--style-from", "absent.wav"], "absent.wav"),
    ],
)
def test_what_cannot_be_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], switches: list[str], expected: str
) -> None:
    assert say(trained, tmp_path / "no.wav", *switches) in (2, 3)
    assert expected in capsys.readouterr().err and not (tmp_path / "no.wav").exists()


def test_a_plain_voice_has_neither_style_nor_speakers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus_folder: Path
) -> None:
    from training.voice_info import voice_info_of

    data = f"training_files={corpus_folder}/train.txt,validation_files={corpus_folder}/val.txt"
    hp = create_hparams(f"{TINY},{data},dataset_path={corpus_folder}")
    checkpoint_dir.save(
        Checkpoint(1, Tacotron2(hp).state_dict(), voice_info_of(hp, load_corpus(hp))),
        tmp_path / "checkpoints",
    )
    for switches, expected in (
        (["--speaker", "anna"], "this voice was trained without speaker names"),
        (["--style-token", "0"], "--style-token: this voice has no style tokens; train one with use_gst=True"),
        (["--style-from", str(corpus_folder / "wavs/0.wav")], "--style-from: this voice has no style tokens"),
    ):
        assert say(tmp_path, tmp_path / "no.wav", *switches, step=".") == 2
        assert expected in capsys.readouterr().err


@pytest.mark.spec
def test_evaluation_takes_the_speakers_of_the_list(trained: Path, tmp_path: Path) -> None:
    filelist = str(trained / "data" / "val.txt")
    assert evaluate.main(["-c", str(trained / "output"), "--filelist", filelist, "-o", str(tmp_path)]) == 0
    assert (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("switches", "left_out"),
    [
        ([], set()), (["--ignore-gst-layers"], {"gst"}), (["--ignore_tsgst_layers"], {"tpgst"}),
        (["--ignore-gst-layers", "--ignore-tsgst-layers"], {"gst", "tpgst"}),
    ],
)  # fmt: skip
def test_a_warm_start_leaves_out_what_it_is_told(trained: Path, switches: list[str], left_out: set[str]) -> None:
    hp = create_hparams(hparams_of(trained))
    torch.manual_seed(77)
    model, path = Tacotron2(hp, n_speakers=2), checkpoint_dir.resolve(trained / "output")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    prefixes = train.ignored_prefixes(train.parser().parse_args(["--warm-start", *switches]), hp)
    options = Options(checkpoint=path, warm_start=True, ignore_prefixes=prefixes)
    assert load_initial_weights(path, model, hp, load_corpus(hp), options) is None
    theirs = checkpoint_file.load(path).model
    for key, tensor in model.state_dict().items():
        expected = before if key.split(".")[0] in left_out else theirs
        assert torch.equal(tensor, expected[key]), key


def test_leaving_out_means_nothing_without_a_warm_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--ignore-gst-layers", "-o", "nowhere"]) == 2
    assert "--ignore-gst-layers needs --warm-start" in capsys.readouterr().err
