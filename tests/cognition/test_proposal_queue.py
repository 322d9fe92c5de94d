"""Batches and trainings wait in one ordered queue; replies and outcomes are durable before they are used."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.adapters import AdapterFiles, journaled
from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.model_process import EngineLimits
from riwoa.cognition.proposal_queue import ProposalQueue, TrainingOutcome
from riwoa.cognition.protocol import (
    Example,
    GenerationRequest,
    GenerationSettings,
    OnTrainingStep,
    Trained,
    TrainingJob,
    WriterSpec,
)
from riwoa.cognition.provider import ScriptedProvider
from riwoa.errors import AdapterError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, ReplyRecord, RequestRecord
from riwoa_storage.writer import JournalWriter

SUPPORT = Path(__file__).resolve().parent.parent / "support"


def requests(*prompts: str, generation: int = 0, adapter: str | None = None) -> list[RequestRecord]:
    return [
        RequestRecord(
            request_id=f"1/{generation}/{i}",
            run_id=1,
            generation=generation,
            slot=i,
            join_generation=generation + 1,
            model="test",
            adapter_sha256=adapter,
            seed=i,
            prompt=prompt,
            parameters={
                "system": "",
                "choices": {"a": [3, 5], "b": ["x"]},
                "most_genes": 1,
                "parent": {"a": 7, "b": "y"},
                "settings": GenerationSettings().to_json(),
            },
            created_unix_s=0.0,
        )
        for i, prompt in enumerate(prompts)
    ]


class Recorded(ScriptedProvider):
    """Notes what it is asked for, in order."""

    def __init__(self, script: str = "good", delay_s: float = 0.0) -> None:
        super().__init__(script, delay_s)
        self.seen: list[str] = []

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        self.seen.append(f"batch {batch[0].generation}")
        return await super().generate(batch)

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        self.seen.append(f"adapter {sha256[:2] if sha256 else None}")
        await super().use_adapter(sha256, path)

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self.seen.append(f"training {job.seed}")
        return await super().train(job, on_progress)


class Office:
    """A proposal queue on a real journal, at work."""

    def __init__(self, path: Path, journal: JournalWriter) -> None:
        self.journal, self.path = journal, path / "journal.db"
        self.adapters = AdapterFiles(path / "cache" / "adapters", journaled(self.path))
        self.signs = 0
        self._stack = contextlib.AsyncExitStack()

    def proposal_queue(self, provider: Any, **options: Any) -> ProposalQueue:
        def progress() -> None:
            self.signs += 1

        defaults: dict[str, Any] = {"lag": 2, "timeout_s": lambda: 20.0, "adapters": self.adapters}
        proposal_queue = ProposalQueue(provider, self.journal, progress=progress, **{**defaults, **options})
        task = asyncio.create_task(proposal_queue.run())
        self._stack.push_async_callback(self._end, task, provider)
        return proposal_queue

    def job(self, seed: int = 1, *prompts: str) -> TrainingJob:
        examples = tuple(Example(id=str(i), system="", prompt=p, text="t") for i, p in enumerate(prompts or ("a",)))
        probe = GenerationRequest(id="p", seed=1, system="", prompt="p", choices={"a": (1,)})
        return TrainingJob(
            examples=examples,
            held_out=examples[:1],
            probes=(probe,) * 4,
            settings=GenerationSettings(),
            seed=seed,
            weights_path=str(self.adapters.new()),
        )

    async def put_adapter(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        await self.journal.put_adapter(
            AdapterRecord(
                adapter_id=0,
                run_id=1,
                generation=0,
                parent_id=None,
                sha256=sha256,
                weights=data,
                status="current",
                training={},
            )
        )
        return sha256

    @staticmethod
    async def _end(task: asyncio.Task[None], provider: Any) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await provider.close()

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    journal = await JournalWriter.open(tmp_path / "journal.db")
    await journal.begin_run({"seed": 0}, {})
    office = Office(tmp_path, journal)
    yield office
    await office.close()
    await journal.close()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An engine with a real process that does what prompts say."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_WRITERS", "1")

    def make(**limits: Any) -> LanguageModelProvider:
        spec = WriterSpec(factory="writers:scripted", arguments={"log": str(tmp_path / "log")})
        return LanguageModelProvider(spec, limits=lambda: EngineLimits(poll_s=0.05, **limits))

    return make


async def answers(proposal_queue: ProposalQueue, *batch: RequestRecord) -> list[ReplyRecord]:
    await proposal_queue.submit(batch)
    return await proposal_queue.collect(r.request_id for r in batch)


async def train(proposal_queue: ProposalQueue, job: TrainingJob, adapter: str | None = None) -> TrainingOutcome:
    await proposal_queue.submit_training(1, job, adapter_sha256=adapter)
    return await proposal_queue.collect_training(1)


# -- order and durability ----------------------------------------------------------------------------------------------


async def test_batches_and_trainings_are_done_in_the_order_of_their_submission(office: Office) -> None:
    provider = Recorded(delay_s=0.1)
    proposal_queue = office.proposal_queue(provider)
    await proposal_queue.submit(requests("a", generation=0))
    await asyncio.sleep(0.01)  # it is being answered
    await proposal_queue.submit_training(1, office.job(7), adapter_sha256=None)
    await proposal_queue.submit(requests("a", generation=2))
    assert (proposal_queue.stats().waiting, proposal_queue.stats().trainings_waiting) == (1, 1)
    await proposal_queue.collect(["1/2/0"])
    assert [s for s in provider.seen if not s.startswith("adapter")] == ["batch 0", "training 7", "batch 2"]
    assert (await proposal_queue.collect_training(1)).trained is not None


class Slow(Recorded):
    """Trains until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self.begun.set()
        await self.let_go.wait()
        return await super().train(job, on_progress)


