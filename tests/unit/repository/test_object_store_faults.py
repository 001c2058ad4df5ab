"""What a network and a busy server do to an object store: a real server behind a proxy that makes faults."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator

import pytest
from coeval.repository import cloud
from coeval.repository.errors import (
    BucketNotFound,
    ConditionalWritesIgnored,
    CredentialsRefused,
    DataPlaneError,
    RepositoryFull,
    RepositoryUnreachable,
    StoreUnfit,
)
from coeval.repository.object_store import ObjectStore, Patience
from coeval.repository.probe import prove
from coeval.repository.store import CONFIG_NAME, Kind
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.fault_proxy import (
    Behaviour,
    Exchange,
    FaultProxy,
    answers,
    cuts_answer,
    cuts_request,
    fault_proxy,
    hangs,
    lists_nothing,
    loses_answer,
    sips,
    trickles,
)
from tests.tools.server_fixtures import open_bucket
from tests.tools.servers import S3Server

NAME, OTHER = "ab" * 32, "cd" * 32
BIG = random.Random(2).randbytes(5_000_000)  # noqa: S311


@pytest.fixture
def proxy(gateway: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(gateway.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def bucket(gateway: S3Server) -> str:
    return gateway.bucket()


@pytest.fixture
def store(proxy: FaultProxy, bucket: str) -> ObjectStore:
    return open_bucket(bucket)


VERBS: dict[str, tuple[str, Callable[[ObjectStore], object], object]] = {
    "save": ("^PUT .*/index/", lambda store: store.save(Kind.INDEX, OTHER, [b"new"]), None),
    "create": ("^PUT .*/index/", lambda store: store.create(Kind.INDEX, OTHER, [b"new"]), True),
    "load": ("^GET .*/data/", lambda store: store.load(Kind.PACK, NAME), BIG),
    "range": ("^GET .*/data/", lambda store: store.load_range(Kind.PACK, NAME, 7, 9), BIG[7:16]),
    "list": ("^GET .*prefix=", lambda store: list(store.entries(Kind.PACK)), [(NAME, len(BIG))]),
    "config": ("^GET .*prefix=", lambda store: list(store.entries(Kind.CONFIG)), []),
    "remove": ("^DELETE ", lambda store: store.remove(Kind.PACK, NAME), None),
}
verbs = pytest.mark.parametrize("verb", VERBS)


@verbs
@pytest.mark.parametrize(
    "fault",
    [
        answers(503, "SlowDown"),
        answers(429, "TooManyRequests"),
        answers(500, "InternalError"),
        cuts_request(0),
    ],
    ids=["503", "429", "500", "cut"],
)
def test_what_passes_is_tried_again(
    store: ObjectStore, proxy: FaultProxy, verb: str, fault: Behaviour
) -> None:
    pattern, action, expected = VERBS[verb]
    store.save(Kind.PACK, NAME, [BIG])
    before = proxy.requests(pattern)
    proxy.fail(pattern, fault, times=3)
    assert action(store) == expected
    assert proxy.requests(pattern) - before == 4
    assert proxy.spent


@verbs
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", CredentialsRefused),
        (404, "NoSuchBucket", BucketNotFound),
        (404, "", RepositoryUnreachable),
        (400, "AuthorizationHeaderMalformed", RepositoryUnreachable),
        (501, "NotImplemented", RepositoryUnreachable),
        (507, "XMinioStorageFull", RepositoryFull),
    ],
)
def test_what_stays_is_said_at_once(
    store: ObjectStore,
    proxy: FaultProxy,
    bucket: str,
    verb: str,
    status: int,
    code: str,
    error: type[DataPlaneError],
) -> None:
    pattern, action, _ = VERBS[verb]
    proxy.fail(pattern, answers(status, code), times=9)
    with pytest.raises(error) as raised:
        action(store)
    assert type(raised.value) is error
    assert proxy.requests(pattern) == 1
    assert f"s3://{bucket}/some/prefix at {proxy.endpoint}: cannot" in str(raised.value)
    assert f"{status} {code}".rstrip() in str(raised.value)


@verbs
def test_a_server_that_stays_busy_is_given_up_within_the_deadline(
    proxy: FaultProxy, bucket: str, verb: str
) -> None:
    pattern, action, _ = VERBS[verb]
    store = open_bucket(bucket, Patience(deadline=0.6, first_answer=0.1, shortest=0.02, longest=0.2))
    proxy.fail(pattern, answers(503, "SlowDown"), times=1000)
    begun = time.monotonic()
    with pytest.raises(RepositoryUnreachable, match=r"503 SlowDown .*after \d+ attempts; check") as raised:
        action(store)
    assert 0.2 < time.monotonic() - begun < 3
    attempts = re.search(r"after (\d+) attempts", str(raised.value))
    assert attempts and int(attempts[1]) == proxy.requests(pattern) > 2


@given(st.integers(0, 2000), st.floats(0, 400), st.booleans())
def test_waits_grow_to_a_bound_and_end_by_the_deadline(attempt: int, elapsed: float, answered: bool) -> None:
    patience = Patience(deadline=300.0, first_answer=20.0, shortest=0.2, longest=15.0)
    wait = patience.wait(attempt, elapsed, answered=answered)
    most = min(15.0, 0.2 * 2.0 ** min(attempt, 50))
    limit = 300.0 if answered else 20.0
    if wait is None:
        assert elapsed + most >= limit
    else:
        assert most / 2 <= wait <= most and elapsed + wait < limit


def test_a_connection_cut_in_the_middle_loses_nothing(store: ObjectStore, proxy: FaultProxy) -> None:
    for after in (1, 100_000, len(BIG) - 1):
        proxy.fail("^PUT", cuts_request(after))
    store.save(Kind.PACK, NAME, [BIG[:999], BIG[999:]])
    assert proxy.requests("^PUT") == 4
    for after in (0, 100_000):
        proxy.fail("^GET", cuts_answer(after), times=2)
        assert store.load(Kind.PACK, NAME) == BIG
        proxy.fail("^GET", cuts_answer(after))
        assert store.load_range(Kind.PACK, NAME, 3, 3_000_000) == BIG[3:3_000_003]
    proxy.fail("^GET .*prefix=", cuts_answer(200))
    assert list(store.entries(Kind.PACK)) == [(NAME, len(BIG))]
    assert proxy.spent


def test_a_server_that_hangs_is_asked_again(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 0.3)
    store = open_bucket(bucket)
    for pattern in ("^PUT .*data", "^PUT .*config", "^GET .*data", "^GET .*prefix=", "^DELETE"):
        proxy.fail(pattern, hangs)
    store.save(Kind.PACK, NAME, [b"pack"])
    assert store.create(Kind.CONFIG, CONFIG_NAME, [b"config"])
    assert store.load_range(Kind.PACK, NAME, 1, 2) == b"ac"
    assert list(store.entries(Kind.PACK)) == [(NAME, 4)]
    store.remove(Kind.PACK, NAME)
    assert proxy.spent


def test_a_server_that_never_answers_is_given_up_soon(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 0.2)
    store = open_bucket(bucket, Patience(deadline=60, first_answer=0.1))
    proxy.fail("", hangs, times=9)
    with pytest.raises(RepositoryUnreachable, match="no answer in time"):
        store.load(Kind.CONFIG, CONFIG_NAME)
    assert proxy.requests("") == 1


def test_a_slow_connection_is_waited_for(store: ObjectStore, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail("^PUT", sips(500_000, 0.02))
    store.save(Kind.PACK, NAME, [BIG])
    assert proxy.seen == [f"PUT /{bucket}/some/prefix/data/ab/{NAME}"], "a pack is one request"
    proxy.fail("^GET", trickles(20, 0.01))
    assert store.load(Kind.PACK, NAME) == BIG
    assert proxy.requests("^GET") == 1


def test_a_slow_uplink_gets_the_time_it_needs_and_is_remembered(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack takes twenty times as long as a request may; nothing else has more time than before."""
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 0.2)
    store = open_bucket(bucket, Patience(deadline=0.3, first_answer=0.3, shortest=0.01, longest=0.02))
    slow = sips(200_000, 0.04)
    proxy.fail("^PUT", slow, times=4)
    store.save(Kind.PACK, NAME, [BIG])
    assert proxy.requests("^PUT") == 3, "0.2, 0.8 and 3.2 seconds"
    store.save(Kind.PACK, OTHER, [BIG])
    assert proxy.requests("^PUT") == 4, "the next one had enough from the start"
    assert store.load(Kind.PACK, NAME) == BIG == store.load(Kind.PACK, OTHER)
    # A fast one later on: what hangs is noticed soon again.
    store.save(Kind.INDEX, NAME, [b"small"])
    proxy.fail("^PUT", hangs)
    store.save(Kind.PACK, NAME, [b"pack"])
    assert proxy.requests("^PUT") == 7


