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

    persistent_volume_claim: ObjectName
    """Name of the PVC, in the operator's namespace."""
    prefix: Prefix = ""


class CredentialsSecret(Model):
    """A Secret in the operator's namespace, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

    AWS_SESSION_TOKEN beside them for temporary credentials.
    """

    name: ObjectName
    """Name of the Secret."""


class CertificateAuthority(Model):
    """A key of a ConfigMap in the operator's namespace with certificates in PEM, beside the system's own."""

    config_map: ObjectName
    """Name of the ConfigMap."""
    key: Key = "ca.crt"
    """Key of the certificates in it."""


class S3Location(Model):
    """A bucket of S3, or of anything that speaks its protocol."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])$")]
    """Name of the bucket, which must exist."""
    prefix: Prefix = ""
    endpoint: Annotated[
        str | None,
        Field(
            max_length=512,
            pattern=r"^https?://[A-Za-z0-9.:\[\]-]+/?$",
        ),
    ] = None
    """Of a server that is not AWS: https://host:port. Plain http only where it says http."""
    region: Annotated[str | None, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")] = None
    """Region of the bucket; absent: us-east-1."""
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
    """Name of the Secret."""
    key: Key = "password"
    """Key of the password in it; white space around the password is left out."""


class Encryption(Model):
    """How the repository is opened."""

    password_secret: PasswordSecret
    """The password of the repositories here. Without it no backup can be read: keep a copy elsewhere."""


class LabelSelector(Model):
    """metav1.LabelSelector, exact labels only."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32, default_factory=dict)
    ]
    """Label keys and the values that they must have; all of them."""


class BackupRepositorySpec(Model):
    """Where and how."""

    location: Annotated[Location, Field(json_schema_extra=immutable("location"))]
    """Where the repositories are, one per VM: exactly one of the places. Immutable."""
    encryption: Encryption
    allowed_namespaces: LabelSelector | None = None
    """Labels of the namespaces whose VMs may be backed up here; absent: all."""


class BackupRepositoryStatus(Model):
    """Ready is probed for real: create-if-absent, read back, delete."""

    observed_generation: int | None = None
    """metadata.generation of the spec that this status is about."""
    probed_at: datetime | None = None
    """When the last probe ended."""
    message: Text | None = None
    """What Ready says, for people."""
    conditions: Conditions | None = None
