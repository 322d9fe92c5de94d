from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.cognition.models import Recommended
from riwoa.cognition.parse import PatchError
from riwoa.cognition.protocol import CLOSING
from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.loading import from_journal, load
from riwoa.config.reload import Reloader
from riwoa.run.offers import offered_choices, placebo_patch
from riwoa.run.prompt_history import PromptHistory, in_order
from riwoa.run.style import style_of
from riwoa.search.codec import Codec
from riwoa.search.rng import generator
from riwoa.search.space import Choice, Condition, Gene, Space
from riwoa_storage.events import RequestsWithdrawn
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, GenerationRecord, ReplyRecord, RequestRecord
from riwoa_storage.replay import compare
from tests.run.conduct import SMALL, SPACE, StopHere, conduct

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SEMANTIC = ("cognition.provider=scripted", "search.p_semantic=0.9", "run.polish_evaluations=0")
CODEC = Codec(SPACE, 0)


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


def child_key(genotype: Any, patch: Any) -> str:
    return SPACE.key(CODEC.decode(CODEC.patch(genotype, patch)[None, :])[0])


# -- what is on offer ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 6))
def test_every_offered_choice_changes_an_active_gene_into_something_unknown(seed: int, modulus: int) -> None:
    genotype = generator(seed, 0, "test").random(CODEC.dimension)
    parent = SPACE.architecture(CODEC.decode(genotype[None, :])[0])

    def known(key: str) -> bool:
        return modulus > 1 and sum(map(ord, key)) % modulus == 0

    offered = offered_choices(CODEC, genotype, lambda keys: set(filter(known, keys)))
    assert offered
    for gene, choices in offered.items():
        assert choices
        for choice in choices:
            assert parent[gene] != choice
            assert not known(child_key(genotype, {gene: choice}))
    everything = offered_choices(CODEC, genotype, lambda _: ())
    assert everything.keys() == {gene for gene in parent}


def test_where_nothing_is_new_every_change_is_offered() -> None:
    genotype = generator(1, 0, "test").random(CODEC.dimension)
    assert offered_choices(CODEC, genotype, set) == offered_choices(CODEC, genotype, lambda _: ())


def test_a_space_that_leaves_nothing_to_change_offers_nothing() -> None:
    space = Space("fixed", (Gene("a", (1,)), Gene("b", ("x",), kind="nominal")))
    assert offered_choices(Codec(space, 0), np.array([0.5, 0.5]), lambda _: ()) == {}
    with pytest.raises(PatchError, match="nothing"):
        placebo_patch({}, 1, generator(0, 0, "test"))


def test_a_gene_that_a_patch_wakes_is_not_itself_on_offer() -> None:
    genes = (Gene("depth", (2, 3)), Gene("kernel", (3, 5), active_if=Condition("depth", 3)))
    codec = Codec(Space("tiny", genes), 0)
    assert offered_choices(codec, np.array([0.1, 0.1]), lambda _: ()) == {"depth": (3,)}
    assert offered_choices(codec, np.array([0.9, 0.1]), lambda _: ()) == {"depth": (2,), "kernel": (5,)}


def test_the_placebo_draws_size_genes_and_choices_uniformly_from_the_offer() -> None:
    offered: dict[str, tuple[Choice, ...]] = {"a": (1, 2), "b": (3,), "c": (4, 5, 6)}
    drawn = [placebo_patch(offered, 2, generator(i, 0, "test")) for i in range(6000)]
    assert all(choice in offered[gene] for patch in drawn for gene, choice in patch.items())
    sizes = Counter(map(len, drawn))
    assert sizes[1] == pytest.approx(3000, abs=150)
    single = Counter(next(iter(patch.items())) for patch in drawn if len(patch) == 1)
    assert single["b", 3] == pytest.approx(1000, abs=120)
    assert single["c", 5] == pytest.approx(333, abs=80)
    pairs = Counter(frozenset(patch) for patch in drawn if len(patch) == 2)
    assert all(count == pytest.approx(1000, abs=120) for count in pairs.values())
    assert len(pairs) == 3


