"""SageMaker's wire protocol, from botocore's service model: parse, validate and serialise any operation.

Messages have AWS's form (`1 validation error detected: Value 'x' at 'y' failed to satisfy constraint: ...`),
because users search for them and clients match on them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationNotFoundError, ServiceModel, Shape, StructureShape

from local_sagemaker.context import Request, Response
from local_sagemaker.errors import SerializationError, UnknownOperationError, ValidationError
from local_sagemaker.patterns import matches

logger = logging.getLogger(__name__)

_Members = Iterator[str]

# Required by the service model but left out by AWS: versions of a model package have no name.
_NOT_SENT = {("DescribeModelPackageOutput", "ModelPackageName")}


@cache
def service_model(service: str = "sagemaker") -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def parse_request(operation: str, body: bytes) -> Request:
    """The validated request of a SageMaker operation, without members that the service model does not have.

    Raises UnknownOperationError, SerializationError (not a JSON object, or a value of the wrong type) or
    ValidationError (one message with every violated constraint).
    """
    shape = _input_shape(operation)
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"The body of {operation} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SerializationError(f"The body of {operation} must be a JSON object")
    request: Request = _parse(shape, document, "")
    violations = list(_violations(shape, request, ""))
    if violations:
        raise ValidationError(violation_message(violations))
    return request


def serialise_response(operation: str, response: Response | None) -> bytes:
    """The JSON body of a response: only members of the operation's output shape, times as epoch seconds."""
    shape = service_model().operation_model(operation).output_shape
    if not isinstance(shape, StructureShape):
        return b"{}"
    return json.dumps(_serialise(shape, response or {}, operation)).encode()


def violation_message(violations: list[str]) -> str:
    plural = "error" if len(violations) == 1 else "errors"
    return f"{len(violations)} validation {plural} detected: " + "; ".join(violations)


def _input_shape(operation: str) -> StructureShape:
    try:
        shape = service_model().operation_model(operation).input_shape
    except OperationNotFoundError as error:
        raise UnknownOperationError(f"SageMaker has no operation {operation!r}") from error
    return (
        shape
        if isinstance(shape, StructureShape)
        else StructureShape(operation, {"type": "structure", "members": {}})
    )


def _parse(shape: Shape, value: Any, path: str) -> Any:
    return _PARSERS[shape.type_name](shape, value, path)


