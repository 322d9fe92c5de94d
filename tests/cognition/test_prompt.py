"""What the model is told, word for word: a changed template must be changed here too, on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from riwoa.cognition.prompt import (
    EarlierLesson,
    EarlierPatch,
    EarlierStep,
    Goal,
    Situation,
    compose,
    listed_changes,
    load_template,
)
from riwoa.search.fitness import Constraint
from riwoa.search.space import Choice, Space
from riwoa.supernet.space import mobilenet_space

SMALL = Space.from_json(
    {
        "name": "small",
        "genes": [
            {"name": "resolution", "choices": [24, 32]},
            {"name": "stage1.depth", "choices": [1, 2]},
            {"name": "stage1.block1.kernel", "choices": [3, 5, 7]},
            {"name": "stage1.block1.expand", "choices": [3, 6]},
            {
                "name": "stage1.block2.kernel",
                "choices": [3, 5, 7],
                "active_if": {"gene": "stage1.depth", "at_least": 2},
            },
        ],
    }
)
PARENT: dict[str, Choice] = {
    "resolution": 24,
    "stage1.depth": 1,
    "stage1.block1.kernel": 5,
    "stage1.block1.expand": 3,
}
CHOICES: dict[str, tuple[Choice, ...]] = {
    "resolution": (32,),
    "stage1.depth": (2,),
    "stage1.block1.kernel": (3, 7),
    "stage1.block1.expand": (6,),
}
COST: dict[tuple[str, Choice], float] = {
    ("resolution", 32): 2.0,
    ("stage1.depth", 2): 0.4,
    ("stage1.block1.kernel", 3): -0.2,
    ("stage1.block1.kernel", 7): 0.3,
    ("stage1.block1.expand", 6): 0.5,
}


def situation(latency_ms: float = 2.0) -> Situation:
    return Situation(
        space=SMALL,
        parent=PARENT,
        accuracy=0.8125,
        latency_ms=latency_ms,
        target_ms=2.5,
        layer_ms={"stem": 0.5, "stage1.block1": 1.2, "head": 0.3},
        latency_after=lambda patch: latency_ms + sum(COST[item] for item in patch.items()),
        successes=(
            EarlierPatch({"resolution": 24}, {"resolution": 32}, gain=0.0123),
            EarlierPatch({"stage1.depth": 2}, {"stage1.depth": 1}, gain=0.002),
            EarlierPatch({"stage1.block1.kernel": 7}, {"stage1.block1.kernel": 5}, gain=0.001),
        ),
        rejected=(EarlierPatch({"resolution": 32}, {"resolution": 24}, reason="worse than its parent"),),
    )


def test_the_compact_prompt_word_for_word() -> None:
    system, prompt = compose(situation(), CHOICES, load_template("compact"))
    assert system == (
        "You improve a neural network for one device: raise its accuracy, keep its latency within the target.\n"
        "Genes: resolution 24 32; depth 1 2; kernel 3 5 7; expand 3 6. Larger is slower and mostly more accurate.\n"
        "Think about the changes that fit, choose one, answer with JSON."
    )
    assert prompt == (
        "Target 2.50 ms, now 2.00 ms, accuracy 81.25 %: headroom 0.50 ms: spend it on accuracy.\n"
        "Network:\n"
        "resolution 24\n"
        "stage1 depth 1 | 5/3 60%\n"
        "Worked: stage1.depth 1 to 2: +0.20 %; stage1.block1.kernel 5 to 7: +0.10 %.\n"
        "Failed: resolution 24 to 32: worse than its parent.\n"
        "Changes that fit:\n"
        '{"stage1.block1.expand": 6} +0.50 ms\n'
        '{"stage1.depth": 2} +0.40 ms\n'
        '{"stage1.block1.kernel": 7} +0.30 ms\n'
        '{"stage1.block1.kernel": 3} -0.20 ms'
    )


def test_other_limits_and_another_metric_are_told_and_what_breaks_a_known_limit_is_not_listed() -> None:
    limits = [(Constraint("parameters", 2e6), 2.1e6), (Constraint("recall", 0.5, at_least=True), None)]
    goal = Goal("energy_mj", True, limits, keeps=lambda patch: "stage1.depth" not in patch)
    told = replace(situation(), accuracy=3.25, goal=goal)
    system, prompt = compose(told, CHOICES, load_template("compact"))
    assert "lower its energy_mj, keep its latency within the target and the other limits." in system
    assert prompt.startswith(
        "Target 2.50 ms, now 2.00 ms, energy_mj 3.25 mJ: headroom 0.50 ms: spend it to lower energy_mj.\n"
        "Limits: parameters <= 2,000,000 (now 2,100,000: too much); recall >= 0.5.\n"
    )
    assert "stage1.depth" not in prompt.partition("Changes that fit:")[2]
    assert "its energy_mj must fall while" in compose(told, CHOICES, load_template("full"))[0]
    nothing = replace(told, goal=replace(goal, keeps=lambda patch: False), latency_after=None)
    assert "No single change fits; some:" in compose(nothing, CHOICES, load_template("compact"))[1]


def test_where_no_change_keeps_the_other_limits_those_that_save_most_come_first_as_the_heading_says() -> None:
    told = replace(situation(1.0), goal=Goal(limits=[(Constraint("parameters", 2e6), 2.1e6)], keeps=lambda _: False))
    _, prompt = compose(told, CHOICES, load_template("compact"))
    assert prompt.endswith(
        "No single change fits; those that save most:\n"
        '{"stage1.block1.kernel": 3} -0.20 ms\n'
        '{"stage1.block1.kernel": 7} +0.30 ms\n'
        '{"stage1.depth": 2} +0.40 ms\n'
        '{"stage1.block1.expand": 6} +0.50 ms\n'
        '{"resolution": 32} +2.00 ms'
    )


def test_a_small_model_is_led_into_its_reasoning_and_a_large_one_is_not() -> None:
    assert load_template("compact").lead == "The best change is"
    assert load_template("full").lead == ""


def test_the_full_prompt_says_all_of_it_too() -> None:
    system, prompt = compose(situation(), CHOICES, load_template("full"))
    assert system.startswith("You are an expert in neural architecture search.")
    assert "resolution 24 32; depth 1 2; kernel 3 5 7; expand 3 6." in system
    assert "step by step" in system
    for said in (
        "Latency target: 2.50 ms. The parent: latency 2.00 ms, accuracy 81.25 %; headroom 0.50 ms: spend it on",
        "stage1 depth 1 | 5/3 60%",
        "resolution 32 to 24: +1.23 %",
        "resolution 24 to 32: worse than its parent",
        '{"stage1.depth": 2} +0.40 ms',
    ):
        assert said in prompt


def test_the_system_message_is_the_same_for_every_request_of_a_run() -> None:
    other = replace(situation(2.2), parent={**PARENT, "resolution": 32}, accuracy=0.5, successes=(), rejected=())
    for name in ("compact", "full"):
        template = load_template(name)
        assert compose(situation(), CHOICES, template)[0] == compose(other, CHOICES, template)[0]


def test_a_parent_that_is_too_slow_is_to_be_reduced_least_first() -> None:
    slow = situation(2.6)
    _, prompt = compose(slow, CHOICES, load_template("compact"))
    assert "too slow by 0.10 ms: reduce." in prompt
    assert prompt.endswith('Changes that fit:\n{"stage1.block1.kernel": 3} -0.20 ms')
    _, prompt = compose(situation(9.0), CHOICES, load_template("compact"))
    assert "\nNo single change fits; those that save most:\n" in prompt
    _, hopeless = listed_changes(situation(9.0), CHOICES, 2)
    assert [patch for patch, _ in hopeless] == [{"stage1.block1.kernel": 3}, {"stage1.block1.kernel": 7}]


def test_without_target_and_table_it_says_what_is_known() -> None:
    bare = replace(situation(), target_ms=None, latency_ms=None, accuracy=None, layer_ms={}, latency_after=None)
    _, prompt = compose(replace(bare, successes=(), rejected=()), CHOICES, load_template("compact"))
    assert prompt.startswith("Target none, now unknown, accuracy unknown: no latency target: raise accuracy.")
    assert "Worked: none yet.\nFailed: none yet." in prompt
    assert '{"resolution": 32}\n' in prompt
    assert "ms" not in prompt.partition("Some changes:")[2]


def test_a_nominal_space_without_layers_can_be_told() -> None:
    cell = Space.from_json(
        {
            "name": "cell",
            "genes": [{"name": f"edge{i}", "choices": ["none", "conv"], "kind": "nominal"} for i in (1, 2)],
        }
    )
    told = replace(
        situation(),
        space=cell,
        parent={"edge1": "none", "edge2": "conv", "edge.3": "conv"},
        latency_after=None,
        layer_ms={},
    )
    system, prompt = compose(told, {"edge1": ("conv",)}, load_template("compact"))
    assert "edge1 none conv; edge2 none conv" in system
    assert "edge1 none\nedge2 conv\nedge.3 conv\n" in prompt
    assert prompt.endswith('{"edge1": "conv"}')


@pytest.mark.parametrize(("name", "most"), [("compact", 2400), ("full", 5200)])
def test_prompts_of_the_largest_network_stay_short(name: str, most: int) -> None:
    """Short enough for 135 million parameters; a character is a bit less than half a token here."""
    space = mobilenet_space((160, 176, 192, 208, 224))
    largest = {gene.name: gene.choices[-1] for gene in space.genes}
    choices = {gene.name: gene.choices[:-1] for gene in space.genes}
    layers = {f"stage{s}.block{b}": 1.0 for s in range(1, 6) for b in range(1, 5)}
    said = Situation(space, largest, 0.8, 40.0, 25.0, layers, lambda patch: 39.0 - len(str(patch)) / 100)
    system, prompt = compose(said, choices, load_template(name))
    assert len(system) + len(prompt) < most


STEP = EarlierStep({"stage1.block1.kernel": 5}, {"stage1.block1.kernel": 3}, 0.003, 0.21)


def lesson(about: str, verdict: Any, wins: int, tries: int, gain: float, step: EarlierStep = STEP) -> EarlierLesson:
    return EarlierLesson(about, verdict, tries, wins, gain, 0.45, step)


def lines_of(name: str, **told: Any) -> list[str]:
    _, prompt = compose(replace(situation(), **told), CHOICES, load_template(name))
    return prompt.splitlines()


def test_lessons_are_told_in_words_with_their_verdicts_and_numbers() -> None:
    lessons = [
        lesson("kernel up in stage1", "gains", 7, 9, 0.0012),
        lesson("depth down in stage1", "loses", 0, 5, -0.004),
        lesson("resolution up", "loses", 1, 8, 0.002),
        lesson("a fourth", "gains", 1, 1, 0.1),
    ]
    example = "one: stage1.block1.kernel 3 to 5: +0.30 %, +0.21 ms"
    assert lines_of("pool_lessons", lessons=lessons)[-3:] == [
        f"kernel up in stage1: mostly better (7 of 9), on average +0.12 %, +0.45 ms; {example}",
        f"depth down in stage1: worse (5 of 5), on average -0.40 %, +0.45 ms; {example}",
        f"resolution up: mostly worse (7 of 8), beyond a limit, on average +0.20 %, +0.45 ms; {example}",
    ]
    assert lines_of("pool_lessons")[-1] == "nothing yet"


def test_verdicts_that_contradict_each_other_are_told_once_as_what_they_come_to_together() -> None:
    lessons = [lesson("kernel up", "gains", 6, 8, 0.004), lesson("kernel up", "loses", 0, 8, -0.002)]
    told = lines_of("pool_lessons", lessons=lessons)
    assert sum(line.startswith("kernel up") for line in told) == 1
    assert told[-1].startswith("kernel up: now better, now worse (6 of 16 better), on average +0.10 %, +0.45 ms; one: ")
    lately = lines_of("pool_lessons", lessons=[lesson("kernel up", "gains", 200, 400, 0.004)])[-1]
    assert "kernel up: lately better (200 of 400)" in lately  # the newer steps have decided


def test_newest_steps_are_told_as_long_as_lessons() -> None:
    genes = [f"stage{s}.block{b}.expand" for s in (1, 2, 3) for b in (1, 2, 3, 4)]
    long = EarlierStep(dict.fromkeys(genes, 6), dict.fromkeys(genes, 4), -0.01, 1.5, won=False)
    (newest,) = lines_of("pool_newest", newest=[long])[-1:]
    (told,) = lines_of("pool_lessons", lessons=[lesson("expand up", "loses", 0, 3, -0.01, long)])[-1:]
    assert newest.startswith("stage1.block1.expand 4 to 6, stage1.block2.expand 4 to 6, ")
    assert newest.endswith(" more: worse, -1.00 %, +1.50 ms")
    assert 150 < len(told) <= 200
    assert 150 < len(newest) <= 200
