"""The model's process hangs, dies, leaks and babbles; whoever asks gets an answer or a reason, and the next one too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.model_process import EngineLimits
from riwoa.cognition.protocol import Example, GenerationSettings, ModelSpec, TrainingJob, WriterSpec
from riwoa.cognition.provider import ProposalProvider
from riwoa.errors import AdapterError, CognitionError, ModelError
from riwoa.ipc.child import child_environment
from riwoa_storage.records import ReplyRecord, RequestRecord
from tests.support import asking

SUPPORT = Path(__file__).resolve().parent.parent / "support"
Make = Callable[..., LanguageModelProvider]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes engines whose process notes what it does in ``tmp_path/log``."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_WRITERS", "1")
    engines: list[LanguageModelProvider] = []

    def engine(factory: str = "scripted", *, limits: dict[str, Any] | None = None, **arguments: Any) -> Any:
        if factory == "scripted":
            arguments.setdefault("log", str(tmp_path / "log"))
        wanted = EngineLimits(
            **{"start_timeout_s": 20.0, "operation_timeout_s": 20.0, "poll_s": 0.05, **(limits or {})}
        )
        spec = WriterSpec(factory=f"writers:{factory}", arguments=arguments)
        engines.append(LanguageModelProvider(spec, limits=lambda: wanted))
        return engines[-1]

    yield engine
    for each in engines:
        await each.close()


def requests(*prompts: str, batch: int = 8) -> list[RequestRecord]:
    return asking.requests(prompts, GenerationSettings(batch=batch), choices={"a": [1]}, parent={"a": 2})


def training(weights_path: Path, *prompts: str) -> TrainingJob:
    return TrainingJob(
        examples=tuple(Example(id=str(i), system="", prompt=p, text="") for i, p in enumerate(prompts)),
        held_out=(),
        probes=(),
        settings=GenerationSettings(),
        seed=1,
        weights_path=str(weights_path),
    )


async def generate(engine: ProposalProvider, *prompts: str, batch: int = 8) -> list[ReplyRecord]:
    return await engine.generate(requests(*(prompts or ("x",)), batch=batch))


async def said(engine: ProposalProvider) -> list[str]:
    """What a plain request is answered with: prompt, adapter, batch and process."""
    return (await generate(engine))[0].text.split("|")


async def fails(engine: ProposalProvider, *prompts: str) -> str:
    with pytest.raises(CognitionError) as caught:
        await generate(engine, *prompts)
    return str(caught.value)


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def adapter(tmp_path: Path, content: str) -> Path:
    path = tmp_path / f"{content.split()[0]}.safetensors"
    path.write_text(content)
    return path


async def until_busy(engine: LanguageModelProvider, state: str) -> None:
    async with asyncio.timeout(10):
        while engine.stats().state != state:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_replies_come_in_order_and_the_process_starts_when_first_needed(make: Make) -> None:
    engine = make()
    assert (engine.stats().state, engine.stats().pid) == ("stopped", None)
    replies = await generate(engine, "one", "two", "three")
    assert [r.text.split("|")[0] for r in replies] == ["one", "two", "three"]
    assert [r.request_id for r in replies] == ["1/0/0", "1/0/1", "1/0/2"]
    assert {(r.status, r.reason, r.tokens) for r in replies} == {("ok", None, 3)}
    stats = engine.stats()
    assert (stats.state, stats.tokens, stats.restarts) == ("ready", 9, 0)
    assert stats.tokens_per_s is not None
    assert (stats.resident_bytes or 0) > 2**20


async def test_starting_twice_starts_one_process(make: Make, tmp_path: Path) -> None:
    engine = make()
    await engine.start()
    await engine.start()
    await generate(engine)
    assert lines(tmp_path).count("started") == 1


async def test_a_long_reply_comes_whole_and_half_a_surrogate_pair_harms_nobody(make: Make) -> None:
    engine = make()
    replies = await generate(engine, "braces 1000000", "surrogate")
    assert replies[0].text == "{" * 1_000_000
    assert replies[1].text.encode().decode().startswith("half a pair: ")


async def test_operations_wait_for_each_other(make: Make, tmp_path: Path) -> None:
    engine = make()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(generate(engine, f"{i}", "sleep 0.05")) for i in range(4)]
        group.create_task(engine.train(training(tmp_path / "w", "a"), lambda _: None))
    assert [t.result()[0].text.split("|")[0] for t in tasks] == ["0", "1", "2", "3"]


# -- processes that are lost -------------------------------------------------------------------------------------------


async def test_a_batch_whose_process_dies_is_answered_by_the_next_one(make: Make, tmp_path: Path) -> None:
    engine = make()
    replies = await generate(engine, f"dieonce {tmp_path / 'died'}", "b")
    assert [r.status for r in replies] == ["ok", "ok"]
    assert engine.stats().restarts == 1


async def test_a_process_killed_while_idle_costs_nothing(make: Make) -> None:
    engine = make()
    before = int((await said(engine))[3])
    os.kill(before, signal.SIGKILL)
    assert int((await said(engine))[3]) != before


async def test_a_process_killed_in_mid_generation_costs_nothing(make: Make, tmp_path: Path) -> None:
    engine = make()
    batch = asyncio.create_task(generate(engine, "sleep 0.5"))
    await until_busy(engine, "generating")
    os.kill(engine.stats().pid or 0, signal.SIGKILL)
    assert (await batch)[0].status == "ok"
    assert lines(tmp_path) == ["started", "generate 1"] * 2


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("die", r"was lost \(worker died: signal 9\)"),
        ("leave", r"was lost \(worker died: exit status 3\): libgomp.so is broken"),
        ("mute", r"was lost \(worker died: it closed its output\)"),
        ("leak", r"was lost \(memory\)"),
        ("sleep 60", r"was lost \(no answer within 1 s\)"),
        ("forge garbage", r"was lost \(worker died: broken frame\)"),
        ("forge 3", r"was lost \(worker died: broken frame\)"),
        ('forge {"strange":1}', "it answered something else"),
        ('forge {"ok":{}}', "it answered something else"),
        ('forge {"ok":{"replies":[],"batch":1}}', "it answered something else"),
        ('forge {"ok":{"replies":[{"id":"1/0/0"}],"batch":1}}', "it answered something else"),
        ("flood 33000000", r"was lost \(worker died: broken frame\)"),
        ("forget one", "it answered something else"),
    ],
)
async def test_a_batch_that_takes_two_processes_down_fails_with_the_reason_and_the_next_is_answered(
    make: Make, prompt: str, reason: str
) -> None:
    timeout_s = 1.0 if prompt.startswith("sleep") else 20.0
    engine = make(limits={"memory_limit_bytes": 200 * 2**20, "operation_timeout_s": timeout_s})
    with pytest.raises(CognitionError, match=reason):
        await generate(engine, prompt, "b")
    assert (await said(engine))[0] == "x"


async def test_stray_output_corrupts_no_frame(make: Make) -> None:
    engine = make()
    assert [r.status for r in await generate(engine, "chatter", "b")] == ["ok", "ok"]
    assert (await said(engine))[0] == "x"


async def test_an_error_of_the_batch_fails_it_and_the_process_lives(make: Make) -> None:
    engine = make()
    before = (await said(engine))[3]
    assert await fails(engine, "raise no such token") == "ValueError: no such token second line"
    assert (await said(engine))[3] == before


async def test_cancelling_a_batch_kills_the_process_at_once(make: Make) -> None:
    engine = make()
    await engine.start()
    pid = engine.stats().pid
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await generate(engine, "sleep 60")
    assert int((await said(engine))[3]) != pid
    assert time.monotonic() - started < 10


async def test_cancelling_a_start_leaves_no_process_behind(make: Make) -> None:
    engine = make("never_ready")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await engine.start()
    assert (engine.stats().state, engine.stats().pid) == ("unavailable", None)


# -- memory ------------------------------------------------------------------------------------------------------------


async def test_what_memory_allowed_is_remembered(make: Make) -> None:
    engine = make(room=3)
    for _ in range(2):
        assert {r.text.split("|")[2] for r in await generate(engine, *"abcdefgh")} == {"2"}


async def test_a_process_that_outgrows_its_memory_is_replaced_and_gets_half_the_batch(make: Make) -> None:
    engine = make(limits={"memory_limit_bytes": 200 * 2**20})
    assert "memory" in await fails(engine, "leak", *"bcdefgh")
    # 8 at once, then 4, and neither went through.
    assert {r.text.split("|")[2] for r in await generate(engine, *"abcdefgh")} == {"2"}


async def test_a_process_that_the_kernel_kills_twice_gets_half_the_batch_until_it_lives(make: Make) -> None:
    """Where the machine has less memory than the limit, the kernel acts first."""
    engine = make()
    prompts = ["overwhelm 2", *"bcdefgh"]
    for _ in (8, 4):
        assert "signal 9" in await fails(engine, *prompts)
    assert {r.text.split("|")[2] for r in await generate(engine, *prompts)} == {"2"}


async def test_outgrowing_the_limit_names_the_key_that_sets_it(make: Make) -> None:
    engine = make(limits={"memory_limit_bytes": 200 * 2**20})
    assert "beyond cognition.memory_bytes (0.2 GiB); raise it or choose" in await fails(engine, "leak")


async def test_a_process_without_room_for_one_request_is_replaced(make: Make) -> None:
    engine = make()
    before = (await said(engine))[3]
    assert await fails(engine, "starve") == "MemoryError: no message"
    assert (await said(engine))[3] != before


async def test_a_process_that_keeps_too_much_is_replaced_after_it_has_answered(make: Make) -> None:
    engine = make(limits={"memory_limit_bytes": 200 * 2**20, "poll_s": 5.0})
    first = (await generate(engine, "keep", "b"))[1].text.split("|")
    assert first[3] != (await said(engine))[3]


# -- the breaker -------------------------------------------------------------------------------------------------------

BREAKER = {"breaker_failures": 2, "breaker_rest": 3}


async def test_the_breaker_opens_after_failures_in_a_row_and_closes_after_a_good_trial(
    make: Make, tmp_path: Path
) -> None:
    engine = make(limits=BREAKER)
    order = f"failuntil {tmp_path / 'mended'}"
    for _ in range(2):
        assert await fails(engine, order) == "RuntimeError: not yet"
    assert engine.stats().state == "breaker open"
    asked = len(lines(tmp_path))
    (tmp_path / "mended").touch()
    for left in (2, 1, 0):
        assert await fails(engine, order) == f"circuit breaker open ({left} batches left) after: RuntimeError: not yet"
        assert engine.stats().breaker_left == left
    assert len(lines(tmp_path)) == asked  # nothing reached the process
    assert (await generate(engine, order))[0].status == "ok"
    assert (engine.stats().state, engine.stats().reason) == ("ready", None)


async def test_the_trial_gets_a_fresh_process_since_a_broken_one_may_still_answer(make: Make) -> None:
    engine = make(limits=BREAKER)
    await fails(engine, "sour")
    assert "CUDA error" in await fails(engine, "fresh")  # the process lives, and is of no use
    for _ in range(3):
        assert "open" in await fails(engine, "fresh")
    assert (await generate(engine, "fresh"))[0].status == "ok"


async def test_a_trial_that_fails_opens_the_breaker_again_at_once(make: Make) -> None:
    engine = make(limits=BREAKER)
    told = [await fails(engine, "raise no") for _ in range(10)]
    assert ["open" in t for t in told] == [False, False, True, True, True, False, True, True, True, False]


async def test_a_success_in_between_resets_the_count(make: Make) -> None:
    engine = make(limits=BREAKER)
    for _ in range(3):
        await fails(engine, "raise no")
        await generate(engine)
    assert engine.stats().breaker_left == 0


async def test_batches_that_run_out_of_time_count(make: Make) -> None:
    engine = make(limits=BREAKER)
    for _ in range(2):
        await engine.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await generate(engine, "sleep 60")
    assert "circuit breaker open (2 batches left) after: no answer in time" in await fails(engine)


async def test_a_model_that_cannot_be_loaded_is_left_alone_and_the_reason_is_shown(make: Make) -> None:
    engine = make("unloadable", limits=BREAKER)
    for _ in range(2):
        with pytest.raises(ModelError, match="riwoactl model pull smollm2"):
            await engine.start()
    stats = engine.stats()
    assert stats.state == "breaker open"
    assert "riwoactl model pull" in (stats.reason or "")
    await engine.start()  # nothing to wait for while it is open
    assert "after: /models/none" in await fails(engine)


async def test_a_process_that_crashes_at_start_is_not_started_for_ever(make: Make, tmp_path: Path) -> None:
    engine = make("crashing", limits=BREAKER, log=str(tmp_path / "starts"))
    for _ in range(5):
        with pytest.raises(CognitionError, match="libgomp"):
            await generate(engine)
    assert (tmp_path / "starts").read_text().count("started") == 4  # two batches, two attempts each


async def test_a_model_that_is_never_ready_is_given_up(make: Make) -> None:
    engine = make("never_ready", limits={"start_timeout_s": 0.5})
    with pytest.raises(CognitionError, match=r"no answer within 0\.5 s"):
        await engine.start()
    assert engine.stats().state == "unavailable"


async def test_a_model_that_comes_back_is_found_by_the_trial(make: Make, tmp_path: Path) -> None:
    engine = make("crashing_until", limits={"breaker_failures": 1, "breaker_rest": 1}, marker=str(tmp_path / "mended"))
    with pytest.raises(CognitionError, match="exit status 9"):
        await engine.start()
    (tmp_path / "mended").touch()
    assert "breaker open" in await fails(engine)
    assert (await said(engine))[0] == "x"


# -- adapters ----------------------------------------------------------------------------------------------------------


async def test_the_adapter_is_used_from_the_next_batch_on(make: Make, tmp_path: Path) -> None:
    engine = make()
    assert (await said(engine))[1] == "bare"
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    assert (await said(engine))[1] == "first"
    await engine.use_adapter(None, None)
    assert (await said(engine))[1] == "bare"


async def test_an_adapter_in_use_is_not_sent_again(make: Make, tmp_path: Path) -> None:
    engine = make()
    for _ in range(3):
        await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
        await generate(engine)
    assert lines(tmp_path).count("adapter first") == 1
    assert engine.stats().adapter_sha256 == "a" * 64


async def test_after_a_restart_the_adapter_is_sent_before_anything_else(make: Make, tmp_path: Path) -> None:
    engine = make()
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    replies = await generate(engine, f"dieonce {tmp_path / 'died'}", "b")
    assert replies[1].text.split("|")[1] == "first"
    await fails(engine, "die")
    await engine.train(training(tmp_path / "w", "a"), lambda _: None)
    assert (tmp_path / "w").read_text() == "trained on first"
    noted = lines(tmp_path)
    assert all(noted[i + 1] == "adapter first" for i, line in enumerate(noted) if line == "started")


@pytest.mark.parametrize("content", ["corrupt", None])
async def test_a_refused_adapter_is_told_to_the_caller_and_the_one_in_use_stays(
    make: Make, tmp_path: Path, content: str | None
) -> None:
    engine = make(limits={"breaker_failures": 1})
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    bad = adapter(tmp_path, content) if content else tmp_path / "gone.safetensors"
    with pytest.raises(AdapterError if content else CognitionError):
        await engine.use_adapter("b" * 64, bad)
    if content:
        assert (await said(engine))[1] == "first"
        assert engine.stats().breaker_left == 0  # the model is not to blame


async def test_an_adapter_that_takes_the_process_down_is_a_failure_like_any_other(make: Make, tmp_path: Path) -> None:
    engine = make()
    with pytest.raises(CognitionError, match="signal 9"):
        await engine.use_adapter("b" * 64, adapter(tmp_path, "die"))
    await engine.use_adapter(None, None)
    assert (await said(engine))[1] == "bare"


async def test_an_adapter_chosen_while_the_breaker_is_open_is_used_by_the_trial(make: Make, tmp_path: Path) -> None:
    engine = make(limits={"breaker_failures": 1, "breaker_rest": 1})
    await fails(engine, "die")
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    assert engine.stats().pid is None
    await fails(engine)
    assert (await said(engine))[1] == "first"


async def test_an_adapter_that_the_trial_refuses_is_refused_again_and_the_one_before_it_is_used(
    make: Make, tmp_path: Path
) -> None:
    engine = make(limits={"breaker_failures": 1, "breaker_rest": 1})
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    await fails(engine, "die")
    bad = adapter(tmp_path, "corrupt")
    await engine.use_adapter("b" * 64, bad)
    await fails(engine)
    for _ in range(2):
        with pytest.raises(AdapterError):
            await engine.use_adapter("b" * 64, bad)
    assert (await said(engine))[1] == "first"
    assert engine.stats().adapter_sha256 == "a" * 64


async def test_an_adapter_in_use_whose_file_spoils_is_refused_once(make: Make, tmp_path: Path) -> None:
    engine = make()
    path = adapter(tmp_path, "first")
    await engine.use_adapter("a" * 64, path)
    path.write_text("corrupt")
    with pytest.raises(AdapterError):
        await generate(engine, "die")  # the next process reads it again
    assert (await said(engine))[1] == "bare"


# -- training ----------------------------------------------------------------------------------------------------------


async def test_a_training_shows_life_and_leaves_the_adapter_in_use(make: Make, tmp_path: Path) -> None:
    engine = make()
    steps: list[Mapping[str, Any]] = []
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    trained = await engine.train(training(tmp_path / "w", "a", "b"), steps.append)
    assert [s["step"] for s in steps] == [1, 2]
    assert trained.losses == (1.0,)
    assert (tmp_path / "w").read_text() == "trained on first"
    assert (await said(engine))[1] == "first"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("leave", "exit status 3"),
        ("raise bad weather", "ValueError: bad weather second line"),
        ("sleep 60", "no answer within 1 s"),
        ("starve", "MemoryError"),
        ('forge {"ok":{"trained":{"losses":3},"batch":1}}', "it answered something else"),
    ],
)
async def test_a_training_that_fails_is_not_repeated_and_leaves_the_breaker_alone(
    make: Make, tmp_path: Path, prompt: str, reason: str
) -> None:
    timeout_s = 1.0 if prompt.startswith("sleep") else 20.0
    limits = {"memory_limit_bytes": 200 * 2**20, "operation_timeout_s": timeout_s, "breaker_failures": 1}
    engine = make(limits=limits)
    with pytest.raises(CognitionError, match=reason):
        await engine.train(training(tmp_path / "w", prompt), lambda _: None)
    assert lines(tmp_path).count("train") == 1
    assert (await said(engine))[0] == "x"


async def test_a_process_killed_in_mid_training_trains_again_with_the_adapter_in_use(
    make: Make, tmp_path: Path
) -> None:
    engine = make()
    await engine.use_adapter("a" * 64, adapter(tmp_path, "first"))
    work = asyncio.create_task(engine.train(training(tmp_path / "w", "a", "sleep 1"), lambda _: None))
    await until_busy(engine, "training")
    os.kill(engine.stats().pid or 0, signal.SIGKILL)
    await work
    assert (tmp_path / "w").read_text() == "trained on first"
    assert engine.stats().restarts == 1


async def test_a_training_that_the_kernel_ends_for_its_memory_is_tried_in_less_and_so_are_those_after_it(
    make: Make, tmp_path: Path
) -> None:
    engine = make()
    for _ in range(2):
        await engine.train(training(tmp_path / "w", "crowd 2"), lambda _: None)
    assert [line for line in lines(tmp_path) if "at once" in line] == ["8 at once", "2 at once", "2 at once"]


@pytest.mark.parametrize(("prompt", "reason"), [("crowd 0", "signal 9"), ("leak", "memory")])
async def test_a_training_for_which_there_is_no_memory_however_frugal_is_given_up(
    make: Make, tmp_path: Path, prompt: str, reason: str
) -> None:
    engine = make(limits={"memory_limit_bytes": 200 * 2**20, "breaker_failures": 1})
    with pytest.raises(CognitionError, match=reason):
        await engine.train(training(tmp_path / "w", prompt), lambda _: None)
    assert lines(tmp_path).count("train") == 3
    if prompt != "leak":
        assert lines(tmp_path)[-1] == "1 at once, checkpointing"
    with pytest.raises(CognitionError, match=reason):
        await engine.train(training(tmp_path / "w", prompt), lambda _: None)
    assert lines(tmp_path).count("train") == 4
    assert (await said(engine))[0] == "x"


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_process_for_good(make: Make) -> None:
    engine = make()
    await engine.start()
    pid = engine.stats().pid
    await engine.close()
    await engine.close()
    assert not Path(f"/proc/{pid}").exists()
    assert engine.stats().state == "stopped"
    assert "closed" in await fails(engine)


async def test_closing_ends_a_batch_under_way_without_starting_another_process(make: Make, tmp_path: Path) -> None:
    engine = make()
    batch = asyncio.create_task(generate(engine, "sleep 60"))
    await until_busy(engine, "generating")
    await engine.close()
    with pytest.raises(CognitionError, match="closed"):
        await batch
    assert lines(tmp_path).count("started") == 1


async def test_closing_while_the_process_starts_leaves_none_behind(make: Make, tmp_path: Path) -> None:
    engine = make()
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)  # it is on its way
    await engine.close()
    with pytest.raises(CognitionError, match="closed"):
        await starting
    await engine.close()
    assert engine.stats().pid is None
    assert not (tmp_path / "log").exists()


PARENT = """
import asyncio
from riwoa.ipc.child import child_environment
from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.protocol import WriterSpec

async def main():
    engine = LanguageModelProvider(WriterSpec(factory="writers:scripted"))
    await engine.start()
    print(engine.stats().pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_process_dies_with_a_parent_that_is_killed(make: Make) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=child_environment(1))
    assert parent.stdout is not None
    stat = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    assert stat.exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    async with asyncio.timeout(5):
        while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            await asyncio.sleep(0.02)


async def test_a_directory_without_a_model_is_a_model_error(tmp_path: Path) -> None:
    engine: ProposalProvider = LanguageModelProvider(ModelSpec(name="none", directory=str(tmp_path)))
    try:
        with pytest.raises(ModelError, match="cannot be loaded"):
            await engine.start()
    finally:
        await engine.close()
