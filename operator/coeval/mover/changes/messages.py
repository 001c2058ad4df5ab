"""The messages of the Kubernetes SnapshotMetadata API (package `snapshotmetadata`, v1).

Declared here, eight messages in one table, rather than generated: generated code belongs to one version of
protobuf, and would need a compiler, a copy of the .proto and a check that the two agree. That these are the
messages of the real API is tested against its own .proto. They live in a pool of their own, so that nothing
else in the process that knows the same names gets in the way.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "snapshotmetadata"
SERVICE: Final = f"{PACKAGE}.SnapshotMetadata"

FIXED_LENGTH: Final = 1
VARIABLE_LENGTH: Final = 2
"""Of BlockMetadataType; 0 says nothing."""

_RESPONSE: Final = (
    ("block_metadata_type", 1, "BlockMetadataType"),
    ("volume_capacity_bytes", 2, "int64"),
    ("block_metadata", 3, "BlockMetadata"),
)
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "BlockMetadata": (("byte_offset", 1, "int64"), ("size_bytes", 2, "int64")),
    "GetMetadataAllocatedRequest": (
        ("security_token", 1, "string"),
        ("namespace", 2, "string"),
        ("snapshot_name", 3, "string"),
        ("starting_offset", 4, "int64"),
        ("max_results", 5, "int32"),
    ),
    "GetMetadataAllocatedResponse": _RESPONSE,
    "GetMetadataDeltaRequest": (
        ("security_token", 1, "string"),
        ("namespace", 2, "string"),
        ("base_snapshot_id", 3, "string"),
        ("target_snapshot_name", 4, "string"),
        ("starting_offset", 5, "int64"),
        ("max_results", 6, "int32"),
    ),
    "GetMetadataDeltaResponse": _RESPONSE,
}


def _declare() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    types = {"string": field.TYPE_STRING, "int64": field.TYPE_INT64, "int32": field.TYPE_INT32}
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3")
    kinds = file.enum_type.add(name="BlockMetadataType")
    for number, name in enumerate(("UNKNOWN", "FIXED_LENGTH", "VARIABLE_LENGTH")):
        kinds.value.add(name=name, number=number)
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind in fields:
            added = declared.field.add(name=name, number=number, label=field.LABEL_OPTIONAL)
            if kind in types:
                added.type = types[kind]
            elif kind == "BlockMetadata":
                added.type, added.label, added.type_name = (
                    field.TYPE_MESSAGE,
                    field.LABEL_REPEATED,
                    f".{PACKAGE}.BlockMetadata",
                )
            else:
                added.type, added.type_name = field.TYPE_ENUM, f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_pool = _declare()


def message(name: str) -> Any:
    """Give the class of a message by its name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