async def test_requests_and_placebos_are_offered_only_what_the_run_has_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "run.generations=8", "search.placebo_share=0.4", "cognition.lag=1")
    with JournalReader(path) as reader:
        generations = list(reader.generations(1))
        requests = reader.requests(1)
    seen: dict[int, set[str]] = {0: set()}
    for g in generations:
        seen[g.generation + 1] = seen[g.generation] | {i.architecture_key for i in g.individuals}
    placebos = [(g.generation, i) for g in generations for i in g.individuals if i.operator == "placebo"]
    assert placebos
    assert all(i.architecture_key not in seen[generation] for generation, i in placebos)
    assert requests
    for r in requests:
        architecture = dict(r.parameters["parent"])
        for gene, choices in r.parameters["choices"].items():
            if gene.endswith("depth"):  # a change of depth wakes or ends other genes
                continue
            for choice in choices:
                assert SPACE.key(SPACE.indices({**architecture, gene: choice})) not in seen[r.generation]


# -- overlap ---------------------------------------------------------------------------------------------------------


class Patient(ScriptedProvider):
    """Answers a batch only once generation ``g + lag`` has nothing left to evaluate but what waits for the answer.

    A conductor that waits for its replies before it evaluates never gets there.
    """

    def __init__(self, lag: int) -> None:
        super().__init__("good")
        self.conductor: Any = None
        self.queued: list[int] = []  # batches that waited behind each answered one
        self._lag = lag
        self._evaluated = asyncio.Event()

    def tick(self) -> None:
        self._evaluated.set()

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        generation = batch[0].generation + self._lag
        while not (self.conductor.generation == generation and self.conductor._evaluations.outstanding == 0):
            self._evaluated.clear()
            await self._evaluated.wait()
        proposal_queue = self.conductor.learning._proposal_queue
        if self._lag > 0 and generation + self._lag < self.conductor.config.run.generations:
            for _ in range(500):  # the next batch is composed meanwhile
                if proposal_queue.waiting:
                    break
                await asyncio.sleep(0.01)
        self.queued.append(proposal_queue.waiting)
        return await super().generate(batch)


async def overlapped(path: Path, lag: int) -> Patient:
    provider = Patient(lag)

    def watch(conductor: Any) -> None:
        provider.conductor = conductor

    # Half of the attacks, so that each generation has other slots too.
    settings = (
        *SEMANTIC,
        f"cognition.lag={lag}",
        "cognition.timeout_s=20",
        "run.generations=8",
        "search.p_semantic=0.6",
    )
    await asyncio.wait_for(conduct(path, *settings, provider=provider, on_result=provider.tick, at_commit=watch), 60)
    with JournalReader(path) as reader:
        replies, requests = reader.replies(1), reader.requests(1)
    joined = [r for r in requests if r.join_generation < 8]
    assert len(joined) >= 5
    assert all(replies[r.request_id].status == "ok" for r in joined)
    return provider


async def test_with_lag_a_generation_is_evaluated_while_the_model_writes_and_its_own_requests_wait(
    tmp_path: Path,
) -> None:
    provider = await overlapped(tmp_path / "journal.db", lag=1)
    # Where the next generation asked anything, the model never runs out of work at a boundary.
    with JournalReader(tmp_path / "journal.db") as reader:
        asked = sorted({r.generation for r in reader.requests(1)})
    assert provider.queued == [int(g + 1 in asked) for g in asked if g < 7]
    assert 1 in provider.queued


async def test_at_lag_zero_the_other_slots_are_evaluated_while_the_semantic_ones_wait(tmp_path: Path) -> None:
    await overlapped(tmp_path / "journal.db", lag=0)


