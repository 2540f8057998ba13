"""Documents that satisfy the shapes of botocore's service models, and the requests that carry them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import urlencode

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.serialize import create_serializer
from hypothesis import strategies as st
from local_sagemaker.patterns import translate

from tests.fuzz.client import Request

DEPTH = 6  # of nested optional members
MOST_ITEMS = 3
LONGEST = 80  # of a text made up, unless its shape wants more


@cache
def model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def valid(shape: Shape | None, pool: Mapping[str, Sequence[Any]]) -> st.SearchStrategy[Any]:
    """A document that satisfies the shape, mostly. `pool`: values by member name, used four times in five."""
    return _value(shape, pool, "", 0) if shape is not None else st.just({})


def _value(shape: Shape, pool: Mapping[str, Sequence[Any]], name: str, depth: int) -> st.SearchStrategy[Any]:
    made = _made(shape, pool, depth)
    if name in pool:
        return st.integers(0, 4).flatmap(lambda dice: made if dice == 0 else st.sampled_from(pool[name]))
    return made


def _made(shape: Shape, pool: Mapping[str, Sequence[Any]], depth: int) -> st.SearchStrategy[Any]:
    if isinstance(shape, StructureShape):
        return st.deferred(lambda: _structure(shape, pool, depth))
    least = int(shape.metadata.get("min", 0))
    if isinstance(shape, ListShape):
        items = _value(shape.member, pool, "", depth + 1)
        return st.lists(
            items, min_size=min(least, MOST_ITEMS), max_size=max(min(least, MOST_ITEMS), MOST_ITEMS)
        )
    if isinstance(shape, MapShape):
        keys, values = _value(shape.key, pool, "", depth + 1), _value(shape.value, pool, "", depth + 1)
        return st.dictionaries(keys, values, max_size=MOST_ITEMS)
    return _scalar(shape)


def _structure(
    shape: StructureShape, pool: Mapping[str, Sequence[Any]], depth: int
) -> st.SearchStrategy[Any]:
    members = {name: _value(member, pool, name, depth + 1) for name, member in shape.members.items()}
    if getattr(shape, "is_tagged_union", False):
        return st.sampled_from(sorted(members)).flatmap(
            lambda name: st.fixed_dictionaries({name: members[name]})
        )
    required = {name: members[name] for name in shape.required_members}
    if depth >= DEPTH:
        return st.fixed_dictionaries(required)
    optional = sorted(members.keys() - required.keys())
    chosen = st.lists(st.sampled_from(optional), max_size=4, unique=True) if optional else st.just([])
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({**required, **{name: members[name] for name in names}})
    )


def _scalar(shape: Shape) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each type
    limits = shape.metadata
    if shape.type_name == "boolean":
        return st.booleans()
    if shape.type_name == "timestamp":
        return st.sampled_from([0, 1.7e9, 1764000000, "2026-11-27T12:00:00Z"])
    if shape.type_name in {"integer", "long"}:
        low = int(limits.get("min", 0))
        return st.integers(low, min(int(limits.get("max", low + 100)), low + 100))
    if shape.type_name in {"float", "double"}:
        return st.floats(0, 1)
    if shape.type_name == "blob":
        return st.binary(max_size=LONGEST)
    if "enum" in limits:
        return st.sampled_from(list(limits["enum"]))
    return _text(limits.get("pattern"), int(limits.get("min", 0)), int(limits.get("max", LONGEST)))


@cache
def _text(pattern: str | None, least: int, most: int) -> st.SearchStrategy[str]:
    plain = st.text("abcXYZ019-_./", min_size=min(least, LONGEST), max_size=max(least, min(most, LONGEST)))
    if pattern is None:
        return plain
    try:
        compiled = re.compile(translate(pattern), re.ASCII)
        made = st.from_regex(compiled, fullmatch=True)
    except re.error:  # Java's Unicode classes
        return plain
    return made.filter(lambda text: least <= len(text) <= most)


def as_json(document: Any) -> bytes:
    """JSON as Python writes it: NaN and lone surrogates included, which are no JSON."""
    return json.dumps(document).encode()


def serialised(operation: OperationModel, document: Any) -> Request | None:
    """The request as botocore sends it; None for a document that it cannot send."""
    protocol = operation.service_model.resolved_protocol
    try:
        parts = create_serializer(protocol, include_validation=False).serialize_to_request(
            document, operation
        )
        query = parts.get("query_string") or ""
        text = query if isinstance(query, str) else urlencode(query, doseq=True, errors="surrogatepass")
        separator = "&" if "?" in parts["url_path"] else "?"
        target = parts["url_path"] + (separator + text if text else "")
        body = parts["body"]
        content = urlencode(body).encode() if isinstance(body, dict) else body
        headers = {name: str(value) for name, value in parts["headers"].items() if "\n" not in str(value)}
        if not isinstance(content, bytes):
            content = str(content).encode()
        return Request(parts["method"], target, headers, content)
    except Exception:  # noqa: BLE001 - botocore's serialisers raise whatever a wrong type leads to
        return None
