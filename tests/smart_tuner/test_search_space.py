"""What is searched: config.yaml's ranges, narrowed by presets and files, fixed by --hparams."""

from pathlib import Path

import pytest

from common.errors import UserError
from hparams import resolve_hparams
from settings.presets import preset_names
from smart_tuner.config_check import check_narrowed
from smart_tuner.optimization_engine import checked_space
from smart_tuner.search_space import Choices, Range, acts, first_trial, search_space
from smart_tuner.settings import Layers

TEN = {
    "batch_size", "learning_rate", "warmup_steps", "use_guided_attn", "guide_loss_weight", "p_attention_dropout",
    "gate_threshold", "dropout_rate", "postnet_dropout_rate",
}  # fmt: skip


def layer(tmp_path: Path, text: str) -> Layers:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return Layers(hparams_file=path)


def test_the_ten_of_the_config_are_searched_and_epochs_are_the_budget() -> None:
    space = search_space(resolve_hparams())
    assert set(space.ranges) == TEN and space.budget == Range(50, 300, "integer")
    assert space.ranges["batch_size"] == Choices((8, 16, 24, 32, 48))


def test_what_hparams_sets_is_fixed_also_under_an_alias() -> None:
    space = search_space(resolve_hparams(overrides="batch_size=4,guided_attention_enabled=True,epochs=2"))
    assert set(space.ranges) == TEN - {"batch_size", "use_guided_attn"} and space.budget is None


def test_what_a_preset_or_file_sets_is_only_where_the_search_begins(tmp_path: Path) -> None:
    settings = resolve_hparams(**vars(layer(tmp_path, "learning_rate: 0.002\nbatch_size: 5\n")))
    space = search_space(settings)
    assert {"learning_rate", "batch_size"} <= set(space.ranges)
    first = first_trial(space, settings.hparams)
    assert first["learning_rate"] == 0.002
    assert "batch_size" not in first, "5 is no choice, so the sampler draws it"


def test_a_search_section_replaces_adds_and_takes_out(tmp_path: Path) -> None:
    text = "search:\n  batch_size: {choices: [2, 4]}\n  weight_decay: {low: 1.0e-7, high: 1.0e-4, scale: log}\n"
    space = search_space(resolve_hparams(**vars(layer(tmp_path, text + "  guided_attention_enabled: null\n"))))
    assert space.ranges["batch_size"] == Choices((2, 4)) and "weight_decay" in space.ranges
    assert set(space.ranges) == TEN - {"use_guided_attn"} | {"weight_decay"}


def test_the_demo_warms_up_within_its_budget() -> None:
    space = search_space(resolve_hparams(preset="demo"))
    warm, budget = space.ranges["warmup_steps"], space.budget
    assert isinstance(warm, Range) and budget is not None
    assert warm.high < budget.high * 620 / 32, "fewer steps than the shortest trial has (620 utterances by 32)"


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_narrows_to_values_that_it_allows(preset: str) -> None:
    assert check_narrowed(f"preset {preset}", preset=preset) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {batch_size: {choices: [8]}}", "batch_size: choices must be a list of at least two"),
        ("search: {batch_size: {choices: [0, 8]}}", "batch_size: choices 0 must be int"),
        ("search: {epochs: {choices: [2, 8]}}", "epochs: needs `low`, `high` and `scale`"),
        ("learning_rate_min: 0.001\nsearch: {learning_rate: {low: 0.0001, high: 0.01, scale: log}}",
         "learning_rate: low 0.0001 does not fit"),
        ("search: {batch_size: {choices: [8, 16], default: 8}}", "batch_size: default 8, but search has 48"),
    ],
)  # fmt: skip
def test_a_wrong_range_is_refused_before_anything_runs(tmp_path: Path, text: str, message: str) -> None:
    layers = layer(tmp_path, text)
    with pytest.raises(UserError) as refused:
        checked_space(layers, resolve_hparams(**vars(layers)))
    assert message in str(refused.value)


def test_a_range_that_the_fixed_values_break_is_refused() -> None:
    layers = Layers(overrides="learning_rate_min=0.001")
    with pytest.raises(UserError, match="learning_rate: low 0.0002 does not fit"):
        checked_space(layers, resolve_hparams(**vars(layers)))


def test_switching_free_running_validation_off_is_refused() -> None:
    layers = Layers(overrides="validation_attention_analysis=False")
    with pytest.raises(UserError, match="judged by free-running speech"):
        checked_space(layers, resolve_hparams(**vars(layers)))


def test_a_weight_is_only_asked_for_where_its_loss_is_on() -> None:
    values = resolve_hparams().hparams.canonical()
    assert acts("guide_loss_weight", values) and acts("batch_size", values)
    assert not acts("guide_loss_weight", values | {"use_guided_attn": False})
    assert not acts("use_guided_attn", values | {"no_dga": True})
    names = list(search_space(resolve_hparams()).ranges)
    assert names.index("use_guided_attn") < names.index("guide_loss_weight"), "drawn before what depends on it"
