"""What KubeVirt's answers mean, by the texts of real components (kubevirt-in-tests.md 4)."""

import pytest
from coeval.domain.guest import Answer
from coeval.kube.port import ApiError, Conflict, Forbidden, NotFound, Object
from coeval.kubevirt import quiesce

from tests.unit.fakeapi import FakeApi

WRAPPED = (
    "Internal error occurred: unexpected return code 400 (400 Bad Request), message: server error. "
    'command Freeze failed: "LibvirtError({})"'
)
NOT_CONNECTED = WRAPPED.format(
    "Code=86, Domain=10, Message='Guest agent is not responding: QEMU guest agent is not connected'"
)
PAUSED = WRAPPED.format(
    "Code=55, Domain=10, Message='Requested operation is not valid: domain is not running'"
)
NO_ANSWER_IN_TIME = WRAPPED.format(
    "Code=86, Domain=10, Message='Guest agent is not responding: Guest agent not available for now'"
)
IN_GUEST = WRAPPED.format(
    "Code=1, Domain=10, Message='internal error: unable to execute QEMU agent command "
    "'guest-fsfreeze-freeze': failed to open /mnt: Permission denied'"
)
HANDLER_STOPPED = (
    'Internal error occurred: Put "https://10.0.0.2:8186/v1/namespaces/shop/virtualmachineinstances/db/freeze":'
    " context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
)
MIGRATING = WRAPPED.format("failed to freeze VMI, VMI is currently during migration")
NOT_RUNNING = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "t1": VM is not running'


def internal(text: str) -> ApiError:
    return ApiError(500, "InternalError", text)


@pytest.mark.parametrize(
    ("error", "answer", "reason", "lasting"),
    [
        (internal(NOT_CONNECTED), Answer.REFUSED, "FreezeRefused", True),
        (internal(IN_GUEST), Answer.REFUSED, "FreezeRefused", True),
        (internal(PAUSED), Answer.REFUSED, "GuestPaused", False),
        (internal(MIGRATING), Answer.REFUSED, "MigrationInProgress", False),
        (Conflict(409, "Conflict", NOT_RUNNING), Answer.REFUSED, "GuestNotRunning", False),
        (NotFound(404, "NotFound", "no such VMI"), Answer.REFUSED, "GuestGone", False),
        (Forbidden(403, "Forbidden", "may not"), Answer.REFUSED, "FreezeForbidden", True),
        # The guest may freeze after these.
        (internal(NO_ANSWER_IN_TIME), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
        (internal(HANDLER_STOPPED), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
        (internal("something new"), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
        (ApiError(0, "Timeout", "no answer"), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
        (ApiError(503, "ServiceUnavailable", NOT_CONNECTED), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
        (ApiError(504, "GatewayTimeout", ""), Answer.AMBIGUOUS, "QuiesceAmbiguous", False),
    ],
)
def test_freeze(error: ApiError, answer: Answer, reason: str, lasting: bool) -> None:
    reply = quiesce.of_freeze(error)
    assert (reply.answer, reply.reason, reply.lasting) == (answer, reason, lasting)
    assert reply.message == error.message


@pytest.mark.parametrize(
    ("error", "answer", "lasting"),
    [
        (Conflict(409, "Conflict", "VMI is already paused"), Answer.NOT_OURS, False),
        (Conflict(409, "Conflict", "VMI is not running"), Answer.REFUSED, False),
        (NotFound(404, "NotFound", "gone"), Answer.REFUSED, False),
        (Forbidden(403, "Forbidden", "VMI has a livenessProbe"), Answer.REFUSED, True),
        (ApiError(0, "Timeout", ""), Answer.AMBIGUOUS, False),
        (internal("anything"), Answer.AMBIGUOUS, False),
    ],
)
def test_pause(error: ApiError, answer: Answer, lasting: bool) -> None:
    reply = quiesce.of_pause(error)
    assert (reply.answer, reply.lasting) == (answer, lasting)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (NotFound(404, "NotFound", "gone"), Answer.NOT_HELD),
        (Conflict(409, "Conflict", "VMI is not running"), Answer.NOT_HELD),
        (internal("fsfreeze is limited up to 10 seconds"), Answer.NOT_HELD),
        # A guest may be frozen and its agent dead.
        (internal(NOT_CONNECTED), Answer.REFUSED),
        (internal(PAUSED), Answer.AMBIGUOUS),
        (internal(HANDLER_STOPPED), Answer.AMBIGUOUS),
        (ApiError(0, "Timeout", ""), Answer.AMBIGUOUS),
    ],
)
def test_thaw(error: ApiError, answer: Answer) -> None:
    assert quiesce.of_thaw(error).answer is answer


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (NotFound(404, "NotFound", "gone"), Answer.NOT_HELD),
        (Conflict(409, "Conflict", "VMI is not paused"), Answer.NOT_HELD),
        (Conflict(409, "Conflict", "VM snapshot s1 is in progress"), Answer.AMBIGUOUS),
        (internal("anything"), Answer.AMBIGUOUS),
    ],
)
def test_unpause(error: ApiError, answer: Answer) -> None:
    assert quiesce.of_unpause(error).answer is answer


async def test_calls() -> None:
    """The paths and bodies; a freeze always has a timer."""
    seen: list[tuple[str, str, Object | None]] = []
    api = FakeApi(subresource=lambda method, path, body: seen.append((method, path, body)))
    for method in (quiesce.FREEZE, quiesce.PAUSE):
        assert (await quiesce.hold(api, method, "shop", "db", 60)).answer is Answer.OK
        assert (await quiesce.release(api, method, "shop", "db")).answer is Answer.OK
    base = "/apis/subresources.kubevirt.io/v1/namespaces/shop/virtualmachineinstances/db"
    assert seen == [
        ("PUT", f"{base}/freeze", {"unfreezeTimeout": "60s"}),
        ("PUT", f"{base}/unfreeze", None),
        ("PUT", f"{base}/pause", None),
        ("PUT", f"{base}/unpause", None),
    ]
    with pytest.raises(ValueError, match="safety timer"):
        await quiesce.hold(api, quiesce.FREEZE, "shop", "db", 0)


async def test_an_error_is_an_answer() -> None:
    def refuse(*_: object) -> None:
        raise internal(NOT_CONNECTED)

    api = FakeApi(subresource=refuse)
    assert (await quiesce.hold(api, quiesce.FREEZE, "shop", "db", 60)).answer is Answer.REFUSED
    assert (await quiesce.release(api, quiesce.FREEZE, "shop", "db")).answer is Answer.REFUSED
