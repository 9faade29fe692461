"""The `--hparams` grammar, the YAML layers, and the merge of layers into one set of values.

    defaults < preset < file < --hparams < trial

Every value passes the same conversion, by the type that its field declares; all problems of all layers are
reported together. The declarations are an argument here (a pydantic model class): this module knows no field.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from common.encodings import NotText
from common.errors import UserError, format_problems
from common.typed_values import bounds_of, convert, limits_of, type_text
from common.yaml_file import read_yaml

QUOTES = "\"'"
QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", flags=re.DOTALL)
SEARCH_SECTION = "search"  # a preset's narrower search ranges; kept apart, the tuner reads them
SHOWN_CHARACTERS = 60  # of a value in a message

ProblemKind = Literal["malformed", "given_twice", "unknown", "renamed", "not_allowed", "set_twice", "rule"]


@dataclass(frozen=True)
class SettingProblem:
    """One thing that is wrong with the settings.

    layer: its source, as "--hparams"; "" for a rule over several. name, value: as they were written. allowed: type and
    range, or what a rule demands. nearest: the name that was meant. detail: the words of kinds without a pattern.
    """

    layer: str
    kind: ProblemKind
    name: str = ""
    value: str = ""
    allowed: str = ""
    nearest: str = ""
    line: int = 0
    detail: str = ""

    @property
    def text(self) -> str:
        """The sentence for a person, without the layer."""
        shown = f"{self.name}={self.value}" if self.value else self.name
        match self.kind:
            case "given_twice":
                return f"line {self.line}: {self.name} is given twice"
            case "unknown":
                hint = f"nearest: {self.nearest}" if self.nearest else "--show-params lists them all"
                return f"{shown}: no such hyperparameter; {hint}"
            case "renamed":
                return f"{shown}: no such hyperparameter; the name is {self.nearest}"
            case "not_allowed":
                return f"{shown}: must be {self.allowed}"
            case "rule":
                return f"{self.value}: {self.allowed}"
        return self.detail

    def __str__(self) -> str:
        return f"{self.layer}: {self.text}" if self.layer else self.text


class SettingsError(UserError):
    """Everything that is wrong with a set of settings."""

    def __init__(self, problems: Sequence[SettingProblem]) -> None:
        self.problems = tuple(problems)
        headline = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the hyperparameters"
        super().__init__(format_problems([str(problem) for problem in problems], headline=headline))


@dataclass(frozen=True)
class Assignment:
    """One `name=value` as it was written: text, a list of texts, or what YAML made of it."""

    name: str
    value: object

    def __str__(self) -> str:
        return f"{self.name}={_shortened(self.value)}"


@dataclass(frozen=True)
class Layer:
    """One source of values; `problems` are those found while reading it."""

    label: str
    assignments: tuple[Assignment, ...] = ()
    problems: tuple[SettingProblem, ...] = ()
    search: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def unusable(cls, label: str, reason: str) -> "Layer":
        return cls(label, problems=(SettingProblem(label, "malformed", detail=reason),))


@dataclass(frozen=True)
class Check:
    """A rule over several fields: `holds(*values of names)`, else `requirement` says what must be."""

    names: tuple[str, ...]
    holds: Callable[..., bool]
    requirement: str


@dataclass(frozen=True)
class FieldSpec:
    """What one field declares. `mutable`: it may change when a run is resumed."""

    name: str
    annotation: Any
    default: object
    unit: str
    aliases: tuple[str, ...]
    affects: Literal["arch", "features", "run"]
    mutable: bool
    parity: Literal["odd", "even", ""]
    type: str
    range: str

    @property
    def allowed(self) -> str:
        return f"{self.type} ({self.range})" if self.range else self.type


@dataclass(frozen=True)
class Merged:
    """The values that some layer set (converted, by canonical name), the layer each came from, and search ranges."""

    values: dict[str, object]
    origins: dict[str, str]
    search: dict[str, object]


# -- the grammar of --hparams -----------------------------------------------------------------------------------------


def overrides_layer(text: str, *, label: str = "--hparams") -> Layer:
    """`"a=1, b=[x,y]"` -> the assignments, and what is wrong with the rest of it; the empty string has none."""
    assignments, problems = [], []
    try:
        pieces = _split_at_commas(text) if text.strip() else []
    except ValueError as error:
        return Layer.unusable(label, str(error))
    for piece in pieces:
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not name or not equals:
            detail = f"{piece.strip()!r} is no assignment; write name=value,name=value"
            problems.append(SettingProblem(label, "malformed", name, detail=detail))
            continue
        try:
            assignments.append(Assignment(name, _parse_value(value)))
        except ValueError as error:
            problems.append(SettingProblem(label, "malformed", name, value, detail=f"{name}={value}: {error}"))
    return Layer(label, tuple(assignments), tuple(problems))


def format_overrides(values: Mapping[str, object]) -> str:
    """The text that `overrides_layer` and the declared types turn into exactly these values."""
    return ",".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: object) -> str:
    """A value in the grammar of --hparams; texts are quoted only where it needs quotes."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if value is None:
        return "null"
    if not isinstance(value, str):
        return repr(value)
    if value and value == value.strip() and not set(value) & set("[]," + QUOTES):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _split_at_commas(text: str) -> list[str]:
    """The pieces between commas outside brackets and quotes. A quote opens only where a value starts."""
    pieces, depth, at, is_start = [""], 0, 0, True
    while at < len(text):
        char, length = text[at], 1
        if char in QUOTES and is_start:
            quoted = QUOTED.match(text, at)
            if quoted is None:
                raise ValueError(f"{char} is never closed in {_shortened(text)}")
            length = len(quoted[0])
        elif char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
            if depth < 0:
                raise ValueError(f"']' without '[' in {_shortened(text)}")
        if char == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += text[at : at + length]
        if not char.isspace():
            is_start = char in ",=["
        at += length
    if depth:
        raise ValueError(f"[ is never closed in {_shortened(text)}")
    return pieces


