"""The declarations, the presets, and what a user sees of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from common.errors import UserError
from config.show_params import show_params
from hparams import (
    AudioParams,
    HParams,
    create_hparams,
    field_info,
    field_names,
    resolve_hparams,
)
from run_directory.settings_digest import hparams_hash
from settings.help import read_help
from settings.presets import preset_names
from support.paths import REPOSITORY
from text.symbol_sets import named_table
from text.symbols import symbols
from tools import format_overrides

AWKWARD_TEXT = "a b, [c] \"d\" 'e' = C:\\f\\"
# fields whose neighbours limit them, or whose type has no obvious second value
OTHER_VALUES = {
    "n_symbols": len(symbols),
    "language": "en-us",
    "text_input": "phonemes",
    "filter_length": 2048,
    "win_length": 1000,
    "learning_rate_min": 1e-7,
    "num_workers": 3,
    "ddc_reduction_factor": 9,
    "global_mean_npy": AWKWARD_TEXT + ".npy",
    "decoder_backend": "fast",
    "reduction_schedule": ("0:3", "100:1"),
    "attention_chunk_size": 7,
    "speaking_dropout_rate": 0.2,
    "amp_dtype": "fp16",
    "dist_backend": "gloo",
    "dist_url": "tcp://host1:999",
    "gradient_compression": "bf16",
    "token_embedding_size": 128,
    "num_heads": 2,
    "ref_enc_filters": (16, 8),
    "ref_enc_size": (5, 3),
    "ref_enc_strides": (1, 2),
    "ref_enc_pad": (2, 1),
    "text_cleaners": ("basic_cleaners", AWKWARD_TEXT, ""),
    "telegram_language": "ru",
}


def other_value(name: str) -> object:
    """A valid value that is not the default (n_symbols has only one)."""
    default = field_info(name).default
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 2  # keeps odd odd
    if isinstance(default, float):
        return default * 0.7 + 0.013
    return (AWKWARD_TEXT,) if isinstance(default, tuple) else AWKWARD_TEXT


@pytest.fixture(scope="module")
def other() -> HParams:
    return HParams.model_validate({name: other_value(name) for name in field_names()})


@pytest.mark.parametrize("name", field_names())
def test_every_field_survives_the_way_through_text(name: str) -> None:
    for value in (field_info(name).default, other_value(name)):
        resolved = resolve_hparams(overrides=format_overrides({name: value}))
        assert getattr(resolved.hparams, name) == value
        assert type(getattr(resolved.hparams, name)) is type(value)
        assert resolved.origins[name] == "--hparams"


@pytest.mark.parametrize("name", field_names())
def test_every_field_survives_the_way_through_yaml(name: str, other: HParams, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    line = {name: other.canonical()[name]}
    path.write_text(yaml.safe_dump(line), encoding="utf-8")
    assert getattr(resolve_hparams(hparams_file=path).hparams, name) == getattr(other, name)


def test_a_dump_of_all_values_reads_back_to_the_same_object(other: HParams, tmp_path: Path) -> None:
    path = tmp_path / "hparams.yaml"
    path.write_text(other.to_yaml(), encoding="utf-8")
    assert resolve_hparams(hparams_file=path).hparams == other
    assert HParams.model_validate(other.canonical()) == other
    assert create_hparams(format_overrides(other.canonical())) == other


def test_help_names_every_field_once_in_both_languages() -> None:
    help_texts = read_help()
    assert list(help_texts) == list(field_names())
    for name, texts in help_texts.items():
        assert set(texts) == {"en", "ru"} and all(texts.values()), name
        assert texts["en"] != texts["ru"] and "\n" not in texts["en"] + texts["ru"], name


@pytest.mark.parametrize(
    ("bad", "allowed"),
    [
        ("batch_size=True", r"int \(>= 1\)"),
        ("batch_size=0", r"int \(>= 1\)"),
        ("batch_size=1.5", r"int \(>= 1\)"),
        ("num_workers=-1", r"int or str \(>= 0, auto\)"),
        ("num_workers=many", r"int or str \(>= 0, auto\)"),
        ("amp_dtype=int8", r"str \(auto, bf16, fp16\)"),
        ("loss_scale_init=0.5", r"float \(>= 1\)"),
        ("loss_scale_factor=1", r"float \(> 1\)"),
        ("decoder_backend=quick", r"str \(auto, plain, fast\)"),
        ("learning_rate=nan", r"float \(> 0, <= 1\)"),
        ("guide_sigma=inf", r"float \(> 0\)"),
        ("weight_decay=1e999", r"float \(>= 0\)"),
        ("weight_decay=True", r"float \(>= 0\)"),
        ("weight_decay=1_0", r"float \(>= 0\)"),
        ("dropout_rate=1", r"float \(>= 0, < 1\)"),
        ("no_dga=maybe", r"bool \(True, False\)"),
        ("text_cleaners=english_cleaners", "list of str"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_is_allowed(bad: str, allowed: str) -> None:
    with pytest.raises(UserError, match=f"--hparams: {bad}: must be {allowed}"):
        create_hparams(bad)


@pytest.mark.parametrize("value", [True, 1.0, "16", float("nan")])
def test_python_callers_meet_the_same_strictness(value: object) -> None:
    with pytest.raises(ValidationError, match="batch_size"):
        HParams(batch_size=value)


@pytest.mark.parametrize(
    ("bad", "requirement"),
    [
        ("mel_fmax=12000", "mel_fmax must be at most half of sampling_rate"),
        ("mel_fmin=8000", "mel_fmin must be below mel_fmax"),
        ("win_length=1100", "win_length must be at most filter_length"),
        ("dist_url=tcp://anna:pw@host:1", "dist_url must hold no user name, password or key"),
        ("hop_length=1024", "hop_length must be below win_length"),
        ("encoder_embedding_dim=511", "must be even"),
        ("learning_rate=1e-6", "learning_rate_min must be at most learning_rate"),
        ("use_ddc=True,n_frames_per_step=4", "ddc_reduction_factor must be a multiple of n_frames_per_step"),
        ("drop_frame_rate=0.1,global_mean_npy=mean.npz", "global_mean_npy must name a .npy file"),
        ("anneal_steps=10,learning_rate_min=0", "learning_rate_min must be over 0"),
        ("mlflow_experiment_name=", "mlflow_experiment_name must not be empty"),
        ("mlflow_tracking_uri=http://me:secret@host", "must hold no user name, password or key"),
        ("mlflow_tracking_uri=http://host/api?key=secret", "must hold no user name, password or key"),
        ("mlflow_tracking_uri=http://host/#secret", "must hold no user name, password or key"),
        ("encoder_kernel_size=4", "must be odd"),
        ("attention_location_kernel_size=30", "must be odd"),
        ("postnet_kernel_size=2", "must be odd"),
        ("n_symbols=100", "n_symbols follows from the others; leave it out"),
    ],
)
def test_a_rule_over_fields_is_checked(bad: str, requirement: str) -> None:
    with pytest.raises(UserError, match=requirement) as refused:
        create_hparams(bad)
    assert "secret" not in str(refused.value)


def test_rules_over_fields_are_reported_beside_faulty_fields() -> None:
    with pytest.raises(UserError, match="2 problems") as caught:
        create_hparams("batch_size=0,mel_fmax=12000")
    assert "batch_size=0: must be int" in str(caught.value)
    assert "mel_fmax=12000.0 (--hparams), sampling_rate=22050 (default)" in str(caught.value)


def test_a_rule_is_not_judged_on_a_faulty_value() -> None:
    with pytest.raises(UserError, match="1 problem "):
        create_hparams("mel_fmax=loud,sampling_rate=100")


def test_a_section_alone_obeys_its_rules() -> None:
    with pytest.raises(ValidationError, match="half of sampling_rate"):
        AudioParams(sampling_rate=8000)


@pytest.mark.parametrize(
    ("settings", "cleaners", "n_symbols"),
    [
        ("", ("english_cleaners",), 148),
        ("text_input=phonemes", (), 210),
        ("language=ru", (), None),
        ("language=ru,text_cleaners=[basic_cleaners]", ("basic_cleaners",), None),
        ("language=de", (), 148),  # the letters of a corpus are counted when it is read
    ],
)
def test_the_language_decides_what_nobody_names(settings: str, cleaners: tuple[str, ...], n_symbols: int) -> None:
    hp = create_hparams(settings)
    assert hp.text_cleaners == cleaners
    assert hp.n_symbols == (n_symbols or len(named_table("russian")))


def test_runs_keep_the_names_they_had_before_languages() -> None:
    assert hparams_hash(create_hparams()) == "a867a897"
    assert hparams_hash(create_hparams("language=ru")) != hparams_hash(create_hparams())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("attention_dropout", "p_attention_dropout"),
        ("prenet_dropout", "dropout_rate"),
        ("postnet_dropout", "postnet_dropout_rate"),
    ],
)
def test_a_historical_wrong_name_is_refused_and_the_right_one_named(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=f"{wrong}=0.1: no such hyperparameter; the name is {right}$"):
        create_hparams(f"{wrong}=0.1")


def test_an_alias_sets_the_canonical_field() -> None:
    hp = create_hparams("max_grad_norm=0.5,guided_attention_enabled=False")
    assert hp.grad_clip_thresh == 0.5 and hp.use_guided_attn is False


def test_hyperparameters_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        create_hparams().batch_size = 3


def test_metadata_says_what_a_field_affects_and_whether_it_may_change_on_resume() -> None:
    assert field_info("prenet_dim").affects == "arch"
    assert field_info("mel_fmax").affects == "features"
    assert field_info("batch_size").affects == "run"
    assert field_info("epochs").mutable and not field_info("learning_rate").mutable
    assert not [name for name in field_names() if field_info(name).mutable and field_info(name).affects != "run"]


def test_the_hash_follows_the_values_and_not_their_spelling() -> None:
    first = hparams_hash(create_hparams("batch_size=16,max_grad_norm=0.5"))
    assert first == hparams_hash(create_hparams("grad_clip_thresh=5e-1, batch_size = 16"))
    assert first != hparams_hash(create_hparams("batch_size=16"))
    assert len(first) == 8 and int(first, 16) >= 0


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_is_valid_and_is_named_as_the_origin(preset: str) -> None:
    resolved = resolve_hparams(preset=preset)
    assert f"preset {preset}" in resolved.origins.values()


def test_the_demo_preset_holds_the_small_voice() -> None:
    hp = resolve_hparams(preset="demo").hparams
    assert (hp.n_frames_per_step, hp.batch_size, hp.learning_rate, hp.anneal_steps) == (2, 16, 4e-3, 1590)
    assert hp.early_stopping is False and hp.encoder_dropout_rate == 0.0


def test_the_nvidia_preset_works_on_raw_mels() -> None:
    hp = resolve_hparams(preset="nvidia").hparams
    assert not hp.normalize_mel
    assert (hp.encoder_dropout_rate, hp.dropout_rate, hp.postnet_dropout_rate) == (0.5, 0.5, 0.5)


def test_an_unknown_preset_is_reported_beside_other_problems() -> None:
    with pytest.raises(UserError, match="2 problems.*") as caught:
        resolve_hparams(preset="../demo", overrides="batch_size=0")
    assert "no such preset; there are demo" in str(caught.value)


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*absent.yaml"):
        resolve_hparams(hparams_file=tmp_path / "absent.yaml")


def test_later_layers_win_and_origins_name_them(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("batch_size: 8\nwarmup_steps: 10\nseed: 5\n")
    resolved = resolve_hparams(preset="demo", hparams_file=path, overrides="warmup_steps=11,seed=6", trial={"seed": 7})
    hp, origins = resolved.hparams, resolved.origins
    assert (hp.learning_rate, hp.batch_size, hp.warmup_steps, hp.seed) == (4e-3, 8, 11, 7)
    assert origins["learning_rate"] == "preset demo" and origins["batch_size"] == f"file {path}"
    assert origins["warmup_steps"] == "--hparams" and origins["seed"] == "trial"
    assert origins["mel_fmax"] == "default"


def test_show_params_json_is_one_object_with_exactly_the_promised_keys() -> None:
    shown = json.loads(show_params(resolve_hparams(overrides="max_grad_norm=2"), "json"))
    assert list(shown) == list(field_names())
    assert all(
        list(facts) == ["value", "default", "type", "unit", "range", "aliases", "origin", "help"]
        for facts in shown.values()
    )
    clip = shown["grad_clip_thresh"]
    assert (clip["value"], clip["default"], clip["origin"]) == (2.0, 1.0, "--hparams")
    assert clip["aliases"] == ["max_grad_norm"]
    assert shown["text_cleaners"]["value"] == ["english_cleaners"]


def test_show_params_text_is_aligned() -> None:
    lines = show_params(resolve_hparams(), "text").splitlines()
    assert len(lines) == len(field_names()) + 1
    column = lines[0].index("origin")
    assert all(line[column:].startswith("default  ") and line[column - 1] == " " for line in lines[1:])


def test_show_params_markdown_has_equal_columns_in_every_row() -> None:
    lines = show_params(resolve_hparams(), "md", language="ru").splitlines()
    assert lines[1].startswith("| --- |") and len(lines) == len(field_names()) + 2
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_verbose_prints_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    hp = create_hparams("batch_size=3", verbose=True)
    assert yaml.safe_load(capsys.readouterr().out) == hp.canonical()


def test_creating_hyperparameters_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time; import hparams; hparams.create_hparams(); print(time.process_time());"
        "print([m for m in ('torch', 'librosa', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    seconds, heavy = result.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < 0.5  # processor time, the interpreter's own start included
