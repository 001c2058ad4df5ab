"""Write a VMBackup's status: only on change, and never over somebody else's."""

from coeval.api.v1alpha1.vmbackup import VMBackupStatus
from coeval.controllers.vmbackup.build import status_json
from coeval.kube.kinds import VM_BACKUP
from coeval.kube.port import Conflict, KubeApi, Object


async def write(api: KubeApi, raw: Object, status: VMBackupStatus) -> Object:
    """The object after the write. Conflict: it was changed since it was read, so look again."""
    old = VMBackupStatus.model_validate(raw.get("status") or {})
    if old == status and raw.get("status"):
        return raw
    return await api.replace_status(VM_BACKUP, raw | {"status": status_json(status)})


async def write_facts(api: KubeApi, raw: Object, status: VMBackupStatus) -> Object:
    """As `write`, for what cannot be observed again: a change of spec meanwhile must not lose it.

    Only this operator writes the status, so as long as that is still what the facts were added to, they hold.
    """
    for _ in range(5):
        try:
            return await write(api, raw, status)
        except Conflict:
            meta = raw["metadata"]
            now = await api.get(VM_BACKUP, meta["name"], meta["namespace"])
            same = now is not None and now["metadata"]["uid"] == meta["uid"]
            if now is None or not same or now.get("status") != raw.get("status"):
                raise
            raw = now
    return await write(api, raw, status)