async def test_evaluating_in_parts_counts_as_evaluating_at_once(tmp_path: Path) -> None:
    """Joiners that repeat what another slot asks for are hits of it, and nothing is worked for twice."""
    path, worked = tmp_path / "journal.db", []

    class Echo(ScriptedProvider):
        """Answers the same request always the same."""

        def _text(self, request: RequestRecord) -> str:
            return super()._text(replace(request, seed=0))

    settings = (*SEMANTIC, "cognition.lag=2", "run.generations=8", "search.population=12", "cognition.train=false")
    provider = Echo("good")
    await conduct(path, *settings, provider=provider, on_result=lambda: worked.append(1), target_ms=100.0)
    with JournalReader(path) as reader:
        individuals = [i for _, i in reader.individuals(1)]
        counters = reader.last_generation(1).counters  # type: ignore[union-attr]
    hits = [i for i in individuals if i.cache_hit]
    assert hits
    assert len(worked) == counters["evaluations"] == len({i.architecture_key for i in individuals})
    first: set[str] = set()
    for i in individuals:  # by generation and slot
        assert i.cache_hit == (i.architecture_key in first)
        first.add(i.architecture_key)


# -- what is remembered ----------------------------------------------------------------------------------------------


async def test_rejected_replies_are_journaled_with_their_reason_and_told_to_the_model(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "cognition.script=mixed", "cognition.lag=1", "run.generations=8")
    with JournalReader(path) as reader:
        rejected = {
            f"1/{name}": reason for s in reader.generation_summaries(1) for name, reason in s.inputs["rejected"].items()
        }
        individuals = {i.request_id: i for _, i in reader.individuals(1) if i.operator == "semantic"}
        successes = {e.request_id for e in reader.buffer(1)}
        requests = reader.requests(1)
    unusable = {name for name, reason in rejected.items() if reason == "no JSON object in the answer"}
    worse = {name for name, reason in rejected.items() if reason == "not better than its parent"}
    assert unusable
    assert worse
    assert not unusable & individuals.keys()
    assert worse | successes == individuals.keys()
    assert not worse & successes
    assert any("not better than its parent" in r.prompt for r in requests)
    assert any("no JSON object in the answer" in r.prompt for r in requests)


class Moody(ScriptedProvider):
    """Fails every other generation and writes garbage in the rest."""

    def __init__(self) -> None:
        super().__init__("mixed")

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        if batch[0].generation % 2:
            raise RuntimeError("a mood")
        return await super().generate(batch)


async def test_a_model_is_told_of_its_own_words_and_not_of_failures_of_its_process(tmp_path: Path) -> None:
    settings, whole, parts = (*SEMANTIC, "run.generations=10"), tmp_path / "whole.db", tmp_path / "parts.db"
    await conduct(whole, *settings, provider=Moody())
    for _ in range(6):
        await conduct(parts, *settings, provider=Moody(), stop_after=2)
    with JournalReader(whole) as a, JournalReader(parts) as b:
        prompts = [r.prompt for r in a.requests(1)]
        assert prompts == [r.prompt for r in b.requests(1)]
        reasons = {r for s in a.generation_summaries(1) for r in s.inputs["rejected"].values()}
    assert any("a mood" in reason for reason in reasons)
    assert not any("a mood" in prompt for prompt in prompts)
    assert any("no JSON object" in prompt for prompt in prompts)


async def test_prompts_tell_of_the_best_successes_and_are_the_same_after_every_kill(tmp_path: Path) -> None:
    settings = (*SEMANTIC, "cognition.script=mixed", "cognition.lag=2", "run.generations=8", "cognition.train=false")
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    await conduct(whole, *settings, target_ms=100.0)

    def stop(conductor: Any) -> None:
        if conductor.generation % 2 == 0:
            raise StopHere

    for _ in range(8):
        await conduct(parts, *settings, target_ms=100.0, at_commit=stop)
        if compare(whole, parts).same:
            break
    with JournalReader(whole) as a, JournalReader(parts) as b:
        prompts = [r.prompt for r in a.requests(1)]
        assert prompts == [r.prompt for r in b.requests(1)]
        gains = [e.child_fitness - e.parent_fitness for e in a.buffer(1)]
    assert any(f"{100 * gain:+.2f} %" in prompt for prompt in prompts for gain in gains)