def test_a_slow_write_that_is_cut_is_tried_again(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took: what moved something does not use up the time for trying again."""
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 0.2)
    store = open_bucket(bucket, Patience(deadline=0.5, first_answer=0.5, shortest=0.01, longest=0.02))

    def breaks(exchange: Exchange) -> None:
        exchange.over.wait(0.7)
        cuts_request(4_000_000)(exchange)

    proxy.fail("^PUT", sips(500_000, 0.05))
    proxy.fail("^PUT", breaks)
    store.save(Kind.PACK, NAME, [BIG])
    assert proxy.requests("^PUT") == 3
    assert store.load(Kind.PACK, NAME) == BIG


def test_a_stuck_server_gets_no_more_time(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing small is answered either, a write is given up like everything else."""
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 0.2)
    store = open_bucket(bucket, Patience(deadline=0.5, first_answer=0.5, shortest=0.01, longest=0.02))
    store.save(Kind.PACK, OTHER, [b"it answered once"])
    proxy.fail("", hangs, times=99)
    with pytest.raises(RepositoryUnreachable, match=r"no answer in time, after \d attempts"):
        store.save(Kind.PACK, NAME, [BIG])
    assert proxy.requests("^PUT .*" + NAME) == proxy.requests("^HEAD") <= 3