async def test_a_trainer_of_its_own_trains_while_batches_are_answered_and_is_closed(office: Office) -> None:
    writer, trainer, next_trainer = Recorded(), Slow(), Recorded()
    trainers: list[Recorded] = [next_trainer, trainer]
    queue = office.proposal_queue(writer, trainer=trainers.pop)
    await queue.submit_training(0, office.job(1), adapter_sha256=None)
    await trainer.begun.wait()
    assert queue.stats().is_training
    for generation in range(4):  # more than wait in the queue at once
        await queue.submit(requests("p", generation=generation))
        assert [r.status for r in await queue.collect([f"1/{generation}/0"])] == ["ok"]
    trainer.let_go.set()
    assert (await queue.collect_training(0)).reason is None
    await queue.submit_training(4, office.job(2), adapter_sha256=None)
    assert (await queue.collect_training(4)).reason is None
    assert trainer.stats().state == "stopped"  # and its memory free, before the next begins
    assert next_trainer.seen[-1] == "training 2"
    assert not any(did.startswith("training") for did in writer.seen)


async def test_without_room_for_a_trainer_the_writer_trains_between_two_batches(office: Office) -> None:
    writer = Slow()
    queue = office.proposal_queue(writer, trainer=lambda: None)
    await queue.submit_training(0, office.job(1), adapter_sha256=None)
    await writer.begun.wait()
    await queue.submit(requests("p", generation=1))
    await asyncio.sleep(0.1)
    assert not any(did.startswith("batch") for did in writer.seen)
    writer.let_go.set()
    assert [r.status for r in await queue.collect(["1/1/0"])] == ["ok"]
    assert [did for did in writer.seen if not did.startswith("adapter")] == ["training 1", "batch 1"]


async def test_the_queue_is_bounded(office: Office) -> None:
    proposal_queue = office.proposal_queue(Recorded(delay_s=60), lag=0)
    await proposal_queue.submit(requests("a", generation=0))
    await asyncio.sleep(0.05)  # it is being answered
    for generation in (1, 2):
        await proposal_queue.submit(requests("a", generation=generation))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await proposal_queue.submit(requests("a", generation=3))


async def test_replies_are_journaled_before_they_can_be_collected(office: Office) -> None:
    proposal_queue = office.proposal_queue(Recorded())
    (reply,) = await answers(proposal_queue, *requests("a"))
    with JournalReader(office.path) as reader:
        assert reader.replies(1) == {"1/0/0": reply}


async def test_a_training_is_told_before_it_can_be_collected(office: Office) -> None:
    proposal_queue, told = office.proposal_queue(Recorded()), []

    async def on_trained(generation: int, outcome: TrainingOutcome) -> None:
        await asyncio.sleep(0.05)
        told.append((generation, outcome))

    proposal_queue.on_trained = on_trained
    outcome = await train(proposal_queue, office.job())
    assert told == [(1, outcome)]


async def test_an_outcome_that_was_never_asked_for_is_not_waited_for(office: Office) -> None:
    with pytest.raises(KeyError):
        await office.proposal_queue(Recorded()).collect_training(5)


