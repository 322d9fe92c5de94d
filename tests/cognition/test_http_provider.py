"""A language model on a server: asked as it understands, within a budget, and never trusted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition import chat_server as asking_server
from riwoa.cognition import endpoint
from riwoa.cognition.chat import patch_schema
from riwoa.cognition.http_provider import HttpProvider
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.protocol import GenerationSettings
from riwoa.cognition.samples import unpacked
from riwoa.cognition.spending import Spending, night_began
from riwoa.config.schema import Cognition
from riwoa.config.server import ServerSettings
from riwoa.errors import AdapterError, CognitionError
from riwoa_storage.events import ModelChanged, TokensSpent
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ReplyRecord, RequestRecord
from riwoa_storage.writer import JournalWriter
from tests.support import asking
from tests.support.chat_servers import Answer, Asked, Behave, ChatServer, chat_server, completion, first_choice

pytest.importorskip("httpx2", reason="the extra is not installed: pip install 'riwoa[http]'")

CHOICES = {"stage1.depth": [2, 4], "stage1.block1.kernel": [3, 5]}
PARENT = {"stage1.depth": 3, "stage1.block1.kernel": 7}
PATCH = '{"stage1.depth": 4}'
KEY = "sk-very-secret-7f3a"


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_server, "_FIRST_WAIT_S", 0.01)


def requests(count: int = 1, **parameters: Any) -> list[RequestRecord]:
    prompts = [f"parent {i}" for i in range(count)]
    found = asking.requests(prompts, GenerationSettings(), choices=CHOICES, parent=PARENT)
    return [replace(r, parameters={**r.parameters, **parameters}) for r in found]


class Client:
    """A provider, its server, and what it handed over."""

    def __init__(self, server: ChatServer, **http: Any) -> None:
        more = {name: http.pop(name) for name in ("timeout_s", "grammar", "breaker_rest") if name in http}
        http = {"url": server.url, "timeout_s": http.pop("each_s", 5.0), **http}
        self.settings = Cognition(provider="http", http=ServerSettings(**http), **more)
        self.server = server
        self.provider = HttpProvider("http:m", "m", lambda: self.settings)
        self.delivered: list[ReplyRecord] = []
        self.events: list[Any] = []
        self.provider.deliver = self._deliver

    async def _deliver(self, reply: ReplyRecord, events: Sequence[Any]) -> None:
        self.delivered.append(reply)
        self.events += events

    async def ask(self, *batch: RequestRecord) -> list[ReplyRecord]:
        return await self.provider.generate(batch or requests())

    async def failure(self, *batch: RequestRecord) -> str:
        """What a batch fails with, in one line."""
        with pytest.raises(CognitionError) as error:
            await self.ask(*batch)
        assert "\n" not in str(error.value)
        return str(error.value)


@contextlib.asynccontextmanager
async def client(behave: Behave, **http: Any) -> AsyncIterator[Client]:
    async with chat_server(behave) as server:
        found = Client(server, **http)
        yield found
        await found.provider.close()


# -- asking ------------------------------------------------------------------------------------------------------------


async def test_a_request_is_a_chat_completion_under_a_schema_and_its_reply_is_handed_over_with_its_cost() -> None:
    async with client(lambda _: completion(PATCH, model="m-2", fingerprint="fp")) as c:
        (request,) = requests()
        (reply,) = await c.ask(request)
    body = c.server.asked[0].body
    assert (reply.status, reply.text, reply.tokens) == ("ok", PATCH, 10)
    assert c.delivered == [reply]
    assert c.events == [
        TokensSpent(
            run_id=request.run_id,
            generation=request.generation,
            request_id=request.request_id,
            model="m-2",
            fingerprint="fp",
            tokens_in=100,
            tokens_out=10,
        )
    ]
    assert body["messages"][-1] == {"role": "user", "content": request.prompt}
    assert (body["model"], body["stream"], "n" in body) == ("m", False, False)
    assert body["response_format"]["json_schema"]["schema"] == patch_schema(CHOICES, 1)
    assert 0 <= body["seed"] < 2**31


async def test_reasoning_that_a_server_tells_apart_stands_before_the_answer() -> None:
    message = {"content": [{"type": "text", "text": PATCH}], "reasoning_content": "deeper is better"}
    async with client(lambda _: Answer({"choices": [{"message": message}]})) as c:
        (reply,) = await c.ask()
    assert reply.text == f"<think>deeper is better</think>\n{PATCH}"


def _one_by_one_ignored(asked: Asked) -> Answer:
    return completion(f"{asked.body['seed']}")


def _one_by_one_refused(asked: Asked) -> Answer:
    if "n" in asked.body:
        return Answer({"error": {"message": "Only one completion choice is allowed"}}, 400)
    return _one_by_one_ignored(asked)


@pytest.mark.parametrize(
    ("behave", "first", "second"),
    [
        (lambda a: completion(*(f"{i}" for i in range(a.body.get("n", 1)))), 1, 1),  # vLLM
        (_one_by_one_ignored, 4, 4),  # Ollama
        (_one_by_one_refused, 5, 4),  # llama.cpp of before
    ],
)
async def test_several_texts_are_one_reply_however_many_a_server_writes_at_once(
    behave: Any, first: int, second: int
) -> None:
    async with client(behave) as c:
        (reply,) = await c.ask(*requests(samples=4))
        assert len(c.server.asked) == first
        await c.ask(*requests(samples=4))
        assert len(c.server.asked) == first + second
    assert len({sample.text for sample in unpacked(reply.text)}) == 4
    assert reply.tokens == 40


async def test_a_text_that_was_written_more_often_comes_first() -> None:
    async with client(lambda _: completion("a", "b", "b")) as c:
        (reply,) = await c.ask(*requests(samples=3))
    assert [sample.text for sample in unpacked(reply.text)] == ["b", "a"]


@pytest.mark.parametrize(
    "refusal",
    [
        Answer({"error": {"message": "response_format json_schema is not supported"}}, 400),
        Answer({"error": {"message": "Failed to parse grammar"}}, 500),
        Answer({"detail": "Unprocessable"}, 422),
    ],
)
async def test_a_server_that_takes_no_schema_is_asked_without_one_and_never_again_with_it(refusal: Answer) -> None:
    async with client(lambda a: refusal if "response_format" in a.body else completion(PATCH)) as c:
        for _ in range(2):
            (reply,) = await c.ask()
            assert reply.text == PATCH
        stats = c.provider.stats().server
        assert stats is not None
        assert not stats.constrained
    assert ["response_format" in a.body for a in c.server.asked] == [True, False, False]


async def test_a_prompt_that_a_server_finds_too_long_is_no_reason_to_give_up_its_schema() -> None:
    def behave(asked: Asked) -> Answer:
        long = asked.body["messages"][-1]["content"] == "parent 1"
        return Answer({"error": {"message": "context length exceeded"}}, 400) if long else completion(PATCH)

    async with client(behave) as c:
        replies = await c.ask(*requests(2))
        await c.ask()
    assert [r.status for r in replies] == ["ok", "failed"]
    assert "context length exceeded" in (replies[1].reason or "")
    assert ["response_format" in a.body for a in c.server.asked] == [True, True, True]


# -- failures ----------------------------------------------------------------------------------------------------------


async def _forever(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _slow_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(1000):
        writer.write(f"x-{i}: y\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("raw", [_forever, _slow_headers])
async def test_a_server_that_never_ends_costs_no_more_than_the_patience_and_is_charged_for(raw: Any) -> None:
    async with client(lambda _: raw, each_s=0.2, retries=0) as c:
        started = time.monotonic()
        assert await c.failure() == "no answer within 0.2 s"
        assert time.monotonic() - started < 2.0
    assert c.delivered[0].status == "timeout"
    assert (c.events[0].model, c.events[0].estimated) == (None, True)
    assert c.events[0].tokens_out == requests()[0].parameters["settings"]["thinking_tokens"] + 96


async def _huge(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x" * 2**16)
        await writer.drain()


def _raw(head: str, content: bytes = b"") -> Any:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nconnection: close\r\n\r\n".encode() + content)
        await writer.drain()

    return write


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(b"<html>", headers={"content-type": "text/html; charset=utf-8"}), "answers with a web page"),
        (Answer(b'{"choices": [{"mess', headers={"content-type": "application/json"}), "is no JSON"),
        (Answer(b"data: {}", headers={"content-type": "text/event-stream"}), "answers with text/event-stream"),
        (Answer(b"[" * 100_000, headers={"content-type": "application/json"}), "nested"),
        (Answer({"object": "list"}), "holds no choices"),
        (Answer({"choices": [{"text": "as of 2021"}]}), "without a message"),
        (Answer({"choices": {}}), "holds no choices"),
        (Answer([1]), "holds no choices"),
        (Answer({}, headers={"content-encoding": "gzip"}), "packs its answer"),
        (_huge, "longer than 4 MiB"),
        (_raw("200 OK\r\ncontent-length: 100", b"{}"), "cannot be reached"),
        (_raw("banana"), "cannot be reached"),
        (Answer({"error": "boom"}, 500), "the server fails (500: boom)"),
        (Answer(b"busy", 503), "the server fails (503: busy)"),
        (Answer({"error": {"message": "no\x1b[31m such"}}, 418), r"refuses the request (418: no\x1b[31m such)"),
    ],
)
async def test_whatever_else_comes_is_one_line_and_the_search_goes_on(answer: Any, words: str) -> None:
    async with client(lambda _: answer, retries=0) as c:
        assert words in await c.failure()


async def test_no_redirect_is_followed_and_the_key_goes_to_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    async with chat_server(lambda _: completion(PATCH)) as other:
        moved = Answer(b"", 307, {"location": f"{other.url}/chat/completions"})
        async with client(lambda _: moved, key_file=str(tmp_path / "key")) as c:
            assert "put the final address into cognition.http.url" in await c.failure()
            assert c.server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert not other.asked


@pytest.mark.parametrize(
    ("status", "key", "words"),
    [
        (401, True, "refuses the key (401: no); put a valid one into cognition.http.key_file"),
        (403, True, "refuses the key"),
        (401, False, "wants a key (401: no); name a file that holds one in cognition.http.key_file"),
    ],
)
async def test_what_only_a_person_can_mend_is_told_once_and_not_tried_again(
    status: int, key: bool, words: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY)
    settings = {"key_file": str(tmp_path / "key")} if key else {}
    async with client(lambda _: Answer({"error": "no"}, status), breaker_rest=2, **settings) as c:
        assert words in await c.failure(*requests(8))
        for left in (1, 0):
            assert f"circuit breaker open ({left} batches left)" in await c.failure(*requests(8))
        assert len(c.server.asked) == 1
        await c.failure(*requests(8))  # the trial
        assert len(c.server.asked) == 2


async def test_settings_that_were_mended_are_tried_at_once() -> None:
    async with client(lambda _: Answer(b"", 401)) as c:
        await c.failure()
        assert "circuit breaker open" in await c.failure()
        c.server.behave = lambda _: completion(PATCH)
        http = c.settings.http.model_copy(update={"key_env": "PATH"})
        c.settings = c.settings.model_copy(update={"http": http})
        (reply,) = await c.ask()
    assert reply.status == "ok"


async def test_a_model_that_is_not_there_is_told_with_those_that_are() -> None:
    def behave(asked: Asked) -> Answer:
        if asked.method == "GET":
            return Answer({"data": [{"id": "qwen2.5:7b"}, {"id": "phi4:latest"}]})
        return Answer({"error": {"message": 'model "m" not found, try pulling it first'}}, 404)

    async with client(behave) as c:
        found = await c.failure()
    assert found.startswith(
        "the server has no model m: it has qwen2.5:7b, phi4:latest; bring it there (`ollama pull m`)"
    )


async def test_what_fails_in_passing_is_tried_again_and_not_for_ever() -> None:
    answers = iter([Answer(b"", 500), Answer(b"", 503), completion(PATCH), *[Answer(b"", 502)] * 3])
    async with client(lambda _: next(answers), retries=2) as c:
        (reply,) = await c.ask()
        assert reply.status == "ok"
        await c.failure()
    assert len(c.server.asked) == 6


async def test_one_request_that_fails_leaves_the_others_of_its_batch_their_replies() -> None:
    def behave(asked: Asked) -> Answer:
        return Answer({}) if asked.body["messages"][-1]["content"] == "parent 2" else completion(PATCH)

    async with client(behave) as c:
        replies = await c.ask(*requests(4))
        assert c.provider.stats().state == "ready"
    assert [r.status for r in replies] == ["ok", "ok", "failed", "ok"]


async def test_a_server_that_is_not_there_is_told_and_left_alone_after_failures_in_a_row() -> None:
    async with client(lambda _: completion(PATCH), retries=0) as c:
        c.settings = c.settings.model_copy(update={"http": ServerSettings(url="http://127.0.0.1:9/v1", retries=0)})
        for _ in range(3):
            assert "http://127.0.0.1:9/v1 cannot be reached" in await c.failure(*requests(3))
        assert c.provider.stats().state == "breaker open"
        assert "is the server running?" in (c.provider.stats().reason or "")


async def test_a_server_that_is_asked_too_often_is_given_the_rest_it_asks_for() -> None:
    answers = iter(
        [Answer(b"", 429, {"retry-after": "0"}), completion(PATCH), Answer(b"", 429, {"retry-after": "900"})]
    )
    async with client(lambda _: next(answers)) as c:
        (reply,) = await c.ask()
        assert reply.status == "ok"
        assert "asked too often (429)" in await c.failure()
        assert "wants to rest for 900 s more" in await c.failure(*requests(5))
    assert len(c.server.asked) == 3


async def test_a_batch_ends_before_the_queues_patience_does() -> None:
    async def behave(asked: Asked) -> Answer:
        await asyncio.sleep(0.0 if asked.body["messages"][-1]["content"] == "parent 0" else 30.0)
        return completion(PATCH)

    async with client(behave, timeout_s=0.5) as c:
        async with asyncio.timeout(0.5):
            replies = await c.ask(*requests(3))
    assert [r.status for r in replies] == ["ok", "timeout", "timeout"]


# -- the key -----------------------------------------------------------------------------------------------------------


async def test_a_key_that_a_server_repeats_stands_in_no_reply_no_reason_and_no_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    answers = iter([completion(f"{PATCH} {KEY}", model=KEY), Answer({"error": f"bad key {KEY}"}, 401)])
    async with client(lambda _: next(answers), key_env="MY_KEY") as c:
        replies = await c.ask()
        reason = await c.failure()
        told = [*replies, c.events, reason, c.provider.stats(), c.settings]
    assert KEY not in repr(told)
    assert replies[0].text == f"{PATCH} [key]"
    assert c.server.asked[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), ("", "holds no key"), ("two words", "holds no key")]
)
async def test_a_key_that_is_none_is_told_without_it(content: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    async with client(lambda _: completion(PATCH), key_file=str(file)) as c:
        reason = await c.failure()
    assert words in reason
    assert "two words" not in reason
    assert not c.server.asked


# -- who answers, and what it costs ------------------------------------------------------------------------------------


async def test_a_model_that_changes_in_mid_run_is_an_event_and_shown() -> None:
    answers = [("a", "1"), ("a", "2"), ("b", "2"), ("b", "2"), ("a", "1"), ("a", "2")]
    rest = iter(answers)

    def behave(_: Asked) -> Answer:
        model, fingerprint = next(rest)
        return completion(PATCH, model=model, fingerprint=fingerprint)

    async with client(behave) as c:
        for _ in answers:
            await c.ask()
        stats = c.provider.stats().server
    changes = [(e.former_model, e.former_fingerprint, e.model) for e in c.events if isinstance(e, ModelChanged)]
    assert changes == [("a", "1", "a"), ("a", "2", "b"), ("b", "2", "a")]  # 1 and 2 serve a in turn: told once
    assert stats is not None
    assert stats.model == "a"
    assert stats.changed == "a (1) since generation 0, b (2) before"


async def test_beyond_the_budget_of_the_night_nothing_is_asked() -> None:
    async with client(lambda _: completion(PATCH), budget_tokens=350, at_once=1) as c:
        replies = await c.ask(*requests(5))
        assert [r.status for r in replies] == ["ok", "ok", "ok", "failed", "failed"]
        assert c.provider.stats().state == "budget spent"
        reason = await c.failure(*requests(5))
        assert "330 of 350 tokens (cognition.http.budget_tokens); the model is asked again at noon" in reason
        assert c.provider.stats().reason is None  # no failure of the model: the breaker stays closed
    assert len(c.server.asked) == 3


async def test_requests_under_way_are_within_the_budget_too() -> None:
    async with client(lambda _: completion(PATCH), budget_tokens=350, at_once=8) as c:
        await c.ask(*requests(8))
    assert len(c.server.asked) == 3


async def test_the_cost_is_told_where_prices_are_given() -> None:
    async with client(lambda _: completion(PATCH), price_per_million_in=2.0, price_per_million_out=10.0) as c:
        await c.ask()
        stats = c.provider.stats().server
    assert stats is not None
    assert (stats.night_in, stats.night_out, stats.run_cost) == (100, 10, pytest.approx(3e-4))
    assert ServerSettings().cost(10**6, 10**6) is None


async def test_tokens_that_a_server_does_not_count_are_estimated() -> None:
    async with client(lambda _: completion(PATCH, usage=False)) as c:
        await c.ask()
    assert c.events[0].estimated
    assert c.events[0].tokens_out == len(PATCH) // 3 + 1


def test_a_night_lasts_from_noon_to_noon() -> None:
    assert night_began(datetime(2026, 3, 2, 11, 59)) == datetime(2026, 3, 1, 12)
    assert night_began(datetime(2026, 3, 2, 12, 0)) == datetime(2026, 3, 2, 12)


async def test_nobody_trains_a_model_on_a_server() -> None:
    async with client(lambda _: completion(PATCH)) as c:
        with pytest.raises(AdapterError, match="takes no adapter"):
            await c.provider.use_adapter("a" * 64, Path("/adapter"))
        await c.provider.use_adapter(None, None)


# -- in a queue --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def queue_of(path: Path, settings: Cognition) -> AsyncIterator[ProposalQueue]:
    """A life of a daemon: a queue on a journal, at work until it is killed."""
    async with await JournalWriter.open(path) as journal:
        provider = HttpProvider("http:m", "m", lambda: settings, partial(Spending.journaled, path, 1))
        queue = ProposalQueue(provider, journal, lag=2, timeout_s=lambda: 20.0)
        task = asyncio.create_task(queue.run())
        yield queue
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await provider.close()


async def test_killed_in_the_middle_of_a_batch_it_asks_nothing_twice(tmp_path: Path) -> None:
    path, batch, held = tmp_path / "journal.db", requests(6), asyncio.Event()

    async def behave(asked: Asked) -> Answer:
        if asked.body["messages"][-1]["content"] == "parent 3":
            await held.wait()
        return completion(asked.body["messages"][-1]["content"], model=f"m{asked.number > 4}")

    async with await JournalWriter.open(path) as journal:
        await journal.begin_run({"seed": 0}, {})
    async with chat_server(behave) as server:
        settings = Cognition(provider="http", http=ServerSettings(url=server.url, at_once=1))
        async with queue_of(path, settings) as queue:
            await queue.submit(batch)
            while len(server.asked) < 4:
                await asyncio.sleep(0.01)
        held.set()
        with JournalReader(path) as reader:
            kept = reader.replies(1)
        assert len(kept) == 3
        async with queue_of(path, settings) as queue:
            queue.recover(kept)
            await queue.submit(batch)
            replies = await queue.collect(r.request_id for r in batch)
        stats = queue.stats()
    assert [r.text for r in replies] == [f"parent {i}" for i in range(6)]
    asked = [a.body["messages"][-1]["content"] for a in server.asked]
    assert sorted(asked) == ["parent 0", "parent 1", "parent 2", "parent 3", "parent 3", "parent 4", "parent 5"]
    assert (stats.answered, stats.failed) == (3, 0)
    with JournalReader(path) as reader:
        assert reader.replies(1) == {r.request_id: r for r in replies}
        spent = reader.events(1, TokensSpent)
        (changed,) = reader.events(1, ModelChanged)
    assert stats.provider.server is not None
    assert (stats.provider.server.night_in, stats.provider.server.run_in) == (600, 600)  # both lives'
    assert len(spent) == 6
    assert (changed.former_model, changed.model) == ("mFalse", "mTrue")


async def test_what_other_runs_of_a_journal_spent_tonight_counts_and_what_was_spent_before_does_not(
    tmp_path: Path,
) -> None:
    path, noon = tmp_path / "journal.db", night_began(datetime.now())
    async with await JournalWriter.open(path) as journal:
        for seed in (0, 1):
            await journal.begin_run({"seed": seed}, {})
        for run_id, when in ((1, noon - timedelta(hours=1)), (1, noon), (2, noon + timedelta(minutes=1))):
            at = max(1.0, when.timestamp())
            spent = TokensSpent(
                run_id=run_id, request_id="r", model="m", fingerprint=None, tokens_in=7, tokens_out=1, created_unix_s=at
            )
            await journal.put_event(spent)
    spending = Spending.journaled(path, 2)
    assert (spending.night.total, spending.run.total, spending.dearest) == (16, 8, 8)


async def test_patience_that_ends_leaves_what_was_answered_as_it_is_journaled(tmp_path: Path) -> None:
    path, batch = tmp_path / "journal.db", requests(3)

    async def behave(asked: Asked) -> Answer:
        await asyncio.sleep(0.0 if asked.number == 0 else 30.0)
        return first_choice(asked)

    async with await JournalWriter.open(path) as journal, chat_server(behave) as server:
        await journal.begin_run({"seed": 0}, {})
        settings = Cognition(provider="http", http=ServerSettings(url=server.url))
        queue = ProposalQueue(HttpProvider("http:m", "m", lambda: settings), journal, lag=2, timeout_s=lambda: 0.4)
        task = asyncio.create_task(queue.run())
        await queue.submit(batch)
        replies = await queue.collect(r.request_id for r in batch)
        task.cancel()
        await queue.provider.close()
    assert [r.status for r in replies] == ["ok", "timeout", "timeout"]
    with JournalReader(path) as reader:
        assert reader.replies(1) == {r.request_id: r for r in replies}


def test_the_daemon_loads_no_http_client_before_it_asks() -> None:
    import subprocess
    import sys

    code = "import riwoa.run.provision, sys; print('httpx2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_missing_client_is_told_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(CognitionError, match=r"pip install 'riwoa\[http\]'"):
        endpoint._client()


def test_settings_hold_no_secret_and_name_a_server() -> None:
    for url in ("http://me:key@host/v1", "http://host/v1?key=1", "ftp://host", "host:80", "http://", "http://h:x/v1"):
        with pytest.raises(ValueError, match="address"):
            ServerSettings(url=url)
    with pytest.raises(ValueError, match="leave one out"):
        ServerSettings(key_file="a", key_env="B")
    with pytest.raises(ValueError, match=r"needs cognition\.http\.url"):
        Cognition(provider="http")
    assert ServerSettings(url="http://host/v1/").url == "http://host/v1"


def test_a_schema_allows_what_is_offered_alone() -> None:
    one = patch_schema(CHOICES, 1)
    assert [list(each["properties"]) for each in one["anyOf"]] == [["stage1.depth"], ["stage1.block1.kernel"]]
    several = patch_schema(CHOICES, 3)
    assert several["properties"]["stage1.depth"] == {"enum": [2, 4]}
    assert (several["minProperties"], several["maxProperties"], several["additionalProperties"]) == (1, 3, False)
    assert json.loads(json.dumps(several)) == several
