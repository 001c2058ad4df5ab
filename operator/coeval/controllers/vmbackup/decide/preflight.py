"""Pending: is everything there that a backup needs? All problems are found together."""

from collections.abc import Iterator

from coeval.api.v1alpha1.moment import Consistency, ConsistencyStatus
from coeval.api.v1alpha1.vmbackup import RepositoryStatus, VolumeStatus
from coeval.api.v1alpha1.vmbackup import Role as ApiRole
from coeval.controllers.vmbackup.decide import bases
from coeval.controllers.vmbackup.decide.draft import Draft
from coeval.controllers.vmbackup.plan import SaveManifests
from coeval.controllers.vmbackup.world import Rival, World
from coeval.domain import naming
from coeval.domain.consistency import Level, Method, Quietness, choose
from coeval.domain.guest import GuestVolume, Instance, Machine
from coeval.domain.roles import Problem, Role, Selection, role, select
from coeval.domain.storage import Claim, SnapshotClass, choose_class


def check(draft: Draft) -> None:
    """Either all is well and the volumes are recorded, or the problems are told and looked at again."""
    world = draft.world
    rival = _first_rival(world)
    if rival is not None:
        draft.set(blocked_since=None)
        message = f"the VMBackup {rival.name} of the same VM runs first; this one starts when it has ended"
        draft.blocked_by = ("OtherBackupRunning", message)
        draft.wait(f"waiting for the VMBackup {rival.name}", 5.0)
        return
    machine = world.machine
    selection = _selection(world, machine) if machine is not None else None
    problems = [*_problems_of_vm(world, selection), *_problems_of_repository(world)]
    if problems or machine is None or selection is None:
        blocked(draft, problems)
        return
    chosen = [_volume(v, world) for v in selection.chosen]
    draft.set(
        volumes=chosen,
        excluded_volumes=[
            *map(str, selection.left_out),
            *_not_in_guest(machine, world.instance),
            *_state_left_out(machine),
        ]
        or None,
        consistency=ConsistencyStatus(required=world.backup.spec.consistency),
        repository=RepositoryStatus(path=_path(world)),
        blocked_since=None,
    )
    draft.act(save_manifests(draft))
    draft.again(0.0)


def save_manifests(draft: Draft) -> SaveManifests:
    """The definitions that go into the backup beside the disks."""
    backup = draft.world.backup
    return SaveManifests(
        manifests_name(backup.uid), backup.spec.virtual_machine, tuple(v.claim for v in draft.volumes)
    )


def manifests_name(uid: str) -> str:
    """Of the ConfigMap."""
    return naming.child(uid, "manifests")


def blocked(draft: Draft, problems: list[Problem]) -> None:
    """They may heal by themselves, as with GitOps, where things come in any order: for a while."""
    message = "; ".join(p.message for p in problems)
    since = draft.status.blocked_since or draft.now
    draft.set(blocked_since=since)
    if draft.since(since) >= draft.settings.preflight_grace:
        draft.fail(problems[0].reason, message)
        return
    draft.blocked_by = (problems[0].reason, message)
    draft.wait(message, 2.0)


def problems_of_guest(world: World) -> Iterator[Problem]:
    """What is wrong with the guest's state at this moment; asked again before every attempt."""
    machine, instance = world.machine, world.instance
    name = f"{world.backup.namespace}/{world.backup.spec.virtual_machine}"
    if machine is None:
        yield Problem(
            "VirtualMachineNotFound",
            f"there is no VirtualMachine {name}; create it, or name another in a new VMBackup",
        )
        return
    if machine.locks:
        yield Problem(
            "VirtualMachineBusy",
            f"VirtualMachine {name} is held by {', '.join(machine.locks)}; wait for it to end or remove it",
        )
    if instance is None or instance.ended:
        return
    if not instance.running:
        yield Problem(
            "VirtualMachineNotRunning",
            f"VirtualMachine {name} is {instance.phase}, neither running nor stopped",
        )
        return
    if instance.migrating:
        yield Problem(
            "MigrationInProgress",
            f"VirtualMachine {name} is being migrated; wait for it to end, or cancel it",
        )
    if world.backup.spec.consistency is Consistency.BEST_EFFORT:
        return
    if instance.paused:
        # It may end at any moment, and its end is not ours to bring about: no window can be proven on it.
        yield Problem(
            "VirtualMachinePaused",
            f"VirtualMachine {name} is paused, and not by this backup; unpause or stop it, "
            "or ask for consistency BestEffort",
        )
    if instance.frozen:
        yield Problem(
            "GuestAlreadyFrozen",
            f"the filesystems of {name} are frozen by somebody else; thaw them or wait for their time-out",
        )


def current_volumes(machine: Machine, instance: Instance | None) -> tuple[GuestVolume, ...]:
    """What the guest really has: of the instance while there is one, of the machine when it is stopped."""
    return machine.volumes if instance is None or instance.ended else instance.volumes


def quietness(world: World, refused: dict[str, str] | None) -> Quietness:
    """What the choice of a method depends on."""
    instance = world.instance
    if instance is None or not instance.running:
        return Quietness(running=False)
    return Quietness(
        running=True,
        agent_connected=instance.agent_since is not None,
        freezable=instance.freezable,
        refused=refused,
    )