def _parse_structure(shape: StructureShape, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(value, "a structure", path)
    unknown = sorted(value.keys() - shape.members.keys())
    if unknown:
        logger.info("Ignored members that %s does not have: %s", shape.name, ", ".join(unknown))
    return {
        name: _parse(member, value[name], _join(path, name))
        for name, member in shape.members.items()
        if value.get(name) is not None
    }


def _parse_list(shape: ListShape, value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong_type(value, "a list", path)
    return [_parse(shape.member, item, f"{path}.{index}.member") for index, item in enumerate(value, 1)]


def _parse_map(shape: MapShape, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(value, "a map", path)
    return {key: _parse(shape.value, item, f"{path}.{key}.member") for key, item in value.items()}


def _parse_string(_shape: Shape, value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a String", path)
    return value


def _parse_boolean(_shape: Shape, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "a Boolean", path)
    return value


def _parse_integer(_shape: Shape, value: Any, path: str) -> int:
    if _parse_number(_shape, value, path) != math.floor(value):
        raise _wrong_type(value, "an Integer", path)
    return int(value)


def _parse_number(_shape: Shape, value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong_type(value, "a Number", path)
    return value


def _parse_timestamp(_shape: Shape, value: Any, path: str) -> float:
    """Epoch seconds; like AWS, accepts ISO 8601 text."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError as error:
            raise _wrong_type(value, "a Timestamp", path) from error
    return _parse_number(_shape, value, path)


_PARSERS: dict[str, Callable[[Any, Any, str], Any]] = {
    "structure": _parse_structure,
    "list": _parse_list,
    "map": _parse_map,
    "string": _parse_string,
    "boolean": _parse_boolean,
    "integer": _parse_integer,
    "long": _parse_integer,
    "float": _parse_number,
    "double": _parse_number,
    "timestamp": _parse_timestamp,
}


def _wrong_type(value: Any, expected: str, path: str) -> SerializationError:
    names = {
        dict: "a structure",
        list: "a list",
        str: "STRING_VALUE",
        bool: "BOOLEAN_VALUE",
        type(None): "null",
    }
    found = names.get(type(value), "NUMBER_VALUE")
    return SerializationError(f"{found} can not be converted to {expected} at '{path}'")


def _join(path: str, member: str) -> str:
    """A path as in AWS's messages, with a lower-case first letter: `resourceConfig.instanceCount`."""
    name = member[:1].lower() + member[1:]
    return f"{path}.{name}" if path else name


def _violations(shape: Shape, value: Any, path: str) -> _Members:
    if isinstance(shape, StructureShape):
        yield from _structure_violations(shape, value, path)
        return
    if path:
        for constraint in _constraints(shape, value):
            yield f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: {constraint}"
    if isinstance(shape, ListShape):
        for index, item in enumerate(value, 1):
            yield from _item_violations(shape, value, item, path, index)
    elif isinstance(shape, MapShape):
        yield from _map_violations(shape, value, path)


def _structure_violations(shape: StructureShape, value: Mapping[str, Any], path: str) -> _Members:
    for name in shape.required_members:
        if name not in value:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield (
            f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
            f"Exactly one member of {', '.join(shape.members)} must be set"
        )
    for name, item in value.items():
        yield from _violations(shape.members[name], item, _join(path, name))


def _item_violations(shape: ListShape, value: list[Any], item: Any, path: str, index: int) -> _Members:
    if isinstance(shape.member, StructureShape | ListShape | MapShape):
        yield from _violations(shape.member, item, f"{path}.{index}.member")
        return
    constraints = list(_constraints(shape.member, item))
    if constraints:
        yield (
            f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
            f"Member must satisfy constraint: [{', '.join(constraints)}]"
        )


def _map_violations(shape: MapShape, value: Mapping[str, Any], path: str) -> _Members:
    for key, item in value.items():
        constraints = list(_constraints(shape.key, key))
        if constraints:
            yield (
                f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
                f"Map keys must satisfy constraint: [{', '.join(constraints)}]"
            )
        if isinstance(shape.value, StructureShape | ListShape | MapShape):
            yield from _violations(shape.value, item, f"{path}.{key}.member")
            continue
        constraints = list(_constraints(shape.value, item))
        if constraints:
            yield (
                f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
                f"Map value must satisfy constraint: [{', '.join(constraints)}]"
            )


def _constraints(shape: Shape, value: Any) -> _Members:
    """The constraints that a value violates, in AWS's words."""
    limits = shape.metadata
    if shape.type_name in {"integer", "long", "float", "double"}:
        yield from _limits(value, limits, "value")
    elif shape.type_name in {"string", "list", "map"}:
        yield from _limits(len(value), limits, "length")
    if shape.type_name == "string":
        if "enum" in limits and value not in limits["enum"]:
            yield f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
        if "pattern" in limits and not matches(limits["pattern"], value):
            yield f"Member must satisfy regular expression pattern: {limits['pattern']}"


def _limits(measure: float, limits: Mapping[str, Any], noun: str) -> _Members:
    if "max" in limits and measure > limits["max"]:
        yield f"Member must have {noun} less than or equal to {limits['max']}"
    if "min" in limits and measure < limits["min"]:
        yield f"Member must have {noun} greater than or equal to {limits['min']}"


def _shown(value: Any) -> str:
    """A value as in AWS's messages, which use Java's `toString`: `[a, b]` and `{key=value}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return str(value)


def _serialise(shape: Shape, value: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _serialise_structure(shape, value, path)
    if isinstance(shape, ListShape):
        return [_serialise(shape.member, item, path) for item in value]
    if isinstance(shape, MapShape):
        return {key: _serialise(shape.value, item, path) for key, item in value.items()}
    if isinstance(value, datetime):
        return value.timestamp()
    return value


def _serialise_structure(shape: StructureShape, value: Mapping[str, Any], path: str) -> dict[str, Any]:
    required = [name for name in shape.required_members if (shape.name, name) not in _NOT_SENT]
    missing = [name for name in required if value.get(name) is None]
    if missing:
        logger.warning("%s: the response lacks members that AWS always sends: %s", path, ", ".join(missing))
    return {
        name: _serialise(member, value[name], f"{path}.{name}")
        for name, member in shape.members.items()
        if value.get(name) is not None
    }