def _parse_value(text: str) -> str | list:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        items = [item.strip() for item in _split_at_commas(text[1:-1])] if text[1:-1].strip() else []
        if "" in items:
            raise ValueError('a list element is empty; write "" for an empty text')
        return [_parse_value(item) for item in items]
    if text[:1] not in QUOTES or not text:
        return text
    if QUOTED.fullmatch(text) is None:
        raise ValueError(f"nothing may follow the closing {text[0]}")
    return re.sub(r"\\([\"'\\])", r"\1", text[1:-1])  # any other backslash stays: Windows paths


# -- YAML layers ------------------------------------------------------------------------------------------------------


def read_yaml_layer(path: Path, *, label: str) -> Layer:
    """The layer that a YAML file holds: `name: value` lines, and perhaps a `search:` section."""
    try:
        file = read_yaml(path)
    except OSError as error:
        return Layer.unusable(label, f"cannot read {path}: {error.strerror}")
    except NotText as error:
        return Layer.unusable(label, str(error))
    except ValueError as error:
        return Layer.unusable(label, f"not YAML: {error}")
    if file.is_empty:  # not even a remark: as a write leaves it that failed
        return Layer.unusable(label, "is empty; write `name: value` lines, or leave it out")
    content = {} if file.content is None else file.content
    if not isinstance(content, dict):
        return Layer.unusable(label, f"must hold `name: value` lines, not {_shortened(content)}")
    problems = [SettingProblem(label, "given_twice", name, line=line) for name, line in file.duplicates]
    search = content.pop(SEARCH_SECTION, None) or {}
    if not isinstance(search, dict):
        reason = f"{SEARCH_SECTION}: must hold `name: range` lines, not {_shortened(search)}"
        problems.append(SettingProblem(label, "malformed", detail=reason))
        search = {}
    for name in [name for name in (*content, *search) if not isinstance(name, str)]:
        reason = f"{name!r} is not a name; put it in quotes if it is meant as one"
        problems.append(SettingProblem(label, "malformed", detail=reason))
    assignments = tuple(Assignment(name, value) for name, value in content.items() if isinstance(name, str))
    named_search = {name: value for name, value in search.items() if isinstance(name, str)}
    return Layer(label, assignments, tuple(problems), named_search)


# -- declarations -----------------------------------------------------------------------------------------------------


@cache
def field_specs(model: type[BaseModel]) -> Mapping[str, FieldSpec]:
    """The declarations of `model`, in order."""
    return {name: _field_spec(name, info) for name, info in model.model_fields.items()}


def _field_spec(name: str, info: FieldInfo) -> FieldSpec:
    extra = info.json_schema_extra
    assert isinstance(extra, dict), f"{name} is declared without hp_field"
    parity: Any = extra["parity"]
    limits = [*limits_of(info.annotation), *bounds_of(info.metadata), *([parity] if parity else [])]
    meta: dict[str, Any] = {key: extra[key] for key in ("unit", "affects", "mutable")}
    aliases = tuple(str(alias) for alias in extra["aliases"])  # type: ignore[union-attr]
    return FieldSpec(
        name=name,
        annotation=info.annotation,
        default=info.default,
        aliases=aliases,
        parity=parity,
        type=type_text(info.annotation),
        range=", ".join(limits),
        **meta,
    )


# -- merging ----------------------------------------------------------------------------------------------------------


def canonical_names(specs: Mapping[str, FieldSpec]) -> dict[str, str]:
    """Every name and alias, with the name that counts."""
    return {spelling: name for name, spec in specs.items() for spelling in (name, *spec.aliases)}


def merge_layers(model: type[BaseModel], layers: Sequence[Layer], *, extra_checks: Sequence[Check] = ()) -> Merged:
    """The values of all layers, later ones winning. Raises one SettingsError with every problem of every layer."""
    specs = field_specs(model)
    known = canonical_names(specs)
    merged, problems = Merged({}, {}, {}), []
    invalid: set[str] = set()
    for layer in layers:
        values, unusable, found = _read_layer(model, specs, layer)
        problems += [*layer.problems, *found]
        invalid = (invalid - values.keys()) | unusable
        merged.values.update(values)
        merged.origins.update(dict.fromkeys(values, layer.label))
        merged.search.update({known.get(spelling, spelling): raw for spelling, raw in layer.search.items()})
    problems += failed_checks(model, merged.values, origins=merged.origins, skip=invalid, extra_checks=extra_checks)
    if problems:
        raise SettingsError(problems)
    return merged


