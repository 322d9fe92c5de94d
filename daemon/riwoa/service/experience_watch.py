"""What the run has learned of its own steps, for the status: read now and then, for nobody waits for it."""

from __future__ import annotations

import asyncio

from riwoa.patience import BestEffort
from riwoa.run.conductor import Conductor
from riwoa.run.experience import Experience
from riwoa.service.status_object import ExperienceStatus, LessonStatus
from riwoa.text import printable

_EVERY_S = 5.0
_MOST_LESSONS, _MOST_STRONGEST = 3, 2


class ExperienceWatch:
    """Reads a run's experience as it grows.

    Args:
        experience: of the run; nobody else reads it.
        conductor: of the run.

    Attributes:
        found: what is known; None before the first look.
    """

    def __init__(self, experience: Experience, conductor: Conductor) -> None:
        self.found: ExperienceStatus | None = None
        self._experience = experience
        self._conductor = conductor

    async def watch(self) -> None:
        """Look every few seconds, until cancelled."""
        looking = BestEffort("experience")
        while True:
            await asyncio.to_thread(looking.attempt, self.look)
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Take in what was committed since."""
        experience = self._experience
        experience.read(self._conductor.history.generations, self._conductor.objective)
        told: list[LessonStatus] = [
            {
                "about": printable(lesson.about),
                "verdict": lesson.verdict,
                "tries": lesson.tries,
                "wins": lesson.wins,
                "value_gain": lesson.value_gain,
                "latency_change_ms": lesson.latency_change_ms,
            }
            for lesson in experience.lessons[:_MOST_LESSONS]
        ]
        strongest = experience.order.strongest()[:_MOST_STRONGEST]
        self.found = {
            "steps": len(experience.steps),
            "lessons": told,
            "lessons_known": len(experience.lessons),
            "strongest": [{"about": printable(part.words(grows=True)), "gain": gain} for part, gain in strongest],
        }
