"""The SnapshotMetadataService of a driver, as an administrator published it (csi.md 8.1)."""

import base64
import binascii

from coeval.domain.address import is_host_and_port
from coeval.domain.storage import MetadataService
from coeval.kube.port import Object

# It travels in an annotation of the mover's pod, which may hold 256 KiB of them in all.
LONGEST_AUTHORITY = 200_000


def service(obj: Object) -> MetadataService | str:
    """The service, or what is wrong with its description."""
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}
    address, audience = str(spec.get("address") or ""), str(spec.get("audience") or "")
    if not is_host_and_port(address) or not audience:
        return f"SnapshotMetadataService {name} names no address (host:port) or no audience"
    try:
        pem = base64.b64decode("".join(str(spec.get("caCert") or "").split()), validate=True)
        authority = pem.decode()
    except (binascii.Error, UnicodeDecodeError):
        return f"spec.caCert of SnapshotMetadataService {name} is not PEM in base64"
    if "-----BEGIN CERTIFICATE-----" not in authority or len(pem) > LONGEST_AUTHORITY:
        return (
            f"spec.caCert of SnapshotMetadataService {name} holds no certificate, or more than "
            f"{LONGEST_AUTHORITY} bytes"
        )
    return MetadataService(address, audience, authority)
