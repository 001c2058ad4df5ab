"""A virtual machine as the decisions see it: what it runs on, and what could disturb one moment."""

from dataclasses import dataclass
from enum import StrEnum

PERSISTENT_STATE_PREFIX = "persistent-state-for-"


@dataclass(frozen=True, slots=True)
class GuestVolume:
    """A volume of the VM's spec, joined with its device by name.

    `source` is the key of the spec (`persistentVolumeClaim`, `dataVolume`, `hostDisk`, …), `claim` the
    PVC behind it. `device` is `disk`, `lun`, `cdrom`, `filesystem` (virtiofs) or `none`.
    """

    name: str
    source: str
    claim: str | None = None
    device: str = "disk"
    shareable: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """A VirtualMachine: the desired state. `locks` names what holds it (a snapshot, a restore, a backup)."""

    uid: str
    generation: int
    volumes: tuple[GuestVolume, ...]
    locks: tuple[str, ...] = ()
    # TPM or EFI variables in a claim of KubeVirt's own.
    keeps_state: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """A VirtualMachineInstance: the running guest.

    `agent_since` is the transition time of AgentConnected, None while no agent is connected. `freezable`
    is what the agent says of its freeze and thaw commands, None where it was not asked.
    """

    uid: str
    phase: str
    node: str = ""
    pods: tuple[str, ...] = ()
    migration: str = ""
    migrating: bool = False
    agent_since: str | None = None
    freezable: bool | None = None
    paused: bool = False
    frozen: bool = False
    windows: bool = False
    volumes: tuple[GuestVolume, ...] = ()

    @property
    def running(self) -> bool:
        """The guest executes (or is paused); its volumes may be written."""
        return self.phase == "Running"

    @property
    def ended(self) -> bool:
        """The guest has stopped; what is left is the record of it."""
        return self.phase in ("Succeeded", "Failed")


class Answer(StrEnum):
    """What a call to the guest is known to have done.

    OK: done. REFUSED: not done, and it will not happen later. NOT_HELD: there was nothing to release.
    NOT_OURS: somebody else holds the guest; releasing it is not ours. AMBIGUOUS: it may have happened, or may
    still happen.
    """

    OK = "Ok"
    REFUSED = "Refused"
    NOT_HELD = "NotHeld"
    NOT_OURS = "NotOurs"
    AMBIGUOUS = "Ambiguous"
