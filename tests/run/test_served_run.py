"""A search whose patches a server writes: resumed, it asks nothing twice and ends in the same digest."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.http_provider import HttpProvider
from riwoa.cognition.spending import Spending
from riwoa.config.loading import load
from riwoa.config.schema import Cognition
from riwoa.report.learning import learning_of
from riwoa.report.words import asked as asked_words
from riwoa.report.words import untrained
from riwoa_storage.events import ModelChanged, TokensSpent
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from tests.run.conduct import StopHere, conduct
from tests.support.chat_servers import Answer, Asked, ChatServer, chat_server, completion, first_choice

pytest.importorskip("httpx2", reason="the extra is not installed: pip install 'riwoa[http]'")

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SETTINGS = ("cognition.provider=scripted", "cognition.train=false", "search.p_semantic=1.0", "search.placebo_share=0.0")


def questions(server: ChatServer) -> list[str]:
    return [json.dumps(asked.body) for asked in server.chats]


async def life(path: Path, server: ChatServer, **stops: Any) -> str:
    """One life of a search on a journal, asking a server."""
    sets = ("provider=http", f"http.url={server.url}", "http.at_once=1", "http.price_per_million_in=1000")
    cognition: Cognition = load(None, [f"cognition.{setting}" for setting in sets], {}).config.cognition
    provider = HttpProvider("http:m", "m", lambda: cognition, partial(Spending.journaled, path, 1))
    try:
        return await conduct(path, *SETTINGS, provider=provider, **stops)
    finally:
        await provider.close()


async def test_resumed_it_asks_nothing_twice_and_ends_in_the_uninterrupted_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")

    def behave(asked: Asked) -> Answer:
        if asked.number % 3 == 1:
            return completion("nothing to change", model="before")  # which is a reply, too
        text = first_choice(asked).content["choices"][0]["message"]["content"]
        return completion(text, model="before" if asked.number < 5 else "after")

    def stop_in_2(generation: GenerationRecord) -> None:
        if generation.generation == 2:
            raise StopHere

    async with chat_server(behave) as server, chat_server(behave) as other:
        whole = await life(tmp_path / "whole.db", server)
        path = tmp_path / "killed.db"
        await life(path, other, before_commit=stop_in_2)  # its replies are there, and no generation that holds them
        await life(path, other, stop_after=1)
        assert await life(path, other) == whole
        assert questions(other) == questions(server)
        assert len(set(questions(other))) == len(other.chats) > 6
    with JournalReader(path) as reader:
        changes = reader.events(1, ModelChanged)
        spent = reader.events(1, TokensSpent)
        learning = learning_of(reader, reader.run(1), {"semantic": len(spent)})
    assert [s.request_id for s in spent] == list(dict.fromkeys(s.request_id for s in spent))
    assert (changes[0].former_model, changes[0].model) == ("before", "after")
    assert learning.server is not None
    assert learning.server.tokens_in == 100 * len(other.chats)
    assert f"read {learning.server.tokens_in:,} tokens and wrote" in asked_words(learning)
    assert untrained(learning) == "It was not trained: a model on a server cannot be."
