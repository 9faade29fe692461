"""The compatibility check: what it finds in config.yaml, hparams.py and --hparams, and how it says so."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import test_hparams_compatibility as command
from common.translations import language_of, read_messages
from config.source_scan import declared_twice, names_read, syntax_problem
from smart_tuner.config_check import CONFIG, check, check_effects, check_old_names, format_findings
from smart_tuner.search_space import WIDE
from support.paths import REPOSITORY
from test_hparams_compatibility import main

TEN = (
    "batch_size", "epochs", "learning_rate", "warmup_steps", "guided_attention_enabled", "guide_loss_weight",
    "p_attention_dropout", "gate_threshold", "dropout_rate", "postnet_dropout_rate",
)  # fmt: skip


@pytest.fixture
def changed(tmp_path: Path):
    """config.yaml with one pattern replaced."""

    def make(pattern: str, replacement: str) -> Path:
        text, n = re.subn(pattern, replacement, CONFIG.read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
        assert n == 1, pattern
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def said(path: Path) -> list[str]:
    return [finding.say("en") for finding in check(path).findings]


def test_what_the_wide_space_adds_is_compatible_and_others_than_the_ten() -> None:
    result = check(WIDE)
    assert result.is_compatible and not result.findings and not set(result.names) & set(TEN)


def test_the_ten_tuned_parameters_are_compatible_with_the_specified_ranges() -> None:
    result = check()
    assert result.names == TEN and result.is_compatible and not result.findings
    search = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["search"]
    assert search["batch_size"]["choices"] == [8, 16, 24, 32, 48]
    assert [search["learning_rate"][key] for key in ("low", "high", "scale")] == [2e-4, 5e-3, "log"]
    assert [search["epochs"][key] for key in ("low", "high", "scale")] == [50, 300, "integer"]


def test_the_report_has_a_line_for_each_parameter_the_counts_and_the_verdict() -> None:
    lines = format_findings(check(), "ru").splitlines()
    assert lines[0] == "\U0001f4cb Найдено 10 параметров для проверки:"
    assert [line.split()[1:] for line in lines[1:11]] == [[name, "\u2705"] for name in TEN]
    assert "   \u2705 Корректных параметров: 10" in lines and "   \u274c Отсутствующих параметров: 0" in lines
    assert lines[-2:] == [
        "\U0001f9ea ТЕСТ ПАРСИНГА ПАРАМЕТРОВ: \u2705 УСПЕШНО", "\U0001f389 ВСЕ ПАРАМЕТРЫ СОВМЕСТИМЫ!"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("p_attention_dropout:", "attention_dropout:", "no attention_dropout .*; did you mean p_attention_dropout\\?"),
        (" dropout_rate:", " prenet_dropout:", "no prenet_dropout in hparams.py; did you mean dropout_rate\\?"),
        ("postnet_dropout_rate:", "postnet_dropout:", "no postnet_dropout .*; did you mean postnet_dropout_rate\\?"),
        ("warmup_steps:", "warmup_step:", "no warmup_step in hparams.py; did you mean warmup_steps\\?"),
        ("warmup_steps:", "xyzzy:", "no xyzzy in hparams.py, and no similar name"),
        ("low: 0.3", "low: -0.3", r"gate_threshold: low -0.3 must be float \(>= 0, <= 1\)"),
        (r"\[8, 16", "[8.5, 16", r"batch_size: choices 8.5 must be int \(>= 1\)"),
        ("low: 2.0e-4", "low: 2.0e-6", "learning_rate: low 2e-06 does not fit .*learning_rate_min must be at most"),
        ("low: 2.0e-4", "low: 2e-4", "learning_rate: low and high must be numbers"),
        ("low: 0.3, high: 0.7", "low: 0.7, high: 0.3", "gate_threshold: low must be less than high"),
        ("low: 0.0, high: 0.2, scale: linear", "low: 0.0, high: 0.2, scale: log", "a log scale needs low greater"),
        ("scale: log", "scale: cubic", "learning_rate: scale must be integer, linear or log"),
        ("scale: log", "scale: integer", "learning_rate: scale integer does not fit its type, float"),
        ("scale: log, ", "", "learning_rate: needs `choices`, or"),
        (r"\[8, 16, 24, 32, 48\]", "[8]", "batch_size: choices must be a list of at least two"),
        (r"\[8, 16", "[8, 8", "batch_size: one of the choices is given twice"),
        ("default: 0.3", "default: 0.4", "dropout_rate: default 0.4, but hparams.py has 0.3"),
        ("default: true", "default: null", "guided_attention_enabled: default null, but hparams.py has True"),
        (", default: 0.3", "", "dropout_rate: no `default`; write 0.3"),
        ("  epochs:", "  gate_threshold: 1\n  epochs:", r"config.yaml:\d+: gate_threshold is given twice"),
        ("  epochs:", "  use_guided_attn: {choices: [true, false], default: true}\n  epochs:",
         "guided_attention_enabled and use_guided_attn are two spellings"),
        ("^search:", "find:", "no `search:` section"),
        ("^search:", "search: [", "not YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_config_is_named_with_what_to_do(
    changed, pattern: str, replacement: str, message: str
) -> None:
    found = said(changed(pattern, replacement))
    assert len(found) == 1 and re.search(message, found[0]), found


def test_every_kind_of_finding_has_its_words_in_both_languages() -> None:
    texts = read_messages()["problems"]
    for name, text in [entry for section in read_messages().values() for entry in section.items()]:
        assert set(text) == {"en", "ru"} and text["en"], name
        en, ru = (sorted(re.findall(r"\{\w+(?::[^}]*)?\}", text[language])) for language in ("en", "ru"))
        assert en == ru and (en or "{" not in text["en"]), name
    source = (REPOSITORY / "smart_tuner" / "config_check.py").read_text(encoding="utf-8")
    source += (REPOSITORY / "smart_tuner" / "search_space.py").read_text(encoding="utf-8")
    source += Path(command.__file__).read_text(encoding="utf-8")
    assert [kind for kind in texts if f'"{kind}"' not in source] == []


def test_the_command_ends_with_1_for_a_broken_name_and_says_what_was_meant(
    changed, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = changed("gate_threshold:", "gate_treshold:")
    assert main(["--config", str(broken), "--language", "ru"]) == 1
    shown = capsys.readouterr().out
    assert "- gate_treshold            \u274c" in shown and "Отсутствующих параметров: 1" in shown
    assert "в hparams.py нет gate_treshold; возможно, имелось в виду gate_threshold?" in shown
    assert main(["--config", str(broken), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["compatible"] is False and found["missing"] == ["gate_treshold"]
    assert found["parameters"]["gate_treshold"] is False and found["parameters"]["epochs"] is True
    assert found["problems"][0]["meant"] == "gate_threshold"


def test_duplicates_in_overrides_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hparams", "batch_size=8,batch_size=8", "--language", "en"]) == 1
    assert "--hparams: batch_size=8 and batch_size=8 both set batch_size" in capsys.readouterr().out
    assert main(["--hparams", "batch_size=8", "--language", "en"]) == 0


def test_a_missing_config_is_an_answer_not_a_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.yaml"), "--language", "en"]) == 1
    assert "none.yaml: cannot read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "ru_RU.UTF-8"}, "ru"),
        ({"LANG": "ru_RU.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE", "LC_MESSAGES": "ru"}, "ru"),
        ({"LC_ALL": "", "LANG": "ru"}, "ru"),
    ],
)
def test_the_language_follows_the_locale(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language


def test_show_params_lists_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    from hparams import field_names

    assert main(["--show-params", "--language", "ru"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"\U0001f4ca Доступно в hparams.py ({len(field_names())}")
    assert [line.split()[0] for line in lines[2:]] == list(field_names())


# ---- the source


def test_a_field_declared_twice_is_found_across_classes(tmp_path: Path) -> None:
    path = tmp_path / "hparams.py"
    first = "class A:\n    a: int = f(1)\n    n: ClassVar[int] = f(2)\n"
    path.write_text(first + "class B:\n    n: int = f(3)\n    a: int = f(2)\n")
    assert declared_twice(path) == [("a", 2, 6)]


def test_a_keyword_given_twice_is_reported_although_hparams_cannot_be_imported(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "common", tmp_path / "common")
    (tmp_path / "config").mkdir()
    for name in ("test_hparams_compatibility.py", "config/__init__.py", "config/source_scan.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "hparams.py").write_text("x = dict(gate_threshold=0.5,\n    gate_threshold=0.6)\n")
    done = subprocess.run(
        [sys.executable, "test_hparams_compatibility.py", "--language", "en"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr == ""
    assert re.match(r"hparams.py:\d: keyword argument repeated: gate_threshold; correct the line", done.stdout)
    assert syntax_problem(tmp_path / "hparams.py") is not None


def test_a_field_that_no_code_reads_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "used.py").write_text("def f(hp):\n    hp.written = 1\n    return self.hp.batch_size\n")
    assert list(names_read([tmp_path / "used.py"])) == ["batch_size"]
    names = {"batch_size": "batch_size", "max_grad_norm": "grad_clip_thresh"}
    assert [f.name for f in check_effects(names, tmp_path)] == ["max_grad_norm"]


def test_old_names_in_the_tuners_code_are_found(tmp_path: Path) -> None:
    (tmp_path / "smart_tuner").mkdir()
    (tmp_path / "smart_tuner/__init__.py").touch()
    (tmp_path / "smart_tuner/engine.py").write_text("params = ['attention_dropout', 'dropout_rate']\n")
    (found,) = check_old_names(tmp_path)
    message = "engine.py:1: the old name attention_dropout is used; the present name is p_attention_dropout"
    assert found.say("en").endswith(message)
