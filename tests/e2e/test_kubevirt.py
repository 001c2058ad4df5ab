"""Real KubeVirt with the real guest: what the operator relies on, seen through the API server."""

import dataclasses
import json
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.guest.vm import Machine, virtual_machine
from tests.e2e import machines
from tests.e2e.harness import CommandFailed, Kubectl, Object, until

pytestmark = pytest.mark.kubevirt

SUBRESOURCES = "/apis/subresources.kubevirt.io/v1"
POLL = 5.0
"""Seconds between two looks of virt-launcher at the guest's freeze status."""


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = machines.namespace(kubectl, f"kubevirt-{uuid.uuid4().hex[:8]}")
    yield name
    kubectl.delete("namespace", name)


@pytest.fixture(scope="module")
def machine(kubectl: Kubectl, namespace: str) -> Machine:
    """A VM whose guest writes, with its agent connected."""
    return machines.create(kubectl, Machine("db", namespace))


def subresource(machine: Machine, verb: str) -> str:
    return f"{SUBRESOURCES}/namespaces/{machine.namespace}/virtualmachineinstances/{machine.name}/{verb}"


def put(kubectl: Kubectl, machine: Machine, verb: str, body: Object) -> None:
    kubectl("replace", "--raw", subresource(machine, verb), "-f", "-", stdin=json.dumps(body))


def freeze_status(kubectl: Kubectl, machine: Machine) -> str:
    vmi = kubectl.get("vmi", machine.name, machine.namespace)
    assert vmi is not None
    return str(vmi["status"].get("fsFreezeStatus", ""))


def wait_for_freeze_status(kubectl: Kubectl, machine: Machine, status: str) -> None:
    until(
        lambda: freeze_status(kubectl, machine) == status or None,
        what=f"fsFreezeStatus {status!r}",
        seconds=4 * POLL,
    )


def step(kubectl: Kubectl, machine: Machine) -> int:
    """The last step that the guest's writer has told on its console."""
    selector = f"--selector=vm.kubevirt.io/name={machine.name}"
    console = kubectl("logs", "-n", machine.namespace, selector, "--container=guest-console-log", "--tail=50")
    told = re.findall(r"coeval-guest: sequence (\d+)", console)
    return int(told[-1]) if told else 0


def test_the_guest_writes_to_both_disks(kubectl: Kubectl, machine: Machine) -> None:
    first = step(kubectl, machine)
    until(lambda: step(kubectl, machine) > first + 20 or None, what="the sequence to go on", seconds=60)


def test_the_agent_tells_which_file_systems_are_on_which_disks(kubectl: Kubectl, machine: Machine) -> None:
    found = json.loads(kubectl("get", "--raw", subresource(machine, "filesystemlist")))["items"]
    by_serial = {disk["serial"]: each["mountPoint"] for each in found for disk in each["disk"]}
    assert by_serial == {"a0": "/disks/a0", "b0": "/disks/b0"}
    info = json.loads(kubectl("get", "--raw", subresource(machine, "guestosinfo")))
    commands = {each["name"]: each["enabled"] for each in info["supportedCommands"]}
    assert commands["guest-fsfreeze-freeze"]
    assert commands["guest-fsfreeze-thaw"]


def test_freeze_is_seen_and_ended(kubectl: Kubectl, machine: Machine) -> None:
    put(kubectl, machine, "freeze", {"unfreezeTimeout": "60s"})
    try:
        wait_for_freeze_status(kubectl, machine, "frozen")
        # The console is not on a disk, so the guest goes on telling the step it stands at.
        stands = step(kubectl, machine)
        until(
            lambda: at if (at := step(kubectl, machine)) == stands else None,
            what="the same step told twice",
            seconds=10,
            every=2.5,
        )
    finally:
        put(kubectl, machine, "unfreeze", {})
    wait_for_freeze_status(kubectl, machine, "")
    until(lambda: step(kubectl, machine) > stands or None, what="the sequence to go on", seconds=30)


def test_the_safety_timer_thaws(kubectl: Kubectl, machine: Machine) -> None:
    put(kubectl, machine, "freeze", {"unfreezeTimeout": "8s"})
    wait_for_freeze_status(kubectl, machine, "frozen")
    wait_for_freeze_status(kubectl, machine, "")


def test_the_webhooks_judge_what_is_applied(kubectl: Kubectl, namespace: str) -> None:
    """A lun on a halted VM is fine; a bus that does not exist is not."""
    halted = Machine("halted", namespace, device="lun", running=False)
    kubectl.apply(virtual_machine(halted))
    assert kubectl.get("vm", "halted", namespace) is not None
    wrong = virtual_machine(dataclasses.replace(halted, name="wrong"))
    wrong["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0]["disk"]["bus"] = "carrier-pigeon"
    with pytest.raises(CommandFailed, match="unrecognized bus carrier-pigeon"):
        kubectl.apply(wrong)
    kubectl.delete("vm", "halted", namespace)
