"""How often the language model can learn in a search, by its schedule and its budget; and the sentence that says so."""

from __future__ import annotations

import math
from collections import Counter

from riwoa.config.schema import Config
from riwoa.log import get_logger
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.phases import Effort
from riwoa.run.strategy import candidates_a_generation, scheduled_generations

_log = get_logger("conductor")


def trainings_possible(learning: LoraSchedule | None, config: Config) -> int | None:
    """How many trainings a search has room for at most, by schedule and budget; None where nothing is trained."""
    if learning is None:
        return None
    at_once, scheduled = candidates_a_generation(config), scheduled_generations(config)
    budget = Effort(config, Counter(), pace_s=0.0, idle=0).search_left
    generations = scheduled if budget is None else min(scheduled, math.ceil(budget / at_once))
    return learning.trainings_possible(generations, at_once)


def say_trainings(possible: int | None) -> None:
    """Say it, before the first request costs anything; nothing where nothing is trained."""
    if possible is None:
        return
    if possible:
        said = f"this search has room for {possible} training{'' if possible == 1 else 's'} of its language model"
        _log.info("trainings_possible", possible=possible, message=said)
        return
    said = (
        "no training of the language model fits into this search: it writes as it came; more run.generations or "
        "run.evaluations, or a lower cognition.train_after or cognition.train_lag, make room"
    )
    _log.warning("trainings_possible", possible=0, message=said)
