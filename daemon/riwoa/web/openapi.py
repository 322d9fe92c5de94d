"""The OpenAPI 3.1 document of the interface, made from its endpoints and the types of their answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from riwoa import __version__
from riwoa.web.endpoints import PREFIX, Endpoint, Parameter
from riwoa.web.tokens import CONTROL
from riwoa.web.views import Problem

_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "A parameter is wrong",
    "401": "A token is needed, or this one is wrong, expired or revoked",
    "403": "The token may not do this",
    "404": "There is no such run, candidate or journal",
    "429": "Too many requests; Retry-After says when to try again",
    "503": "The daemon does not answer, or the journal cannot be read now",
}
_OF_CONTROL = {"409": "The daemon refuses; error says why", "422": "The configuration file is refused; error says why"}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document as a JSON object."""
    all_endpoints = tuple(endpoints)
    schemas, definitions = TypeAdapter.json_schemas(
        [
            *((f"{e.method} {e.path}", "serialization", TypeAdapter(e.answer)) for e in all_endpoints),
            ("problem", "serialization", TypeAdapter(Problem)),
        ],
        ref_template=_REFERENCE,
    )
    problem = _content(schemas[("problem", "serialization")])
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in all_endpoints:
        answer = _content(schemas[(f"{endpoint.method} {endpoint.path}", "serialization")])
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, answer, problem)
    paths[f"{PREFIX}/stream"] = {"get": _stream(problem)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "riwoa",
            "version": __version__,
            "description": (
                "A search for neural networks: what it does, what it found, and its controls. Times are seconds since "
                "1970, latencies milliseconds. Lists are paged: give next_cursor back as cursor."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "riwoactl token create"}},
        },
    }


def _operation(endpoint: Endpoint, answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    controls = endpoint.scope == CONTROL
    refusals = {**_REFUSALS, **(_OF_CONTROL if controls else {})}
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "responses": {
            "200": {"description": endpoint.summary, **answer},
            **{status: {"description": words, **problem} for status, words in refusals.items()},
        },
        # An empty requirement says that this machine may do without a token.
        "security": [{"token": []}] if controls else [{}, {"token": []}],
    }
    if endpoint.parameters:
        found["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    return found


def _stream(problem: dict[str, Any]) -> dict[str, Any]:
    words = "Server-sent events: status (the status object) when it changed, journal (an event) when one was written"
    return {
        "summary": words,
        "operationId": "get_stream",
        "responses": {
            "200": {"description": words, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **{status: {"description": _REFUSALS[status], **problem} for status in ("400", "401", "403", "429", "503")},
        },
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "Number of the last journal event that the client knows",
                "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
            }
        ],
        "security": [{}, {"token": []}],
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "path" if parameter.in_path else "query",
        "required": parameter.in_path,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
