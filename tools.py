"""The `--hparams` grammar, the YAML layers, and the merge of layers into one set of values.

    defaults < preset < file < --hparams < trial

Every value passes the same conversion, by the type that its field declares; all problems of all layers are
reported together. The declarations are an argument here (a pydantic model class): this module knows no field.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from common.errors import UserError, format_problems

QUOTES = "\"'"
SEARCH_SECTION = "search"  # a preset's narrower search ranges; kept apart, the tuner reads them
TRUE_WORDS = frozenset({"true", "1", "yes"})
FALSE_WORDS = frozenset({"false", "0", "no"})
NONE_WORDS = frozenset({"none", "null"})
SHOWN_CHARACTERS = 60  # of a value in a message


@dataclass(frozen=True)
class Assignment:
    """One `name=value` as it was written: text, a list of texts, or what YAML made of it."""

    name: str
    value: object


@dataclass(frozen=True)
class Layer:
    """One source of values; `problems` are those found while reading it (they name the layer already)."""

    label: str
    assignments: tuple[Assignment, ...] = ()
    problems: tuple[str, ...] = ()
    search: Mapping[str, object] = field(default_factory=dict)


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


def parse_overrides(text: str) -> list[Assignment]:
    """`"a=1, b=[x,y]"` -> the assignments; the empty string has none. Raises UserError with every problem."""
    layer = overrides_layer(text)
    if layer.problems:
        raise UserError(format_problems(layer.problems, headline=_headline(len(layer.problems))))
    return list(layer.assignments)


def overrides_layer(text: str, *, label: str = "--hparams") -> Layer:
    """The assignments of `text`, and what is wrong with the rest of it."""
    assignments, problems = [], []
    try:
        pieces = _split_at_commas(text) if text.strip() else []
    except ValueError as error:
        return Layer(label, problems=(f"{label}: {error}",))
    for piece in pieces:
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not name or not equals:
            problems.append(f"{label}: {piece.strip()!r} is no assignment; write name=value,name=value")
            continue
        try:
            assignments.append(Assignment(name, _parse_value(value)))
        except ValueError as error:
            problems.append(f"{label}: {name}={value}: {error}")
    return Layer(label, tuple(assignments), tuple(problems))


def format_overrides(values: Mapping[str, object]) -> str:
    """The text that `parse_overrides` and the declared types turn into exactly these values."""
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
    pieces, depth, quote, previous, escaped = [""], 0, "", ",", False
    for char in text:
        if char == "," and depth == 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += char
        if quote:
            if escaped or char != quote:
                escaped = char == "\\" and not escaped
                continue
            quote = ""
        elif char in QUOTES and previous in ",=[":
            quote = char
        depth += (not quote) * ((char == "[") - (char == "]"))
        if depth < 0:
            raise ValueError(f"']' without '[' in {_shortened(text)}")
        previous = previous if char.isspace() else char
    if quote or depth:
        raise ValueError(f"{quote or '['} is never closed in {_shortened(text)}")
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
    quote = text[0]
    whole = re.fullmatch(rf"{quote}((?:\\.|[^{quote}\\])*){quote}", text, flags=re.DOTALL)
    if whole is None:
        raise ValueError(f"nothing may follow the closing {quote}")
    return re.sub(r"\\([\"'\\])", r"\1", whole[1])  # any other backslash stays: Windows paths


class _Loader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys in silence; this one notes them."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.duplicates: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.duplicates.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    """YAML 1.1 reads 10000:3 as a number to base 60; here it is a text, as in --hparams."""
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml_layer(path: Path, *, label: str) -> Layer:
    """The layer that a YAML file holds: `name: value` lines, and perhaps a `search:` section."""
    try:
        loader = _Loader(path.read_bytes())
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        return Layer(label, problems=(f"{label}: cannot read {path}: {error.strerror}",))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        return Layer(label, problems=(f"{label}: not YAML: {' '.join(str(error).split())}",))
    content = {} if content is None else content
    if not isinstance(content, dict):
        return Layer(label, problems=(f"{label}: must hold `name: value` lines, not {_shortened(content)}",))
    problems = [f"{label}: line {line}: {name} is given twice" for name, line in loader.duplicates]
    search = content.pop(SEARCH_SECTION, None) or {}
    if not isinstance(search, dict):
        problems.append(f"{label}: {SEARCH_SECTION}: must hold `name: range` lines, not {_shortened(search)}")
        search = {}
    return _mapping_layer(label, content, search, problems)


def _mapping_layer(label: str, content: dict, search: dict, problems: list[str]) -> Layer:
    for name in [name for name in (*content, *search) if not isinstance(name, str)]:
        problems.append(f"{label}: {name!r} is not a name; put it in quotes if it is meant as one")
    assignments = tuple(Assignment(name, value) for name, value in content.items() if isinstance(name, str))
    named_search = {name: value for name, value in search.items() if isinstance(name, str)}
    return Layer(label, assignments, tuple(problems), named_search)


def convert(raw: object, annotation: Any) -> object:
    """`raw` (text, or a YAML value) as the declared type; raises ValueError where it is none. Ranges come later."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return convert(raw, get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _convert_to_first(raw, get_args(annotation))
    if origin is Literal:
        return _to_choice(raw, get_args(annotation))
    if origin is tuple:
        return _to_tuple(raw, get_args(annotation)[0])
    return {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str, NoneType: _to_none}[annotation](raw)


