"""YAML in and out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentiment_hybrid.config.syntax import dump, parse, parse_with_lines
from sentiment_hybrid.errors import ConfigError

_plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        ["2e-5", "no", "on", "010", "12:30", "null", "~", "<<", "1.5", ".inf", "0x1f", "2024-01-01", "\x85"]
    ),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1E3", 1000.0),
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("010", 10),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
    ],
)
def test_values_are_what_they_look_like(text: str, value: Any) -> None:
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


@given(st.dictionaries(st.text(max_size=10), st.one_of(_plain, st.lists(_plain, max_size=3)), max_size=4))
def test_what_is_dumped_is_read_back(value: dict[str, Any]) -> None:
    assert parse(dump(value)) == value


def bomb(step: str) -> str:
    """A dozen lines that stand for a billion values."""
    return "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {step.format(f'*a{n - 1}')}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' is duplicated"),
        ("a: [1,", "line 1"),
        ("? [1, 2]\n: 3", "a key must be plain text"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "special characters"),
        ("a: &x {b: *x}", "line 1: an alias to what contains it"),
        ("a: &x [*x]", "line 1: an alias to what contains it"),
        (bomb("[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]"), "more than 100,000 values"),
        (bomb("{{<<: [{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]}}"), "more than 100,000 values"),
        ("[" * 3000, "cannot be read as YAML"),
    ],
)
def test_bad_yaml_is_reported_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        parse(text)
    assert words in caught.value.message


def test_every_key_has_its_line() -> None:
    _, lines = parse_with_lines("a:\n  b: 1\n\n  c:\n    d: 2\ne: 3\n")
    assert lines == {"a": 1, "a.b": 2, "a.c": 4, "a.c.d": 5, "e": 6}


def test_a_value_may_be_used_again() -> None:
    assert parse("a: &x {b: 1}\nc: [*x, *x]\nd: {<<: *x, e: 2}") == {
        "a": {"b": 1}, "c": [{"b": 1}, {"b": 1}], "d": {"b": 1, "e": 2},
    }  # fmt: skip