class Chatty(ScriptedProvider):
    """Changes several genes at once, in the order of the offer."""

    def _text(self, request: RequestRecord) -> str:
        patch = {gene: choices[0] for gene, choices in list(request.parameters["choices"].items())[-3:]}
        return f"<think>{request.request_id}</think>{json.dumps(patch)}"


async def test_patches_of_several_genes_are_told_alike_after_every_kill(tmp_path: Path) -> None:
    settings = (*SEMANTIC, "cognition.patch_genes=3", "run.generations=8", "cognition.train=false")
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    await conduct(whole, *settings, provider=Chatty("good"), target_ms=100.0)
    for _ in range(8):
        await conduct(parts, *settings, provider=Chatty("good"), target_ms=100.0, stop_after=1)
    with JournalReader(whole) as a, JournalReader(parts) as b:
        assert a.buffer(1)
        assert [r.prompt for r in a.requests(1)] == [r.prompt for r in b.requests(1)]
    assert compare(whole, parts).same


async def test_a_child_that_ties_with_its_parent_is_not_told_as_worse(tmp_path: Path) -> None:
    path, level = tmp_path / "journal.db", {"accuracy": 0.5}
    await conduct(path, *SEMANTIC, target_ms=100.0, oracle=level)
    with JournalReader(path) as reader:
        reasons = {r for s in reader.generation_summaries(1) for r in s.inputs["rejected"].values()}
        prompts = [r.prompt for r in reader.requests(1)]
    assert reasons == {"not better than its parent"}
    assert any("not better than its parent" in prompt for prompt in prompts)


async def test_a_margin_makes_successes_rarer_and_larger(tmp_path: Path) -> None:
    settings = (*SEMANTIC, "run.generations=8", "cognition.train=false")
    await conduct(tmp_path / "none.db", *settings, target_ms=100.0)
    await conduct(tmp_path / "some.db", *settings, "cognition.success_margin=0.01", target_ms=100.0)
    gains = {}
    for name in ("none", "some"):
        with JournalReader(tmp_path / f"{name}.db") as reader:
            gains[name] = [e.child_fitness - e.parent_fitness for e in reader.buffer(1)]
    assert min(gains["none"]) <= 0.01
    assert gains["some"]
    assert min(gains["some"]) > 0.01


def test_a_prompt_gets_the_three_best_of_the_last_twenty_successes_and_the_last_rejections() -> None:
    history = PromptHistory()
    gains = [0.9, *[0.01 * i for i in (3, 1, 20, 2, 5, 4, 9, 8, 7, 6)], *[0.001] * 10]
    history.succeeded(map(entry, gains))
    assert [m.gain for m in history.successes] == [pytest.approx(g) for g in (0.2, 0.09, 0.08)]  # 0.9 is too long ago
    parents = {f"1/{slot}": {"a": 1, "b": 2} for slot in range(12)}
    history.failed(in_order({f"1/{slot}": f"reason {slot}" for slot in range(12)}), {}, parents)
    assert [m.reason for m in history.rejected] == [f"reason {slot}" for slot in range(4, 12)]


def entry(gain: float) -> BufferEntryRecord:
    return BufferEntryRecord(
        entry_id=0,
        run_id=1,
        request_id="1/1/1",
        generation=1,
        parent_fitness=0.0,
        child_fitness=gain,
        trace={"patch": {"a": 2}, "parent_architecture": {"a": 1, "b": 2}},
    )


class Terse(ScriptedProvider):
    """Writes its patch without a thought."""

    def _text(self, request: RequestRecord) -> str:
        return super()._text(request).partition("</think>")[2]


async def test_a_success_without_reasoning_counts_but_teaches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, "run.generations=8", provider=Terse("good"), target_ms=100.0)
    with JournalReader(path) as reader:
        last = reader.last_generation(1)
        assert not reader.buffer(1)
        assert not reader.adapters(1)
    assert last is not None
    assert last.counters["successes"] > 0