def _convert_to_first(raw: object, annotations: Iterable[Any]) -> object:
    for annotation in annotations:
        try:
            return convert(raw, annotation)
        except ValueError:
            continue  # the next alternative may fit; when none does, the caller names them all
    raise ValueError("fits no alternative")


def _to_choice(raw: object, choices: tuple[str, ...]) -> str:
    if not isinstance(raw, str) or raw not in choices:
        raise ValueError("not one of the choices")
    return raw


def _to_tuple(raw: object, annotation: Any) -> tuple:
    if not isinstance(raw, list | tuple):
        raise ValueError("not a list")
    return tuple(convert(item, annotation) for item in raw)


def _to_bool(raw: object) -> bool:
    word = str(raw).lower() if isinstance(raw, bool | int | str) else ""
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise ValueError("not a truth value")


def _to_none(raw: object) -> None:
    if raw is not None and (not isinstance(raw, str) or raw.lower() not in NONE_WORDS):
        raise ValueError("not None")


def _to_int(raw: object) -> int:
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]+", raw):
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError("not a whole number")


def _to_float(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or "_" in str(raw):
        raise ValueError("not a number")
    try:
        return float(raw)  # the model refuses NaN and infinity
    except OverflowError as error:
        raise ValueError("beyond the largest float") from error


def _to_str(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("not text; put it in quotes")
    return raw


def field_specs(model: type[BaseModel]) -> dict[str, FieldSpec]:
    """The declarations of `model`, in order."""
    return {name: _field_spec(name, info) for name, info in model.model_fields.items()}


def _field_spec(name: str, info: FieldInfo) -> FieldSpec:
    extra = info.json_schema_extra
    assert isinstance(extra, dict), f"{name} is declared without hp_field"
    parity: Any = extra["parity"]
    limits = [*_limits(info.annotation), *_bounds(info.metadata), *([parity] if parity else [])]
    meta: dict[str, Any] = {key: extra[key] for key in ("unit", "affects", "mutable")}
    aliases = tuple(str(alias) for alias in extra["aliases"])  # type: ignore[union-attr]
    return FieldSpec(
        name=name,
        annotation=info.annotation,
        default=info.default,
        aliases=aliases,
        parity=parity,
        type=_type_text(info.annotation),
        range=", ".join(limits),
        **meta,
    )


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_type_text(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type_text(arguments[0])}"
    return "str" if origin is Literal else "None" if annotation is NoneType else annotation.__name__


def _limits(annotation: Any) -> list[str]:
    """The limits that the type itself carries: choices, and bounds inside a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return ["True, False"]
    if origin is Literal:
        return list(arguments)
    if origin is Annotated:
        return _bounds(arguments[1:])
    if origin in (Union, UnionType):
        return [limit for argument in arguments for limit in _limits(argument)]
    if origin is tuple:
        return _limits(arguments[0])
    return []


def _bounds(metadata: Iterable[Any]) -> list[str]:
    bounds = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            bounds += _bounds(item.metadata)
        for key, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            if hasattr(item, key):
                bounds.append(f"{sign} {getattr(item, key)}")
    return bounds


def merge_layers(model: type[BaseModel], layers: Sequence[Layer], *, extra_checks: Sequence[Check] = ()) -> Merged:
    """The values of all layers, later ones winning. Raises one UserError with every problem of every layer."""
    specs = field_specs(model)
    merged, problems = Merged({}, {}, {}), []
    invalid: set[str] = set()
    for layer in layers:
        values, unusable, found = _read_layer(model, specs, layer)
        problems += [*layer.problems, *found]
        invalid = (invalid - values.keys()) | unusable
        merged.values.update(values)
        merged.origins.update(dict.fromkeys(values, layer.label))
        for spelling, search_range in layer.search.items():
            merged.search[_canonical(specs).get(spelling, spelling)] = search_range
    problems += failed_checks(model, merged.values, origins=merged.origins, skip=invalid, extra_checks=extra_checks)
    if problems:
        raise UserError(format_problems(problems, headline=_headline(len(problems))))
    return merged


def failed_checks(
    model: type[BaseModel],
    values: Mapping[str, object],
    *,
    origins: Mapping[str, str] | None = None,
    skip: Iterable[str] = (),
    extra_checks: Sequence[Check] = (),
) -> list[str]:
    """The cross-field rules (and parities) that `values` over the defaults break, leaving out the fields of `skip`."""
    specs = field_specs(model)
    full = {name: spec.default for name, spec in specs.items()} | dict(values)
    parities = [
        Check((name,), lambda value, rest=spec.parity == "odd": value % 2 == rest, f"must be {spec.parity}")
        for name, spec in specs.items()
        if spec.parity
    ]
    declared = [check for base in model.__mro__ for check in vars(base).get("checks", ())]
    failed = []
    for check in [*parities, *declared, *extra_checks]:
        usable = not set(check.names) & set(skip)
        if usable and not check.holds(*(full[name] for name in check.names)):
            shown = ", ".join(_with_origin(name, full[name], origins) for name in check.names)
            failed.append(f"{shown}: {check.requirement}")
    return failed


def _with_origin(name: str, value: object, origins: Mapping[str, str] | None) -> str:
    source = "" if origins is None else f" ({origins.get(name, 'default')})"
    return f"{name}={format_value(value)}{source}"


def _read_layer(
    model: type[BaseModel], specs: Mapping[str, FieldSpec], layer: Layer
) -> tuple[dict[str, object], set[str], list[str]]:
    """The valid values of one layer by canonical name, the names it gives an invalid value, and the problems."""
    canonical_names = _canonical(specs)
    problems = [
        _unknown(model, layer.label, name, name, canonical_names)
        for name in layer.search
        if name not in canonical_names
    ]
    first: dict[str, Assignment] = {}
    spellings: set[str] = set()
    values: dict[str, object] = {}
    for assignment in layer.assignments:
        name = canonical_names.get(assignment.name)
        shown = f"{assignment.name}={_shortened(assignment.value)}"
        if name is None:
            problems.append(_unknown(model, layer.label, assignment.name, shown, canonical_names))
            continue
        try:
            value = convert(assignment.value, specs[name].annotation)
            if name in first and (assignment.name in spellings or values.get(name) != value):
                other = f"{first[name].name}={_shortened(first[name].value)}"
                problems.append(f"{layer.label}: {other} and {shown} both set {name}; keep one of them")
            values.setdefault(name, value)
        except ValueError:
            problems.append(_not_allowed(layer.label, assignment, specs[name]))
        first.setdefault(name, assignment)
        spellings.add(assignment.name)
    outside = _outside_range(model, values)
    problems += [_not_allowed(layer.label, first[name], specs[name]) for name in outside]
    valid = {name: value for name, value in values.items() if name not in outside}
    return valid, first.keys() - valid.keys(), problems


def _outside_range(model: type[BaseModel], values: Mapping[str, object]) -> list[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        # an empty location is a cross-field rule, which is judged on the merged values instead
        return list(dict.fromkeys(str(problem["loc"][0]) for problem in error.errors() if problem["loc"]))
    return []


def _canonical(specs: Mapping[str, FieldSpec]) -> dict[str, str]:
    return {spelling: name for name, spec in specs.items() for spelling in (name, *spec.aliases)}


def _unknown(model: type[BaseModel], label: str, name: str, shown: str, known: Mapping[str, str]) -> str:
    renamed: Mapping[str, str] = getattr(model, "renamed", {})
    if name in renamed:
        return f"{label}: {shown}: no such hyperparameter; the name is {renamed[name]}"
    close = difflib.get_close_matches(name.strip().lower().replace("-", "_"), list(known), n=1)
    hint = f"nearest: {close[0]}" if close else "--show-params lists them all"
    return f"{label}: {shown}: no such hyperparameter; {hint}"


def _not_allowed(label: str, assignment: Assignment, spec: FieldSpec) -> str:
    return f"{label}: {assignment.name}={_shortened(assignment.value)}: must be {spec.allowed}"


def _shortened(value: object) -> str:
    # repr stops at a list that contains itself, which YAML can write
    is_nested = isinstance(value, list) and any(isinstance(item, list) for item in value)
    text = value if isinstance(value, str) and value else repr(value) if is_nested else format_value(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _headline(count: int) -> str:
    return f"{count} problem{'s' if count > 1 else ''} in the hyperparameters"
