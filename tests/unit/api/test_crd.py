"""The generator: what it translates, what it refuses, and what the shipped CRDs hold."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from coeval.api.crd import RESOURCES, NotStructural, crd, documents, main, to_structural
from coeval.api.v1alpha1.common import Condition
from coeval.api.v1alpha1.rules import VALIDATIONS, exactly_one_of, immutable_but_for, rule
from coeval.api.v1alpha1.vmbackup import VMBackupSpec, VMBackupStatus
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model

ROOT = Path(__file__).resolve().parents[3]
Schema = dict[str, Any]


class Colour(StrEnum):
    RED = "red"


class Inner(BaseModel):
    """An inner
    thing."""

    model_config = ConfigDict(json_schema_extra=rule("self.a > 0", "inner"))
    a: int = 1


def structural(annotation: Any, **field: Any) -> Schema:
    model = create_model("M", x=(annotation, Field(**field)))
    node: Schema = to_structural(model.model_json_schema())["properties"]["x"]
    return node


@pytest.mark.parametrize(
    ("annotation", "field", "expected"),
    [
        (int | None, {"default": None}, {"type": "integer"}),
        (Colour, {}, {"type": "string", "enum": ["red"]}),
        (Literal["only"], {}, {"type": "string", "enum": ["only"]}),
        (Annotated[int, Field(gt=0)], {}, {"type": "integer", "minimum": 0, "exclusiveMinimum": True}),
        (Annotated[int, Field(lt=9)], {}, {"type": "integer", "maximum": 9, "exclusiveMaximum": True}),
        (int | str, {}, {"x-kubernetes-int-or-string": True}),
        (Any, {}, {"x-kubernetes-preserve-unknown-fields": True}),
        (set[str], {}, {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
        (dict[str, int], {}, {"type": "object", "additionalProperties": {"type": "integer"}}),
        (datetime | None, {"default": None}, {"type": "string", "format": "date-time"}),
        (str, {"default": "v"}, {"type": "string", "default": "v"}),
    ],
)
def test_translation(annotation: Any, field: Schema, expected: Schema) -> None:
    assert structural(annotation, **field) == expected


def test_a_reference_is_inlined_with_what_stands_beside_it() -> None:
    node = structural(
        Inner | None, default=None, description="outer", json_schema_extra=rule("true", "outer")
    )
    assert node["description"] == "outer"
    assert node["type"] == "object"
    assert node["properties"] == {"a": {"type": "integer", "default": 1}}
    assert [v["message"] for v in node[VALIDATIONS]] == ["inner", "outer"]


def test_a_property_may_be_named_like_a_keyword() -> None:
    model = create_model("M", title=(str, ...), examples=(int, ...), default=(str, ...), items=(str, ...))
    assert set(to_structural(model.model_json_schema())["properties"]) == {
        "title", "examples", "default", "items",
    }  # fmt: skip


def test_defaults_stay_out_of_a_status() -> None:
    model = create_model("M", x=(str, "v"), y=(Inner, Inner()))
    assert "default" not in str(to_structural(model.model_json_schema(), defaults=False))


class Node(BaseModel):
    children: list["Node"]


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (int | list[str], "union"),
        (tuple[int, str], "prefixItems"),
        (dict[str, Any], "additionalProperties"),
        (Node, "Node contains itself"),
        (dict[Annotated[str, Field(pattern="^a")], str], "pattern"),
    ],
)
def test_what_has_no_structural_form_is_refused_by_name(annotation: Any, says: str) -> None:
    with pytest.raises(NotStructural, match=says) as refused:
        structural(annotation)
    assert "/properties/x" in str(refused.value)


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def assert_structural(schema: Schema) -> None:
    for path, node in nodes(schema):
        says = [
            key in node
            for key in ("type", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields")
        ]
        assert sum(says) == 1, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "$defs"} & node.keys(), path


def made(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    model: type[BaseModel] = create_model(name, **{k: (v, ...) for k, v in fields.items()})  # type: ignore[call-overload]
    return model


LEAVES = st.sampled_from(
    [str, int, bool, float, datetime, Colour, Literal["a", "b"], int | str, Any, Inner, Condition]
)
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda t: list[t]),  # type: ignore[valid-type]
        inner.filter(lambda t: t is not Any).map(lambda t: dict[str, t]),  # type: ignore[valid-type]
        inner.map(lambda t: Annotated[t, Field(description="outer", examples=[1])]),
        st.dictionaries(st.sampled_from(["a", "items", "title"]), inner, min_size=1).map(
            lambda fields: made("Made", fields)
        ),
    ),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.sampled_from(["x", "y", "properties"]), TYPES, min_size=1))
def test_every_node_says_what_it_is_exactly_once(fields: dict[str, Any]) -> None:
    model = made("Root", fields)
    assert_structural(to_structural(model.model_json_schema()))


def spec_of(kind: str) -> Schema:
    resource = next(r for r in RESOURCES if r.kind == kind)
    found: Schema = crd(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize("kind", [r.kind for r in RESOURCES])
def test_shipped_schemas_are_structural_and_bounded(kind: str) -> None:
    schema = spec_of(kind)
    assert_structural(schema)
    for path, node in nodes(schema["properties"]["spec"], "spec"):
        match node.get("type"):
            case "string":
                assert {"maxLength", "enum", "format"} & node.keys(), path
            case "array":
                assert "maxItems" in node, path
            case "object":
                assert "maxProperties" in node or "properties" in node, path
    for path, node in nodes(schema["properties"]["status"], "status"):
        assert node.get("type") != "array" or "maxItems" in node, path
        assert "default" not in node, path


@pytest.mark.parametrize("kind", [r.kind for r in RESOURCES])
def test_every_field_says_what_it_is(kind: str) -> None:
    schema = spec_of(kind)
    fields = [
        (f"{path}.{name}", child)
        for path, node in nodes(schema)
        for name, child in node.get("properties", {}).items()
    ]
    assert len(fields) > 20
    # The API server has its own words for metadata, and refuses others.
    assert [path for path, field in fields if len(field.get("description", "")) < 5] == [".metadata"]


def test_the_text_below_a_field_is_its_description_beside_that_of_its_type() -> None:
    status = spec_of("VMBackup")["properties"]["status"]["properties"]
    assert status["volumes"]["items"]["properties"]["sizeBytes"]["description"].endswith("in bytes.")
    assert status["consistency"]["properties"]["required"]["description"] == "spec.consistency."
    assert status["quiesce"]["description"].startswith("The freeze or pause")


@pytest.mark.parametrize("kind", [r.kind for r in RESOURCES])
def test_conditions_are_a_map_by_type(kind: str) -> None:
    conditions = spec_of(kind)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_every_field_of_a_vmbackup_but_cancel_is_immutable() -> None:
    spec = spec_of("VMBackup")["properties"]["spec"]
    frozen = {v["fieldPath"].removeprefix(".") for v in spec[VALIDATIONS] if "immutable" in v["message"]}
    assert frozen == set(spec["properties"]) - {"cancel"}
    assert spec["properties"]["cancel"][VALIDATIONS][0]["rule"] == "self || !oldSelf"


def test_an_optional_field_may_not_appear_later() -> None:
    class Frozen(BaseModel):
        model_config = ConfigDict(json_schema_extra=immutable_but_for("free"))
        needed: str
        defaulted: str = "v"
        optional: str | None = None
        free: str = ""

    rules = {v["fieldPath"]: v["rule"] for v in Frozen.model_json_schema()[VALIDATIONS]}
    assert rules == {
        ".needed": "self.needed == oldSelf.needed",
        ".defaulted": "self.defaulted == oldSelf.defaulted",
        ".optional": "has(self.optional) == has(oldSelf.optional)"
        " && (!has(self.optional) || self.optional == oldSelf.optional)",
    }


def test_exactly_one_of_siblings() -> None:
    assert exactly_one_of("a")[VALIDATIONS][0]["rule"] == "has(self.a)"
    two = exactly_one_of("a", "b")[VALIDATIONS][0]
    assert two["rule"] == "[has(self.a), has(self.b)].filter(x, x).size() == 1"
    assert two["message"] == "exactly one of a, b must be given"


@pytest.mark.parametrize("kind", [r.kind for r in RESOURCES])
def test_columns_and_selectable_fields_name_fields_that_exist(kind: str) -> None:
    resource = next(r for r in RESOURCES if r.kind == kind)
    paths = {path for path, _ in nodes(spec_of(kind))}
    for path in [*resource.selectable, *(c.path for c in resource.columns)]:
        if path != ".metadata.creationTimestamp":
            assert path.partition("[?")[0] in paths, path


def pruned(value: Any, schema: Schema) -> Any:
    """What the API server keeps of a value."""
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {k: pruned(v, known[k]) for k, v in value.items() if k in known}
    if isinstance(value, list):
        return [pruned(v, schema["items"]) for v in value]
    return value


EXAMPLES = [
    (path.name, document)
    for path in sorted((ROOT / "manifests" / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["apiVersion"].startswith("coeval.dev/")
]


@pytest.mark.parametrize(("file", "document"), EXAMPLES)
def test_examples_survive_schema_and_model(file: str, document: Schema) -> None:
    resource = next(r for r in RESOURCES if r.kind == document["kind"])
    spec = document["spec"]
    kept = pruned(spec, spec_of(resource.kind)["properties"]["spec"])
    assert kept == spec
    dumped = resource.spec.model_validate(kept).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert dumped == spec


def test_a_status_survives_schema_and_model() -> None:
    at = datetime(2026, 11, 23, 10, tzinfo=UTC).isoformat().replace("+00:00", "Z")
    status = {
        "observedGeneration": 1,
        "phase": "Copying",
        "pointInTime": at,
        "volumes": [
            {
                "name": "root", "role": "Image", "claim": "db-root", "sizeBytes": 1 << 40,
                "t1": {"snapshot": "s", "handle": "h", "creationTime": at},
                "copy": {"state": "Running", "bytesDone": 5, "eta": at, "snapshotID": "ab"},
            }
        ],
        "repository": {"path": "shop/db", "snapshotID": "ab"},
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Copying", "lastTransitionTime": at}
        ],
    }  # fmt: skip
    kept = pruned(status, spec_of("VMBackup")["properties"]["status"])
    assert kept == status
    model = VMBackupStatus.model_validate(kept)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == status


def test_the_servers_defaults_are_the_models_defaults() -> None:
    given = {"virtualMachine": "db", "repository": "main"}
    defaulted = given | {
        name: node["default"]
        for name, node in spec_of("VMBackup")["properties"]["spec"]["properties"].items()
        if "default" in node
    }
    assert VMBackupSpec.model_validate(given) == VMBackupSpec.model_validate(defaulted)
    assert len(defaulted) > len(given)


def test_the_shipped_files_are_those_that_the_models_make() -> None:
    assert main(["--output", str(ROOT / "crds"), "--check"]) == 0
    listed = yaml.safe_load((ROOT / "crds" / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(documents())


def test_check_fails_on_a_stale_file_and_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path)]) == 0
    stale = tmp_path / RESOURCES[0].file_name
    stale.write_text(stale.read_text() + "# edited\n")
    assert main(["--output", str(tmp_path), "--check"]) == 1
    assert stale.read_text().endswith("# edited\n")
    assert RESOURCES[0].file_name in capsys.readouterr().err
