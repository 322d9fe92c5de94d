"""The project's own language model behind an OpenAI-compatible endpoint: a real model, over real HTTP.

``python -m tests.support.model_server DIRECTORY [PORT]`` serves a model's directory by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from riwoa.cognition.models import choose
from riwoa.cognition.protocol import GenerationRequest, GenerationSettings, ModelSpec
from riwoa.cognition.writer import ModelWriter


class ModelServer:
    """Answers as vLLM does: several texts at once, each held to the JSON schema that was sent."""

    def __init__(self, spec: ModelSpec) -> None:
        self._writer = ModelWriter.load(spec)
        self._name = spec.name
        self._one_at_a_time = asyncio.Lock()
        routes = [Route("/v1/models", self._models), Route("/v1/chat/completions", self._chat, methods=["POST"])]
        self.application = Starlette(routes=routes)

    async def _models(self, _: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": self._name, "object": "model"}]})

    async def _chat(self, request: Request) -> JSONResponse:
        body = await request.json()
        if body["model"] != self._name:
            error = {"message": f"The model `{body['model']}` does not exist.", "type": "NotFoundError"}
            return JSONResponse({"error": error}, 404)
        async with self._one_at_a_time:
            texts, tokens = await asyncio.to_thread(self._written, body)
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": self._length(body), "completion_tokens": tokens}
        return JSONResponse({"model": self._name, "choices": choices, "usage": usage})

    def _written(self, body: dict[str, Any]) -> tuple[list[str], int]:
        system, prompt = self._messages(body)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        offered = _offered(schema) if schema else {}
        requests = tuple(
            GenerationRequest(
                id=str(i),
                seed=body["seed"] + i,
                system=system,
                prompt=prompt,
                choices=offered,
                most_genes=(schema or {}).get("maxProperties", 1),
            )
            for i in range(body.get("n", 1))
        )
        settings = GenerationSettings(
            grammar=schema is not None,
            thinking_tokens=4,
            least_thinking_tokens=1,
            patch_tokens=min(body["max_tokens"], 96),
            temperature=body["temperature"],
            top_p=body["top_p"],
        )
        written = self._writer.generate(requests, settings)
        return [w.text for w in written], sum(w.tokens for w in written)

    @staticmethod
    def _messages(body: dict[str, Any]) -> tuple[str, str]:
        of = {m["role"]: m["content"] for m in body["messages"]}
        return of.get("system", ""), of["user"]

    def _length(self, body: dict[str, Any]) -> int:
        return len(self._writer.prompt_ids(*self._messages(body)))


def _offered(schema: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    ones = schema.get("anyOf", [schema])
    return {gene: tuple(of["enum"]) for one in ones for gene, of in one["properties"].items()}


@contextlib.asynccontextmanager
async def model_server(spec: ModelSpec, port: int = 0) -> AsyncIterator[str]:
    """The base URL of a server of this model, on this machine."""
    config = uvicorn.Config(ModelServer(spec).application, port=port, lifespan="off", ws="none", log_level="warning")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await task


async def _serve(directory: str, port: int) -> None:
    spec = replace(choose(str(Path(directory)), accelerator=lambda: None).spec, threads=1)
    async with model_server(spec, port) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
