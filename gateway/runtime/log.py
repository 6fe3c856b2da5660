"""Logging: ``area.fact`` events with facts as keys on stderr. Readable on a terminal, otherwise JSON lines.

Log lines of libraries, crashes and warnings take the same way. Secrets are redacted at that one place.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from gateway.core.clock import SECOND_MS
from gateway.core.limits import FixedWindow
from gateway.core.redaction import CUT, redact
from gateway.core.text import wants_colour
from gateway.core.visible_text import escaped, escaped_lines
from gateway.runtime.optional_imports import without

with without("rich"):  # structlog would load it to draw tracebacks, which are plain here: 5 MB of memory
    import structlog
    from structlog.stdlib import ProcessorFormatter

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import EventDict, Processor

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_OWN: Final = logging.getLogger("gateway")
MOST_OF_A_LIBRARY: Final = 10
"""Limit of lines a second for one library and level. With tracebacks they are long."""
_MOST_KINDS: Final = 10_000
# Below warning these log every packet, some with the password in it.
QUIET: Final = ("amqtt", "transitions", "mqtt", "uvicorn", "httpx", "httpcore", "asyncio")
SECRET_KEYS: Final = frozenset({"password", "token", "device_token", "secret", "api_key", "authorization"})

_SHARED: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),  # RFC 3339 with Z
)


def configure(
    level: str = "info", form: str = "auto", stream: TextIO | None = None, *, lines_per_second: int = 0
) -> None:
    """Set up logging for this process.

    Args:
        level: the least severe level that is logged: debug, info, warning or error.
        form: ``console``, ``json``, or ``auto``: console when the stream is a terminal.
        stream: where to write; stderr by default.
        lines_per_second: limit for lines of one kind, see :class:`Sparing`; at most 10 for libraries; 0 for no limit.
    """
    stream = stream or sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    structlog.configure(
        processors=[
            *([Sparing(lines_per_second)] if lines_per_second else []),
            *_SHARED,
            structlog.processors.StackInfoRenderer(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _OWN,  # structlog's own would walk the stack for a name at each line
    )
    handler = _Handler(stream)
    if lines_per_second:
        handler.addFilter(SparingOthers(min(lines_per_second, MOST_OF_A_LIBRARY)))
    handler.setFormatter(_formatter(_console(colors=stream.isatty() and wants_colour()) if console else _JSON))
    _take_over_standard_logging(handler, LEVELS[level])
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed


class Sparing:
    """Processor that limits the lines of one kind (event and level) per second.

    A flood of one kind then neither fills the disk nor hides the other kinds. The next line that passes says how many
    were dropped.
    """

    def __init__(self, per_second: int, now: Callable[[], float] = time.monotonic) -> None:
        self._written = FixedWindow[tuple[str, str]](
            per_second, SECOND_MS, lambda: int(now() * SECOND_MS), most_keys=_MOST_KINDS
        )
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()  # the writer's thread logs, too

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        """Pass the event on, or drop it. Kinds are our own constants, so their number is bounded."""
        left_out = self.left_out_before(str(event.get("event")), method)
        if left_out is None:
            raise structlog.DropEvent
        return {**event, "left_out_before": left_out} if left_out else event

    def left_out_before(self, name: str, level: str) -> int | None:
        """Return how many of this kind were dropped before this one, or None when this one is dropped too."""
        kind = (name, level)
        with self._counting:
            if self._written.take(kind):
                return self._left_out.pop(kind, 0)
            self._left_out[kind] += 1
            return None


class SparingOthers(logging.Filter):
    """Filter that limits the records per library, level and second. The texts of libraries are no constants of ours."""

    def __init__(self, per_second: int, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._sparing = Sparing(per_second, now)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written. Our own lines were limited before they get here."""
        if record.name == _OWN.name:
            return True
        left_out = self._sparing.left_out_before(record.name, record.levelname)
        if left_out:
            record.left_out_before = left_out
        return left_out is not None


def redact_event(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Processor that redacts secrets in every key and value, however deep. What is no JSON value becomes text first."""
    return {redact(str(key)): _clean(key, value) for key, value in event.items()}


def escape_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Processor for terminals: text from a device cannot move the cursor, start a line or hide text."""
    lines = ("exception", "stack")
    return {escaped(key): _escaped(value, escaped_lines if key in lines else escaped) for key, value in event.items()}


def _clean(key: object, value: object) -> Any:
    if key in SECRET_KEYS and isinstance(value, str | bytes):
        return CUT
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact(str(inner)): _clean(inner, item) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(None, item) for item in value]
    return redact(repr(value) if isinstance(value, bytes | BaseException) else str(value))


def _escaped(value: Any, escape: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return escape(value)
    return value if value is None or isinstance(value, bool | int | float) else escape(str(value))


_JSON: Final[tuple[Processor, ...]] = (structlog.processors.JSONRenderer(),)


def _console(*, colors: bool) -> tuple[Processor, ...]:
    """Return the console's renderer with plain tracebacks: rich ones print local variables."""
    plain = structlog.dev.plain_traceback
    return (escape_controls, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, sort_keys=False))


def _formatter(renderers: tuple[Processor, ...]) -> ProcessorFormatter:
    return ProcessorFormatter(
        foreign_pre_chain=[
            *_SHARED,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(["left_out_before"]),
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact_event,
            *renderers,
        ],
    )


def _take_over_standard_logging(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records. A record that cannot be formatted is reported without its arguments, which may be secrets."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        fact = {"name": record.name, "levelno": logging.ERROR, "levelname": "ERROR", "msg": "log.unprintable"}
        with contextlib.suppress(OSError, ValueError):  # the stream itself may be gone
            self.stream.write(self.format(logging.makeLogRecord(fact)) + self.terminator)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("process.crashed", exc_info=(kind, error, trace))


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _crashed(args.exc_type, args.exc_value, args.exc_traceback)
