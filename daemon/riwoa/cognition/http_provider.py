"""A language model on a server as a provider: asked within a budget, and left alone when it is broken.

Each reply is handed over as it comes, with what it cost, so that a killed daemon pays for nothing twice. There are no
adapters: nobody can train a model that is somewhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from riwoa.cognition.breaker import Breaker
from riwoa.cognition.chat import Completion
from riwoa.cognition.chat_server import ChatServer
from riwoa.cognition.endpoint import ServerError
from riwoa.cognition.protocol import OnTrainingStep, Sample, Trained, TrainingJob
from riwoa.cognition.provider import Deliver, ProviderState, ProviderStats, ServerStats
from riwoa.cognition.samples import packed, samples_wanted
from riwoa.cognition.spending import Spending
from riwoa.config.schema import Cognition
from riwoa.config.server import ServerSettings
from riwoa.errors import AdapterError, CognitionError
from riwoa.log import get_logger
from riwoa_storage.events import Event, TokensSpent
from riwoa_storage.records import ReplyRecord, RequestRecord

_log = get_logger("cognition")
_OF_PATIENCE = 0.9  # share of the queue's, so that what came in time is not given up with what did not
_CHARACTERS_A_TOKEN = 3


class BudgetError(CognitionError):
    """The tokens of the night are spent."""


@dataclass(slots=True)
class _Batch:
    """What the requests of a batch share.

    Attributes:
        gate: lets so many exchanges be under way.
        until_s: by the monotonic clock, when to give up.
        end: why no other request is worth sending; None while they are.
    """

    gate: asyncio.Semaphore
    until_s: float
    end: CognitionError | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a request came to; ``error`` says why it failed."""

    reply: ReplyRecord
    error: CognitionError | None = None


