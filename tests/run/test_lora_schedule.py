from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.protocol import Example, OnTrainingStep, Trained, TrainingJob, one_of_each
from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.loading import from_journal, load
from riwoa.config.reload import Reloader
from riwoa.errors import AdapterError, CognitionError
from riwoa_storage.events import AdapterRejected, AdapterUnusable, TrainingFailed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord, GenerationRecord, RequestRecord
from riwoa_storage.replay import compare, verify
from tests.run.conduct import JOINT, SMALL, StopHere, conduct

# A target that nothing misses: about half of all changes help, so there is much to learn from.
EASY_MS = 100.0
LEARNING = (
    "cognition.provider=scripted",
    "search.p_semantic=0.9",
    "run.generations=12",
    "run.polish_evaluations=0",
    "cognition.lag=1",
    "cognition.train_after=2",
)
LIVES = 60
# So many replies a generation that at least two succeed, whatever path a search takes: eigenvectors, and so paths,
# differ between processors.
MANY = "search.population=16"


pytestmark = pytest.mark.usefixtures("landscape_oracles")


class Pupil(ScriptedProvider):
    """Counts its trainings by seed; may hang in them, or fail in the first, whenever it is tried."""

    def __init__(
        self, trained: Counter[int], *, script: str = "good", hangs: bool = False, fails: bool = False
    ) -> None:
        super().__init__(script)
        self._trained = trained
        self.jobs: list[TrainingJob] = []
        self._hangs = hangs
        self._fails = fails

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self._trained[job.seed] += 1
        self.jobs.append(job)
        if self._hangs:
            await asyncio.sleep(3600)
        if self._fails and len(self._trained) == 1:
            raise CognitionError("this training fails, as it was told to")
        return await super().train(job, on_progress)


def adapters(path: Path) -> list[AdapterRecord]:
    with JournalReader(path) as reader:
        return reader.adapters(1)


def told(path: Path) -> list[Any]:
    """What no digest covers and what must not depend on kills: adapters, who consumed what, every word of a prompt."""
    with JournalReader(path) as reader:
        rows = [(a.generation, a.parent_id, a.sha256, a.status, a.weights) for a in reader.adapters(1)]
        entries = [(e.request_id, dict(e.trace), e.consumed_by) for e in reader.buffer(1)]
        return [rows, entries, [(r.request_id, r.adapter_sha256, r.prompt, r.parameters) for r in reader.requests(1)]]


async def run(path: Path, *settings: str, provider: ScriptedProvider | None = None, **how: Any) -> str:
    return await conduct(path, *LEARNING, *settings, provider=provider, target_ms=EASY_MS, **how)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("once") / "whole.db"
    asyncio.run(run(path))
    return path


