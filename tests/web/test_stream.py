from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from riwoa.paths import StatePaths
from riwoa.service.status_object import StatusObject
from riwoa.web import stream as module
from riwoa.web.access import RefusedError
from riwoa.web.journal import Journal
from riwoa.web.observer import Observer
from riwoa.web.stream import Streams


class Ticking:
    """A daemon whose status changes each time it is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def status(self) -> StatusObject:
        self.looks += 1
        return cast(StatusObject, {"state": "running", "message": str(self.looks)})

    def ask(self, verb: str, by: str) -> Mapping[str, Any]:
        raise NotImplementedError


async def messages(streams: Streams, after: int, wanted: int) -> list[str]:
    """The first events that a client of a new stream gets; then it goes."""
    gone, found = asyncio.Event(), list[str]()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        found.extend(part for part in message.get("body", b"").decode().split("\n\n") if part)
        if len(found) >= wanted:
            gone.set()

    async with asyncio.timeout(10):
        await streams.stream(after)({}, receive, send)
    return found


async def test_a_stream_tells_status_and_each_event_once_and_ends_with_its_client(paths: StatePaths) -> None:
    streams = Streams(Observer(Ticking(), Journal(paths.journal)))
    first = await messages(streams, 0, 3)
    assert [part.split("\n")[0] for part in first] == ["event: status", "event: journal", "event: journal"]
    assert json.loads(first[0].split("data: ")[1])["message"] == "1"
    assert streams.open == 0
    last = first[-1].split("\n")[1].removeprefix("id: ")
    again = await messages(streams, int(last), 1)
    assert [part.split("\n")[0] for part in again] == ["event: status"]


async def test_a_crowd_of_clients_looks_at_the_daemon_once(paths: StatePaths) -> None:
    daemon = Ticking()
    streams = Streams(Observer(daemon, Journal(paths.journal)))
    await asyncio.gather(*(messages(streams, 9, 1) for _ in range(50)))
    assert daemon.looks == 1


async def test_one_client_too_many_is_refused_and_one_that_does_not_read_is_dropped(
    paths: StatePaths, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    streams = Streams(Observer(Ticking(), Journal(paths.journal)), most=1)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    one = asyncio.create_task(streams.stream(0)({}, never, stuck))
    while not streams.open:
        await asyncio.sleep(0)
    with pytest.raises(RefusedError, match="too many"):
        streams.stream(0)
    async with asyncio.timeout(5):
        await one
    assert streams.open == 0
