"""Server-sent events: the status whenever it changed, and each event of the journal once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from pydantic import TypeAdapter
from starlette.types import Receive, Scope, Send

from riwoa.web.access import RefusedError
from riwoa.web.observer import Observer, Snapshot
from riwoa.web.views import EventView

MOST_STREAMS = 256
_EVERY_S = 1.0
_SILENCE_S = 15.0  # after which a comment shows that the stream lives
_PATIENCE_S = 30.0  # for a client that does not read
_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
_event = TypeAdapter(EventView)


class Streams:
    """Counts the streams that are open, so that clients that never leave cannot fill the machine."""

    def __init__(self, observer: Observer, most: int = MOST_STREAMS) -> None:
        self._observer = observer
        self._most = most
        self._open = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open

    def stream(self, after_event: int) -> EventStream:
        """A new stream, whose client knows the journal's events up to a number.

        Raises:
            RefusedError: there are too many.
        """
        if self._open >= self._most:
            raise RefusedError(503, "too many clients listen; try again later", _PATIENCE_S)
        return EventStream(self, self._observer, after_event)

    def count(self, change: int) -> None:
        """A stream begins (1) or ends (−1)."""
        self._open += change


class EventStream:
    """One client's stream, as an ASGI response.

    A client that reads slowly gets fewer statuses, never a queue of old ones; one that does not read at all is dropped.
    """

    def __init__(self, streams: Streams, observer: Observer, after_event: int) -> None:
        self._streams = streams
        self._observer = observer
        self._after = after_event
        self._status = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes."""
        self._streams.count(1)
        gone = asyncio.create_task(_disconnected(receive), name="stream-client")
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            with suppress(TimeoutError):
                await self._send_all(send, gone)
        finally:
            gone.cancel()
            self._streams.count(-1)

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        silent_s = _SILENCE_S
        while not gone.done():
            news = "".join(self._news(await self._observer.snapshot()))
            silent_s = 0.0 if news else silent_s + _EVERY_S
            if silent_s >= _SILENCE_S:
                news, silent_s = ": still here\n\n", 0.0
            if news:
                async with asyncio.timeout(_PATIENCE_S):
                    await send({"type": "http.response.body", "body": news.encode(), "more_body": True})
            await asyncio.wait({gone}, timeout=_EVERY_S)

    def _news(self, seen: Snapshot) -> Iterator[str]:
        """What this client has not seen yet."""
        if seen.status_json != self._status:
            self._status = seen.status_json
            yield f"event: status\ndata: {seen.status_json}\n\n"
        for event in seen.events:
            if event.event_id > self._after:
                self._after = event.event_id
                yield f"event: journal\nid: {event.event_id}\ndata: {_event.dump_json(event).decode()}\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
