import time

import numpy as np

from riwoa.learning.bank import ReasoningBank
from riwoa.learning.features import Part
from riwoa.search.fitness import Objective
from riwoa.search.space import Gene, Space

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


def test_the_useful_ones_tell_what_to_do_and_one_what_not_to_do() -> None:
    lessons, parent = BANK.lessons(drawn_steps(200), OBJECTIVE), np.array([1, 1, 1, 0])
    found = BANK.useful(lessons, parent, 3)
    assert [lesson.verdict for lesson in found] == ["gains", "gains", "loses"]
    assert len({lesson.directions for lesson in found}) == 3
    possible = BANK.nearest(lessons, parent, len(lessons))
    assert {id(lesson) for lesson in found} <= {id(lesson) for lesson in possible}
    assert len(BANK.useful(lessons, parent, 100)) == len(possible)


def test_a_change_of_a_nominal_gene_is_told_by_its_words_and_shown_by_the_smallest_example() -> None:
    gene = Gene("ops.0", (0, 1, 2), kind="nominal", words=("none", "conv", "pool"))
    space = Space("cell", (gene, Gene("width", (1, 2))))
    steps = [step(n, [0, 0], [2, n % 3 == 0], 0.01) for n in range(12)]
    (lesson,) = ReasoningBank(space, 0).lessons(steps, OBJECTIVE)
    assert lesson.about == "ops.0 none to pool"
    assert lesson.genes == {0}
    assert lesson.example == steps[11]