def failed_checks(
    model: type[BaseModel],
    values: Mapping[str, object],
    *,
    origins: Mapping[str, str] | None = None,
    skip: Iterable[str] = (),
    extra_checks: Sequence[Check] = (),
) -> list[SettingProblem]:
    """The cross-field rules (and parities) that `values` over the defaults break, leaving out the fields of `skip`."""
    specs = field_specs(model)
    full = {name: spec.default for name, spec in specs.items()} | dict(values)
    declared = [check for base in model.__mro__ for check in vars(base).get("checks", ())]
    failed = []
    for check in [*(_parity_check(spec) for spec in specs.values() if spec.parity), *declared, *extra_checks]:
        usable = not set(check.names) & set(skip)
        if usable and not check.holds(*(full[name] for name in check.names)):
            shown = ", ".join(_with_origin(name, full[name], origins) for name in check.names)
            failed.append(SettingProblem("", "rule", ", ".join(check.names), shown, check.requirement))
    return failed


def _parity_check(spec: FieldSpec) -> Check:
    remainder = 1 if spec.parity == "odd" else 0
    return Check((spec.name,), lambda value: value % 2 == remainder, f"must be {spec.parity}")


def _with_origin(name: str, value: object, origins: Mapping[str, str] | None) -> str:
    source = "" if origins is None else f" ({origins.get(name, 'default')})"
    return f"{name}={format_value(value)}{source}"


def _read_layer(
    model: type[BaseModel], specs: Mapping[str, FieldSpec], layer: Layer
) -> tuple[dict[str, object], set[str], list[SettingProblem]]:
    """The valid values of one layer by canonical name, the names it gives an invalid value, and the problems."""
    known = canonical_names(specs)
    problems = [_unknown(model, layer.label, Assignment(name, ""), known) for name in layer.search if name not in known]
    by_field: dict[str, list[Assignment]] = {}
    for assignment in layer.assignments:
        if assignment.name in known:
            by_field.setdefault(known[assignment.name], []).append(assignment)
        else:
            problems.append(_unknown(model, layer.label, assignment, known))
    values: dict[str, object] = {}
    for name, assignments in by_field.items():
        found, refused = _read_field(layer.label, specs[name], assignments)
        values |= {name: found[0]} if found else {}
        problems += refused
    outside = _outside_range(model, values)
    problems += [_not_allowed(layer.label, by_field[name][0], specs[name]) for name in outside]
    valid = {name: value for name, value in values.items() if name not in outside}
    return valid, by_field.keys() - valid.keys(), problems


def _read_field(
    label: str, spec: FieldSpec, assignments: Sequence[Assignment]
) -> tuple[list[object], list[SettingProblem]]:
    """The values that one layer gives a field, and what is wrong with them; two spellings may agree on one value."""
    values: list[object] = []
    problems: list[SettingProblem] = []
    spellings: set[str] = set()
    for assignment in assignments:
        try:
            value = convert(assignment.value, spec.annotation)
        except ValueError:
            problems.append(_not_allowed(label, assignment, spec))
            continue
        if values and (assignment.name in spellings or value != values[0]):
            detail = f"{assignments[0]} and {assignment} both set {spec.name}; keep one of them"
            problems.append(SettingProblem(label, "set_twice", spec.name, _shortened(assignment.value), detail=detail))
        spellings.add(assignment.name)
        values.append(value)
    return values, problems


def _outside_range(model: type[BaseModel], values: Mapping[str, object]) -> list[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        # an empty location is a cross-field rule, which is judged on the merged values instead
        return list(dict.fromkeys(str(problem["loc"][0]) for problem in error.errors() if problem["loc"]))
    return []


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; "" where none is near."""
    close = difflib.get_close_matches(name.strip().lower().replace("-", "_"), list(known), n=1)
    return close[0] if close else ""


def _unknown(model: type[BaseModel], label: str, assignment: Assignment, known: Mapping[str, str]) -> SettingProblem:
    name = assignment.name
    value = "" if assignment.value == "" else _shortened(assignment.value)
    renamed: Mapping[str, str] = getattr(model, "renamed", {})
    if name in renamed:
        return SettingProblem(label, "renamed", name, value, nearest=renamed[name])
    return SettingProblem(label, "unknown", name, value, nearest=nearest_name(name, known))


def _not_allowed(label: str, assignment: Assignment, spec: FieldSpec) -> SettingProblem:
    return SettingProblem(label, "not_allowed", assignment.name, _shortened(assignment.value), spec.allowed)


def _shortened(value: object) -> str:
    # repr stops at a list that contains itself, which YAML can write
    is_nested = isinstance(value, list) and any(isinstance(item, list) for item in value)
    text = value if isinstance(value, str) and value else repr(value) if is_nested else format_value(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
