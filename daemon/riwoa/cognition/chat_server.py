"""Asks a server for texts: tries again what fails in passing, and leaves out what the server does not understand."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable

from riwoa.cognition.chat import Completion, chat_body, most_tokens, read_completion
from riwoa.cognition.endpoint import Endpoint, ServerError
from riwoa.config.schema import Cognition
from riwoa.patience import Backoff
from riwoa.text import printable
from riwoa_storage.records import RequestRecord

_CHAT, _MODELS = "/chat/completions", "/models"
_LIST_S = 10.0  # longest wait for the list of models
_MOST_MODELS = 200
_FIRST_WAIT_S = 1.0  # after a failure that may pass
_LONGEST_WAIT_S = 60.0  # that a server is granted between two tries
_LONGEST_REST_S = 3600.0  # that it is granted altogether, whatever it asks for
# By which status, and which words, a server says that it takes no schema (llama.cpp: 500), or writes one text at once.
_NOT_UNDERSTOOD = (400, 415, 422, 500, 501)
_OF_SCHEMA = re.compile(r"response_format|schema|grammar|guided|structured", re.IGNORECASE)
_OF_SEVERAL = re.compile(r"\bn\b|\bn_cmpl\b|completion choice", re.IGNORECASE)

OnLate = Callable[[int, int], None]  # a try was given up: tokens read and written, at most


class ChatServer:
    """A server, and what is known of its manners.

    Args:
        model: what it calls the model.
        settings: in force, read anew before each request.

    Attributes:
        constrained: whether it holds its texts to a schema, as far as is known.
        several: whether it writes several texts at once, likewise.
        proven: it has answered.
    """

    def __init__(self, model: str, settings: Callable[[], Cognition]) -> None:
        self.constrained = self.several = True
        self.proven = False
        self._model = model
        self._settings = settings
        self._endpoint = Endpoint(lambda: settings().http)
        self._constraint_proven = False
        self._rest_until_s = 0.0

    async def complete(
        self, request: RequestRecord, texts: int, *, number: int, until_s: float, on_late: OnLate
    ) -> Completion:
        """Up to so many texts.

        Args:
            request: as journaled.
            texts: that are wanted.
            number: of this call for the request: another draws other texts.
            until_s: by the monotonic clock, when to give up.
            on_late: called for each try that the server may have worked on in vain.

        Raises:
            ServerError: there are none.
        """
        http, backoff = self._settings().http, Backoff()
        for left in reversed(range(http.retries + 1)):
            began_s = time.monotonic()
            self._refuse_while_resting(began_s)
            if began_s >= until_s:
                raise ServerError("no time was left to ask, within cognition.timeout_s", "passing", late=True)
            try:
                return await self._once(request, texts, number, min(http.timeout_s, until_s - began_s), on_late)
            except ServerError as error:
                if error.status == 404:
                    raise await self._absent(error) from None
                now_s = time.monotonic()
                wait_s = backoff.wait_s(now_s - began_s, _FIRST_WAIT_S) * (0.5 + random.random())
                wait_s = max(wait_s, error.wait_s or 0.0)
                if wait_s > _LONGEST_WAIT_S:
                    self._rest_until_s = now_s + min(wait_s, _LONGEST_REST_S)
                if not left or error.trouble != "passing" or wait_s > min(_LONGEST_WAIT_S, until_s - now_s):
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    async def models(self) -> list[str]:
        """What the server offers, by the names that it is asked by.

        Raises:
            ServerError: it does not tell.
        """
        answer = await self._endpoint.get(_MODELS, _LIST_S)
        rows = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ServerError("the server's list of models is none; is cognition.http.url its base URL?", "strange")
        names = [row["id"] for row in rows[:_MOST_MODELS] if isinstance(row, dict) and isinstance(row.get("id"), str)]
        return [printable(name, 200) for name in names]

    async def close(self) -> None:
        """Give back the connections. Idempotent."""
        await self._endpoint.close()

    def _refuse_while_resting(self, now_s: float) -> None:
        left_s = self._rest_until_s - now_s
        if left_s > 0:
            raise ServerError(f"the server was asked too often and wants to rest for {left_s:.0f} s more", "passing")

    async def _once(
        self, request: RequestRecord, texts: int, number: int, timeout_s: float, on_late: OnLate
    ) -> Completion:
        """One try, in as plain a manner as the server needs; what helped is remembered."""
        wanted = self._settings().grammar
        constrained, several = wanted and self.constrained, self.several
        while True:
            body = chat_body(request, self._model, texts if several else 1, number=number, constrained=constrained)
            try:
                answer = await self._endpoint.post(_CHAT, body, timeout_s)
            except ServerError as error:
                if error.late:
                    on_late(*most_tokens(body))
                plainer = self._plainer(error, constrained, several and texts > 1)
                if plainer is None:
                    raise
                constrained, several = plainer[0], plainer[1] and several
                continue
            completion = read_completion(answer, body)
            ignored = body.get("n", 1) > 1 and len(completion.texts) == 1  # Ollama
            self.several = several and not ignored
            if wanted:
                self.constrained = self._constraint_proven = constrained
            self.proven = True
            return completion

    def _plainer(self, error: ServerError, constrained: bool, several: bool) -> tuple[bool, bool] | None:
        """How to ask a server that did not understand; None where that is not the trouble, or nothing is left out."""
        said = str(error)
        of_schema, of_several = _OF_SCHEMA.search(said), _OF_SEVERAL.search(said)
        if error.status not in _NOT_UNDERSTOOD or (error.status == 500 and not (of_schema or of_several)):
            return None
        if several and (of_several or not constrained):
            return constrained, False
        if constrained and (of_schema or not self._constraint_proven):
            return False, several
        return None

    async def _absent(self, error: ServerError) -> ServerError:
        """What to do about a model that is not there."""
        try:
            models = await self.models()
        except ServerError:
            return error
        if lists(models, self._model):
            return error
        return ServerError(absence(models, self._model), "refused", status=404)


def lists(models: list[str], model: str) -> bool:
    """Whether a server's list has a model; Ollama's names go without their tag."""
    return model in models or f"{model}:latest" in models


def absence(models: list[str], model: str) -> str:
    """That a server has no such model, what it has, and what to do."""
    has = f"it has {', '.join(models[:5])}{' and others' if len(models) > 5 else ''}" if models else "it has none"
    mend = f"bring it there (`ollama pull {model}`), or name another in cognition.http.model for a new run"
    return f"the server has no model {printable(model, 100)}: {has}; {mend}"


async def served_model(settings: Cognition) -> str:
    """What the server calls the configured model; "auto" is the only one that it lists.

    Raises:
        ServerError: it does not tell, or lists none or several.
    """
    name = settings.http.model
    if name != "auto":
        return name
    server = ChatServer(name, lambda: settings)
    try:
        models = await server.models()
    finally:
        await server.close()
    if len(models) != 1:
        has = f"has {', '.join(models[:5])}{' and others' if len(models) > 5 else ''}" if models else "has no model"
        raise ServerError(f"the server {has}: name one in cognition.http.model", "refused")
    return models[0]
