"""KubeVirt's objects, as 1.7 to 1.9 write them, in our terms."""

from typing import Any

import pytest
from coeval.domain.guest import GuestVolume
from coeval.kube.port import Object
from coeval.kubevirt import graph

SPEC: Object = {
    "domain": {
        "devices": {
            "disks": [
                {"name": "root", "disk": {"bus": "virtio"}, "bootOrder": 1},
                {"name": "data", "lun": {"bus": "scsi"}},
                {"name": "iso", "cdrom": {"bus": "sata"}},
                {"name": "bare"},
                {"name": "shared", "disk": {}, "shareable": True},
            ],
            "filesystems": [{"name": "files", "virtiofs": {}}],
        }
    },
    "volumes": [
        {"name": "root", "dataVolume": {"name": "db-root"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "db-data", "hotpluggable": True}},
        {"name": "iso", "persistentVolumeClaim": {"claimName": "iso"}},
        {"name": "bare", "hostDisk": {"path": "/x", "type": "Disk"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "files", "persistentVolumeClaim": {"claimName": "files"}},
        {"name": "dump", "memoryDump": {"claimName": "dump"}},
        {"name": "over", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
    ],
}


def vmi(**status: Any) -> Object:
    return {"metadata": {"name": "db", "uid": "u1"}, "spec": SPEC, "status": {"phase": "Running"} | status}


def test_volumes() -> None:
    assert graph.volumes(SPEC) == (
        GuestVolume("root", "dataVolume", "db-root", "disk"),
        GuestVolume("data", "persistentVolumeClaim", "db-data", "lun"),
        GuestVolume("iso", "persistentVolumeClaim", "iso", "cdrom"),
        GuestVolume("bare", "hostDisk", None, "disk"),
        GuestVolume("shared", "persistentVolumeClaim", "shared", "disk", shareable=True),
        GuestVolume("files", "persistentVolumeClaim", "files", "filesystem"),
        GuestVolume("dump", "memoryDump", None, "none"),
        GuestVolume("over", "ephemeral", None, "none"),
    )


def test_a_quiet_guest() -> None:
    found = graph.instance(
        vmi(
            nodeName="n1",
            activePods={"b": "n1", "a": "n1"},
            conditions=[
                {"type": "AgentConnected", "status": "True", "lastTransitionTime": "t"},
                {"type": "Paused", "status": "False"},
            ],
            guestOSInfo={"id": "debian"},
        )
    )
    assert (found.running, found.node, found.pods, found.agent_since) == (True, "n1", ("a", "b"), "t")
    assert not (found.paused or found.frozen or found.migrating or found.windows)


@pytest.mark.parametrize(
    ("times", "since"),
    [
        ({"lastProbeTime": "p", "lastTransitionTime": None}, "p"),  # 1.8.4
        ({"lastProbeTime": "p", "lastTransitionTime": "t"}, "t"),
        ({}, "unknown"),
    ],
)
def test_since_when_the_agent_is_connected(times: Object, since: str) -> None:
    condition = {"type": "AgentConnected", "status": "True"} | times
    assert graph.instance(vmi(conditions=[condition])).agent_since == since


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"fsFreezeStatus": "frozen"}, "frozen"),
        ({"conditions": [{"type": "Paused", "status": "True"}]}, "paused"),
        ({"guestOSInfo": {"id": "mswindows"}}, "windows"),
        ({"migrationState": {"migrationUid": "m"}}, "migrating"),
    ],
)
def test_a_disturbed_guest(status: Object, field: str) -> None:
    assert getattr(graph.instance(vmi(**status)), field)
    assert graph.instance(vmi(**status)).agent_since is None


def test_migrations() -> None:
    def migration(phase: str | None, name: str = "db") -> Object:
        return {"spec": {"vmiName": name}, "status": {"phase": phase} if phase else {}}

    ended = vmi(migrationState={"migrationUid": "m", "completed": True})
    assert not graph.instance(ended, [migration("Succeeded"), migration("Failed")]).migrating
    assert graph.instance(ended).migration == "m"
    assert graph.instance(vmi(), [migration(None)]).migrating
    assert graph.instance(vmi(), [migration("Running")]).migrating
    assert not graph.instance(vmi(), [migration("Running", "other")]).migrating


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, ()),
        ({"snapshotInProgress": "s"}, ("the VirtualMachineSnapshot s",)),
        ({"restoreInProgress": "r"}, ("the VirtualMachineRestore r",)),
        (
            {"changedBlockTracking": {"state": "Enabled", "backupStatus": {"backupName": "b"}}},
            ("the VirtualMachineBackup b",),
        ),
        ({"changedBlockTracking": {"state": "Enabled"}}, ()),
    ],
)
def test_locks(status: Object, words: tuple[str, ...]) -> None:
    vm = {
        "metadata": {"name": "db", "uid": "v", "generation": 3},
        "spec": {"template": {"spec": SPEC}},
        "status": status,
    }
    found = graph.machine(vm)
    assert found.locks == words
    assert (found.uid, found.generation, len(found.volumes)) == ("v", 3, 8)


@pytest.mark.parametrize(
    ("domain", "keeps"),
    [
        ({}, False),
        ({"devices": {"tpm": {}}}, False),
        ({"devices": {"tpm": {"persistent": True}}}, True),
        ({"firmware": {"bootloader": {"efi": {"persistent": True}}}}, True),
    ],
)
def test_persistent_state(domain: Object, keeps: bool) -> None:
    vm = {"metadata": {"uid": "v"}, "spec": {"template": {"spec": {"domain": domain}}}}
    assert graph.machine(vm).keeps_state is keeps


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (None, None),
        ({}, None),
        ({"supportedCommands": [{"name": "guest-fsfreeze-freeze", "enabled": True}]}, False),
        (
            {
                "supportedCommands": [
                    {"name": "guest-fsfreeze-freeze", "enabled": True},
                    {"name": "guest-fsfreeze-thaw", "enabled": True},
                ]
            },
            True,
        ),
        (
            {
                "supportedCommands": [
                    {"name": "guest-fsfreeze-freeze", "enabled": False},
                    {"name": "guest-fsfreeze-thaw", "enabled": True},
                ]
            },
            False,
        ),
    ],
)
def test_freezable(info: Object | None, expected: bool | None) -> None:
    assert graph.freezable(info) is expected
