"""Servers that speak the OpenAI protocol on this machine, well or badly: each does what its test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Asked:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    number: int  # of the request, from 0


@dataclass(slots=True)
class Answer:
    """What is sent back; a dict or a list goes as JSON."""

    content: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        raw = self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()
        kind = "text/plain" if isinstance(self.content, bytes) else "application/json"
        headers = {"content-type": kind, "content-length": str(len(raw)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Said\r\n{head}\r\n".encode() + raw


Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]  # writes whatever it likes
Behave = Callable[[Asked], Awaitable[Answer | Raw] | Answer | Raw]


class ChatServer:
    """Does what ``behave`` says, and notes what it was asked."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def chats(self) -> list[Asked]:
        """What it was asked for a completion."""
        return [asked for asked in self.asked if asked.path.endswith("/chat/completions")]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                asked = await self._read(reader)
                found = self.behave(asked)
                answer = await found if isinstance(found, Awaitable) else found
                if not isinstance(answer, Answer):
                    await answer(writer)
                    break
                writer.write(answer.to_bytes())
                await writer.drain()
        writer.close()
        self._tasks.discard(task)

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        given = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head[1:] if line}
        length = int(given.get("content-length", 0))
        body = json.loads(await reader.readexactly(length)) if length else None
        asked = Asked(method, path, given, body, len(self.asked))
        self.asked.append(asked)
        return asked

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()


@contextlib.asynccontextmanager
async def chat_server(behave: Behave) -> AsyncIterator[ChatServer]:
    """A server on a free port of this machine."""
    server = ChatServer(behave)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
        await server.close()


def completion(*texts: str, model: str = "m", fingerprint: str = "f", usage: bool = True, **more: Any) -> Answer:
    """A chat completion as it should be."""
    content: dict[str, Any] = {
        "object": "chat.completion",
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ],
        **more,
    }
    if usage:
        content["usage"] = {"prompt_tokens": 100, "completion_tokens": 10 * len(texts)}
    return Answer(content)


def first_choice(asked: Asked) -> Answer:
    """As a model that always takes a choice that is offered: by the seed."""
    schema = asked.body["response_format"]["json_schema"]["schema"]
    pairs = [
        (gene, choice)
        for one in schema.get("anyOf", [schema])
        for gene, of in one["properties"].items()
        for choice in of["enum"]
    ]
    gene, choice = pairs[asked.body["seed"] % len(pairs)]
    return completion(json.dumps({gene: choice}))