async def test_stored_replies_are_not_asked_for_again(office: Office) -> None:
    provider = Recorded()
    proposal_queue, batch = office.proposal_queue(provider), requests("a", "b")
    (reply,) = await office.proposal_queue(Recorded()).provider.generate(batch[:1])
    proposal_queue.recover({reply.request_id: reply})
    replies = await answers(proposal_queue, *batch)  # one of two is missing: the batch goes whole
    assert replies[0] is reply
    proposal_queue.recover({r.request_id: r for r in replies})
    await answers(proposal_queue, *batch)
    assert provider.seen.count("batch 0") == 1


# -- adapters ----------------------------------------------------------------------------------------------------------


async def test_a_batch_is_written_with_the_adapter_that_its_requests_name(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    first, second = await office.put_adapter(b"first"), await office.put_adapter(b"second")
    used = []
    for generation, adapter in enumerate([None, first, second, first, None]):
        (reply,) = await answers(proposal_queue, *requests("x", generation=generation, adapter=adapter))
        used.append(reply.text.split("|")[1])
    assert used == ["bare", "first", "second", "first", "bare"]


async def test_what_a_training_wrote_is_used_once_it_is_journaled(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    outcome = await train(proposal_queue, office.job(), None)
    assert (outcome.weights, outcome.reason) == (b"trained on bare", None)
    assert outcome.trained is not None
    (reply,) = await answers(proposal_queue, *requests("x", adapter=outcome.trained.sha256))
    assert reply.text.split("|")[1] == "trained on bare"
    again = await train(proposal_queue, office.job(), outcome.trained.sha256)
    assert again.weights == b"trained on trained on bare"


async def test_a_batch_whose_adapter_cannot_be_used_fails_with_the_reason(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    corrupt = await office.put_adapter(b"corrupt")
    (gone,) = await answers(proposal_queue, *requests("x", adapter="f" * 64))
    assert (gone.status, gone.reason) == ("failed", "AdapterError: adapter ffffffffffff is gone from the journal")
    (refused,) = await answers(proposal_queue, *requests("x", generation=1, adapter=corrupt))
    assert (refused.status, refused.reason) == ("failed", "AdapterError: corrupt: not LoRA weights")
    (good,) = await answers(proposal_queue, *requests("x", generation=2))
    assert good.status == "ok"


async def test_an_adapter_that_cannot_be_used_is_told_to_whoever_chooses_them(office: Office, engine: Any) -> None:
    proposal_queue, told = office.proposal_queue(engine()), []

    async def on_refused(generation: int, sha256: str, reason: str) -> None:
        told.append((generation, sha256, reason))

    proposal_queue.on_refused = on_refused
    corrupt = await office.put_adapter(b"corrupt")
    await answers(proposal_queue, *requests("x", generation=3, adapter="f" * 64))
    await answers(proposal_queue, *requests("x", generation=4, adapter=corrupt))
    assert (await train(proposal_queue, office.job(), corrupt)).trained is None
    assert told == [
        (3, "f" * 64, "adapter ffffffffffff is gone from the journal"),
        (4, corrupt, "corrupt: not LoRA weights"),
        (1, corrupt, "corrupt: not LoRA weights"),
    ]


async def test_an_adapter_that_only_the_trial_of_an_open_breaker_refuses_is_told_too(
    office: Office, engine: Any
) -> None:
    proposal_queue, told = office.proposal_queue(engine(breaker_failures=1, breaker_rest=1)), []

    async def on_refused(generation: int, sha256: str, reason: str) -> None:
        told.append(generation)

    proposal_queue.on_refused = on_refused
    corrupt = await office.put_adapter(b"corrupt")
    for generation, (prompt, adapter) in enumerate([("die", None), ("x", corrupt), ("x", corrupt), ("x", None)]):
        (reply,) = await answers(proposal_queue, *requests(prompt, generation=generation, adapter=adapter))
    assert told == [2]
    assert reply.status == "ok"


async def test_weights_that_a_training_lost_are_not_held_against_the_adapter_it_began_with(office: Office) -> None:
    class Careless(Recorded):
        async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
            trained = await super().train(job, on_progress)
            Path(job.weights_path).unlink()
            return trained

    proposal_queue, told = office.proposal_queue(Careless()), []

    async def on_refused(generation: int, sha256: str, reason: str) -> None:
        told.append(sha256)

    proposal_queue.on_refused = on_refused
    outcome = await train(proposal_queue, office.job(), await office.put_adapter(b"first"))
    assert "left no weights" in (outcome.reason or "")
    assert not told


async def test_a_damaged_copy_is_mended_from_the_journal(office: Office) -> None:
    sha256 = await office.put_adapter(b"first")
    path = await office.adapters.file(sha256)
    for damage in (b"", b"firsT", b"first and more"):
        path.write_bytes(damage)
        assert (await office.adapters.file(sha256)).read_bytes() == b"first"
    path.unlink()
    assert (await office.adapters.file(sha256)).read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == [f"{sha256}.safetensors"]


async def test_bytes_that_are_not_their_name_are_refused(tmp_path: Path) -> None:
    files = AdapterFiles(tmp_path, lambda _: b"something else")
    with pytest.raises(AdapterError, match="damaged in the journal"):
        await files.file("a" * 64)
    new = files.new()
    with pytest.raises(AdapterError, match="left no weights"):
        await files.take(new, "a" * 64)
    new.write_bytes(b"half")
    with pytest.raises(AdapterError, match="not those that it reported"):
        await files.take(new, "a" * 64)
    assert not list(tmp_path.glob("a*"))


async def test_few_copies_are_kept_and_the_one_in_use_is_among_them(tmp_path: Path) -> None:
    contents = {hashlib.sha256(bytes([i])).hexdigest(): bytes([i]) for i in range(10)}
    files = AdapterFiles(tmp_path, contents.get)
    first = next(iter(contents))
    for sha256 in contents:
        await files.file(sha256)
        await files.file(first)
    copies = {p.stem for p in tmp_path.iterdir()}
    assert first in copies
    assert len(copies) == 4


async def test_only_copies_and_their_unfinished_files_are_ever_removed(tmp_path: Path) -> None:
    mine = (f"{'m' * 64}.safetensors", f"{'0' * 64}.safetensors", ".notes.tmp", ".notes.safetensors.1.tmp")
    for name in mine:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))  # the oldest, and so the first to go
    left = [tmp_path / f".{'a' * 64}.safetensors.7.tmp", tmp_path / ".training.safetensors.7.tmp"]
    for file in left:
        file.write_text("half")
    contents = {hashlib.sha256(bytes([i])).hexdigest(): bytes([i]) for i in range(10)}
    files = AdapterFiles(tmp_path, contents.get)
    files.new()
    for sha256 in contents:
        await files.file(sha256)
    assert [(tmp_path / name).read_text() for name in mine] == ["mine"] * len(mine)
    assert not any(file.exists() for file in left)


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_batch_without_an_answer_in_time_fails_and_the_next_is_answered(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine(), timeout_s=lambda: 0.5)
    replies = await answers(proposal_queue, *requests("sleep 60", "b"))
    assert [(r.status, r.reason) for r in replies] == [("timeout", "no answer within 0.5 s")] * 2
    (reply,) = await answers(proposal_queue, *requests("x", generation=1))
    assert reply.status == "ok"
    assert (
        proposal_queue.stats().answered,
        proposal_queue.stats().failed,
        proposal_queue.stats().provider.restarts,
    ) == (3, 2, 1)


async def test_a_failure_is_told_in_words_that_a_database_takes(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    (reply,) = await answers(proposal_queue, *requests("unprintable x"))
    assert reply.status == "failed"
    assert reply.reason is not None
    assert "FileNotFoundError: /models/\\udce9t\\udce9" in reply.reason


async def test_the_providers_start_costs_no_patience(office: Office) -> None:
    class Slow(Recorded):
        async def start(self) -> None:
            await asyncio.sleep(0.3)

    (reply,) = await answers(office.proposal_queue(Slow(), timeout_s=lambda: 0.1), *requests("x"))
    assert reply.status == "ok"


async def test_while_the_breaker_is_open_batches_are_turned_away_at_once(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine(breaker_failures=1, breaker_rest=2))
    reasons = []
    for generation, prompt in enumerate(["die", "x", "x", "x"]):
        (reply,) = await answers(proposal_queue, *requests(prompt, generation=generation))
        reasons.append(reply.reason or "")
    assert "signal 9" in reasons[0]
    assert "circuit breaker open (1 batches left)" in reasons[1]
    assert "circuit breaker open (0 batches left)" in reasons[2]
    assert reasons[3] == ""


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("raise bad weather", "CognitionError: ValueError: bad weather second line"),
        ("leave", "CognitionError: the language model's process was lost (worker died: exit status 3)"),
        ("sleep 60", "no end of the training within 0.5 s"),
        ("diverge", "CognitionError: FloatingPointError: the training diverged"),
    ],
)
async def test_a_training_that_fails_says_why_and_leaves_nothing(
    office: Office, engine: Any, prompt: str, reason: str
) -> None:
    proposal_queue = office.proposal_queue(engine(), train_timeout_s=lambda: 0.5)
    outcome = await train(proposal_queue, office.job(1, prompt))
    assert outcome.trained is None
    assert outcome.weights is None
    assert (outcome.reason or "").startswith(reason[:60])
    (reply,) = await answers(proposal_queue, *requests("x"))
    assert reply.status == "ok"


