"""One line per record, JSON by default; the lines of libraries look the same as ours."""

import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

SECRET_NAMES = re.compile(r"passw|secret|token|authorization|credential|private_?key", re.IGNORECASE)
# Kubernetes' own way to write a token into an error or a header.
SECRET_TEXT = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+|(eyJ[\w-]+\.[\w-]+)\.[\w-]*")

QUIET = {
    "kopf": logging.WARNING,  # a line for every event otherwise
    "kopf._core.reactor.running": logging.ERROR,  # that signals are ignored in its thread, which is meant
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
}


def set_up(level: str, style: str, stream: TextIO | None = None) -> None:
    """Configure the root logger. `style` is json or console."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    if style == "console":
        renderer = structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(level)))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The last line of defence: nothing that is named or looks like a secret leaves the process."""
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = _redacted(key, value)
    return event


def _redacted(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _redacted(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(key, v) for v in value]
    if SECRET_NAMES.search(key):
        return "***"
    return SECRET_TEXT.sub(lambda found: (found[1] or "") + "***", value) if isinstance(value, str) else value
