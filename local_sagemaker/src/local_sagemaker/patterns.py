"""What texts of requests look like: numbers, and the patterns of AWS service models, which are Java's."""

from __future__ import annotations

from functools import cache

import regex

_ASTRAL_AS_SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"
_POSIX_CLASSES = {
    r"[\p{Print}]": r"[\x20-\x7E]",
    r"\p{ASCII}": r"[\x00-\x7F]",
    r"\p{Alnum}": "a-zA-Z0-9",  # occurs inside brackets only
}


def translate(pattern: str) -> str:
    """Rewrite what Python reads differently: surrogate ranges, and Java's POSIX classes, which are ASCII."""
    pattern = pattern.replace(_ASTRAL_AS_SURROGATES, r"\U00010000-\U0010FFFF")
    for java, python in _POSIX_CLASSES.items():
        pattern = pattern.replace(java, python)
    return pattern


@cache
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    r"""Compile for `fullmatch`: Java's `matches` compares the whole value.

    Java's `\w`, `\d` and `\s` are ASCII; its `\p{L}` and the like are Unicode.
    """
    return regex.compile(translate(pattern), 0 if r"\p{" in pattern else regex.ASCII)


def number(text: str) -> int | None:
    """The number that ASCII digits write, 18 at most; None for other text.

    `str.isdigit` takes superscripts, which `int` does not, and `int` raises ValueError above 4,300 digits.
    """
    return int(text) if regex.fullmatch(r"[0-9]{1,18}", text) else None


def matches(pattern: str, value: str) -> bool:
    return compile_pattern(pattern).fullmatch(value) is not None
