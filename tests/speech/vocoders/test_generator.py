"""Our generators against the authors' own output, how far they look, and what a config.json must hold."""

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from speech.vocoders.generator import Generator, Reach
from speech.vocoders.generator_config import GeneratorConfig, read_generator_config
from speech.vocoders.generator_file import build_generator, read_generator_tensors
from speech.vocoders.vocoder import load_vocoder
from support.vocoders import GOLDENS, SMALL_MEL, golden, write_generator, write_golden


def generator_of(path: Path) -> Generator:
    config = read_generator_config(path.with_name("config.json"))
    return build_generator(config, read_generator_tensors(path), path=path)


@pytest.mark.parametrize("name", GOLDENS)
def test_a_generator_sounds_as_the_authors_code_does(name: str, tmp_path: Path) -> None:
    # golden: jik876/hifi-gan (Oct 2020) and NVIDIA/BigVGAN v2.4 with random weights, weight norm not removed
    _, _, mel, expected = golden(name)
    sound = generator_of(write_golden(tmp_path, name))(mel)
    assert expected.abs().max() > 0.25  # neither silent nor, as most of it, at the limit
    torch.testing.assert_close(sound, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDENS)
def test_sound_depends_on_the_reach_and_on_nothing_beyond(name: str, tmp_path: Path) -> None:
    generator = generator_of(write_golden(tmp_path, name)).double()
    frame, hop, reach = 40, generator.config.hop_size, generator.reach
    mel = (torch.randn(1, 80, 81, dtype=torch.float64) * 2 - 4).requires_grad_()
    generator(mel)[0, frame * hop : (frame + 1) * hop].square().sum().backward()
    assert mel.grad is not None
    touched = mel.grad[0].abs().sum(0).nonzero().flatten()
    assert int(touched[0]) == frame - reach.before
    assert int(touched[-1]) == frame + reach.after


@pytest.mark.parametrize("name", GOLDENS)
def test_frames_that_are_only_context_change_nothing(name: str, tmp_path: Path) -> None:
    generator = generator_of(write_golden(tmp_path, name))
    mel, hop = torch.randn(2, 80, 70) * 2 - 4, generator.config.hop_size
    whole = generator(mel)
    reach = generator.reach
    for first, last in ((30, 36), (30, 31), (3, 60)):  # in the last the context is the true beginning
        before = min(first, reach.before)
        part = mel[:, :, first - before : last + reach.after]
        context = Reach(before, part.shape[-1] - before - (last - first))
        torch.testing.assert_close(generator(part, context), whole[:, first * hop : last * hop], rtol=0, atol=1e-6)


def test_the_published_shapes_have_the_published_number_of_weights() -> None:
    rates = {"upsample_rates": (8, 8, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4)}
    blocks = {"resblock_kernel_sizes": (3, 7, 11), "resblock_dilation_sizes": ((1, 3, 5),) * 3}
    mel = {"num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22050}
    common = {**rates, **blocks, **mel, "fmin": 0, "fmax": 8000, "resblock": "1"}
    v3 = {
        **common, "resblock": "2", "upsample_rates": (8, 8, 4), "upsample_kernel_sizes": (16, 16, 8),
        "resblock_kernel_sizes": (3, 5, 7), "resblock_dilation_sizes": ((1, 2), (2, 6), (3, 12)),
    }  # fmt: skip
    # millions, from the HiFi-GAN paper (table 1)
    for config, channels, expected in ((common, 512, 13.92), (common, 128, 0.92), (v3, 256, 1.46)):
        with torch.device("meta"):
            generator = Generator(GeneratorConfig.model_validate({**config, "upsample_initial_channel": channels}))
        assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(expected, abs=0.02)


def test_every_problem_of_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    path = write_golden(
        tmp_path,
        upsample_rates=[4, 3],
        upsample_kernel_sizes=[8, 4],
        resblock_kernel_sizes=[4],
        resblock_dilation_sizes=[[1], [2]],
        upsample_initial_channel=6,
        activation="snake",
    )
    with pytest.raises(UserError, match=r"config.json is no configuration.*: 6 problem") as caught:
        load_vocoder(path, SMALL_MEL)
    for part in (
        "upsample_kernel_sizes: 4 must exceed its rate 3 by an even number",
        "1 resblock_kernel_sizes but 2 resblock_dilation_sizes",
        "resblock_kernel_sizes: 4 must be odd",
        "upsample_initial_channel=6 can't be halved 2 times",
        "hop_size=8 but the product of upsample_rates is 12",
        "activation=snake needs snake_logscale",
    ):
        assert part in str(caught.value)


def test_missing_and_impossible_settings_are_named_at_once(tmp_path: Path) -> None:
    config, tensors, _, _ = golden("hifigan_block1")
    del config["fmin"], config["resblock"]
    path = write_generator(tmp_path, {**config, "hop_size": -1, "activation": "gelu"}, tensors)
    with pytest.raises(UserError, match="4 problem") as caught:
        load_vocoder(path, SMALL_MEL)
    for part in ("fmin is missing", "resblock is missing", "hop_size=-1", "activation='gelu'"):
        assert part in str(caught.value)


def test_a_missing_configuration_says_what_to_copy(tmp_path: Path) -> None:
    path = write_golden(tmp_path)
    path.with_name("config.json").unlink()
    with pytest.raises(UserError, match=r"config.json is missing: .*config_v1.json"):
        load_vocoder(path, SMALL_MEL)


def test_a_configuration_that_is_no_json_is_a_users_mistake(tmp_path: Path) -> None:
    path = write_golden(tmp_path)
    path.with_name("config.json").write_text("resblock: 1\n")
    with pytest.raises(UserError, match="can't be read as JSON"):
        load_vocoder(path, SMALL_MEL)
    path.with_name("config.json").write_text("[1]")
    with pytest.raises(UserError, match="is no configuration of a HiFi-GAN"):
        load_vocoder(path, SMALL_MEL)
