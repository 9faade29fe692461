"""The grammar of --hparams, YAML layers and their merge, on a small model of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from common.errors import UserError
from settings.declaration import Section, TextList, hp_field
from tools import (
    Assignment,
    Check,
    Layer,
    Merged,
    SettingProblem,
    SettingsError,
    format_overrides,
    merge_layers,
    overrides_layer,
    read_yaml_layer,
)


class Toy(Section):
    size: int = hp_field(4, ge=1, aliases=("extent", "magnitude"))
    rate: float = hp_field(0.5, ge=0, lt=1)
    loud: bool = hp_field(False)
    name: str = hp_field("x")
    words: TextList = hp_field(())
    mode: Literal["soft", "hard"] = hp_field("soft")
    kernel: int = hp_field(3, parity="odd")

    renamed: ClassVar[Mapping[str, str]] = {"width": "size"}
    checks: ClassVar[tuple[Check, ...]] = (
        Check(("rate", "size"), lambda rate, size: rate * size <= 10, "rate * size must be at most 10"),
    )


def merge(*texts: str) -> Merged:
    return merge_layers(Toy, [overrides_layer(text, label=f"layer {i}") for i, text in enumerate(texts, 1)])


def yaml_layer(tmp_path: Path, text: str) -> Layer:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml_layer(path, label="file x.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("a=1", [("a", "1")]),
        (" a = 1 ,b=2 ", [("a", "1"), ("b", "2")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=[x,y],b=1e-3", [("a", ["x", "y"]), ("b", "1e-3")]),
        ("a=[ x , y ]", [("a", ["x", "y"])]),
        ("a=[]", [("a", [])]),
        ("a=", [("a", "")]),
        ("a='x,y',b=\"[\"", [("a", "x,y"), ("b", "[")]),
        ("a = 'x,y' , b=[ 'x,y' ]", [("a", "x,y"), ("b", ["x,y"])]),
        ("a=['x,y',z]", [("a", ["x,y", "z"])]),
        ("a=it's,b=2", [("a", "it's"), ("b", "2")]),
        (r'a="say \"hi\" \\ C:\dir"', [("a", r'say "hi" \ C:\dir')]),
        ("a=data[1],b=2", [("a", "data[1]"), ("b", "2")]),
        ("a=__import__('os')", [("a", "__import__('os')")]),
    ],
)
def test_the_grammar_reads(text: str, expected: list[tuple[str, object]]) -> None:
    layer = overrides_layer(text)
    assert (layer.assignments, layer.problems) == (tuple(Assignment(name, value) for name, value in expected), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is no assignment; write name=value"),
        ("=3", "'=3' is no assignment"),
        ("a=1,,b=2", "'' is no assignment"),
        ("a=[1,2", r"\[ is never closed"),
        ("a=1]", r"'\]' without '\['"),
        ("a='x", "' is never closed"),
        ("a='x'y", "nothing may follow the closing '"),
        ("a=[x,,y]", "a list element is empty"),
    ],
)
def test_the_grammar_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge(text)


@pytest.mark.parametrize("value", ["", " ", "a,b", "[", "]", '"', "'", "\\", 'a\\"b', "a=b", "x\ny", "null", "1e-3"])
def test_any_text_survives_formatting(value: str) -> None:
    merged = merge(format_overrides({"name": value, "words": [value, "z", value]}))
    assert merged.values == {"name": value, "words": (value, "z", value)}


@pytest.mark.parametrize("word", ["True", "true", "1", "yes", "False", "false", "0", "no"])
def test_truth_values_have_four_spellings_each(word: str) -> None:
    assert merge(f"loud={word}").values["loud"] is (word in ("True", "true", "1", "yes"))


def test_whole_numbers_pass_as_floats_and_come_out_as_floats() -> None:
    value = merge("rate=0").values["rate"]
    assert value == 0.0 and isinstance(value, float)


def test_lists_come_out_as_tuples() -> None:
    assert merge("words=[a,b]").values["words"] == ("a", "b")


def test_yaml_converts_by_the_declared_type(tmp_path: Path) -> None:
    layer = yaml_layer(tmp_path, "# note\nrate: 1e-3\nsize: '7'\nloud: yes\nwords: [a, b]\nname: '12'\n")
    assert merge_layers(Toy, [layer]).values == {
        "rate": 1e-3,
        "size": 7,
        "loud": True,
        "words": ("a", "b"),
        "name": "12",
    }


@pytest.mark.parametrize(
    "line",
    [
        "size: true",
        "size: 2.0",
        "size:",
        "rate: true",
        "rate: .nan",
        "rate: .inf",
        "name: 12",
        "name: 2020-01-01",
        "words: a",
        "words: [1]",
        "words: &x [*x]",
        "loud: 2",
        "loud: 1.0",
        "mode: loud",
        "size: {a: 1}",
        pytest.param("rate: 1" + 400 * "0", id="huge"),
    ],
)
def test_yaml_values_of_the_wrong_kind_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=rf"file x.yaml: {line.split(':')[0]}=.*: must be "):
        merge_layers(Toy, [yaml_layer(tmp_path, line)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size: 1\nrate: 0\nsize: 1\n", "line 3: size is given twice"),
        ("- size\n", "must hold `name: value` lines"),
        (" \n", "is empty; write `name: value` lines, or leave it out"),
        ("size: [1\n", "not YAML: "),
        ("size: !!python/object/apply:os.getcwd []\n", "not YAML: could not determine a constructor"),
        ("1: 2\n", "1 is not a name"),
        ("search: 3\n", "search: must hold"),
        ("search: {sise: [1, 2]}\n", "sise: no such hyperparameter; nearest: size"),
        ("when: 2020-99-99\n", "not YAML: "),
    ],
)
def test_a_faulty_file_is_a_user_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"file x.yaml: .*{message}"):
        merge_layers(Toy, [yaml_layer(tmp_path, text)])


def test_a_file_of_remarks_sets_nothing(tmp_path: Path) -> None:
    assert merge_layers(Toy, [yaml_layer(tmp_path, "# nothing yet\n")]) == Merged({}, {}, {})


def test_the_search_section_is_kept_apart_under_canonical_names(tmp_path: Path) -> None:
    merged = merge_layers(Toy, [yaml_layer(tmp_path, "rate: 0.1\nsearch:\n  extent: [2, 9]\n")])
    assert merged.values == {"rate": 0.1} and merged.search == {"size": [2, 9]}


def test_later_layers_win_under_any_spelling() -> None:
    merged = merge("extent=2,rate=0.1", "size=3")
    assert merged.values == {"size": 3, "rate": 0.1}
    assert merged.origins == {"size": "layer 2", "rate": "layer 1"}


@pytest.mark.parametrize(
    "text", ["size=2,size=2", "size=2,size=3", "size=2,extent=3", "size=2,extent=2,extent=2", "extent=2,magnitude=3"]
)
def test_one_layer_may_not_set_a_field_twice(text: str) -> None:
    first, *_, last = text.split(",")
    with pytest.raises(UserError, match=f"layer 1: {first} and {last} both set size"):
        merge(text)


def test_two_spellings_of_one_value_are_accepted() -> None:
    assert merge("size=2, extent=+2").values == {"size": 2}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sise", "nearest: size"),
        ("Size", "nearest: size"),
        ("extend", "nearest: extent"),
        ("qqq", "--show-params lists them all"),
        ("width", "the name is size"),
    ],
)
def test_an_unknown_name_comes_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"layer 1: {name}=3: no such hyperparameter; {hint}"):
        merge(f"{name}=3")


def test_all_problems_of_all_layers_are_reported_together(tmp_path: Path) -> None:
    layers = [
        yaml_layer(tmp_path, "extent: 0\nsise: 3\nkernel: 4\n"),
        overrides_layer("rate=2,mode=loud,nothing,size=30"),
        overrides_layer("rate=0.9", label="trial"),
    ]
    with pytest.raises(UserError) as caught:
        merge_layers(Toy, layers)
    assert str(caught.value).splitlines() == [
        "7 problems in the hyperparameters",
        "  file x.yaml: sise=3: no such hyperparameter; nearest: size",
        "  file x.yaml: extent=0: must be int (>= 1)",
        "  --hparams: 'nothing' is no assignment; write name=value,name=value",
        "  --hparams: mode=loud: must be str (soft, hard)",
        "  --hparams: rate=2: must be float (>= 0, < 1)",
        "  kernel=4 (file x.yaml): must be odd",
        "  rate=0.9 (trial), size=30 (--hparams): rate * size must be at most 10",
    ]


def test_a_problem_carries_what_its_sentence_says(tmp_path: Path) -> None:
    layers = [yaml_layer(tmp_path, "size: 1\nsize: 2\n"), overrides_layer("sise=3,width=4,rate=2,mode,kernel=4")]
    with pytest.raises(SettingsError) as caught:
        merge_layers(Toy, layers)
    assert caught.value.problems == (
        SettingProblem("file x.yaml", "given_twice", "size", line=2),
        SettingProblem("--hparams", "malformed", "mode", detail="'mode' is no assignment; write name=value,name=value"),
        SettingProblem("--hparams", "unknown", "sise", "3", nearest="size"),
        SettingProblem("--hparams", "renamed", "width", "4", nearest="size"),
        SettingProblem("--hparams", "not_allowed", "rate", "2", allowed="float (>= 0, < 1)"),
        SettingProblem("", "rule", "kernel", "kernel=4 (--hparams)", allowed="must be odd"),
    )


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(UserError, match=r"size=a{57}\.\.\.: must be"):
        merge("size=" + 500 * "a")
