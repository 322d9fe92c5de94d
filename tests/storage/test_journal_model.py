"""The writer against a dict model: any order of calls, refused ones included, and closing and opening in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from riwoa_storage.errors import JournalRefusedError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EvaluationRecord, GenerationRecord, ReplyRecord, RequestRecord
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import CONFIG, PROVENANCE, committed, evaluation, generation, individual, reply, request

T = TypeVar("T")

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=8)  # what UTF-8 can hold
metrics = st.dictionaries(texts, finite | st.integers() | texts | st.none(), max_size=3)
keys = st.sampled_from("abcd")


class JournalModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "journal.db"
        self.statuses: dict[int, str] = {}
        self.histories: dict[int, list[GenerationRecord]] = {}
        self.evaluations: dict[str, EvaluationRecord] = {}
        self.requests: dict[str, RequestRecord] = {}
        self.replies: dict[str, ReplyRecord] = {}

    def do(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.do(self.writer.close())
        seen = verify(self.path)
        assert [r.generations for r in seen.runs] == [len(h) for h in self.histories.values()]
        self.loop.close()
        self.directory.cleanup()

    @initialize()
    def open(self) -> None:
        self.writer = self.do(JournalWriter.open(self.path))

    @rule()
    def close_and_open_again(self) -> None:
        self.do(self.writer.close())
        self.open()

    @property
    def running(self) -> int | None:
        return next((run_id for run_id, status in self.statuses.items() if status == "running"), None)

    @rule()
    def begin_run(self) -> None:
        if self.running is not None:
            self.statuses[self.running] = "abandoned"
        run_id = self.do(self.writer.begin_run(PROVENANCE, CONFIG))
        assert run_id not in self.statuses
        self.statuses[run_id], self.histories[run_id] = "running", []

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish_run(self) -> None:
        assert self.running is not None
        self.do(self.writer.finish_run(self.running))
        self.statuses[self.running] = "finished"

    @rule(some=st.lists(st.tuples(keys, metrics), max_size=3))
    def put_evaluations(self, some: list[tuple[str, dict[str, Any]]]) -> None:
        records = [evaluation(key, metrics=values) for key, values in some]
        self.do(self.writer.put_evaluations(records))
        for record in records:
            self.evaluations.setdefault(record.architecture_key, record)

    @precondition(lambda self: self.running is not None)
    @rule(slots=st.sets(st.integers(0, 3), min_size=1), answer=texts)
    def ask_and_answer_the_first(self, slots: set[int], answer: str) -> None:
        assert self.running is not None
        number = len(self.histories[self.running])
        records = [request(self.running, number, slot) for slot in slots]
        self.do(self.writer.put_requests(records))
        self.do(self.writer.put_replies([reply(records[0].request_id, answer)]))
        for record in records:
            self.requests.setdefault(record.request_id, record)
        self.replies.setdefault(records[0].request_id, reply(records[0].request_id, answer))

    @precondition(lambda self: self.statuses)
    @rule(
        offset=st.sampled_from([0, 0, 0, 0, -1, 1]),
        children=st.lists(st.tuples(keys, metrics, finite | st.none()), max_size=3),
        latest=st.booleans(),
    )
    def commit_generation(
        self, offset: int, children: list[tuple[str, dict[str, Any], float | None]], latest: bool
    ) -> None:
        run_id = max(self.statuses) if latest else min(self.statuses)
        number = len(self.histories[run_id]) + offset
        if number < 0:
            return
        joined = [r for r in self.replies if r.startswith(f"{run_id}/")]
        individuals = tuple(
            individual(number, slot, parent=None, architecture_key=key, metrics=values, fitness=fitness)
            for slot, (key, values, fitness) in enumerate(children)
        )
        g = generation(run_id, number, individuals=individuals, joined_requests=tuple(joined))
        if offset or self.statuses[run_id] != "running":
            with pytest.raises(JournalRefusedError):
                self.do(self.writer.commit_generation(g))
        else:
            digest = self.do(self.writer.commit_generation(g))
            self.histories[run_id] = [replace(g, state=None) for g in self.histories[run_id]]
            self.histories[run_id].append(committed(g, digest))

    @invariant()
    def the_reader_sees_the_model(self) -> None:
        if not hasattr(self, "writer"):
            return
        with JournalReader(self.path) as reader:
            assert {run.run_id: run.status for run in reader.runs()} == self.statuses
            assert {e.architecture_key: e for e in reader.evaluations("table-1")} == self.evaluations
            for run_id, history in self.histories.items():
                assert list(reader.generations(run_id)) == history
                assert [s.digest for s in reader.generation_summaries(run_id)] == [g.digest for g in history]
                assert list(reader.individuals(run_id)) == [(g.generation, i) for g in history for i in g.individuals]
                assert {r.request_id: r for r in reader.requests(run_id)} == {
                    key: r for key, r in self.requests.items() if r.run_id == run_id
                }
            stored = {key: r for run_id in self.statuses for key, r in reader.replies(run_id).items()}
            assert stored == self.replies


JournalModel.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestJournalAgainstModel = JournalModel.TestCase