async def test_the_clock_never_enters_what_a_request_says(tmp_path: Path) -> None:
    for name in ("a", "b"):
        await conduct(tmp_path / f"{name}.db", *SEMANTIC, "cognition.lag=1")
    with JournalReader(tmp_path / "a.db") as a, JournalReader(tmp_path / "b.db") as b:
        said = [[(r.request_id, r.prompt, r.parameters, r.seed) for r in reader.requests(1)] for reader in (a, b)]
    assert said[0]
    assert said[0] == said[1]


# -- a configuration that changes while the daemon is stopped ----------------------------------------------------------

KILLED_IN = 4  # the generation


def edited(file: Path, path: Path, overrides: Sequence[str]) -> Reloader:
    """As the daemon starts: on what the journal says was in force, with the file's changes waiting."""
    reloader = Reloader(load(file, overrides, {}), overrides)
    if path.exists():
        with JournalReader(path) as reader:
            reloader.continue_from(from_journal(reader.config_revisions(1)[-1].config))
    return reloader


async def asked_and_told(path: Path) -> list[Any]:
    with JournalReader(path) as reader:
        requests = [(r.request_id, r.prompt, r.parameters, r.adapter_sha256) for r in reader.requests(1)]
        replies = {name: reply.text for name, reply in reader.replies(1).items()}
        return [requests, replies, [(e.request_id, dict(e.trace)) for e in reader.buffer(1)]]


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[search]\np_semantic = 0.9\n", "[search]\np_semantic = 0.0\n"),
        ("[search]\np_semantic = 0.9\n", "[search]\np_semantic = 0.4\n"),
        ("[objective]\nlatency_ms = 100.0\n", "[objective]\nlatency_ms = 3.0\n"),
        ("[run]\ngenerations = 12\n", "[run]\ngenerations = 6\n"),
        ("[run]\ngenerations = 12\n", "[run]\ngenerations = 4\n"),
    ],
    ids=["no requests any more", "fewer requests", "another target", "a shorter search", "no search any more"],
)
async def test_a_change_made_between_a_kill_and_the_resume_counts_as_one_made_while_it_ran(
    before: str, after: str, lag: int, tmp_path: Path
) -> None:
    """The journal holds the requests, or replies too, that the killed life made under the old configuration."""
    overrides = [s for s in SMALL if not s.startswith("run.generations")]
    overrides += ["cognition.provider=scripted", f"cognition.lag={lag}", "cognition.train_after=5"]
    overrides += [] if "generations" in before else ["run.generations=10"]
    overrides += [] if "p_semantic" in before else ["search.p_semantic=0.9"]
    whole, parts, file = tmp_path / "whole.db", tmp_path / "parts.db", tmp_path / "riwoa.toml"

    file.write_text(before)
    reloader = edited(file, whole, overrides)

    def edit(conductor: Any) -> None:
        if conductor.generation == KILLED_IN and conductor.phase == "search":
            file.write_text(after)
            reloader.reload()

    await conduct(whole, reloader=reloader, at_commit=edit)

    def kill(record: GenerationRecord) -> None:
        if record.generation == KILLED_IN:
            raise StopHere

    file.write_text(before)
    await conduct(parts, reloader=edited(file, parts, overrides), before_commit=kill)
    with JournalReader(parts) as reader:
        assert any(r.generation == KILLED_IN for r in reader.requests(1))
    file.write_text(after)
    for stop in (1, 1, *[4] * 10):  # what was left would be taken up by the life after the one that asks anew
        await conduct(parts, reloader=edited(file, parts, overrides), stop_after=stop)
        if compare(whole, parts).same:
            break
    found = compare(whole, parts)
    assert found.same, found.message
    assert await asked_and_told(parts) == await asked_and_told(whole)
    with JournalReader(parts) as reader:
        withdrawn = reader.events(1, RequestsWithdrawn)
    unchanged = "generations = 6" in after and KILLED_IN + lag < 6  # what joins in time is asked as before
    assert [e.generation for e in withdrawn] == ([] if unchanged else [KILLED_IN])


