"""What is taken for a SnapshotMetadataService, and what is told of one that is wrong."""

import base64
from typing import Any

import pytest
from coeval.csi.metadata import LONGEST_AUTHORITY, service
from coeval.domain.storage import MetadataService

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(**fields: Any) -> MetadataService | str:
    usual = {"address": "cbt.example.com:6443", "audience": "a", "caCert": encoded(PEM)}
    return service({"metadata": {"name": "d"}, "spec": usual | fields})


def test_a_service_that_can_be_asked() -> None:
    assert read() == MetadataService("cbt.example.com:6443", "a", PEM)
    assert isinstance(read(address="[fd00::1]:6443"), MetadataService)


@pytest.mark.parametrize("address", ["", "host", "https://host:6443", "dns:///host:1", "host:0", "::1:6443"])
def test_an_address_that_no_mover_can_use_is_told_before_one_fails_of_it(address: str) -> None:
    assert "host:port" in str(read(address=address))


@pytest.mark.parametrize(
    "certificate", ["", "%", encoded("no certificate"), encoded(PEM + "\u00e9" * (LONGEST_AUTHORITY // 2))]
)
def test_a_certificate_that_is_none_or_does_not_fit(certificate: str) -> None:
    """An annotation holds bytes: of letters outside ASCII each has two or more."""
    assert "caCert" in str(read(caCert=certificate))


def test_an_audience_is_needed() -> None:
    assert "audience" in str(read(audience=""))