def _first_rival(world: World) -> Rival | None:
    """The backup that goes before this one: a running one, else the oldest that waits."""
    ours = (world.backup.created, world.backup.uid)
    ahead = [r for r in world.rivals if r.started or (r.created, r.uid) < ours]
    return min(ahead, key=lambda r: (not r.started, r.created, r.uid), default=None)


def _selection(world: World, machine: Machine) -> Selection:
    wanted = world.backup.spec.volumes
    return select(
        current_volumes(machine, world.instance),
        include=wanted.include if wanted else None,
        exclude=wanted.exclude if wanted else None,
        shared_writers_accepted=world.backup.spec.consistency is Consistency.BEST_EFFORT,
    )


def _problems_of_vm(world: World, selection: Selection | None) -> Iterator[Problem]:
    guest = list(problems_of_guest(world))
    yield from guest
    if selection is None:
        return
    yield from selection.problems
    for volume in selection.chosen:
        yield from _problems_of_volume(volume, world)
    if not guest:
        choice = choose(Level(world.backup.spec.consistency.value), quietness(world, None))
        if not isinstance(choice, Method):
            yield choice


def _problems_of_volume(volume: GuestVolume, world: World) -> Iterator[Problem]:
    where = f"{world.backup.namespace}/{volume.claim}"
    claim = world.claims.get(volume.claim or "")
    if claim is None:
        yield Problem(
            "ClaimNotFound",
            f"PersistentVolumeClaim {where} of volume {volume.name} does not exist; create it, or exclude "
            "the volume by spec.volumes.exclude",
        )
        return
    if claim.phase != "Bound":
        yield Problem(
            "ClaimNotBound",
            f"PersistentVolumeClaim {where} of volume {volume.name} is {claim.phase}, not Bound; see its "
            "events (kubectl describe pvc), or exclude the volume by spec.volumes.exclude",
        )
        return
    found = role(volume, claim.mode)
    if isinstance(found, Problem):
        yield found
    if claim.driver is None:
        yield Problem(
            "ClaimNotSnapshottable",
            f"PersistentVolumeClaim {where} of volume {volume.name} is not on a CSI driver, so no snapshot "
            "can be taken of it; exclude the volume by spec.volumes.exclude",
        )
        return
    chosen = choose_class(world.snapshot_classes, claim.driver)
    if not isinstance(chosen, SnapshotClass):
        yield Problem(
            "NoVolumeSnapshotClass",
            f"{chosen}, so no snapshot can be taken of {where}; create a VolumeSnapshotClass for the driver, "
            "or mark exactly one as default (snapshot.storage.kubernetes.io/is-default-class)",
        )
    if not claim.storage_class or claim.storage_class not in world.storage_classes:
        yield Problem(
            "StorageClassNotFound",
            f"PersistentVolumeClaim {where} of volume {volume.name} names the StorageClass "
            f"{claim.storage_class or '(none)'}, which does not exist; snapshots are read through a volume "
            "of that class: create it",
        )


def _problems_of_repository(world: World) -> Iterator[Problem]:
    name = world.backup.spec.repository
    repository = world.repository
    if repository is None:
        yield Problem("RepositoryNotFound", f"there is no BackupRepository {name}; create it or name another")
    elif not repository.allowed:
        yield Problem(
            "NamespaceNotAllowed",
            f"BackupRepository {name} does not allow the namespace {world.backup.namespace} "
            "(spec.allowedNamespaces)",
        )
    elif not repository.ready:
        yield Problem("RepositoryNotReady", f"BackupRepository {name} is not Ready: {repository.message}")


def _path(world: World) -> str:
    """Inside the BackupRepository: one restic repository per VM."""
    prefix = world.repository.spec.location.prefix if world.repository is not None else ""
    parts = (prefix, world.backup.namespace, world.backup.spec.virtual_machine)
    return "/".join(filter(None, parts))


def _not_in_guest(machine: Machine, instance: Instance | None) -> list[str]:
    """What the VM's definition has and its running guest has not, until it is restarted."""
    present = {v.name for v in current_volumes(machine, instance)}
    return [
        f"{v.name}: in the VM's definition, but not in the running guest"
        for v in machine.volumes
        if v.name not in present
    ]


def _state_left_out(machine: Machine) -> list[str]:
    if not machine.keeps_state:
        return []
    return ["(TPM and EFI state): persistent firmware state is not backed up yet"]


def _volume(volume: GuestVolume, world: World) -> VolumeStatus:
    claim: Claim = world.claims[volume.claim or ""]
    chosen = choose_class(world.snapshot_classes, claim.driver or "")
    found = role(volume, claim.mode)
    if not isinstance(chosen, SnapshotClass) or not isinstance(found, Role):
        raise AssertionError(f"volume {volume.name} passed the preflight without a class or a role")
    known = VolumeStatus(
        name=volume.name,
        role=ApiRole(found.value),
        claim=claim.name,
        claim_uid=claim.uid,
        persistent_volume=claim.volume,
        volume_handle=claim.handle,
        driver=claim.driver,
        storage_class=claim.storage_class,
        snapshot_class=chosen.name,
        size_bytes=claim.size,
    )
    return known.model_copy(update={"base": bases.choose(world, known)})
