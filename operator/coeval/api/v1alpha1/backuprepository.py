"""BackupRepository: where backups go, and the key that opens it (api.md)."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from coeval.api.v1alpha1.common import Conditions, Model, ObjectName, Text
from coeval.api.v1alpha1.rules import exactly_one_of, immutable, rule

Prefix = Annotated[
    str,
    Field(
        max_length=512,
        pattern=r"^([A-Za-z0-9._-]+/)*[A-Za-z0-9._-]*$",
        description="A folder inside the volume or the bucket, without a leading slash.",
        json_schema_extra=rule(
            "!self.split('/').exists(part, part == '.' || part == '..')", "may not contain . or .."
        ),
    ),
]
Key = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class VolumeLocation(Model):
    """A PVC in the operator's namespace: the embedded default."""

    persistent_volume_claim: Annotated[
        ObjectName, Field(description="Name of the PVC, in the operator's namespace.")
    ]
    prefix: Prefix = ""


class CredentialsSecret(Model):
    """A Secret in the operator's namespace, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

    AWS_SESSION_TOKEN beside them for temporary credentials.
    """

    name: ObjectName


class CertificateAuthority(Model):
    """A key of a ConfigMap in the operator's namespace with certificates in PEM, beside the system's own."""

    config_map: ObjectName
    key: Key = "ca.crt"


class S3Location(Model):
    """A bucket of S3, or of anything that speaks its protocol."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])$")]
    prefix: Prefix = ""
    endpoint: Annotated[
        str | None,
        Field(
            max_length=512,
            pattern=r"^https?://[A-Za-z0-9.:\[\]-]+/?$",
            description="Of a server that is not AWS: https://host:port. Plain http only where it says http.",
        ),
    ] = None
    region: Annotated[str | None, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")] = None
    credentials_secret: CredentialsSecret
    certificate_authority: CertificateAuthority | None = None


class Location(Model):
    """Exactly one of the places."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("volume", "s3"))

    volume: VolumeLocation | None = None
    s3: S3Location | None = None

    @property
    def prefix(self) -> str:
        """The folder, without slashes at its ends."""
        place = self.volume or self.s3
        return place.prefix.strip("/") if place else ""

    def __str__(self) -> str:
        if self.s3 is not None:
            return f"the bucket {self.s3.bucket}"
        return f"the claim {self.volume.persistent_volume_claim}" if self.volume else "no place"


class PasswordSecret(Model):
    """A key of a Secret in the operator's namespace."""

    name: ObjectName
    key: Key = "password"


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