async def test_a_text_that_was_written_before_a_kill_is_read_and_not_written_again(tmp_path: Path) -> None:
    path, settings = tmp_path / "journal.db", (*SEMANTIC, "cognition.lag=0", "run.generations=3")

    batches = Counter[int]()

    class Counting(ScriptedProvider):
        async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
            batches[batch[0].generation] += 1
            return await super().generate(batch)

    def kill(record: GenerationRecord) -> None:
        raise StopHere

    for _ in range(2):
        await conduct(path, *settings, provider=Counting("good"), before_commit=kill)
        await conduct(path, *settings, provider=Counting("good"), stop_after=1)
    await conduct(path, *settings, provider=Counting("good"))
    assert batches
    assert set(batches.values()) == {1}
    with JournalReader(path) as reader:
        assert not reader.events(1, RequestsWithdrawn)


@pytest.mark.parametrize("lag", [0, 1, 3])
async def test_nothing_is_asked_for_that_would_join_beyond_the_search(lag: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await conduct(path, *SEMANTIC, f"cognition.lag={lag}", "run.generations=8", "run.polish_evaluations=4")
    with JournalReader(path) as reader:
        requests, joined = reader.requests(1), [r for g in reader.generations(1) for r in g.joined_requests]
        replies = reader.replies(1)
    assert {r.join_generation for r in requests} <= set(range(8))
    assert [r.request_id for r in requests] == joined == list(replies)


# -- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_ms", [4.5, 3.8])
async def test_probes_are_within_the_target_and_near_it_as_a_searchs_parents_are(
    tmp_path: Path, target_ms: float
) -> None:
    made: list[Any] = []

    def look(conductor: Any) -> None:
        made.append(conductor.learning._probes())

    wanted = () if target_ms == 4.5 else (f"objective.latency_ms={target_ms}",)
    await conduct(tmp_path / "probes.db", *SEMANTIC, *wanted, stop_after=1, at_commit=look)
    assert all(f"Target {target_ms:.2f} ms" in probe.prompt for probe in made[0])
    room = [target_ms - float(re.search(r"now ([\d.]+) ms", probe.prompt)[1]) for probe in made[0]]  # type: ignore[index]
    assert len(room) == 12
    assert len({probe.prompt for probe in made[0]}) == 12
    assert min(room) >= 0
    assert max(room) < 1.0


# -- style -----------------------------------------------------------------------------------------------------------


def test_auto_means_what_suits_the_model_and_the_configuration_has_the_last_word() -> None:
    large = Recommended(temperature=0.6, top_p=0.9, thinking_tokens=1024, template="full", learning_rate=2e-4)
    auto = style_of(load(None, ["cognition.role=slot"], {}).config.cognition, large)
    assert (auto.settings.temperature, auto.settings.top_p, auto.settings.thinking_tokens) == (0.6, 0.9, 1024)
    assert (auto.template.name, auto.learning_rate) == ("full", 2e-4)
    changes = [
        "cognition.temperature=1.0",
        "cognition.thinking_tokens=16",
        "cognition.template=compact",
        "cognition.role=slot",
    ]
    own = style_of(load(None, [*changes, "cognition.learning_rate=0.01"], {}).config.cognition, large)
    assert (own.settings.temperature, own.settings.thinking_tokens, own.settings.least_thinking_tokens) == (1.0, 16, 16)
    assert (own.template.name, own.learning_rate) == ("compact", 0.01)


def test_a_pool_is_asked_for_many_different_texts_and_a_small_model_without_reasoning() -> None:
    cognition = load(None, [], {}).config.cognition
    small = style_of(
        cognition, Recommended(temperature=0.2, top_p=0.9, thinking_tokens=40, template="compact", learning_rate=5e-4)
    )
    assert (small.settings.temperature, small.settings.thinking_tokens) == (1.0, 0)
    assert len(small.templates) > 1
    assert {template.lead for template in small.templates} == {CLOSING}
    large = style_of(
        cognition, Recommended(temperature=0.6, top_p=0.9, thinking_tokens=1024, template="full", learning_rate=2e-4)
    )
    assert (large.settings.thinking_tokens, large.template.lead) == (1024, "")