async def test_a_process_killed_in_mid_training_trains_again(office: Office, engine: Any) -> None:
    provider = engine()
    proposal_queue = office.proposal_queue(provider)
    await proposal_queue.submit_training(1, office.job(1, "a", "sleep 1"), adapter_sha256=None)
    async with asyncio.timeout(10):
        while not office.signs or provider.stats().state != "training":
            await asyncio.sleep(0.01)
    os.kill(provider.stats().pid or 0, signal.SIGKILL)
    assert (await proposal_queue.collect_training(1)).weights == b"trained on bare"
    assert provider.stats().restarts == 1


async def test_each_step_of_a_training_is_a_sign_of_life(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    await train(proposal_queue, office.job(1, *"abcdefgh"))
    assert office.signs >= 8


async def test_stopping_the_queue_in_mid_generation_takes_no_time(office: Office, engine: Any) -> None:
    provider = engine()
    proposal_queue = office.proposal_queue(provider)
    await proposal_queue.submit(requests("sleep 60"))
    async with asyncio.timeout(10):
        while provider.stats().state != "generating":
            await asyncio.sleep(0.01)
    started = time.monotonic()
    await office.close()
    assert time.monotonic() - started < 2
    with JournalReader(office.path) as reader:  # it will be asked again, whole
        assert not reader.replies(1)


async def test_the_statistics_say_what_is_going_on(office: Office, engine: Any) -> None:
    proposal_queue = office.proposal_queue(engine())
    assert proposal_queue.stats().provider.state == "stopped"
    await proposal_queue.submit(requests("sleep 0.4"))
    async with asyncio.timeout(10):
        while proposal_queue.stats().provider.state != "generating":
            await asyncio.sleep(0.01)
    assert 0 < proposal_queue.stats().busy_share <= 1
    await proposal_queue.collect(["1/0/0"])
    await asyncio.sleep(0.02)
    stats = proposal_queue.stats()
    assert (stats.waiting, stats.answered, stats.failed, stats.provider.state) == (0, 1, 0, "ready")
    assert 0 < stats.busy_share < 1


# -- the script --------------------------------------------------------------------------------------------------------


async def test_the_script_writes_one_of_the_changes_on_offer() -> None:
    provider = ScriptedProvider("good")
    batch = [replace(r, seed=seed) for seed in range(50) for r in requests("any words")]
    texts = [r.text for r in await provider.generate(batch)]
    patches = {t.partition("</think>\n")[2] for t in texts}
    assert patches == {'{"a": 3}', '{"a": 5}', '{"b": "x"}'}
    assert all(t.startswith("<think>") for t in texts)


async def test_the_script_writes_differently_with_another_adapter(tmp_path: Path) -> None:
    provider = ScriptedProvider("good")
    batch = [replace(r, seed=seed) for seed in range(50) for r in requests("any words")]
    bare = [r.text for r in await provider.generate(batch)]
    path = tmp_path / "adapter"
    path.write_bytes(b"weights")
    await provider.use_adapter(hashlib.sha256(b"weights").hexdigest(), path)
    assert [r.text for r in await provider.generate(batch)] != bare
    with pytest.raises(AdapterError):
        await provider.use_adapter("a" * 64, path)


async def test_the_same_job_gives_the_same_weights_and_half_of_the_mixed_ones_collapse(office: Office) -> None:
    good, mixed = ScriptedProvider("good"), ScriptedProvider("mixed")
    first, second = [await good.train(office.job(3), lambda _: None) for _ in range(2)]
    assert first == second
    assert (first.after.held_out_loss or 0) < (first.before.held_out_loss or 0)
    assert first.after.distinct_with_grammar == first.before.distinct_with_grammar
    trained = [await mixed.train(office.job(seed), lambda _: None) for seed in range(40)]
    collapsed = sum(t.after.distinct_with_grammar < 0.9 * t.before.distinct_with_grammar for t in trained)
    assert 10 < collapsed < 30


async def test_the_scripts_weights_are_a_safetensors_file(office: Office) -> None:
    job = office.job()
    await ScriptedProvider("good").train(job, lambda _: None)
    from safetensors.numpy import load_file

    assert load_file(job.weights_path)["scripted"].shape == (32,)
