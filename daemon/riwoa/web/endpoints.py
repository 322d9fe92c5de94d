"""The REST interface below /api/v1: each endpoint once, from which both its route and its OpenAPI entry are made."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from riwoa.errors import UsageError
from riwoa.web.cursor import Cursor
from riwoa.web.fronts import Fronts
from riwoa.web.journal import ORDERS, Journal
from riwoa.web.observer import Observer
from riwoa.web.tokens import CONTROL, READ
from riwoa.web.views import (
    AdapterView,
    Candidate,
    CandidateDetail,
    ConfigView,
    Done,
    EventView,
    Filters,
    FrontView,
    GenerationView,
    Page,
    ReplyView,
    RunView,
    Step,
)

PREFIX = "/api/v1"
VERBS = {
    "pause": "Start no new evaluations until resumed",
    "resume": "Go on after a pause",
    "stop": "Finish the transaction and end the daemon",
    "reload": "Read the configuration file again",
}
_LIMIT, _MOST = 50, 200
_MOST_CHARACTERS = 200
_STATUSES = ("ok", "failed", "dropped")
_NUMBER = {"type": "number"}
_INTEGER = {"type": "integer", "minimum": 0}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path or a query, as OpenAPI describes it."""

    name: str
    description: str
    schema: Mapping[str, Any]
    in_path: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, what answers it, and what it answers.

    Attributes:
        path: below ``PREFIX``, with its parameters in braces.
        summary: in a line.
        answer: the type of what ``handle`` returns.
        handle: makes the answer of a request; ``by`` is whose token it had.
        parameters: that it takes.
        scope: that it needs; what controls is a POST.
    """

    path: str
    summary: str
    answer: Any
    handle: Callable[[Request, str], Awaitable[Any]]
    parameters: tuple[Parameter, ...] = ()
    scope: str = READ

    @property
    def method(self) -> str:
        """GET or POST."""
        return "POST" if self.scope == CONTROL else "GET"


_RUN = Parameter("run", "Number of a run, or latest", {"type": "string", "pattern": "^([0-9]{1,18}|latest)$"}, True)
_AT = (
    Parameter("generation", "Of the candidate", _INTEGER, True),
    Parameter("slot", "Its place in the generation", _INTEGER, True),
)
_PAGED = (
    Parameter("limit", "Items of a page", {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _LIMIT}),
    Parameter("cursor", "The page's next_cursor before this one", {"type": "string", "maxLength": 200}),
)
_FILTERED = (
    Parameter("order", "What comes first", {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]}),
    Parameter("operator", "What made the candidate", {"type": "string", "maxLength": _MOST_CHARACTERS}),
    Parameter("status", "How its evaluation ended", {"type": "string", "enum": list(_STATUSES)}),
    Parameter("most_ms", "Greatest latency in milliseconds", _NUMBER),
    Parameter("least", "Least value of the metric", _NUMBER),
    Parameter("most", "Greatest value of the metric", _NUMBER),
    Parameter("name", "How the name of the architecture begins", {"type": "string", "pattern": "^[0-9a-f]{1,16}$"}),
    Parameter("since_generation", "From this generation on", _INTEGER),
    Parameter("repeats", "Whether candidates known already are told too", {"type": "boolean", "default": False}),
)


class Api:
    """The handlers of the endpoints.

    Args:
        observer: of the daemon.
        journal: of the runs.
        fronts: of them.
    """

    def __init__(self, observer: Observer, journal: Journal, fronts: Fronts) -> None:
        self._observer = observer
        self._journal = journal
        self._fronts = fronts

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All of them."""
        paged, run = _PAGED, (_RUN,)
        return (
            Endpoint("/status", "What the daemon does", dict[str, Any], self._status),
            Endpoint("/runs", "Every run, newest first", tuple[RunView, ...], self._runs),
            Endpoint("/runs/{run}", "One run", RunView, self._run, run),
            Endpoint("/runs/{run}/generations", "Newest first", Page[GenerationView], self._generations, run + paged),
            Endpoint("/runs/{run}/progress", "How the leader rose", tuple[Step, ...], self._progress, run),
            Endpoint("/runs/{run}/front", "The front, fastest first", FrontView, self._front, run),
            Endpoint("/runs/{run}/operators", "What made candidates", tuple[str, ...], self._operators, run),
            Endpoint(
                "/runs/{run}/individuals", "Candidates", Page[Candidate], self._candidates, run + _FILTERED + paged
            ),
            Endpoint(
                "/runs/{run}/individuals/{generation}/{slot}",
                "A candidate, its ancestors, the model's words",
                CandidateDetail,
                self._candidate,
                run + _AT,
            ),
            Endpoint("/runs/{run}/adapters", "Newest first", tuple[AdapterView, ...], self._adapters, run),
            Endpoint("/runs/{run}/replies", "The model's words", Page[ReplyView], self._replies, run + paged),
            Endpoint("/runs/{run}/events", "Newest first", Page[EventView], self._events, run + paged),
            Endpoint("/runs/{run}/config", "Configurations as applied", tuple[ConfigView, ...], self._configs, run),
            *(Endpoint(f"/{v}", what, Done, self._control(v), scope=CONTROL) for v, what in VERBS.items()),
        )

    async def _status(self, request: Request, by: str) -> Any:
        return (await self._observer.snapshot()).status

    async def _runs(self, request: Request, by: str) -> Any:
        return await self._observer.read(self._journal.runs)

    async def _run(self, request: Request, by: str) -> RunView:
        return await self._observer.read(self._journal.run, request.path_params["run"])

    async def _generations(self, request: Request, by: str) -> Any:
        run, (limit, cursor) = await self._run(request, by), _paging(request, "generations")
        return await self._observer.read(self._journal.generations, run.run_id, limit, cursor)

    async def _progress(self, request: Request, by: str) -> Any:
        return await self._observer.read(self._journal.steps, await self._run(request, by))

    async def _front(self, request: Request, by: str) -> Any:
        return await self._observer.read(self._fronts.front, await self._run(request, by))

    async def _operators(self, request: Request, by: str) -> Any:
        run = await self._run(request, by)
        return await self._observer.read(self._journal.operators, run.run_id)

    async def _candidates(self, request: Request, by: str) -> Any:
        order = _one_of(request, "order", ORDERS) or ORDERS[0]
        filters = Filters(
            operator=_text(request, "operator"),
            status=_one_of(request, "status", _STATUSES),
            most_ms=_number(request, "most_ms"),
            least=_number(request, "least"),
            most=_number(request, "most"),
            since_generation=_whole(request, "since_generation"),
            name=_name(request),
            repeats=_one_of(request, "repeats", ("true", "false")) == "true",
        )
        limit, cursor = _paging(request, order)
        run = await self._run(request, by)
        return await self._observer.read(self._journal.candidates, run, filters, order, limit, cursor)

    async def _candidate(self, request: Request, by: str) -> Any:
        place = (_counted(request.path_params[name], name) for name in ("generation", "slot"))
        return await self._observer.read(self._journal.candidate, await self._run(request, by), *place)

    async def _adapters(self, request: Request, by: str) -> Any:
        run = await self._run(request, by)
        return await self._observer.read(self._journal.adapters, run.run_id)

    async def _replies(self, request: Request, by: str) -> Any:
        run, (limit, cursor) = await self._run(request, by), _paging(request, "replies")
        return await self._observer.read(self._journal.replies, run.run_id, limit, cursor)

    async def _events(self, request: Request, by: str) -> Any:
        run, (limit, cursor) = await self._run(request, by), _paging(request, "events")
        return await self._observer.read(self._journal.events, run.run_id, limit, cursor)

    async def _configs(self, request: Request, by: str) -> Any:
        run = await self._run(request, by)
        return await self._observer.read(self._journal.configs, run.run_id)

    def _control(self, verb: str) -> Callable[[Request, str], Awaitable[Done]]:
        async def handle(request: Request, by: str) -> Done:
            answer = {k: v for k, v in (await self._observer.ask(verb, by)).items() if k != "ok"}
            return Done(str(answer.get("message") or f"{verb}: done"), answer)

        return handle


