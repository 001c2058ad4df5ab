"""The test CSI driver conforms to csi-sanity, the conformance suite of the CSI project."""

from __future__ import annotations

import os
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.build import ensure
from tests.cluster.upstreams import CSITEST, program
from tests.e2e.csi_rig import MIB, Rig, rigs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")

# Parts of CSI that this driver does not claim to have; any other skip is a capability that got lost.
NOT_CLAIMED = (
    "GroupController",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "volume lifecycle",  # of ControllerPublishVolume; the one on the node runs
    "ModifyVolume",
    "volume attribute class",
    "GetSnapshot",
    "VolumeHealth",
    "StorageHealth",
    "accessibility requirements",
    "pagination should detect volumes added between pages",  # switched off upstream
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with rigs() as make:
        yield make()


@pytest.fixture(scope="module")
def sanity() -> Path:
    ensure([CSITEST])
    return program(CSITEST, "csi-sanity")


@pytest.mark.parametrize("access", ["mount", "block"])
def test_conforms(rig: Rig, sanity: Path, access: str) -> None:
    report = rig.directory / "junit.xml"
    rig.run(
        str(sanity),
        f"--csi.endpoint=unix://{rig.socket}",
        f"--csi.mountdir={rig.directory}/mount",
        f"--csi.stagingdir={rig.directory}/stage",
        f"--csi.testvolumesize={64 * MIB}",
        f"--csi.testvolumeexpandsize={128 * MIB}",
        f"--csi.testvolumeaccesstype={access}",
        f"--csi.junitfile={report}",
    )
    cases = list(Xml.parse(report).getroot().iter("testcase"))  # noqa: S314 - our own program wrote it
    skipped = [case.get("name", "") for case in cases if case.find("skipped") is not None]
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    passed = len(cases) - len(skipped) - len(failed)
    print(f"csi-sanity {access}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert failed == []
    assert passed >= 60
    lost = [name for name in skipped if not any(part in name for part in NOT_CLAIMED)]
    assert sorted(lost) == [], "\n".join(sorted(lost))
    assert rig.files("volumes") == rig.files("snapshots") == set()
