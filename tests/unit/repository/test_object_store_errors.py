"""What users get wrong: addresses, buckets, credentials, certificates. Each ends in a reason, a way out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from coeval.repository.errors import (
    BucketNotFound,
    CredentialsRefused,
    DataPlaneError,
    InvalidArgument,
    RepositoryUnreachable,
)
from coeval.repository.object_errors import Trouble, read_failure
from coeval.repository.object_store import ObjectStore, Patience
from coeval.repository.store import CONFIG_NAME, Kind, open_store

from tests.tools.fault_proxy import Exchange, answers, fault_proxy
from tests.tools.server_fixtures import open_bucket
from tests.tools.servers import ACCESS_KEY, SECRET_KEY, S3Server, free_port, versitygw

NAME = "ab" * 32
ONCE = Patience(deadline=0.0, first_answer=0.0)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw(tmp_path_factory.mktemp("tls"), tls=True) as server:
        yield server


def failures(store: ObjectStore) -> list[DataPlaneError]:
    """What every verb raises."""
    raised = []
    for action in (
        lambda: store.save(Kind.PACK, NAME, [b"x"]),
        lambda: store.create(Kind.CONFIG, CONFIG_NAME, [b"x"]),
        lambda: store.load(Kind.CONFIG, CONFIG_NAME),
        lambda: store.load_range(Kind.PACK, NAME, 0, 1),
        lambda: list(store.entries(Kind.CONFIG)),
        lambda: list(store.entries(Kind.LOCK)),
        lambda: store.remove(Kind.LOCK, NAME),
        store.sweep,
    ):
        with pytest.raises(DataPlaneError) as caught:
            action()
        raised.append(caught.value)
    return raised


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "AWS_SECRET_ACCESS_KEY",
            "not-the-secret-at-all",
            "403 SignatureDoesNotMatch; check the credentials",
        ),
        ("AWS_ACCESS_KEY_ID", "NOBODYKNOWSTHISKEY", "check the credentials in the environment"),
    ],
)
def test_wrong_credentials_are_refused_and_never_repeated(
    gateway: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    bucket = gateway.bucket()
    monkeypatch.setenv(variable, value)
    for error in failures(open_bucket(bucket)):
        assert type(error) is CredentialsRefused
        assert words in str(error) and bucket in str(error) and gateway.endpoint in str(error)
        told = f"{error}{error.__cause__}"
        assert not any(secret in told for secret in (ACCESS_KEY, SECRET_KEY, value))


def test_a_session_token_goes_to_the_server_and_nowhere_else(
    gateway: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []

    def refuses(exchange: Exchange) -> None:
        heads.append(exchange.head)
        answers(400, "ExpiredToken")(exchange)

    with fault_proxy(gateway.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token-of-this-session")
        proxy.fail("", refuses, times=99)
        told = [str(error) for error in failures(open_bucket(gateway.bucket()))]
    assert len(heads) == len(told)
    assert all(b"x-amz-security-token: the-token-of-this-session\r\n" in head for head in heads)
    assert not any(SECRET_KEY.encode() in head for head in heads)
    assert all("400 ExpiredToken" in text and "the-token" not in text for text in told)


def test_a_missing_bucket_is_named(s3_server: S3Server) -> None:
    for error in failures(open_bucket("no-such-bucket")):
        assert type(error) is BucketNotFound
        assert "s3://no-such-bucket/some/prefix at http://127.0.0.1:" in str(error)
        assert "make the bucket first" in str(error)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (f"http://127.0.0.1:{free_port()}", "nobody answers there"),
        ("http://no-such-host.invalid", "there is no such host"),
    ],
)
def test_an_address_where_nobody_is(
    gateway: S3Server, monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(RepositoryUnreachable, match=rf"at {endpoint}: .*{words}.*check endpoint"):
        open_bucket("bucket", ONCE).load(Kind.CONFIG, CONFIG_NAME)


def test_tls_wants_the_ca(tls_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in tls_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = tls_server.bucket()
    store = open_bucket(bucket)
    store.save(Kind.PACK, NAME, [b"over TLS"])
    assert store.load(Kind.PACK, NAME) == b"over TLS"

    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(RepositoryUnreachable, match=r"not signed by a CA that we trust; .*AWS_CA_BUNDLE"):
        open_bucket(bucket).load(Kind.PACK, NAME)
    # The certificate is for 127.0.0.1.
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls_server.ca))
    monkeypatch.setenv("AWS_ENDPOINT_URL", tls_server.endpoint.replace("127.0.0.1", "localhost"))
    with pytest.raises(RepositoryUnreachable, match="not valid for this host"):
        open_bucket(bucket).load(Kind.PACK, NAME)


def test_plain_http_only_where_the_endpoint_says_so(
    gateway: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint.replace("http:", "https:"))
    with pytest.raises(RepositoryUnreachable, match="does not speak TLS"):
        open_bucket(gateway.bucket()).load(Kind.CONFIG, CONFIG_NAME)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
        ("AWS_ENDPOINT_URL", "https://me:secret@host"),
        ("AWS_ENDPOINT_URL", "https://host with spaces"),
        ("AWS_CA_BUNDLE", "/no/such/file"),
        ("AWS_CA_BUNDLE", os.devnull),
        ("AWS_SECRET_ACCESS_KEY", None),
    ],
)
def test_unusable_variables_are_named(
    gateway: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgument, match=variable) as raised:
        open_store("s3://bucket/prefix")
    assert "secret@" not in str(raised.value) and ACCESS_KEY not in str(raised.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize(
    "rest",
    ["", "b", "Bucket/x", "key:secret@bucket/x", "bucket/a//b", "bucket/../x", "bucket/a b", "bucket/x?y=z"],
)
def test_urls_that_name_no_place_are_refused(scheme: str, rest: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"--repository {scheme}://.*(use|prefix)") as raised:
        open_store(f"{scheme}://{rest}")
    assert "secret" not in str(raised.value)


def test_azure_without_an_account_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InvalidArgument, match="Account must be specified; check the variables"):
        open_store("az://container/prefix")


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("status code: 404 Not Found: <Error><Code>BlobNotFound</Code>", Trouble.MISSING),
        ("status code: 404 Not Found: <Error><Code>ContainerNotFound</Code>", Trouble.BUCKET),
        ("status code: 409 Conflict: <Error><Code>BlobAlreadyExists</Code>", Trouble.EXISTS),
        ("status code: 412 Precondition Failed: ", Trouble.EXISTS),
        ("status code: 400 Bad Request: <Error><Code>BadDigest</Code>", Trouble.PASSING),
        ("status code: 400 Bad Request: <Error><Code>ExpiredToken</Code>", Trouble.REFUSED),
        ("status code: 404 Not Found: <html>", Trouble.OTHER),
    ],
)
def test_answers_of_stores_that_are_not_run_here(text: str, trouble: Trouble) -> None:
    failure = read_failure(
        f"Generic S3 error: Error performing GET https://h/b/x in 1ms - Server returned non-2xx {text}"
    )
    assert failure.trouble is trouble and failure.answered


@pytest.mark.parametrize(
    ("reason", "code", "trouble"),
    [
        ("The specified blob does not exist.", 404, Trouble.MISSING),
        ("The specified container does not exist.", 404, Trouble.BUCKET),
        ("The server is busy.", 503, Trouble.PASSING),
        ("Not for you.", 403, Trouble.REFUSED),
    ],
)
def test_an_answer_of_azure_within_an_answer(reason: str, code: int, trouble: Trouble) -> None:
    failure = read_failure(
        f"Object x/y: Bulk delete request failed for key x/y: {reason} (code: {code})\n\nDebug"
    )
    assert failure.trouble is trouble and failure.answered and str(code) in failure.words


def test_no_credentials_at_all() -> None:
    """As the library says it where no variable is set and the metadata service is asked in vain."""
    text = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 3ms - x"
    assert read_failure(text).trouble is Trouble.REFUSED
