"""BackupRepository: where backups go, and the key that opens it (api.md)."""

from datetime import datetime
from typing import Annotated, ClassVar

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


Endpoint = Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[\w./-]*)?$")]


class CredentialsSecret(Model):
    """A Secret in the operator's namespace."""

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

    KEYS: ClassVar = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])$")]
    """Name of the bucket, which must exist."""
    prefix: Prefix = ""
    endpoint: Endpoint | None = None
    """Of a server that is not AWS: https://host:port. Plain http only where it says http."""
    region: Annotated[str | None, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")] = None
    """Region of the bucket; absent: us-east-1."""
    credentials_secret: CredentialsSecret
    """With the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_SESSION_TOKEN beside them for temporary
    credentials."""
    certificate_authority: CertificateAuthority | None = None

    def __str__(self) -> str:
        return f"the bucket {self.bucket}"


class GCSLocation(Model):
    """A bucket of Google Cloud Storage."""

    KEYS: ClassVar = "credentials.json"

    bucket: Annotated[str, Field(min_length=3, max_length=222, pattern=r"^[a-z0-9][a-z0-9._-]*[a-z0-9]$")]
    """Name of the bucket, which must exist."""
    prefix: Prefix = ""
    endpoint: Endpoint | None = None
    """Of a server that is not Google's: https://host:port. Plain http only where it says http."""
    credentials_secret: CredentialsSecret
    """With the key credentials.json: the key file of a service account."""

    def __str__(self) -> str:
        return f"the bucket {self.bucket}"


class AzureLocation(Model):
    """A container of Azure's blob store."""

    KEYS: ClassVar = "AZURE_STORAGE_ACCOUNT_KEY"

    account: Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z0-9]+$")]
    """Name of the storage account."""
    container: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])$")]
    """Name of the container, which must exist."""
    prefix: Prefix = ""
    endpoint: Endpoint | None = None
    """Of a server that is not Azure's: https://host:port/account. Plain http only where it says http."""
    credentials_secret: CredentialsSecret
    """With the key AZURE_STORAGE_ACCOUNT_KEY: a key of the account."""

    def __str__(self) -> str:
        return f"the container {self.container}"


class Location(Model):
    """Exactly one of the places."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("volume", "s3", "gcs", "azure"))

    volume: VolumeLocation | None = None
    s3: S3Location | None = None
    gcs: GCSLocation | None = None
    azure: AzureLocation | None = None

    @property
    def object_store(self) -> S3Location | GCSLocation | AzureLocation | None:
        """The place, where it is an object store."""
        return self.s3 or self.gcs or self.azure

    @property
    def field(self) -> str:
        """The place's field in the spec."""
        named = ((self.s3, "s3"), (self.gcs, "gcs"), (self.azure, "azure"))
        return next((f"spec.location.{name}" for place, name in named if place), "spec.location.volume")

    @property
    def prefix(self) -> str:
        """The folder, without slashes at its ends."""
        place = self.volume or self.object_store
        return place.prefix.strip("/") if place else ""

    def __str__(self) -> str:
        if self.volume is not None:
            return f"the claim {self.volume.persistent_volume_claim}"
        return str(self.object_store) if self.object_store else "no place"


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