@pytest.fixture
def whole(once: Path, tmp_path: Path) -> Path:
    """A run that was never stopped."""
    shutil.copytree(once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / once.name


def test_successes_train_adapters_that_every_later_request_names(whole: Path) -> None:
    rows = adapters(whole)
    assert len(rows) >= 2
    with JournalReader(whole) as reader:
        requests = reader.requests(1)
    for request in requests:
        in_force = [a.sha256 for a in rows if a.status != "rejected" and a.generation <= request.generation]
        assert request.adapter_sha256 == (in_force[-1] if in_force else None)
    for row in rows:
        trigger = row.training["trigger"]
        assert row.generation == trigger + 2
        assert trigger + 1 not in {r.generation for r in requests}  # no text while the model learns
        assert trigger in {r.generation for r in requests}


def test_a_training_takes_the_oldest_successes_and_never_learns_from_those_held_out(whole: Path) -> None:
    with JournalReader(whole) as reader:
        entries = reader.buffer(1)
    held_out = {e.entry_id for e in entries[3::4]}
    consumed = [i for a in adapters(whole) for i in a.training["consumed"]]
    assert consumed == [e.entry_id for e in entries[: len(consumed)]]
    assert [e.consumed_by for e in entries[: len(consumed)]] == [
        a.adapter_id for a in adapters(whole) for _ in a.training["consumed"]
    ]
    for row in adapters(whole):
        assert len(row.training["consumed"]) >= 2
        assert set(row.training["held_out"]) == {i for i in held_out if i <= row.training["consumed"][-1]}
        assert row.training["verdict"]["accepted"] is (row.status != "rejected")


def test_a_success_is_kept_with_its_whole_trace_verbatim(whole: Path) -> None:
    with JournalReader(whole) as reader:
        entries, replies = reader.buffer(1), reader.replies(1)
        requests = {r.request_id: r for r in reader.requests(1)}
        individuals = {i.request_id: i for _, i in reader.individuals(1)}
    assert entries
    for entry in entries:
        request, child = requests[entry.request_id], individuals[entry.request_id]
        assert entry.trace["prompt"] == request.prompt
        assert entry.trace["system"] == request.parameters["system"]
        assert entry.trace["text"] == replies[entry.request_id].text
        assert entry.trace["reasoning"] in entry.trace["text"]
        assert entry.trace["reasoning"]
        assert entry.trace["adapter_sha256"] == request.adapter_sha256
        ((gene, choice),) = entry.trace["patch"].items()
        assert child.architecture[gene] == choice != entry.trace["parent_architecture"][gene]
        assert entry.trace["architecture"] == child.architecture


def test_of_each_answer_the_newest_example_is_learned_whatever_its_reasoning() -> None:
    texts = ['<think>a</think>\n{"k": 1}', '<think>b</think> {"k": 2}', '<think>c</think>{"k": 1}\n', '{"k": 2}']
    examples = [Example(id=f"{n}/0", system="s", prompt=f"p{n}", text=text) for n, text in enumerate(texts)]
    assert one_of_each(examples) == (examples[2], examples[3])
    assert one_of_each(examples[:3]) == (examples[2], examples[1])  # in the order of their answers' first examples
    assert one_of_each(iter(examples[:1])) == (examples[0],)
    assert one_of_each(()) == ()


class Stubborn(Pupil):
    """Makes the first gene larger that can be."""

    def _text(self, request: RequestRecord) -> str:
        parent, offered = request.parameters["parent"], request.parameters["choices"]
        larger = [(gene, max(choices)) for gene, choices in offered.items() if max(choices) > parent[gene]]
        return f"<think>{request.request_id}</think>\n{json.dumps(dict(larger[:1]))}"


async def test_a_training_gets_each_patch_once_and_consumes_every_success(tmp_path: Path) -> None:
    path, provider = tmp_path / "journal.db", Stubborn(Counter())
    await run(path, "cognition.train_after=4", provider=provider)
    with JournalReader(path) as reader:
        entries = {e.entry_id: e for e in reader.buffer(1)}
    held_out = set(list(entries)[3::4])
    learned = 0
    assert provider.jobs
    for job, row in zip(provider.jobs, adapters(path), strict=True):
        taken = [entries[i] for i in row.training["consumed"] if i not in held_out]
        newest = {json.dumps(e.trace["patch"]): e for e in taken}
        assert [e.text for e in job.examples] == [e.trace["text"] for e in newest.values()]
        learned += len(taken) - len(job.examples)
    assert learned > 0, "no patch won twice"


@pytest.mark.parametrize("generations", [9, 10, 11, 12])
async def test_no_training_is_begun_whose_adapter_could_write_nothing_that_joins(
    generations: int, tmp_path: Path
) -> None:
    path, provider = tmp_path / "journal.db", Pupil(Counter())
    await run(path, f"run.generations={generations}", "run.polish_evaluations=12", provider=provider)
    rows = adapters(path)
    assert rows
    assert len(rows) == len(provider.jobs)  # none is begun in vain
    assert all(a.generation + 1 < generations for a in rows)


async def test_a_search_that_is_made_longer_trains_from_there_on_after_every_kill_too(tmp_path: Path) -> None:
    """Whether a training pays is decided by the configuration of its generation, not by a later one."""
    overrides = [*(s for s in (*SMALL, *LEARNING) if not s.startswith("run.generations")), MANY]
    for name, stop in (("whole", None), ("parts", 1)):
        path, file = tmp_path / f"{name}.db", tmp_path / f"{name}.toml"
        file.write_text("[run]\ngenerations = 8\n")
        for _ in range(LIVES):
            reloader = Reloader(load(file, overrides, {}), overrides)
            if path.exists():
                with JournalReader(path) as reader:
                    reloader.continue_from(from_journal(reader.config_revisions(1)[-1].config))

            def lengthen(conductor: Any, file: Path = file, reloader: Reloader = reloader) -> None:
                if conductor.generation == 7:
                    file.write_text("[run]\ngenerations = 14\n")
                    reloader.reload()

            await conduct(path, reloader=reloader, at_commit=lengthen, stop_after=stop, target_ms=EASY_MS)
            if stop is None or compare(tmp_path / "whole.db", path).same:
                break
    found = compare(tmp_path / "whole.db", tmp_path / "parts.db")
    assert found.same, found.message
    assert told(tmp_path / "parts.db") == told(tmp_path / "whole.db")
    triggers = [a.training["trigger"] for a in adapters(tmp_path / "whole.db")]
    assert 7 in triggers  # due before, and of no use before
    assert not {5, 6} & set(triggers)


async def test_stopped_after_every_commit_it_learns_the_same(tmp_path: Path, whole: Path) -> None:
    parts, trained = tmp_path / "parts.db", Counter[int]()
    for _ in range(LIVES):
        await run(parts, provider=Pupil(trained), stop_after=1)
        if compare(whole, parts).same:
            break
    found = compare(whole, parts)
    assert found.same, found.message
    assert told(parts) == told(whole)


@pytest.mark.parametrize(("lag", "train_lag"), [(0, 1), (1, 2), (3, 2)])
async def test_killed_before_every_commit_it_learns_the_same(
    lag: int, train_lag: int, tmp_path: Path, whole: Path
) -> None:
    """Among them the commit that triggers a training, and the one of the generation that swaps its adapter in."""
    settings = [f"cognition.lag={lag}", f"cognition.train_lag={train_lag}"]
    generations = {0: 10, 1: 12, 3: 14}[lag]
    if lag == 3:
        settings += [*JOINT, "search.offspring=12"]  # of which five ask
    if lag != 1:
        settings.append(f"run.generations={generations}")
        whole = tmp_path / "another.db"
        await run(whole, *settings)
    parts, trained = tmp_path / "parts.db", Counter[int]()
    killed: set[int] = set()

    def kill(record: GenerationRecord) -> None:
        if record.generation not in killed:
            killed.add(record.generation)
            raise StopHere

    for _ in range(LIVES):
        await run(parts, *settings, provider=Pupil(trained), before_commit=kill)
        if compare(whole, parts).same:
            break
    found = compare(whole, parts)
    assert found.same, found.message
    assert told(parts) == told(whole)
    assert adapters(parts)
    assert len(killed) == generations


@pytest.mark.parametrize("own", [True, False], ids=["in a process of its own", "between two batches"])
async def test_where_trainings_go_on_beside_text_is_written_meanwhile_with_the_adapter_before(
    own: bool, tmp_path: Path
) -> None:
    """Killed before every commit it writes and learns the same, wherever it trains."""
    settings = ("cognition.train_beside=true", "cognition.train_lag=3")
    whole, parts, killed = tmp_path / "whole.db", tmp_path / "parts.db", set[int]()
    trainers: list[Pupil] = []

    def trainer() -> Pupil | None:
        trainers.append(Pupil(Counter()))
        return trainers[-1] if own else None

    def kill(record: GenerationRecord) -> None:
        if record.generation not in killed:
            killed.add(record.generation)
            raise StopHere

    await run(whole, *settings, trainer=lambda: None)
    for _ in range(LIVES):
        await run(parts, *settings, trainer=trainer, before_commit=kill)
        if compare(whole, parts).same:
            break
    assert told(parts) == told(whole)
    assert trainers
    assert all(len(t.jobs) == own for t in trainers)
    with JournalReader(parts) as reader:
        asked = {r.generation: r.adapter_sha256 for r in reader.requests(1)}
    swapped = {a.generation: (a.training["trigger"], a.training["parent_sha256"]) for a in adapters(parts)}
    assert swapped
    for swap, (trigger, before) in swapped.items():
        meanwhile = [asked[g] for g in range(trigger + 1, swap) if g in asked]
        assert meanwhile, f"nothing was asked between {trigger} and {swap}"
        assert set(meanwhile) == {before}


async def test_killed_within_every_training_it_trains_again_and_learns_the_same(tmp_path: Path, whole: Path) -> None:
    parts, trained, seen = tmp_path / "parts.db", Counter[int](), 0
    with JournalReader(whole) as reader:
        digest = reader.digest_head(1)
    for _ in range(LIVES):
        hung = Pupil(trained, hangs=True)
        task = asyncio.create_task(run(parts, provider=hung))
        while not task.done() and sum(trained.values()) == seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait((task,))
        before = len(adapters(parts))
        if await run(parts, provider=Pupil(trained), at_commit=stop_when_an_adapter_came(parts, before)) == digest:
            break
        seen = sum(trained.values())
    found = compare(whole, parts)
    assert found.same, found.message
    assert told(parts) == told(whole)
    assert set(trained.values()) == {2}  # the one that was killed and the one that was not


def stop_when_an_adapter_came(path: Path, before: int) -> Any:
    def stop(conductor: Any) -> None:
        if conductor.learning.under_way is None and len(adapters(path)) > before:
            raise StopHere

    return stop


async def test_an_adapter_that_is_journaled_but_not_yet_swapped_in_is_swapped_in_by_the_next_life(
    tmp_path: Path,
) -> None:
    settings = ("cognition.train_lag=4",)
    await run(tmp_path / "whole.db", *settings)
    parts, trained, between = tmp_path / "parts.db", Counter[int](), list[int]()

    def note(conductor: Any) -> None:
        between.extend(a.generation for a in adapters(parts) if a.generation > conductor.generation)

    for _ in range(LIVES):
        await run(parts, *settings, provider=Pupil(trained), at_commit=note, stop_after=1)
        if compare(tmp_path / "whole.db", parts).same:
            break
    assert between, "no life ended between an adapter's row and its swap"
    assert told(parts) == told(tmp_path / "whole.db")
    # One kill may fall into a training; after its row was journaled none is trained again.
    assert all(count <= 2 for count in trained.values())


async def test_rejected_adapters_are_kept_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    # Unscreened: where the moves are better, a uniform script wins too rarely for a third training.
    settings = ("cognition.script=mixed", "run.generations=30", "search.riwoa.screened=1")
    await run(path, *settings, provider=Pupil(Counter(), script="mixed"))
    rejected = [a for a in adapters(path) if a.status == "rejected"]
    assert rejected
    assert all(a.weights for a in rejected)
    assert all("(rejected)" in " ".join(a.training["verdict"]["reasons"]) for a in rejected)
    with JournalReader(path) as reader:
        used = {r.adapter_sha256 for r in reader.requests(1)}
        events = Counter(map(type, reader.events(1)))
    assert not used & {a.sha256 for a in rejected}
    assert events[AdapterRejected] == len(rejected)


async def test_a_failed_training_consumes_nothing_is_an_input_and_waits_for_more(tmp_path: Path) -> None:
    path, trained = tmp_path / "journal.db", Counter[int]()
    await run(path, "run.generations=14", provider=Pupil(trained, fails=True))
    with JournalReader(path) as reader:
        failed = [s for s in reader.generation_summaries(1) if "training_failed" in s.inputs]
        events = reader.events(1, TrainingFailed)
        entries = reader.buffer(1)
    (summary,) = failed
    assert "as it was told to" in summary.inputs["training_failed"]
    (event,) = events
    assert event.generation == summary.generation
    first = adapters(path)[0]
    assert len(first.training["consumed"]) >= 4  # twice as many as for the first try
    assert first.training["consumed"][0] == entries[0].entry_id


async def test_a_failed_training_is_resumed_as_it_was(tmp_path: Path) -> None:
    for name, stop in (("whole", None), ("parts", 2)):
        trained = Counter[int]()
        for _ in range(LIVES):
            await run(tmp_path / f"{name}.db", provider=Pupil(trained, fails=True), stop_after=stop)
            if stop is None or compare(tmp_path / "whole.db", tmp_path / "parts.db").same:
                break
    assert told(tmp_path / "whole.db") == told(tmp_path / "parts.db")
    assert compare(tmp_path / "whole.db", tmp_path / "parts.db").same


async def test_without_training_there_are_successes_and_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await run(path, "cognition.train=false")
    assert not adapters(path)
    with JournalReader(path) as reader:
        assert reader.buffer(1)


@pytest.fixture
def damaged(whole: Path) -> Iterator[tuple[Path, list[AdapterRecord]]]:
    """A run whose last adapter was damaged while the daemon was stopped, some generations before its end."""
    rows = adapters(whole)
    with sqlite3.connect(whole) as db:
        db.execute("UPDATE adapters SET weights = x'00' WHERE adapter_id = ?", (rows[-1].adapter_id,))
    return whole, rows  # type: ignore[return-value]


async def test_a_damaged_adapter_falls_back_to_the_last_good_one_and_says_so(
    damaged: tuple[Path, list[AdapterRecord]],
) -> None:
    path, rows = damaged
    generations: list[Any] = []

    def look(conductor: Any) -> None:
        generations.append(conductor)
        raise StopHere

    with JournalReader(path) as reader:
        last = reader.generation_count(1)
    await run(path, f"run.generations={last + 2}", at_commit=look)
    (conductor,) = generations
    assert conductor.learning.unusable == [rows[-1].sha256]
    with JournalReader(path) as reader:
        (event,) = reader.events(1, AdapterUnusable)
        asked = [r for r in reader.requests(1) if r.generation == last]
    assert event.sha256 == rows[-1].sha256
    assert asked
    assert {r.adapter_sha256 for r in asked} == {rows[-2].sha256}


class Refusing(Pupil):
    """Will not have the second adapter that it is given, however often."""

    def __init__(self) -> None:
        super().__init__(Counter())
        self.given: list[str] = []

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        if sha256 is not None and sha256 not in self.given:
            self.given.append(sha256)
        if sha256 is not None and self.given.index(sha256) == 1:
            raise AdapterError("not for this model")
        await super().use_adapter(sha256, path)


async def test_an_adapter_that_is_refused_in_service_gives_way_to_the_one_before_it_also_after_a_restart(
    tmp_path: Path,
) -> None:
    path, provider = tmp_path / "journal.db", Refusing()
    await run(path, MANY, provider=provider)
    refused = provider.given[1]
    with JournalReader(path) as reader:
        (event,) = reader.events(1, AdapterUnusable)
        requests, replies = reader.requests(1), reader.replies(1)
        named = [r.adapter_sha256 for r in requests]
        failed = {r.generation for r in requests if replies[r.request_id].status == "failed"}
        last = reader.generation_count(1)
    assert (event.sha256, event.reason) == (refused, "not for this model")
    assert event.generation in failed
    assert len(failed) <= 2  # the batch that found out, and one that was on its way
    after = requests[len(named) - named[::-1].index(refused) :]
    assert after
    usable = [a for a in adapters(path) if a.status != "rejected" and a.sha256 != refused]
    for request in after:  # the newest other one: the one before, until a later training's is there
        assert request.adapter_sha256 == [a.sha256 for a in usable if a.generation <= request.generation][-1]
    resumed: list[Any] = []

    def look(conductor: Any) -> None:
        resumed.append(conductor)
        raise StopHere

    await run(path, MANY, f"run.generations={last + 2}", at_commit=look, provider=provider)
    assert resumed[0].learning.unusable == [refused]
    with JournalReader(path) as reader:
        assert len(reader.events(1, AdapterUnusable)) == 1


async def test_the_chain_of_a_run_that_learned_is_whole(whole: Path) -> None:
    assert verify(whole).ok
