"""Freeze, thaw, pause and unpause over KubeVirt's API, and what each answer really means.

A failed freeze does not mean "not frozen": virt-api gives up after 10 s, and the freeze may land later
(kubevirt.md 4 and 5). So an answer counts as a refusal only where its text shows that nothing will happen;
anything else is ambiguous. The texts are those of real components (kubevirt-in-tests.md 4).
"""

from dataclasses import dataclass
from typing import Any

from coeval.domain.guest import Answer
from coeval.kube.port import ApiError, KubeApi

FREEZE = "GuestFreeze"
PAUSE = "Pause"
_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in our terms. `lasting`: the same call will be refused again."""

    answer: Answer
    reason: str = ""
    message: str = ""
    lasting: bool = False


async def hold(api: KubeApi, method: str, namespace: str, name: str, timer: int) -> Reply:
    """Freeze (with a safety timer in seconds, never 0) or pause. Raises nothing of the API's."""
    if method == FREEZE and timer < 1:
        raise ValueError("a freeze without a safety timer may never end")
    verb, body = ("freeze", {"unfreezeTimeout": f"{timer}s"}) if method == FREEZE else ("pause", None)
    try:
        await api.subresource("PUT", _path(namespace, name, verb), body, timeout=_TIMEOUT)
    except ApiError as error:
        return of_freeze(error) if method == FREEZE else of_pause(error)
    return Reply(Answer.OK)


async def release(api: KubeApi, method: str, namespace: str, name: str) -> Reply:
    """Thaw or unpause. Raises nothing of the API's."""
    verb = "unfreeze" if method == FREEZE else "unpause"
    try:
        await api.subresource("PUT", _path(namespace, name, verb), timeout=_TIMEOUT)
    except ApiError as error:
        return of_thaw(error) if method == FREEZE else of_unpause(error)
    return Reply(Answer.OK)


async def guest_os_info(api: KubeApi, namespace: str, name: str) -> Any:
    """What the guest agent says of itself. Raises ApiError."""
    return await api.subresource("GET", _path(namespace, name, "guestosinfo"))


def of_freeze(error: ApiError) -> Reply:
    """What a failed freeze means."""
    text = error.message
    if error.status == 404:
        return _refused("GuestGone", error)
    if error.status in (401, 403):
        return _refused("FreezeForbidden", error, lasting=True)
    if error.status == 409 and "not running" in text:
        return _refused("GuestNotRunning", error)
    if _unanswered(error):
        return Reply(Answer.AMBIGUOUS, "QuiesceAmbiguous", text)
    for words, reason, lasting in (
        ("QEMU guest agent is not connected", "FreezeRefused", True),
        # The agent itself answered with an error, and thaws what it had frozen before it says so.
        ("unable to execute QEMU agent command", "FreezeRefused", True),
        ("domain is not running", "GuestPaused", False),
        ("currently during migration", "MigrationInProgress", False),
    ):
        if words in text:
            return _refused(reason, error, lasting=lasting)
    return Reply(Answer.AMBIGUOUS, "QuiesceAmbiguous", text)


def of_pause(error: ApiError) -> Reply:
    """What a failed pause means."""
    text = error.message
    if error.status == 409 and "already paused" in text:
        return Reply(Answer.NOT_OURS, "VirtualMachinePaused", text)
    if error.status == 404:
        return _refused("GuestGone", error)
    if error.status == 409 and "not running" in text:
        return _refused("GuestNotRunning", error)
    if error.status in (401, 403):
        # Also where a liveness probe would kill the paused guest.
        return _refused("PauseRefused", error, lasting=True)
    return Reply(Answer.AMBIGUOUS, "QuiesceAmbiguous", text)


def of_thaw(error: ApiError) -> Reply:
    """What a failed thaw means."""
    text = error.message
    if error.status == 404 or (error.status == 409 and "not running" in text):
        return Reply(Answer.NOT_HELD, "GuestGone", text)
    if "fsfreeze is limited up to 10 seconds" in text:
        # VSS thawed by itself before we did.
        return Reply(Answer.NOT_HELD, "FreezeExpired", text)
    if not _unanswered(error) and "QEMU guest agent is not connected" in text:
        return Reply(Answer.REFUSED, "GuestAgentGone", text)
    return Reply(Answer.AMBIGUOUS, "ReleaseAmbiguous", text)


def of_unpause(error: ApiError) -> Reply:
    """What a failed unpause means. A 409 may also be the lock of a VirtualMachineSnapshot: then try again."""
    text = error.message
    if error.status == 404:
        return Reply(Answer.NOT_HELD, "GuestGone", text)
    if error.status == 409 and ("not paused" in text or "not running" in text):
        return Reply(Answer.NOT_HELD, "NotPaused", text)
    return Reply(Answer.AMBIGUOUS, "ReleaseAmbiguous", text)


def _unanswered(error: ApiError) -> bool:
    """Nobody who knows has spoken: a time-out on the way, or a proxy's word."""
    text = error.message
    return error.status in (0, 429, 502, 503, 504) or "deadline exceeded" in text or "Timeout" in text


def _refused(reason: str, error: ApiError, *, lasting: bool = False) -> Reply:
    return Reply(Answer.REFUSED, reason, error.message, lasting)


def _path(namespace: str, name: str, verb: str) -> str:
    return f"/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{verb}"