# -- parameters --------------------------------------------------------------------------------------------------------


def _text(request: Request, name: str) -> str | None:
    """A parameter of the query; None where it is missing or empty.

    Raises:
        UsageError: it is given twice, or too long.
    """
    given = request.query_params.getlist(name)
    if len(given) > 1 or any(len(text) > _MOST_CHARACTERS for text in given):
        raise UsageError(f"{name}: give it once, and in at most {_MOST_CHARACTERS} characters")
    return given[0] if given and given[0] else None


def _one_of(request: Request, name: str, words: tuple[str, ...]) -> str | None:
    text = _text(request, name)
    if text is not None and text not in words:
        raise UsageError(f"{name}: choose from {', '.join(words)}")
    return text


def _name(request: Request) -> str | None:
    text = _text(request, "name")
    if text is not None and re.fullmatch("[0-9a-f]{1,16}", text) is None:
        raise UsageError("name: give up to 16 hexadecimal digits")
    return text


def _number(request: Request, name: str) -> float | None:
    text = _text(request, name)
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{name}: give a number")
    return found


def _whole(request: Request, name: str) -> int | None:
    text = _text(request, name)
    return None if text is None else _counted(text, name)


def _counted(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise UsageError(f"{name}: give a whole number, 0 or more")
    return int(text)


def _paging(request: Request, order: str) -> tuple[int, Cursor | None]:
    """Size and beginning of the page that is asked for."""
    limit = _whole(request, "limit")
    if limit is not None and not 1 <= limit <= _MOST:
        raise UsageError(f"limit: from 1 to {_MOST}")
    return limit or _LIMIT, Cursor.parse(_text(request, "cursor"), order)
