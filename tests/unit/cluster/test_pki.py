"""Certificates that the strictest client accepts, and no other client's."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.cluster import pki
from tests.cluster.layout import API_IP, NODE_IP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "pki"
    pki.write(folder)
    return folder


def context(folder: Path, purpose: ssl.Purpose, own: str, trusted: str) -> ssl.SSLContext:
    """As Python 3.13 makes it: every extension that RFC 5280 asks for must be there."""
    made = ssl.create_default_context(purpose, cafile=str(folder / f"{trusted}.crt"))
    made.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    made.load_cert_chain(folder / f"{own}.crt", folder / f"{own}.key")
    return made


def shake_hands(folder: Path, server: str, client: str, name: str, clients_of: str = "ca") -> None:
    """A handshake in which both sides show a certificate; ssl.SSLError where one is refused."""
    serving = context(folder, ssl.Purpose.CLIENT_AUTH, server, clients_of)
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = context(folder, ssl.Purpose.SERVER_AUTH, client, "ca")
    near, far = socket.socketpair()
    refused: list[Exception] = []

    def serve() -> None:
        try:
            with serving.wrap_socket(far, server_side=True) as stream:
                stream.sendall(b"welcome")
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with asking.wrap_socket(near, server_hostname=name) as stream:
            assert stream.recv(7) == b"welcome"
    finally:
        near.close()
        thread.join()
        if refused:
            raise refused[0]


@pytest.mark.parametrize("name", [API_IP, NODE_IP, "127.0.0.1", "kubernetes.default.svc"])
def test_the_api_server_is_trusted_under_every_name(folder: Path, name: str) -> None:
    shake_hands(folder, "apiserver", "admin", name)


@pytest.mark.parametrize("client", sorted(pki.CLIENTS))
def test_every_client_is_known(folder: Path, client: str) -> None:
    shake_hands(folder, "apiserver", client, API_IP)


def test_the_front_proxy_has_an_authority_of_its_own(folder: Path) -> None:
    shake_hands(folder, "apiserver", "front-proxy-client", API_IP, clients_of="front-proxy-ca")
    with pytest.raises(ssl.SSLError):
        shake_hands(folder, "apiserver", "front-proxy-client", API_IP)
    with pytest.raises(ssl.SSLError):
        shake_hands(folder, "apiserver", "admin", API_IP, clients_of="front-proxy-ca")


def test_a_client_is_no_server(folder: Path) -> None:
    with pytest.raises(ssl.SSLError):
        shake_hands(folder, "admin", "admin", API_IP)
