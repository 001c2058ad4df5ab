"""Look at mover Jobs and their pods: how far they are, what they said, why they do not start."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from coeval.controllers.mover_state import MoverJob, MoverPod
from coeval.controllers.movers import CONTAINER
from coeval.csi.snapshots import time_of
from coeval.kube.kinds import CORE_EVENT, JOB, POD
from coeval.kube.port import ApiError, KubeApi, Object

_LOG_LINES = 20
# What is normal at a start is no trouble yet.
_SLOW_START = 4.0


async def look(
    api: KubeApi, namespace: str, labels: Mapping[str, str], now: datetime
) -> tuple[dict[str, MoverJob], tuple[MoverPod, ...], dict[str, str]]:
    """Jobs by name, all pods oldest first, and warnings by the uid of what they are about."""
    raw_jobs = await api.list(JOB, namespace, labels=labels)
    raw_pods = await api.list(POD, namespace, labels=labels)
    slow = [p for p in raw_pods if _phase(p) == "Pending"]
    slow += [j for j in raw_jobs if not _ended_job(j) and not _living(j, raw_pods)]
    warnings = await _warnings(api, namespace) if any(_age(o, now) > _SLOW_START for o in slow) else {}
    found = [await _pod(api, namespace, p, warnings) for p in raw_pods]
    pods = tuple(sorted(found, key=lambda p: (p.created, p.name)))
    jobs = [_job(j, pods, warnings) for j in raw_jobs]
    return {j.name: j for j in jobs}, pods, warnings


def result_of(message: str | None) -> Mapping[str, Any] | None:
    """The JSON of a termination message; None where a mover did not get to write one."""
    try:
        found = json.loads(message or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def last_progress(text: str) -> Mapping[str, Any] | None:
    """The last progress line of a log, which holds other lines as well."""
    for line in reversed(text.splitlines()):
        if '"progress"' not in line:
            continue
        found = result_of(line.strip())
        if found is not None and isinstance(found.get("progress"), dict):
            progress: Mapping[str, Any] = found["progress"]
            return progress
    return None


async def _pod(api: KubeApi, namespace: str, raw: Object, warnings: Mapping[str, str]) -> MoverPod:
    meta, status = raw["metadata"], raw.get("status") or {}
    container: Object = next(iter(status.get("containerStatuses") or []), {})
    state = container.get("state") or {}
    phase = _phase(raw)
    terminated = state.get("terminated") or {}
    return MoverPod(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        phase=phase,
        job=_job_name(raw),
        result=result_of(terminated.get("message")),
        ended=_ended(terminated, status),
        waiting=_waiting(state.get("waiting"), status, warnings.get(meta["uid"]))
        if phase == "Pending"
        else None,
        progress=await _progress(api, namespace, meta["name"]) if phase == "Running" else None,
        deleting="deletionTimestamp" in meta,
    )


async def _progress(api: KubeApi, namespace: str, pod: str) -> Mapping[str, Any] | None:
    try:
        return last_progress(await api.logs(pod, namespace, container=CONTAINER, tail_lines=_LOG_LINES))
    except ApiError:
        return None  # only for people's eyes: never worth a failed reconcile


async def _warnings(api: KubeApi, namespace: str) -> dict[str, str]:
    """The last warning about each object: why a claim or a mount does not come is told nowhere else."""
    try:
        events = await api.list(CORE_EVENT, namespace)
    except ApiError:
        return {}
    warnings = [e for e in events if e.get("type") == "Warning"]
    warnings.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    return {
        (e.get("involvedObject") or {}).get("uid", ""): f"{e.get('reason')}: {e.get('message')}"
        for e in warnings
    }


def _job(raw: Object, pods: Iterable[MoverPod], warnings: Mapping[str, str]) -> MoverJob:
    meta, conditions = raw["metadata"], _conditions(raw)
    own = tuple(p for p in pods if p.job == meta["name"])
    failed = conditions.get("Failed") or {}
    return MoverJob(
        name=meta["name"],
        uid=meta["uid"],
        created=time_of(meta["creationTimestamp"]),
        succeeded=(conditions.get("Complete") or {}).get("status") == "True",
        failed=f"{failed.get('reason')}: {failed.get('message')}" if failed.get("status") == "True" else None,
        deleting="deletionTimestamp" in meta,
        trouble=None if any(not p.deleting for p in own) else warnings.get(meta["uid"]),
        pods=own,
    )


def _conditions(raw: Object) -> dict[str, Object]:
    return {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or []}


def _ended_job(raw: Object) -> bool:
    return any((_conditions(raw).get(end) or {}).get("status") == "True" for end in ("Complete", "Failed"))


def _living(job: Object, pods: Iterable[Object]) -> bool:
    name = job["metadata"]["name"]
    return any(_job_name(p) == name and "deletionTimestamp" not in p["metadata"] for p in pods)


def _job_name(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name", ""))


def _ended(terminated: Object, status: Object) -> str | None:
    if terminated and terminated.get("exitCode") != 0:
        return f"{terminated.get('reason') or 'Error'}, exit code {terminated.get('exitCode')}"
    if status.get("phase") == "Failed":
        return f"{status.get('reason') or 'Failed'}: {status.get('message') or 'no message'}"
    return None


def _waiting(waiting: Object | None, status: Object, warning: str | None) -> str | None:
    """Why a pod does not start: its image or configuration, that no node takes it, or a mount."""
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return f"{waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message') or ''}".rstrip(": ")
    return warning


def _phase(raw: Object) -> str:
    return str((raw.get("status") or {}).get("phase", "Pending"))


def _age(raw: Object, now: datetime) -> float:
    return (now - time_of(raw["metadata"]["creationTimestamp"])).total_seconds()
