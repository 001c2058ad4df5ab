"""What every kind shares: the base model, conditions, field types with the API server's bounds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from coeval.api.v1alpha1.rules import rule

GROUP = "coeval.dev"
VERSION = "v1alpha1"

# Bounded, because CEL's cost is estimated from the bounds.
Name = Annotated[str, Field(min_length=1, max_length=253)]
ObjectName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]  # RFC 1123 subdomain: what users may name, so that it is safe in a URL and in a path of the repository
Text = Annotated[str, Field(max_length=4096)]
Bytes = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
Duration = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
        min_length=2,
        json_schema_extra=rule("duration(self) > duration('0s')", "must be longer than zero"),
    ),
]


class Model(BaseModel):
    """Reads tolerantly: a newer operator may have written fields that this one does not know.

    The text below a field is its description in the CRD: what `kubectl explain` says.
    """

    model_config = ConfigDict(
        alias_generator=AliasGenerator(alias=to_camel),
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Condition(Model):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """What it is about, in CamelCase: Ready, Reconciling, Stalled and others."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[
        str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ]
    """Why, as one word in CamelCase for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, for people, with the way out where something failed."""
    last_transition_time: datetime
    """When status last changed."""
    observed_generation: int | None = None
    """metadata.generation of the spec that this was said of."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        description="What is true of the object at present, one entry per type; the API for programs.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
