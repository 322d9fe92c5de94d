"""Whole searches with a writer beside: the daemon's own loop in an arena."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench import whole
from riwoa.bench.arena import Arena, Found
from riwoa.bench.contest import search
from riwoa.bench.contestants import Contestant
from riwoa.bench.landscape import Measured, Plain
from riwoa.bench.whole import greedy, pairs, placebo
from riwoa.cognition.gate import Verdict
from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.schema import Config
from riwoa.errors import CognitionError, ModelError, UsageError
from riwoa.run.inheritance import Heritage, heritage_of
from riwoa.run.style import style_of
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa_storage.records import RequestRecord

from .support import RESOLUTIONS, a_table, accuracy_of

TABLE = a_table()
_NONE: dict[str, Any] = {"provider": None, "reason": "none is here", "provenance": lambda _: {}}
SETTINGS = ":first=8"


@pytest.fixture(autouse=True)
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that replies join early."""
    monkeypatch.setattr(whole, "POPULATION", 4)


class Slope(Plain):
    """``accuracy_of`` within a made-up table's latency."""

    def __init__(self) -> None:
        self.space: Space = mobilenet_space(RESOLUTIONS)
        self.aim = Objective(1.0)
        self.key = "slope"
        self.layers_ms = lambda a: TABLE.layers_ms(ofa_config(a))

    def measure(self, indices: IntArray) -> Measured:
        return Measured(100 * accuracy_of(self.space.architecture(indices)), self.free_load(indices))

    def free_load(self, indices: IntArray) -> float:
        return TABLE.latency_ms(ofa_config(self.space.architecture(indices)))


def a_request(parent: dict[str, Any], choices: dict[str, list[Any]]) -> RequestRecord:
    parameters = {"parent": parent, "choices": choices, "most_genes": 1}
    return RequestRecord(
        request_id="1/0/0",
        run_id=1,
        generation=0,
        slot=0,
        join_generation=1,
        model="rule",
        adapter_sha256=None,
        seed=7,
        prompt="",
        parameters=parameters,
        created_unix_s=0.0,
    )


@pytest.mark.parametrize("name", ["riwoa-placebo", "riwoa-pairs", "riwoa-greedy"])
def test_a_whole_search_spends_its_budget_and_is_a_function_of_its_seed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RequestRecord] = []
    generate = whole.RuleProvider.generate

    async def watched(self: Any, batch: Any) -> Any:
        asked.extend(batch)
        return await generate(self, batch)

    monkeypatch.setattr(whole.RuleProvider, "generate", watched)
    contestant = Contestant.parse(name + SETTINGS)
    found = search(contestant, 0, Slope(), 45)
    assert (found.queries, found.strategy) == (45, contestant.name)
    assert asked
    assert {r.parameters["samples"] for r in asked} == {16}
    assert search(contestant, 0, Slope(), 45) == found


def test_the_language_model_is_the_one_that_a_run_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_model(**found: Any) -> Found:
        async def provide(*_: Any) -> Any:
            style = style_of(Config().cognition)
            return type("Provision", (), {**_NONE, "style": style, **found})()

        monkeypatch.setattr(whole, "provide", provide)
        return search(Contestant.parse("riwoa-semantic" + SETTINGS), 0, Slope(), 45)

    assert with_model(provider=ScriptedProvider("mixed")).queries == 45
    with pytest.raises(CognitionError, match="no reply of scripted:failing came to anything"):
        with_model(provider=ScriptedProvider("failing"))
    with pytest.raises(ModelError, match="riwoa-semantic needs a language model: none is here"):
        with_model()


def test_a_second_search_inherits_the_firsts_adapter_and_none_of_its_evaluations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def provide(*_: Any) -> Any:
        told = {"model": "scripted:good", "model_spec": None}
        found = {
            "provider": ScriptedProvider("good"),
            "style": style_of(Config().cognition),
            "provenance": lambda _: told,
        }
        return type("Provision", (), found)()

    asked = []

    def heritage(*given: Any, **named: Any) -> Heritage:
        asked.append(heritage_of(*given, **named))
        return asked[-1]

    monkeypatch.setattr(whole, "provide", provide)
    monkeypatch.setattr(whole, "heritage_of", heritage)
    monkeypatch.setattr("riwoa.run.lora_schedule.judge", lambda *_, **__: Verdict(accepted=True, reasons=()))
    settings = (("first", 8), ("train_after", 16), ("train_lag", 2), ("held_out_share", 0.5))
    found = search(Contestant("riwoa-second", "riwoa", "-second", settings), 0, Slope(), 200)
    first, second = asked
    assert first.adapter is None
    assert second.adapter is not None
    assert second.adapter.run == 1
    assert (found.queries, found.seed) == (200, 0)  # nothing was answered by what the first evaluated


def test_greedy_takes_what_leaves_least_unused_and_placebo_anything() -> None:
    slope = Slope()
    smallest = slope.space.architecture(np.zeros(len(slope.space), dtype=np.int64))
    choices = {"resolution": [32, 40], "stage1.block1.kernel": [5, 7], "stage2.depth": [3, 4]}
    loads: dict[tuple[str, Any], float] = {
        (gene, choice): TABLE.latency_ms(ofa_config({**smallest, gene: choice}))
        for gene, offered in choices.items()
        for choice in offered
    }
    before = TABLE.latency_ms(ofa_config(smallest))
    middle = sorted(loads.values())[2]
    assert before < middle
    slope.aim = Objective(middle * 1.0001)
    first, second = greedy(slope)(a_request(smallest, choices), 2)
    [(gene, choice)] = first.items()
    assert loads[gene, choice] == middle
    assert loads[next(iter(second.items()))] == sorted(loads.values())[1]
    slope.aim = Objective(before / 2)
    [patch] = greedy(slope)(a_request(smallest, choices), 1)
    [(gene, choice)] = patch.items()
    assert loads[gene, choice] == min(loads.values())
    drawn = placebo(a_request(smallest, choices), 9)
    assert len({str(patch) for patch in drawn}) == len(drawn) == 6  # all that there are, each once
    assert all(len(patch) == 1 for patch in drawn)
    assert {len(patch) for patch in pairs(a_request(smallest, choices), 9)} == {2}


def test_what_has_no_latency_is_refused(tmp_path: Path) -> None:
    slope = Slope()
    slope.aim = Objective(None)
    with pytest.raises(UsageError, match="spends what a limit leaves"):
        search(Contestant.parse("riwoa-greedy"), 0, slope, 30)
    assert Arena(slope, 1).known == {}
