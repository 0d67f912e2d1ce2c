"""JSON schemas of A2A's types, read off a2a-sdk: protobuf's as their JSON has them, and 0.3's JSON."""

from collections.abc import Mapping
from typing import Any

from a2a.compat.v0_3 import a2a_v0_3_pb2, types
from a2a.types import a2a_pb2
from google.api.field_behavior_pb2 import REQUIRED, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor

V1, V03_PROTO, V03_JSON = "v1", "v0_3_proto", "v0_3"
"""What the names of schemas begin with."""

Schemas = dict[str, Any]
"""By name."""

_PACKAGES = {"lf.a2a.v1": V1, "a2a.v1": V03_PROTO}
_WELL_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
_SCALARS: Mapping[int, Mapping[str, Any]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
}
"""All that A2A uses; another is an error, to be looked at."""


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def derive(name: str) -> Schemas:
    """The schema of a type, `v1.Task`, and of all that it is made of."""
    version, _, type_name = name.partition(".")
    if version == V03_JSON:
        return _of_pydantic(type_name)
    module = a2a_pb2 if version == V1 else a2a_v0_3_pb2
    found: Schemas = {}
    _add(getattr(module, type_name).DESCRIPTOR, found)
    return found


def _add(descriptor: Descriptor, found: Schemas) -> dict[str, Any]:
    if descriptor.full_name in _WELL_KNOWN:
        return dict(_WELL_KNOWN[descriptor.full_name])
    package, _, type_name = descriptor.full_name.rpartition(".")
    name = f"{_PACKAGES[package]}.{type_name}"
    if name not in found:
        found[name] = {}  # types may hold themselves
        found[name] = _message(descriptor, found)
    return reference(name)


def _message(descriptor: Descriptor, found: Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "properties": {field.json_name: _field(field, found) for field in descriptor.fields},
    }
    if required := [field.json_name for field in descriptor.fields if _is_required(field)]:
        made["required"] = required
    # An `optional` field is the only one of a choice that protobuf made up.
    choices = [choice.fields for choice in descriptor.oneofs if not choice.name.startswith("_")]
    alternatives = [{"oneOf": [{"required": [field.json_name]} for field in fields]} for fields in choices]
    if len(alternatives) > 1:
        made["allOf"] = alternatives
    return made | (alternatives[0] if len(alternatives) == 1 else {})


def _field(field: FieldDescriptor, found: Schemas) -> dict[str, Any]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(message.fields_by_name["value"], found)}
    value = _value(field, found)
    return {"type": "array", "items": value} if field.is_repeated else value


def _value(field: FieldDescriptor, found: Schemas) -> dict[str, Any]:
    if field.message_type is not None:
        return _add(field.message_type, found)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_SCALARS[field.type])


def _is_required(field: FieldDescriptor) -> bool:
    return REQUIRED in field.GetOptions().Extensions[field_behavior]


def _of_pydantic(type_name: str) -> Schemas:
    template = f"#/components/schemas/{V03_JSON}.{{model}}"
    made = getattr(types, type_name).model_json_schema(ref_template=template)
    inner = made.pop("$defs", {})
    return {f"{V03_JSON}.{name}": _plain(schema) for name, schema in (inner | {type_name: made}).items()}


def _plain(schema: Any) -> Any:
    """Without the titles and defaults that pydantic makes up, and null where a field may just be absent."""
    match schema:
        case {"anyOf": [only, {"type": "null"}], **rest}:
            return _plain(rest | only)
        case dict():
            kept = {name: value for name, value in schema.items() if name not in {"title", "default"}}
            if isinstance(schema.get("properties"), dict):
                kept["properties"] = {name: _plain(value) for name, value in schema["properties"].items()}
            return {name: value if name == "properties" else _plain(value) for name, value in kept.items()}
        case list():
            return [_plain(each) for each in schema]
        case _:
            return schema
