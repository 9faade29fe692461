"""Values of a declared type: made from a text or from what YAML says, and described to a person.

Stricter than pydantic's own conversion from text, which takes "1_0", "on", or 3.0 for a whole number.
"""

import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

TRUE_WORDS = frozenset({"true", "1", "yes"})
FALSE_WORDS = frozenset({"false", "0", "no"})
NONE_WORDS = frozenset({"none", "null"})


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


def type_text(annotation: Any) -> str:
    """What a person calls the type: "int", "list of str", "int or None"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(type_text(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    return "str" if origin is Literal else "None" if annotation is NoneType else annotation.__name__


def limits_of(annotation: Any) -> list[str]:
    """The limits that the type itself carries: choices, and bounds inside a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return ["True, False"]
    if origin is Literal:
        return list(arguments)
    if origin is Annotated:
        return bounds_of(arguments[1:])
    if origin in (Union, UnionType):
        return [limit for argument in arguments for limit in limits_of(argument)]
    if origin is tuple:
        return limits_of(arguments[0])
    return []


def bounds_of(metadata: Iterable[Any]) -> list[str]:
    """The bounds of a field's metadata, as [">= 1", "< 2"]."""
    bounds = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            bounds += bounds_of(item.metadata)
        for key, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            if hasattr(item, key):
                bounds.append(f"{sign} {getattr(item, key)}")
    return bounds
