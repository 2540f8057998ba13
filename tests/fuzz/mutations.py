"""What goes wrong with documents and bytes on their way here."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ODD_TEXTS = [
    "",
    " ",
    "..",
    "../../../../etc/passwd",
    "a/../../../b",
    "/",
    "//",
    "a\x00b",
    "a\nb",
    "\ufeff",
    "\u202e",
    "é" * 200,
    "e\u0301",
    "😀",
    "-" * 300,
    "a" * 100_000,
    "a-" * 20_000 + "!",
    "%00",
    "${jndi:ldap://x}",
    "' OR 1=1 --",
    "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
    "s3://",
    "s3://bucket",
    "s3://bucket/../../x",
    "s3:///key",
    "https://example.com/a",
    "arn:aws:sagemaker:us-east-1:123456789012:",
    "arn:aws:iam::123456789012:role/",
    "NaN",
    "1e400",
    "-1",
    "2026-02-30T25:61:61Z",
]
ODD_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 0.1, float("inf"), float("nan")]
    ),
    st.sampled_from([[], {}, [[]], [None], {"": ""}, {"a": {"b": [1, "c"]}}, ["a"] * 1000]),
    st.text(max_size=20),
)


@st.composite
def mutated(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """A document with one to three changes: a value replaced, a member gone or added."""
    document = draw(documents)
    for _ in range(draw(st.integers(1, 3))):
        document = _changed(draw, document)
    return document


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        if not draw(st.integers(0, 5)):
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _changed(draw, value[key])}
    if isinstance(value, dict) and not draw(st.integers(0, 2)):
        return {**value, draw(st.sampled_from(["", "Name", "__type", "a" * 500])): draw(ODD_VALUES)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], _changed(draw, value[index]), *value[index + 1 :]]
    return draw(ODD_VALUES)


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a part cut off, doubled, changed or put in."""
    content = draw(contents)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["cut", "gap", "double", "change", "insert"]))
        middle = {"gap": b"", "double": content[start:end] * 2}
        if how == "cut":
            content = content[:start]
        else:
            new = middle.get(how) if how in middle else draw(st.binary(max_size=40))
            content = content[:start] + (new or b"") + content[start if how == "insert" else end :]
    return content
