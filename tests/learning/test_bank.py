import time

import numpy as np

from riwoa.learning.bank import ReasoningBank
from riwoa.learning.features import Part
from riwoa.search.fitness import Objective

from .support import SPACE, drawn_steps, step

OBJECTIVE = Objective(None)
BANK = ReasoningBank(SPACE, 0)


def test_steps_that_are_alike_become_lessons_that_say_what_they_came_to() -> None:
    lessons = BANK.lessons(drawn_steps(200), OBJECTIVE)
    about = {lesson.directions: lesson for lesson in lessons}
    kernel = Part("stage2", "kernel")
    gaining = [lesson for directions, lesson in about.items() if (kernel, True) in directions]
    losing = [lesson for directions, lesson in about.items() if (kernel, False) in directions]
    assert gaining
    assert losing
    assert all(lesson.verdict == "gains" and lesson.gain > 0.0 and lesson.wins > 0 for lesson in gaining)
    assert all(lesson.verdict == "loses" and lesson.gain < 0.0 for lesson in losing)
    assert all((lesson.latency_change_ms or 0.0) > 0.0 for lesson in gaining)


def test_lessons_of_one_kind_are_merged() -> None:
    lessons = BANK.lessons(drawn_steps(200), OBJECTIVE)
    assert len({lesson.directions for lesson in lessons}) == len(lessons)


def test_steps_that_contradict_each_other_are_told_as_mixed() -> None:
    steps = [step(n, [0, 0, 0, 0], [0, 0, 1, 0], 0.01 * (-1) ** n) for n in range(12)]
    (lesson,) = BANK.lessons(steps, OBJECTIVE)
    assert (lesson.verdict, lesson.wins, lesson.tries) == ("mixed", 6, 12)


def test_the_newer_evidence_counts_more() -> None:
    gains = [-0.01] * 200 + [0.01] * 200
    (lesson,) = BANK.lessons([step(n, [0, 0, 0, 0], [0, 0, 1, 0], gain) for n, gain in enumerate(gains)], OBJECTIVE)
    assert lesson.verdict == "gains"
    assert lesson.gain > 0.004


def test_few_steps_say_nothing() -> None:
    assert BANK.lessons(drawn_steps(7), OBJECTIVE) == []


def test_the_same_steps_give_the_same_lessons_and_examples_are_among_them() -> None:
    steps = drawn_steps(150)
    first, second = BANK.lessons(steps, OBJECTIVE), BANK.lessons(steps, OBJECTIVE)
    assert [(a.directions, a.gain, a.example) for a in first] == [(b.directions, b.gain, b.example) for b in second]
    assert all(lesson.example in steps for lesson in first)


def test_the_nearest_lessons_are_such_as_a_parent_could_take() -> None:
    lessons = BANK.lessons(drawn_steps(200), OBJECTIVE)
    found = BANK.nearest(lessons, np.array([2, 2, 2, 0]), 3)
    assert 0 < len(found) <= 3
    assert not any((part.choice is None and grows) for lesson in found for part, grows in lesson.directions)


def test_a_thousand_steps_are_read_in_less_than_a_second() -> None:
    steps = drawn_steps(1000)
    started_s = time.perf_counter()
    BANK.lessons(steps, OBJECTIVE)
    assert time.perf_counter() - started_s < 1.0  # 0.04 alone on a core of 2026
