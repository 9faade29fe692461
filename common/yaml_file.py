"""A YAML file as plain values, with the keys that it gives twice."""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.encodings import as_text
from common.files import read_given


@dataclass(frozen=True)
class YamlFile:
    """duplicates: (key, line) of each key that a mapping has twice; the last value is in the content."""

    content: Any
    duplicates: tuple[tuple[str, int], ...]
    is_empty: bool = False  # without a remark, too


class _Loader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys in silence; this one notes them."""

    def __init__(self, stream: bytes | str) -> None:
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
    """YAML 1.1 reads 10000:3 as a number to base 60; here it is a text."""
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # by these YAML is to be read, too


def read_own_yaml(path: Path) -> Any:
    """A file of the project itself. libyaml takes a tenth of the time, where PyYAML was built with it."""
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_yaml(path: Path) -> YamlFile:
    """OSError where it can't be read, ValueError where it is no YAML of plain values."""
    content = read_given(path)
    try:
        loader = _Loader(content if content.startswith(UTF16_MARKS) else as_text(content))
    except yaml.YAMLError as error:  # of characters that YAML has not
        raise ValueError(" ".join(str(error).split())) from error
    try:
        return YamlFile(loader.get_single_data(), tuple(loader.duplicates), not content.strip())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        loader.dispose()
