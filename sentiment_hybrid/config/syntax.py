"""Reads and writes YAML without its traps: 2e-5 is a number, no and off are text, a duplicate key is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from sentiment_hybrid.errors import ConfigError

# YAML 1.2's core schema. PyYAML implements 1.1, where 2e-5 is text, `no` is false, 010 is 8 and 12:30 is 750.
_CORE = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("merge", r"^(?:<<)$", "<"),
)
#: First letter of a value, empty for none -> rules to try.
_RESOLVERS = {
    letter.strip("\0"): [
        (f"tag:yaml.org,2002:{tag}", re.compile(rule)) for tag, rule, starts in _CORE if letter in starts
    ]
    for letter in {*"".join(starts for *_, starts in _CORE)}
}
#: Values of a document at most.
_LARGEST = 100_000


class Loader(yaml.SafeLoader):
    """Reads plain data only."""

    yaml_implicit_resolvers = _RESOLVERS


_CSafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_CSafeLoader):
    """The same with libyaml, ten times as fast, if PyYAML was built with it."""

    yaml_implicit_resolvers = _RESOLVERS


class Dumper(yaml.SafeDumper):
    """Writes YAML that ``Loader`` reads back as the same values."""

    yaml_implicit_resolvers = _RESOLVERS

    def ignore_aliases(self, data: Any) -> bool:
        """Repeat equal values instead of writing anchors."""
        return True


def _text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML breaks lines at these even inside single quotes, and reads spaces back.
    style = '"' if any(odd in text for odd in "\x85\u2028\u2029\ufeff\r") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is duplicated", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


for _loader in (Loader, _FastLoader):
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
    # PyYAML's constructor would still read 010 as 8.
    _loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ConfigError with the line of the error."""
    return parse_with_lines(text)[0]


def parse_with_lines(text: str, *, name: str = "") -> tuple[Any, dict[str, int]]:
    """The value of a YAML text, and dotted key -> line (from 1) of each of its keys. Raises ConfigError."""
    where = f"{name}, " if name else ""
    try:
        try:
            return _read(_FastLoader(text))
        except (yaml.YAMLError, RecursionError, ValueError):
            return _read(Loader(text))  # its messages are clearer, and it may accept the text
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}{line}{error.problem or error.context}", hint="This is not valid YAML.") from error
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{where}{first}", hint="This is not valid YAML.") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{where}cannot be read as YAML: {error}") from error


def _read(loader: Any) -> tuple[Any, dict[str, int]]:
    node = loader.get_single_node()
    _check_size(node)
    lines: dict[str, int] = {}
    _note_lines(node, "", lines, ())
    return None if node is None else loader.construct_document(node), lines


def _check_size(root: yaml.Node | None) -> None:
    """Refuse documents that explode through aliases: a few lines can mean a billion values."""
    sizes: dict[int, int] = {}
    waiting = [] if root is None else [root]
    while waiting:  # each node after those below it
        node = waiting[-1]
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        below = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        if id(node) not in sizes:
            sizes[id(node)] = -1  # until it is known
            waiting += [part for part in below if id(part) not in sizes]
            continue
        waiting.pop()
        if any(sizes[id(part)] < 0 for part in below):
            raise yaml.composer.ComposerError(None, None, "an alias to what contains it", node.start_mark)
        sizes[id(node)] = 1 + sum(sizes[id(part)] for part in below)
        if sizes[id(node)] > _LARGEST:
            raise yaml.composer.ComposerError(
                None, None, f"more than {_LARGEST:,} values, aliases followed", node.start_mark
            )


def _note_lines(node: yaml.Node | None, prefix: str, lines: dict[str, int], above: tuple[int, ...]) -> None:
    # An alias may refer to a node around it.
    if not isinstance(node, yaml.MappingNode) or id(node) in above:
        return
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        lines[dotted] = key.start_mark.line + 1
        _note_lines(value, f"{dotted}.", lines, (*above, id(node)))


def dump(value: Any) -> str:
    """YAML that ``parse`` reads back as the same value; keys keep their order."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
