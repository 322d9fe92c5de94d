"""The page as an ASGI application: routes, how errors are answered, and what is served beside the interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from riwoa.errors import ConfigError, ControlError, InputError, RiwoaError, UsageError
from riwoa.web.access import Gate, RefusedError, SafeAnswers
from riwoa.web.endpoints import PREFIX, Api, Endpoint
from riwoa.web.fronts import Fronts
from riwoa.web.journal import Journal
from riwoa.web.metrics import CONTENT_TYPE, exposition
from riwoa.web.observer import Observer
from riwoa.web.openapi import document
from riwoa.web.stream import Streams
from riwoa.web.tokens import READ
from riwoa.web.views import Health
from riwoa_storage.errors import JournalMissingError, StorageError

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_health = TypeAdapter(Health)


def application(gate: Gate, observer: Observer, journal: Journal) -> Starlette:
    """The application.

    Args:
        gate: decides who may ask.
        observer: of the daemon.
        journal: of the runs.
    """
    fronts = Fronts(journal)
    endpoints = Api(observer, journal, fronts).endpoints()
    page = _Page(gate, observer, journal, Streams(observer))
    described = JSONResponse(document(endpoints))

    async def openapi(request: Request) -> Response:
        return described

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # A long run's front takes a second to find, so it is looked for before anybody waits for it.
        warming = asyncio.create_task(observer.read(fronts.warm), name="first-front")
        yield
        warming.cancel()

    return Starlette(
        routes=[
            *(Route(PREFIX + e.path, _answering(e, gate), methods=[e.method]) for e in endpoints),
            Route(f"{PREFIX}/openapi.json", openapi),
            Route(f"{PREFIX}/stream", page.stream),
            Route("/healthz", page.healthz),
            Route("/readyz", page.readyz),
            Route("/metrics", page.metrics),
            *_static(),
        ],
        lifespan=lifespan,
        middleware=[Middleware(SafeAnswers)],
        exception_handlers={
            RefusedError: _refused,
            HTTPException: _not_found,
            RiwoaError: _failed,
            StorageError: _failed,
        },
    )


def _answering(endpoint: Endpoint, gate: Gate) -> Callable[[Request], Awaitable[Response]]:
    """The route's function of an endpoint."""
    adapter = TypeAdapter(endpoint.answer)

    async def answer(request: Request) -> Response:
        by = gate.admit(request, endpoint.scope)
        return Response(adapter.dump_json(await endpoint.handle(request, by)), media_type="application/json")

    return answer


@dataclass(frozen=True, slots=True)
class _Page:
    """What is served beside the interface."""

    gate: Gate
    observer: Observer
    journal: Journal
    streams: Streams

    async def stream(self, request: Request) -> StreamAnswer:
        """Server-sent events."""
        self.gate.admit(request, READ)
        last = request.headers.get("last-event-id", "0")
        if not (last.isascii() and last.isdecimal() and len(last) <= 18):
            raise UsageError("Last-Event-ID: give the number of the last event, or leave it out")
        return self.streams.stream(int(last))

    async def healthz(self, request: Request) -> Response:
        """Whether this process answers."""
        return Response(_health.dump_json(Health(True, "")), media_type="application/json")

    async def readyz(self, request: Request) -> Response:
        """Whether the journal can be read; a journal that is not there yet is no fault."""
        try:
            await self.observer.read(self.journal.runs)
        except StorageError as error:
            return Response(_health.dump_json(Health(False, str(error))), 503, media_type="application/json")
        return await self.healthz(request)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        self.gate.admit(request, READ)
        status = (await self.observer.snapshot()).status
        try:
            committed = await self.observer.read(self.journal.last_commit) if self.journal.exists else None
        except StorageError:  # /readyz says so
            committed = None
        text = exposition(status, self.journal.path, committed, self.streams.open)
        return Response(text, headers={"content-type": CONTENT_TYPE})


StreamAnswer = Callable[[Scope, Receive, Send], Awaitable[None]]


def _static() -> list[Route]:
    """A route for each file of the page, held in memory: there is no path that a request could leave."""
    folder = files("riwoa.web") / "static"
    routes = []
    for file in folder.iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        routes.append(_file_route(f"/{file.name}", file.read_bytes(), _TYPES[suffix]))
        if file.name == "index.html":
            routes.append(_file_route("/", file.read_bytes(), _TYPES[suffix]))
    return routes


def _file_route(path: str, content: bytes, media_type: str) -> Route:
    async def serve(request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return Route(path, serve)


# -- errors ------------------------------------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = f"nothing is here; {PREFIX}/openapi.json lists what there is" if error.status_code == 404 else error.detail
    return JSONResponse({"error": words}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, _status_of(error))


def _status_of(error: Exception) -> int:
    """The HTTP status of one of riwoa's errors; one of the daemon's has the exit code that the daemon gave it."""
    code = getattr(error, "exit_code", 70)
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, JournalMissingError | InputError):
        return 404
    if code == ConfigError.exit_code:
        return 422
    return 409 if code == ControlError.exit_code else 503
