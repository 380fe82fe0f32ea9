"""One line a request on stderr, and the request's id on every line written while it is answered.

The id is the caller's ``X-Request-ID`` where that is sound, else made here; the answer's header
returns it, and the prediction log's ``request_id`` is or begins with it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from tradewind.masking import mask_passwords

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("tradewind.serving.requests")

HEADER: Final = b"x-request-id"
SOUND_ID = re.compile(rb"[A-Za-z0-9._-]{1,55}")
"""Safe in a header, a line of text and the ledger's column of 64, with our own ending."""
SHOWN = 20
"""Symbols, decisions and versions that one line names at most."""
SHOWN_CHARACTERS = 64
QUIET_PATHS = ("/livez", "/readyz", "/healthz", "/metrics", "/metrics/prom")
"""Asked again and again by machines: their lines are of level DEBUG."""

Format = Literal["auto", "json", "text"]


@dataclass
class RequestNote:
    """What becomes known of a request while it is answered."""

    request_id: str
    given: bool = False
    symbols: list[str] = field(default_factory=list)
    decision_ids: list[str] = field(default_factory=list)
    model_versions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    error: str = ""


_NOTE: ContextVar[RequestNote | None] = ContextVar("request_note", default=None)


def current() -> RequestNote | None:
    """Return the note of the request that is being answered, None outside of one."""
    return _NOTE.get()


def ledger_id() -> str:
    """Return the prediction log's id of this request, which no other request has.

    A caller may send one ``X-Request-ID`` twice; the ledger keeps each id once, so that a
    caller's own gets an ending of ours.
    """
    note = _NOTE.get()
    if note is None:
        return uuid.uuid4().hex
    return f"{note.request_id}~{uuid.uuid4().hex[:8]}" if note.given else note.request_id


def failed(kind: str) -> None:
    """Note the error that the whole request is answered with."""
    note = _NOTE.get()
    if note is not None:
        note.error = kind


class RequestLog:
    """ASGI middleware around everything else: names the request, and logs its outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the id in the header; log the request once its answer is out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = _note_of(scope["headers"])
        status = 0
        started = time.perf_counter()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (HEADER, note.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), named]}
            await send(message)

        token = _NOTE.set(note)
        try:
            await self._app(scope, receive, send_named)
        finally:
            _say(scope, note, status, (time.perf_counter() - started) * 1000)
            _NOTE.reset(token)


def _note_of(headers: Sequence[tuple[bytes, bytes]]) -> RequestNote:
    for name, value in headers:
        if name == HEADER and SOUND_ID.fullmatch(value):
            return RequestNote(value.decode(), given=True)
    return RequestNote(uuid.uuid4().hex)


def _say(scope: Scope, note: RequestNote, status: int, latency_ms: float) -> None:
    level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "method": scope["method"],
        "path": _short(scope["path"]),
        "status": status,
        "latency_ms": round(latency_ms, 3),
    }
    for name in ("symbols", "decision_ids", "model_versions", "problems"):
        if found := getattr(note, name):
            fields[name] = [_short(item) for item in found[:SHOWN]]
    if len(note.symbols) > SHOWN:
        fields["symbols_asked"] = len(note.symbols)
    if note.error:
        fields["error"] = note.error
    log.log(level, "request", extra={"fields": fields})


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


class LineFormatter(logging.Formatter):
    """A record as one line: a JSON object, or words and ``name=value`` pairs.

    Both hold time (UTC), level, logger, message, the present request's id, the record's
    ``fields`` and its traceback, passwords of addresses masked, line breaks escaped.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, Any] = {
            "ts": at,
            "level": record.levelname,
            "logger": record.name,
            "message": mask_passwords(record.getMessage()),
        }
        note = _NOTE.get()
        if note is not None:
            values["request_id"] = note.request_id
        values |= getattr(record, "fields", {})
        if record.exc_info:
            values["exception"] = mask_passwords(self.formatException(record.exc_info))
        if self._as_json:
            return json.dumps(values, ensure_ascii=False, default=str)
        words = [str(values.pop(name)) for name in ("ts", "level", "logger")]
        words.append(values.pop("message").replace("\n", "\\n"))
        words += [
            f"{name}={json.dumps(value, ensure_ascii=False, default=str)}"
            for name, value in values.items()
        ]
        return " ".join(words)


def configure_logging(log_format: Format, stream: TextIO | None = None) -> None:
    """Write this process's ``tradewind`` lines to ``stream`` (stderr), from level INFO on."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    as_json = not target.isatty() if log_format == "auto" else log_format == "json"
    handler.setFormatter(LineFormatter(as_json=as_json))
    ours = logging.getLogger("tradewind")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False  # BentoML's root handler would write every line again, in its form
