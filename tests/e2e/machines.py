"""VMs with the guest in them, on a cluster."""

import json

from tests.cluster.guest.vm import Machine, claims, populate, virtual_machine
from tests.e2e.harness import CommandFailed, Kubectl, Object, condition, until


def namespace(kubectl: Kubectl, name: str) -> str:
    """Made where it is not there; its pods can start. One that an earlier run left to its end ends first."""
    found = kubectl.get("namespace", name)
    if found is not None and "deletionTimestamp" in found["metadata"]:
        kubectl.delete("namespace", name)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kubectl("wait", "--for=create", "--timeout=30s", "-n", name, "serviceaccount/default")
    return name


def create(kubectl: Kubectl, machine: Machine) -> Machine:
    """Its claims, filled, and the VM; a running one is waited for until its guest writes."""
    kubectl.apply(*claims(machine), populate(machine))
    kubectl(
        *("wait", f"job/{machine.populate_job}", "-n", machine.namespace),
        *("--for=condition=Complete", "--timeout=180s"),
    )
    kubectl.apply(virtual_machine(machine))
    if machine.running:
        instance(kubectl, machine)
    return machine


def instance(kubectl: Kubectl, machine: Machine) -> Object:
    """The running instance; where the guest has an agent, its disks are mounted, so the writer is at work."""
    kubectl.wait(
        *("vmi", machine.name, machine.namespace),
        lambda vmi: vmi.get("status", {}).get("phase") == "Running",
        what=f"VM {machine.name} Running",
        seconds=240,
    )
    if machine.parameters.get("agent") != "no":
        kubectl.wait(
            *("vmi", machine.name, machine.namespace),
            lambda vmi: condition(vmi, "AgentConnected").get("status") == "True",
            what=f"the guest agent of VM {machine.name}",
            seconds=240,
        )
        until(
            lambda: set(machine.disks) <= mounted(kubectl, machine) or None,
            what=f"the disks of VM {machine.name} to be mounted",
            seconds=120,
        )
    found = kubectl.get("vmi", machine.name, machine.namespace)
    assert found is not None
    return found


def mounted(kubectl: Kubectl, machine: Machine) -> set[str]:
    """The guest's disks that it has mounted, by its agent's word."""
    path = (
        f"/apis/subresources.kubevirt.io/v1/namespaces/{machine.namespace}"
        f"/virtualmachineinstances/{machine.name}/filesystemlist"
    )
    try:
        listed = json.loads(kubectl("get", "--raw", path))["items"]
    except CommandFailed:  # the agent has only just connected
        return set()
    return {item["mountPoint"].removeprefix("/disks/") for item in listed}
