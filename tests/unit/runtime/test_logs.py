"""Log lines: JSON, the same form for every library, and never a secret."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from coeval.runtime import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    written = io.StringIO()
    logs.set_up("INFO", "json", written)
    yield written
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_stdlib_and_structlog_lines_look_the_same(stream: io.StringIO) -> None:
    logging.getLogger("some.library").warning("hello %s", "world", extra={"object": "shop/b"})
    structlog.get_logger("ours").info("hello", object="shop/b")
    one, two = lines(stream)
    assert one["event"] == "hello world"
    assert one["object"] == two["object"] == "shop/b"
    assert (one["level"], one["logger"], two["logger"]) == ("warning", "some.library", "ours")
    assert one["timestamp"].endswith("Z")


def test_exceptions_are_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("x").exception("failed")
    [line] = lines(stream)
    assert "ValueError: odd" in line["exception"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"password": "hunter2"}, "m"),
        ({"headers": {"Authorization": "hunter2"}}, "m"),
        ({"items": [{"repositoryPassword": "hunter2"}]}, "m"),
        ({"api_token": "hunter2"}, "m"),
        ({}, "sent Authorization: Bearer hunter2.abc-def"),
        ({"error": "bearer hunter2"}, "m"),
        ({}, "token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.hunter2"),
    ],
)
def test_no_secret_leaves(stream: io.StringIO, extra: dict[str, Any], message: str) -> None:
    logging.getLogger("x").error(message, extra=extra)
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_a_secret_in_a_traceback_does_not_leave_either(stream: io.StringIO) -> None:
    try:
        raise ValueError("GET failed with Bearer hunter2")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "hunter2" not in stream.getvalue()


def test_levels(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("no")
    logging.getLogger("kopf.objects").info("no")
    logging.getLogger("kopf.objects").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_console() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    written = io.StringIO()
    try:
        logs.set_up("INFO", "console", written)
        logging.getLogger("x").info("hello", extra={"password": "hunter2"})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    assert "hello" in written.getvalue()
    assert "hunter2" not in written.getvalue()
