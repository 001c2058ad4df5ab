"""Is a repository usable? Pure: world and clock in, plan out.

The answer is never taken from looks alone: a probe Job mounts the claim and the key as movers do, creates an
object, reads it back, deletes it, and opens a VM's repository if there is one; once for every generation of
the spec, and again from time to time.
"""

import re
from datetime import datetime
from typing import Literal

from coeval.api.v1alpha1.backuprepository import BackupRepositoryStatus
from coeval.api.v1alpha1.common import Condition
from coeval.controllers.backuprepository.world import Plan, RemoveProbe, RunProbe, World
from coeval.controllers.conditions import find, with_condition
from coeval.controllers.mover_state import MoverJob
from coeval.controllers.settings import Settings
from coeval.domain import naming

# The kubelet's words for a Secret or a ConfigMap, or a key in it, that is not there.
_NO_SECRET = re.compile(r"secret \"[^\"]*\" not found|references non-existent secret key|in Secret \S+")
_NO_CONFIG_MAP = re.compile(r"configmap \"[^\"]*\" not found|references non-existent config key")
# Reasons of Ready that no probe gave.
_NO_ANSWERS = frozenset({"ClaimNotFound", "NoLocation", "Probing"})


def decide(world: World, now: datetime, settings: Settings) -> Plan:
    """The next plan."""
    if world.deleting:
        return Plan(world.status)
    wanted = probe_name(world)
    stale = tuple(RemoveProbe(j.name, j.uid) for j in world.jobs if j.name != wanted and not j.deleting)
    job = next((j for j in world.jobs if j.name == wanted), None)
    if (blocked := _blocked(world, now)) is not None:
        return Plan(blocked, stale, requeue=10.0)
    if job is not None:
        return _watch(world, job, now, stale)
    due = _due_in(world, now, settings)
    if due > 0:
        return Plan(_observed(world), stale, requeue=due)
    return Plan(_probing(world, now), (*stale, RunProbe(wanted)), requeue=2.0)


def _watch(world: World, job: MoverJob, now: datetime, stale: tuple[RemoveProbe, ...]) -> Plan:
    if job.deleting:
        return Plan(_observed(world), stale, requeue=1.0)
    if not job.succeeded and job.failed is None:
        return Plan(_waiting(world, job, now), stale, requeue=2.0)
    status, note = _judged(world, job, now)
    # The next look starts from status alone, which holds the answer when the Job is gone.
    return Plan(status, (*stale, RemoveProbe(job.name, job.uid)), requeue=1.0, note=note)


def probe_name(world: World) -> str:
    """One Job per generation: the answer about an earlier spec is no answer about this one."""
    return naming.child(world.uid, "probe", attempt=world.generation)


def _answer(world: World) -> Condition | None:
    """What a probe said of this generation of the spec, if one did."""
    ready = find(world.status.conditions, "Ready")
    if ready is None or ready.observed_generation != world.generation or ready.reason in _NO_ANSWERS:
        return None
    return ready


def _due_in(world: World, now: datetime, settings: Settings) -> float:
    """Seconds until the next probe."""
    answer, probed = _answer(world), world.status.probed_at
    if answer is None or probed is None:
        return 0.0
    interval = settings.probe_interval if answer.status == "True" else settings.probe_retry
    return interval - (now - probed).total_seconds()


def _blocked(world: World, now: datetime) -> BackupRepositoryStatus | None:
    location = world.spec.location
    volume = location.volume
    if volume is None:
        if location.object_store is not None:
            return None
        return _ready(world, now, "False", "NoLocation", "spec.location names no place")
    if world.claim is not None:
        return None
    return _ready(
        world,
        now,
        "False",
        "ClaimNotFound",
        f"there is no PersistentVolumeClaim {volume.persistent_volume_claim} in the operator's namespace; "
        "create it (spec.location.volume)",
    )


def _probing(world: World, now: datetime) -> BackupRepositoryStatus:
    """While it is probed again the last answer stands."""
    if _answer(world) is not None:
        return _observed(world)
    return _ready(world, now, "False", "Probing", "the repository is probed for the first time")


def _waiting(world: World, job: MoverJob, now: datetime) -> BackupRepositoryStatus:
    """The probe may run yet; but why it does not is told while it lasts."""
    why = next((p.waiting for p in reversed(job.pods) if p.waiting), None)
    missing = _missing(world, why or "")
    return _ready(world, now, "False", *missing) if missing is not None else _observed(world)


def _judged(
    world: World, job: MoverJob, now: datetime
) -> tuple[BackupRepositoryStatus, tuple[str, str, str] | None]:
    before = find(world.status.conditions, "Ready")
    if job.succeeded:
        status = _ready(world, now, "True", "Probed", "written, read back and deleted", probed=True)
        new = before is None or before.status != "True"
        return status, ("Normal", "Probed", "the repository is usable") if new else None
    reason, message = job.error() or ("ProbeFailed", job.story())
    reason, message = _missing(world, message) or (reason, message)
    status = _ready(world, now, "False", reason, message, probed=True)
    new = before is None or (before.status, before.reason) != ("False", reason)
    return status, ("Warning", reason, message) if new else None


def _missing(world: World, why: str) -> tuple[str, str] | None:
    """(reason, message) where the kubelet says that something which the spec names is not there."""
    location, password = world.spec.location, world.spec.encryption.password_secret
    if _NO_CONFIG_MAP.search(why):
        return "ConfigMapNotFound", (
            "the ConfigMap of spec.location.s3.certificateAuthority, or its key, is not in the operator's "
            f"namespace; create it. {why}"
        )
    if not _NO_SECRET.search(why):
        return None
    # A credentials Secret is read into the environment, which the kubelet words as "... in Secret ns/name".
    if (store := location.object_store) is not None and store.credentials_secret.name in why:
        name, keys = store.credentials_secret.name, store.KEYS
        field = f"{location.field}.credentialsSecret"
    else:
        name, keys, field = password.name, password.key, "spec.encryption.passwordSecret"
    return "SecretNotFound", (
        f"the Secret {name} with the key {keys} is not in the operator's namespace; create it "
        f"({field}). {why}"
    )


def _ready(
    world: World,
    now: datetime,
    status: Literal["True", "False"],
    reason: str,
    message: str,
    *,
    probed: bool = False,
) -> BackupRepositoryStatus:
    conditions = with_condition(
        world.status.conditions, "Ready", status, reason, message, now=now, generation=world.generation
    )
    return _observed(world).model_copy(
        update={
            "conditions": conditions,
            "message": message[:4000],
            "probed_at": now.replace(microsecond=0) if probed else world.status.probed_at,
        }
    )


def _observed(world: World) -> BackupRepositoryStatus:
    return world.status.model_copy(update={"observed_generation": world.generation})