def test_an_answer_may_take_long_as_long_as_it_comes(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "REQUEST_SECONDS", 1.0)
    store = open_bucket(bucket)
    store.save(Kind.PACK, NAME, [BIG])
    proxy.fail("^GET", trickles(24, 0.06))
    assert store.load(Kind.PACK, NAME) == BIG
    assert proxy.requests("^GET") == 1


def test_a_create_whose_answer_was_lost_knows_its_own_object(store: ObjectStore, proxy: FaultProxy) -> None:
    proxy.fail("^PUT", loses_answer, times=2)
    assert store.create(Kind.CONFIG, CONFIG_NAME, [b"o", b"urs"])
    assert proxy.requests("^PUT") == 3
    # A rival was first; the answer that said so was lost.
    proxy.fail("^PUT", loses_answer)
    assert not store.create(Kind.CONFIG, CONFIG_NAME, [b"mine"])
    assert store.load(Kind.CONFIG, CONFIG_NAME) == b"ours"


def test_another_conditional_write_under_way_is_no_answer_yet(store: ObjectStore, proxy: FaultProxy) -> None:
    proxy.fail("^PUT", answers(409, "ConditionalRequestConflict"))
    assert store.create(Kind.CONFIG, CONFIG_NAME, [b"ours"])


def test_a_store_that_ignores_conditions_is_refused(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignores_condition(exchange: Exchange) -> None:
        exchange.head = re.sub(rb"\r\nif-none-match:[^\r]*", b"", exchange.head, flags=re.IGNORECASE)
        exchange.client.sendall(exchange.ask())

    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    with fault_proxy(moto_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = open_bucket(moto_server.bucket())
        prove(store)
        proxy.fail("^PUT", ignores_condition, times=2)
        with pytest.raises(ConditionalWritesIgnored, match="If-None-Match"):
            prove(store)
        assert proxy.spent
        proxy.fail("^PUT", answers(501, "NotImplemented"))
        with pytest.raises(RepositoryUnreachable, match="501 NotImplemented"):
            prove(store)
        assert list(store.entries(Kind.PROBE)) == []


def test_a_store_that_does_not_list_what_is_there_is_refused(store: ObjectStore, proxy: FaultProxy) -> None:
    proxy.fail("^GET .*prefix=", lists_nothing)
    with pytest.raises(StoreUnfit, match="does not list"):
        prove(store)
    assert proxy.spent
