"""Keys and certificates of one cluster, made anew at every start and valid for a year."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.layout import API_IP, NODE, NODE_IP

ADMINS = "system:masters"
CLIENTS = {
    # file name: (user, group)
    "admin": ("admin", ADMINS),
    "apiserver-kubelet-client": ("apiserver-kubelet-client", ADMINS),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "csi": ("csi", ADMINS),
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority that can still sign."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write(folder: Path) -> None:
    """Writes `<name>.crt` and `<name>.key` of everyone in the cluster, and `service-account.{key,pub}`."""
    folder.mkdir(mode=0o700, parents=True)
    ca = _authority(folder, "ca", "coeval test cluster")
    front_proxy = _authority(folder, "front-proxy-ca", "coeval test cluster front proxy")
    api_names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    _issue(
        folder,
        "apiserver",
        ca,
        user="kube-apiserver",
        names=api_names,
        addresses=[API_IP, NODE_IP, "127.0.0.1"],
    )
    _issue(folder, "kubelet-server", ca, user=NODE, names=[NODE], addresses=[NODE_IP, "127.0.0.1"])
    _issue(
        folder,
        "snapshot-metadata",
        ca,
        user="csi-snapshot-metadata",
        names=["localhost"],
        addresses=[NODE_IP],
    )
    _issue(folder, "front-proxy-client", front_proxy, user="front-proxy-client")
    for name, (user, group) in CLIENTS.items():
        _issue(folder, name, ca, user=user, group=group)
    _service_account_keys(folder)


def write_server(folder: Path, address: str) -> None:
    """Writes `ca.crt` and, signed by it, `server.crt` and `server.key` of a server at an IP address."""
    _issue(folder, "server", _authority(folder, "ca", "coeval test"), user="server", addresses=[address])


def _authority(folder: Path, name: str, title: str) -> Authority:
    key = _write_key(folder / f"{name}.key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(subject, subject, key.public_key(), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_certificate(folder / f"{name}.crt", certificate)
    return Authority(key, certificate)


def _issue(
    folder: Path,
    name: str,
    authority: Authority,
    *,
    user: str,
    group: str | None = None,
    names: list[str] | None = None,
    addresses: list[str] | None = None,
) -> None:
    """With names or addresses a server's certificate, without a client's."""
    key = _write_key(folder / f"{name}.key")
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    issuer = authority.certificate.subject
    builder = _builder(x509.Name(attributes), issuer, key.public_key(), authority.key.public_key())
    alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names or ()]
    alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses or ()]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if alternatives else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    _write_certificate(folder / f"{name}.crt", builder.sign(authority.key, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    """With both key identifiers: Python 3.13 refuses certificates without the issuer's."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _service_account_keys(folder: Path) -> None:
    """The API server verifies with the public key: it refuses a private EC key in PKCS#8 there."""
    key = _write_key(folder / "service-account.key")
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "service-account.pub").write_bytes(public)


def _write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return key


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
