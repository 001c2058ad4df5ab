"""BackupRepository: where backups go, and the key that opens it (api.md)."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from coeval.api.v1alpha1.common import Conditions, Model, ObjectName, Text
from coeval.api.v1alpha1.rules import exactly_one_of, immutable, rule


class VolumeLocation(Model):
    """A PVC in the operator's namespace: the embedded default."""

    persistent_volume_claim: Annotated[
        ObjectName, Field(description="Name of the PVC, in the operator's namespace.")
    ]
    prefix: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^([A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*$",
            description="A folder inside the volume, without a leading slash.",
            json_schema_extra=rule(
                "!self.split('/').exists(part, part == '.' || part == '..')", "may not contain . or .."
            ),
        ),
    ] = ""


class Location(Model):
    """Exactly one of the places."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("volume"))

    volume: VolumeLocation | None = None


class PasswordSecret(Model):
    """A key of a Secret in the operator's namespace."""

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = "password"


class Encryption(Model):
    """How the repository is opened."""

    password_secret: PasswordSecret


class LabelSelector(Model):
    """metav1.LabelSelector, exact labels only."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32, default_factory=dict)
    ]


class BackupRepositorySpec(Model):
    """Where and how."""

    location: Annotated[Location, Field(json_schema_extra=immutable("location"))]
    encryption: Encryption
    allowed_namespaces: Annotated[
        LabelSelector | None,
        Field(description="Labels of the namespaces whose VMs may be backed up here; absent: all."),
    ] = None


class BackupRepositoryStatus(Model):
    """Ready is probed for real: create-if-absent, read back, delete."""

    observed_generation: int | None = None
    probed_at: datetime | None = None
    message: Text | None = None
    conditions: Conditions | None = None
