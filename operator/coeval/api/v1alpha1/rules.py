"""CEL rules that stand beside the models; the API server runs them, no webhook does."""

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
VALIDATIONS = "x-kubernetes-validations"


def rule(expression: str, message: str) -> Schema:
    """A rule for `json_schema_extra`; more than one are joined by `rules`."""
    return rules((expression, message))


def rules(*pairs: tuple[str, str]) -> Schema:
    """(expression, message) pairs as `json_schema_extra`."""
    return {VALIDATIONS: [{"rule": expression, "message": message} for expression, message in pairs]}


def immutable(what: str) -> Schema:
    """The value may not change once it is set."""
    return rule("self == oldSelf", f"{what} is immutable: create another object instead")


def exactly_one_of(*fields: str) -> Schema:
    """Optional sibling objects stand in for a union, which a structural schema cannot express."""
    present = ", ".join(f"has(self.{field})" for field in fields)
    if len(fields) == 1:
        return rule(present, f"must be given: {fields[0]}")
    return rule(f"[{present}].filter(x, x).size() == 1", f"exactly one of {', '.join(fields)} must be given")


def immutable_but_for(*mutable: str) -> Callable[[Schema], None]:
    """Every other field of the object may neither change, appear nor disappear.

    A rule per field, made from the schema: a field that is added later is covered without being named,
    and the answer names the field. A rule on the field itself would not see it appear or disappear.
    """

    def extend(schema: Schema) -> None:
        required = set(schema.get("required", ()))
        added = []
        for field, node in schema["properties"].items():
            if field in mutable:
                continue
            always_there = field in required or node.get("default") is not None
            same = f"self.{field} == oldSelf.{field}"
            added.append(
                {
                    "rule": same
                    if always_there
                    else f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})",
                    "message": f"{field} is immutable: create another object instead",
                    "fieldPath": f".{field}",
                }
            )
        schema.setdefault(VALIDATIONS, []).extend(added)

    return extend
