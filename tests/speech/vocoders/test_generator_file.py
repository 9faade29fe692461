"""Generator files: both spellings of weight norm, strictness, and files that are something else."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn.utils import remove_weight_norm, weight_norm
from torch.nn.utils.parametrizations import weight_norm as parametrized_weight_norm

from common.errors import UserError
from speech.vocoders.generator_file import folded, read_generator_tensors
from speech.vocoders.vocoder import load_vocoder
from support.vocoders import SMALL_MEL, golden, write_generator, write_golden

LAYERS = (nn.Conv1d(3, 5, 7), nn.ConvTranspose1d(4, 6, 8))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("layer", LAYERS, ids=["Conv1d", "ConvTranspose1d"])
def test_both_spellings_of_weight_norm_fold_to_the_weight_torch_uses(layer: nn.Module) -> None:
    older = weight_norm(layer)
    with torch.no_grad():
        older.weight_g.mul_(1.7)
    expected_names = {"weight", "bias"}
    older_folded = folded(older.state_dict())
    remove_weight_norm(older)
    assert set(older_folded) == expected_names
    torch.testing.assert_close(older_folded["weight"], older.weight)

    newer = parametrized_weight_norm(layer)
    with torch.no_grad():
        newer.parametrizations.weight.original0.mul_(0.3)
    newer_folded = folded(newer.state_dict())
    assert set(newer_folded) == expected_names
    torch.testing.assert_close(newer_folded["weight"], newer.weight)


def renamed_newer(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    spelling = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        name if name.rpartition(".")[2] not in spelling else f"{name.rpartition('.')[0]}.{spelling[name[-8:]]}": tensor
        for name, tensor in tensors.items()
    }


def test_older_newer_and_removed_weight_norm_make_the_same_sound(tmp_path: Path) -> None:
    config, tensors, mel, _ = golden("bigvgan_v1")
    spellings = {"older": tensors, "newer": renamed_newer(tensors), "removed": folded(tensors)}
    assert len({tuple(sorted(each)) for each in spellings.values()}) == 3
    sounds = [
        load_vocoder(write_generator(tmp_path / name, config, each), SMALL_MEL)(mel) for name, each in spellings.items()
    ]
    assert torch.equal(sounds[0], sounds[1])
    assert torch.equal(sounds[0], sounds[2])


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    config, tensors, mel, _ = golden("hifigan_block2")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    sound = load_vocoder(write_generator(tmp_path, config, halves), SMALL_MEL, precision="fp32")(mel)
    assert sound.dtype == torch.float32
    expected = load_vocoder(write_generator(tmp_path, config, tensors), SMALL_MEL, precision="fp32")(mel)
    torch.testing.assert_close(sound, expected, rtol=0, atol=5e-3)


def test_each_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    config, tensors, _, _ = golden("hifigan_block1")
    del tensors["ups.0.weight_g"], tensors["resblocks.1.convs2.0.bias"]
    tensors["conv_post.weight_v"] = torch.ones(1, 4, 7)
    tensors["conv_pre.bias"] = torch.full((8,), float("nan"))
    tensors["extra.weight"] = torch.ones(2)
    with pytest.raises(UserError, match="does not fit .*config.json") as caught:
        load_vocoder(write_generator(tmp_path, config, tensors), SMALL_MEL)
    for part in (
        "ups.0.weight is missing",
        "ups.0.weight_v is not part of such a generator",
        "resblocks.1.convs2.0.bias is missing",
        "conv_post.weight is [1, 4, 7], but the configuration makes it [1, 2, 7]",
        "conv_pre.bias holds NaN or infinity",
        "extra.weight is not part of such a generator",
        "(6 problem(s))",
    ):
        assert part in str(caught.value)


def test_another_generators_configuration_names_the_shapes_that_differ(tmp_path: Path) -> None:
    config, tensors, _, _ = golden("hifigan_block1")
    path = write_generator(tmp_path, {**config, "upsample_initial_channel": 16}, tensors)
    with pytest.raises(UserError, match=r"conv_pre.weight is \[8, 80, 7\], but .* makes it \[16, 80, 7\]"):
        load_vocoder(path, SMALL_MEL)


@pytest.fixture
def waveglow_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As NVIDIA publishes it: {"model": the pickled module of a class in glow.py}."""
    glow = ModuleType("glow")
    monkeypatch.setitem(sys.modules, "glow", glow)
    glow.WaveGlow = type("WaveGlow", (nn.Module,), {"__module__": "glow"})
    path = tmp_path / "waveglow_256channels_universal_v5.pt"
    torch.save({"model": glow.WaveGlow()}, path)
    return path


def test_a_pickled_waveglow_is_not_opened_and_hifigan_is_advised(waveglow_file: Path) -> None:
    with pytest.raises(UserError, match="WaveGlow's file is pickled program code.*isn't opened; HiFi-GAN"):
        load_vocoder(waveglow_file, SMALL_MEL)


class Trap:
    """Runs when unpickled by anyone who lets code run."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path(Trap.mark),))

    mark = ""


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trap, "mark", str(tmp_path / "ran"))
    path = tmp_path / "g_1"
    torch.save({"generator": Trap()}, path)
    with pytest.raises(UserError, match="it holds pickled program code .*so it isn't opened"):
        load_vocoder(path, SMALL_MEL)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap works


FOREIGN = {
    "WaveGlow": {"state_dict": {"WN.0.in_layers.0.weight": torch.ones(1)}},
    "Vocos": {"backbone.embed.weight": torch.ones(1), "head.out.weight": torch.ones(1)},
    "ParallelWaveGAN": {"model": {"generator": {}, "discriminator": {}}, "steps": 1},
    "Coqui TTS": {"model": {"conv_pre.weight_v": torch.ones(1)}, "model_disc": {}},
    "do_\\*": {"mpd": {}, "msd": {}, "optim_g": {}, "optim_d": {}},
    "no 'generator' in it \\(it holds: weights\\)": {"weights": torch.ones(1)},
    "it holds a list": [torch.ones(1)],
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_another_programs_file_is_recognised_and_refused(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(FOREIGN[reason], path)
    with pytest.raises(UserError, match=reason):
        load_vocoder(path, SMALL_MEL)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_a_users_mistake(share: float, tmp_path: Path) -> None:
    path = write_golden(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="can't be read as a PyTorch file"):
        load_vocoder(path, SMALL_MEL)


def test_text_instead_of_a_file_of_weights_is_a_users_mistake(tmp_path: Path) -> None:
    path = tmp_path / "g_1"
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="can't be read as a PyTorch file"):
        load_vocoder(path, SMALL_MEL)


def test_a_missing_file_and_a_folder_say_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; --vocoder takes griffin-lim, universal, lj, or"):
        load_vocoder(tmp_path / "absent", SMALL_MEL)
    write_golden(tmp_path)
    with pytest.raises(UserError, match="is a folder; name the generator's file in it: g_00000001"):
        load_vocoder(tmp_path, SMALL_MEL)


def test_a_generator_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g_1"
    torch.save({"generator": {"conv_pre.weight": 3}}, path)
    with pytest.raises(UserError, match="not tensors under 'generator': conv_pre.weight"):
        read_generator_tensors(path)
