"""KubeVirt's objects as the decisions want them. Reads 1.7 to 1.9; what is not there is taken as absent."""

from collections.abc import Iterable, Mapping
from typing import Any

from coeval.domain.guest import GuestVolume, Instance, Machine
from coeval.kube.port import Object

_DEVICES = ("disk", "lun", "cdrom")
_FREEZE_COMMANDS = {"guest-fsfreeze-freeze", "guest-fsfreeze-thaw"}
# Other keys of a volume are its source; these are not.
_NOT_SOURCES = {"name"}


def machine(vm: Object) -> Machine:
    """A VirtualMachine."""
    spec = dig(vm, "spec", "template", "spec") or {}
    status = vm.get("status") or {}
    return Machine(
        uid=vm["metadata"]["uid"],
        generation=int(vm["metadata"].get("generation", 0)),
        volumes=volumes(spec),
        locks=tuple(_locks(status)),
        keeps_state=_keeps_state(spec),
    )


def instance(vmi: Object, migrations: Iterable[Object] = (), freezable: bool | None = None) -> Instance:
    """A VirtualMachineInstance, with the migrations of its namespace and what its agent said of freezing."""
    status = vmi.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    agent = conditions.get("AgentConnected") or {}
    state = status.get("migrationState") or {}
    return Instance(
        uid=vmi["metadata"]["uid"],
        phase=str(status.get("phase") or "Pending"),
        node=str(status.get("nodeName") or ""),
        pods=tuple(sorted(status.get("activePods") or {})),
        migration=str(state.get("migrationUid") or ""),
        migrating=_under_way(state) or any(_of(vmi, m) for m in migrations),
        agent_since=_since(agent) if _true(agent) else None,
        freezable=freezable,
        paused=_true(conditions.get("Paused") or {}),
        frozen=bool(status.get("fsFreezeStatus")),
        windows=dig(status, "guestOSInfo", "id") == "mswindows",
        volumes=volumes(vmi.get("spec") or {}),
    )


def volumes(spec: Object) -> tuple[GuestVolume, ...]:
    """The volumes of a VM's or VMI's spec, each with the device that shows it to the guest."""
    devices = dig(spec, "domain", "devices") or {}
    disks = {d["name"]: d for d in devices.get("disks") or []}
    shared = {f["name"] for f in devices.get("filesystems") or []}
    return tuple(_volume(v, disks.get(v["name"]), v["name"] in shared) for v in spec.get("volumes") or [])


def freezable(guest_os_info: Mapping[str, Any] | None) -> bool | None:
    """Whether the agent has its freeze and thaw commands enabled; None where it does not tell."""
    commands = {
        c.get("name"): bool(c.get("enabled")) for c in (guest_os_info or {}).get("supportedCommands") or []
    }
    if not commands:
        return None
    return all(commands.get(c, False) for c in _FREEZE_COMMANDS)


def _volume(volume: Object, disk: Object | None, shared: bool) -> GuestVolume:
    source = next((k for k in volume if k not in _NOT_SOURCES), "none")
    body = volume.get(source)
    body = body if isinstance(body, dict) else {}
    # A DataVolume's claim has its name.
    claim = {"persistentVolumeClaim": body.get("claimName"), "dataVolume": body.get("name")}.get(source)
    if shared:
        device = "filesystem"
    else:
        device = next((d for d in _DEVICES if disk is not None and d in disk), "disk" if disk else "none")
    return GuestVolume(
        name=volume["name"],
        source=source,
        claim=claim,
        device=device,
        shareable=bool(disk and disk.get("shareable")),
    )


def _locks(status: Object) -> Iterable[str]:
    if status.get("snapshotInProgress"):
        yield f"the VirtualMachineSnapshot {status['snapshotInProgress']}"
    if status.get("restoreInProgress"):
        yield f"the VirtualMachineRestore {status['restoreInProgress']}"
    backup = dig(status, "changedBlockTracking", "backupStatus")
    if backup:
        name = backup.get("backupName") if isinstance(backup, dict) else None
        yield f"the VirtualMachineBackup {name}" if name else "a VirtualMachineBackup"


def _keeps_state(spec: Object) -> bool:
    tpm = dig(spec, "domain", "devices", "tpm")
    efi = dig(spec, "domain", "firmware", "bootloader", "efi")
    return bool((tpm or {}).get("persistent") or (efi or {}).get("persistent"))


def _under_way(state: Object) -> bool:
    return bool(state) and not state.get("completed") and not state.get("failed")


def _of(vmi: Object, migration: Object) -> bool:
    """A migration of this instance that has not ended; one that is only asked for may start now."""
    ended = dig(migration, "status", "phase") in ("Succeeded", "Failed")
    return dig(migration, "spec", "vmiName") == vmi["metadata"]["name"] and not ended


def _since(condition: Object) -> str:
    """1.8 leaves lastTransitionTime of AgentConnected empty, and sets lastProbeTime when it connects."""
    return str(condition.get("lastTransitionTime") or condition.get("lastProbeTime") or "unknown")


def _true(condition: Object) -> bool:
    return condition.get("status") == "True"


def dig(obj: Any, *path: str) -> Any:
    """What lies at a path of keys in nested JSON; None where it ends early."""
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj
