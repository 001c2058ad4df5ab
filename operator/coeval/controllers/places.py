"""The repository as a mover reaches it: its URL, and what its pod needs to get there."""

from dataclasses import dataclass, field

from coeval.api.v1alpha1.backuprepository import (
    AzureLocation,
    BackupRepositorySpec,
    GCSLocation,
    PasswordSecret,
    S3Location,
)
from coeval.kube.port import Object

PASSWORD = "/secrets/password"  # noqa: S105  (a path)
REPOSITORY = "/repository"
_CA = "/certificate-authority"
_CREDENTIALS = "/credentials"
NETWORK = "coeval.dev/network"
"""Label of movers that reach an object store; the others get no network at all (networkpolicy.yaml)."""
_REACHES = {NETWORK: "object-store"}


@dataclass(frozen=True, slots=True)
class Place:
    """One repository. The lists are parts of a pod and its container."""

    url: str
    password: PasswordSecret
    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    env: list[Object] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    def access(self) -> list[str]:
        """The options that every command takes."""
        return ["--repository", self.url, "--password-file", PASSWORD]


def place(spec: BackupRepositorySpec, path: str) -> Place:
    """Where `path` is, a folder counted from the location's root. Raises ValueError without a location."""
    location, password = spec.location, spec.encryption.password_secret
    if location.volume is not None:
        claim = {"claimName": location.volume.persistent_volume_claim}
        return Place(
            url=f"file://{REPOSITORY}/{path}".rstrip("/"),
            password=password,
            volumes=[{"name": "repository", "persistentVolumeClaim": claim}],
            mounts=[{"name": "repository", "mountPath": REPOSITORY}],
        )
    if location.s3 is not None:
        return _s3(location.s3, path, password)
    if location.gcs is not None:
        return _gcs(location.gcs, path, password)
    if location.azure is not None:
        return _azure(location.azure, path, password)
    raise ValueError("spec.location names no place")


def _s3(s3: S3Location, path: str, password: PasswordSecret) -> Place:
    secret = s3.credentials_secret.name
    env = [
        _from_secret(secret, "AWS_ACCESS_KEY_ID"),
        _from_secret(secret, "AWS_SECRET_ACCESS_KEY"),
        _from_secret(secret, "AWS_SESSION_TOKEN", optional=True),
    ]
    plain = {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_REGION": s3.region}
    env += [{"name": name, "value": value} for name, value in plain.items() if value is not None]
    volumes: list[Object] = []
    mounts: list[Object] = []
    if (ca := s3.certificate_authority) is not None:
        items = [{"key": ca.key, "path": "ca.crt"}]
        volumes.append({"name": "ca", "configMap": {"name": ca.config_map, "items": items}})
        mounts.append({"name": "ca", "mountPath": _CA, "readOnly": True})
        env.append({"name": "AWS_CA_BUNDLE", "value": f"{_CA}/ca.crt"})
    return Place(
        url=f"s3://{s3.bucket}/{path}".rstrip("/"),
        password=password,
        volumes=volumes,
        mounts=mounts,
        env=env,
        labels=_REACHES,
    )


def _gcs(gcs: GCSLocation, path: str, password: PasswordSecret) -> Place:
    items = [{"key": gcs.KEYS, "path": gcs.KEYS}]
    secret = {"secretName": gcs.credentials_secret.name, "items": items, "defaultMode": 0o440}
    env = [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{_CREDENTIALS}/{gcs.KEYS}"}]
    env += [{"name": "GOOGLE_BASE_URL", "value": gcs.endpoint}] if gcs.endpoint else []
    return Place(
        url=f"gs://{gcs.bucket}/{path}".rstrip("/"),
        password=password,
        volumes=[{"name": "credentials", "secret": secret}],
        mounts=[{"name": "credentials", "mountPath": _CREDENTIALS, "readOnly": True}],
        env=env,
        labels=_REACHES,
    )


def _azure(azure: AzureLocation, path: str, password: PasswordSecret) -> Place:
    env: list[Object] = [
        {"name": "AZURE_STORAGE_ACCOUNT_NAME", "value": azure.account},
        _from_secret(azure.credentials_secret.name, "AZURE_STORAGE_ACCOUNT_KEY"),
    ]
    env += [{"name": "AZURE_STORAGE_ENDPOINT", "value": azure.endpoint}] if azure.endpoint else []
    url = f"az://{azure.container}/{path}".rstrip("/")
    return Place(url=url, password=password, env=env, labels=_REACHES)


def _from_secret(secret: str, key: str, *, optional: bool = False) -> Object:
    reference = {"name": secret, "key": key, "optional": optional}
    return {"name": key, "valueFrom": {"secretKeyRef": reference}}