class HttpProvider:
    """A ``DeliveringProvider`` that asks a server.

    Args:
        model: as requests and provenance name it.
        served_as: what the server calls it.
        settings: in force, read anew before each batch.
        spent: what the journal knows of tokens; asked once, in a thread.
    """

    def __init__(
        self,
        model: str,
        served_as: str,
        settings: Callable[[], Cognition],
        spent: Callable[[], Spending] = Spending,
    ) -> None:
        self.model = model
        self.deliver: Deliver | None = None
        self._settings = settings
        self._server = ChatServer(served_as, settings)
        self._spent = spent
        self._counted = Spending()
        self._has_started = False
        self._reserved = 0  # tokens that requests under way may take
        self._breaker = Breaker()
        self._asked_with: ServerSettings | None = None
        self._state: ProviderState = "ready"
        self._tokens = 0
        self._writing_s = 0.0

    # -- ProposalProvider --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See ``ProposalProvider.start``: look up what was spent; the server is asked with the first request."""
        if not self._has_started:
            self._counted = await asyncio.to_thread(self._spent)
            self._has_started = True

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``; a request that fails leaves the others their replies."""
        http = self._settings().http
        if http != self._asked_with:  # somebody may have mended what was wrong
            self._breaker, self._asked_with = Breaker(), http
        self._breaker.turn_away()
        await self.start()
        started = time.monotonic()
        self._state = "generating"
        try:
            return await self._answered(batch)
        except asyncio.CancelledError:
            self._count_failure("no answer in time")
            raise
        finally:
            self._writing_s += time.monotonic() - started
            self._state = "ready"

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """See ``ProposalProvider.use_adapter``.

        Raises:
            AdapterError: there is one.
        """
        if sha256 is not None:
            raise AdapterError("a model on a server takes no adapter")

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        """See ``ProposalProvider.train``.

        Raises:
            CognitionError: always.
        """
        raise CognitionError("a model on a server is not trained")

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""
        self._state = "stopped"
        await self._server.close()

    def stats(self) -> ProviderStats:
        """See ``ProposalProvider.stats``."""
        return ProviderStats(
            state=self._state_now(),
            reason=self._breaker.reason,
            breaker_left=self._breaker.left,
            tokens=self._tokens,
            tokens_per_s=self._tokens / self._writing_s if self._writing_s > 0 else None,
            server=self._server_stats(),
        )

    def _state_now(self) -> ProviderState:
        if self._state != "ready":
            return self._state
        if self._breaker.left:
            return "breaker open"
        left = self._left()
        if left is not None and left < max(1, self._counted.dearest):
            return "budget spent"
        return "unavailable" if self._breaker.reason is not None else "ready"

    def _server_stats(self) -> ServerStats:
        http, night, run = self._settings().http, self._counted.night, self._counted.run
        return ServerStats(
            url=str(http.url),
            model=self._counted.answers.model if self._counted.answers is not None else None,
            changed=str(self._counted.change) if self._counted.change is not None else None,
            constrained=self._server.constrained and self._settings().grammar,
            night_in=night.read,
            night_out=night.written,
            run_in=run.read,
            run_out=run.written,
            budget=http.budget_tokens,
            night_cost=http.cost(night.read, night.written),
            run_cost=http.cost(run.read, run.written),
        )

    # -- a batch -----------------------------------------------------------------------------------------------------

    async def _answered(self, requests: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """A reply to each request, failed ones among them.

        Raises:
            CognitionError: all failed.
        """
        settings = self._settings()
        until_s = time.monotonic() + _OF_PATIENCE * settings.timeout_s
        batch = _Batch(asyncio.Semaphore(settings.http.at_once), until_s)
        # Who has not answered yet, or not since a failure, is asked one thing first.
        trial = 0 if self._server.proven and self._breaker.reason is None else 1
        outcomes = [await self._outcome(request, batch) for request in requests[:trial]]
        batch.end = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._outcome(request, batch)) for request in requests[trial:]]
        outcomes += [task.result() for task in tasks]
        self._judge(outcomes)
        return [outcome.reply for outcome in outcomes]

    def _judge(self, outcomes: Sequence[_Outcome]) -> None:
        """Tell the breaker what a batch came to.

        Raises:
            CognitionError: none was answered.
        """
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if len(errors) < len(outcomes):
            self._breaker.succeeded()
            return
        if not isinstance(errors[0], BudgetError):
            # What only a person can mend opens it with the first.
            self._count_failure(str(errors[0]), at_once=_is_final(errors[0]))
        raise errors[0]

    def _count_failure(self, reason: str, *, at_once: bool = False) -> None:
        settings = self._settings()
        self._breaker.failed(reason, 1 if at_once else settings.breaker_failures, settings.breaker_rest)

    # -- a request ---------------------------------------------------------------------------------------------------

    async def _outcome(self, request: RequestRecord, batch: _Batch) -> _Outcome:
        """What a request comes to; handed over, with what it cost, if anything."""
        started, wanted = time.monotonic(), samples_wanted(request)
        events: list[Event] = []
        error: CognitionError | None = None
        texts: list[str] = []
        try:
            texts = await self._texts(request, wanted or 1, batch, events)
        except (ServerError, BudgetError) as failure:
            error = failure
        duration_s = time.monotonic() - started
        if error is None:
            text = texts[0] if wanted is None else packed(_most_written_first(texts))
            tokens = sum(event.tokens_out for event in events if isinstance(event, TokensSpent))
            self._tokens += tokens
            reply = _reply(request, text, tokens, duration_s)
        else:
            reply = _failed(request, error, duration_s)
        if self.deliver is not None and (events or error is None):
            await self.deliver(reply, events)
        return _Outcome(reply, error)

    async def _texts(self, request: RequestRecord, wanted: int, batch: _Batch, events: list[Event]) -> list[str]:
        """Up to so many texts: all at once, where the server does that, else one by one.

        Raises:
            ServerError, BudgetError: there is none.
        """
        texts: list[str] = []
        errors: list[CognitionError] = []
        if self._server.several or wanted == 1:
            texts += (await self._bought(request, wanted, 0, batch, events)).texts

        async def another(number: int) -> None:
            try:
                texts.extend((await self._bought(request, 1, number, batch, events)).texts)
            except (ServerError, BudgetError) as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for number in range(len(texts), wanted):
                group.create_task(another(number))
        if not texts:
            raise errors[0]
        return texts

    async def _bought(
        self, request: RequestRecord, texts: int, number: int, batch: _Batch, events: list[Event]
    ) -> Completion:
        """A completion, paid for.

        Raises:
            ServerError: there is none.
            BudgetError: it might go beyond the budget.
        """

        def on_late(tokens_in: int, tokens_out: int) -> None:
            self._pay(request, Completion((), None, None, tokens_in, tokens_out, estimated=True), events)

        async with batch.gate:
            if batch.end is not None:
                raise batch.end
            try:
                reserved = self._reserve(request)
                try:
                    completion = await self._server.complete(
                        request, texts, number=number, until_s=batch.until_s, on_late=on_late
                    )
                finally:
                    self._reserved -= reserved
            except (ServerError, BudgetError) as error:
                if _is_final(error):
                    batch.end = error
                raise
            self._pay(request, completion, events)
            return completion

    # -- the budget --------------------------------------------------------------------------------------------------

    def _reserve(self, request: RequestRecord) -> int:
        """Tokens set aside for an exchange: as many as the dearest one took.

        Raises:
            BudgetError: so many are not left.
        """
        expected = max(self._counted.dearest, len(request.prompt) // _CHARACTERS_A_TOKEN)
        left = self._left()
        if left is not None and left - self._reserved < expected:
            raise BudgetError(
                f"the night's budget is spent, {self._counted.night.total:,} of {left + self._counted.night.total:,} "
                "tokens (cognition.http.budget_tokens); the model is asked again at noon"
            )
        self._reserved += expected
        return expected

    def _left(self) -> int | None:
        """Tokens that are left of the night's; None for any number."""
        budget = self._settings().http.budget_tokens
        return None if budget is None else budget - self._counted.night.total

    def _pay(self, request: RequestRecord, completion: Completion, events: list[Event]) -> None:
        """Count an exchange, and note the events to journal."""
        spent = TokensSpent(
            run_id=request.run_id,
            generation=request.generation,
            request_id=request.request_id,
            model=completion.model,
            fingerprint=completion.fingerprint,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            estimated=completion.estimated,
        )
        changed = self._counted.add(spent)
        events.append(spent)
        if changed is not None:
            _log.warning("model_changed", model=changed.model, former=changed.former_model)
            events.append(changed)


def _is_final(error: CognitionError) -> bool:
    """Whether no other request of a batch is worth sending."""
    return isinstance(error, BudgetError) or (isinstance(error, ServerError) and error.trouble == "refused")


def _most_written_first(texts: Sequence[str]) -> list[Sample]:
    """Each text once: what a server writes most is what its model holds likeliest."""
    return [Sample(text) for text, _ in Counter(texts).most_common()]


def _reply(request: RequestRecord, text: str, tokens: int, duration_s: float) -> ReplyRecord:
    return ReplyRecord(
        request_id=request.request_id,
        status="ok",
        text=text,
        reason=None,
        tokens=tokens,
        duration_s=duration_s,
        created_unix_s=time.time(),
    )


def _failed(request: RequestRecord, error: CognitionError, duration_s: float) -> ReplyRecord:
    late = isinstance(error, ServerError) and error.late
    return ReplyRecord(
        request_id=request.request_id,
        status="timeout" if late else "failed",
        text="",
        reason=str(error),
        tokens=0,
        duration_s=duration_s,
        created_unix_s=time.time(),
    )
