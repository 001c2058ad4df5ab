"""KubeVirt in the simulated world: freeze, thaw and pause, and what is reported of the guest."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from coeval.kube.kinds import VIRTUAL_MACHINE_INSTANCE, VM_BACKUP
from coeval.kube.port import ApiError, Conflict, Object

from tests.unit.controllers.scene import SHOP
from tests.unit.controllers.sim_world import World


class KubeVirt:
    """Of the one VM. `before(verb)` runs ahead of a freeze or a pause, and may raise."""

    def __init__(self, world: World, before: Callable[[str], None]) -> None:
        self.world, self.api, self.behaviour = world, world.api, world.behaviour
        self._before = before
        self.reports: dict[str, Object] = {}
        self.api.on_subresource = self.call

    def call(self, method: str, path: str, body: Object | None) -> Any:
        """A subresource of the VMI."""
        verb = path.rsplit("/", 1)[1]
        self.world.changes += 1
        if verb == "guestosinfo":
            names = ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw")
            return {"supportedCommands": [{"name": n, "enabled": True} for n in names]}
        assert method == "PUT"
        if self.api.find(VIRTUAL_MACHINE_INSTANCE, "db", SHOP) is None:
            raise ApiError(404, "NotFound", 'virtualmachineinstance.kubevirt.io "db" not found')
        if verb == "freeze":
            self._freeze(body or {})
        elif verb == "unfreeze":
            self._unfreeze()
        elif verb == "pause":
            self._before("pause")
            if self.world.guest.paused:
                raise Conflict(409, "Conflict", "VMI is already paused")
            self._hold()
            self.world.guest.paused = True
            self.report()
        else:
            if not self.world.guest.paused:
                raise Conflict(409, "Conflict", "VMI is not paused")
            self.world.guest.paused = False
            self.report()
        return None

    def _freeze(self, body: Object) -> None:
        self._before("freeze")
        if self.world.guest.frozen_until is not None:
            return  # already frozen: success, and the timer runs on
        seconds = int(body["unfreezeTimeout"].removesuffix("s"))
        assert seconds > 0
        self.freeze_guest(seconds)

    def freeze_guest(self, seconds: int) -> None:
        self._hold()
        self.world.guest.frozen_until = self.world.time + timedelta(seconds=seconds)

    def _unfreeze(self) -> None:
        if self.behaviour.lose_thaws > 0:
            self.behaviour.lose_thaws -= 1
            raise ApiError(0, "Timeout", "no answer")
        if self.behaviour.thaw_error is not None:
            text, self.behaviour.thaw_error = self.behaviour.thaw_error, None
            raise ApiError(500, "InternalError", text)
        if self.world.guest.frozen_until is not None:
            self.thaw()

    def _hold(self) -> None:
        backup = self.api.find(VM_BACKUP, self.world.key.name, self.world.key.namespace) or {}
        quiesce = backup.get("status", {}).get("quiesce", {})
        assert "intentAt" in quiesce and "releaseSeenAt" not in quiesce, "held without a word in status"
        self.world.guest.window += 1

    def thaw(self) -> None:
        self.world.guest.frozen_until = None
        self.world.changes += 1

    def report(self) -> None:
        """What virt-handler writes to the VMI, in its own time."""
        if self.api.find(VIRTUAL_MACHINE_INSTANCE, "db", SHOP) is None:
            return
        conditions = [{"type": "Ready", "status": "True"}]
        if self.world.guest.agent:
            conditions.append(
                {"type": "AgentConnected", "status": "True", "lastTransitionTime": "2026-11-23T09:00:00Z"}
            )
        if self.world.guest.paused:
            conditions.append({"type": "Paused", "status": "True"})
        frozen = "frozen" if self.world.guest.frozen_until is not None else None
        self.api.set_status(
            VIRTUAL_MACHINE_INSTANCE,
            "db",
            SHOP,
            {"conditions": conditions, "fsFreezeStatus": frozen}
            | self.reports.get(VIRTUAL_MACHINE_INSTANCE.kind, {}),
        )
