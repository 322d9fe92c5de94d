"""Tokens that a server was asked for: of the night, which a budget bounds, and of the run; and who answered last.

A night lasts from noon to noon, local time. The journal holds each request's tokens, so that what a killed daemon spent
counts, and so does what other runs of the same journal spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from riwoa_storage.events import Event, ModelChanged, TokensSpent
from riwoa_storage.reader import JournalReader


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens read and written."""

    read: int = 0
    written: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.read + other.read, self.written + other.written)

    @property
    def total(self) -> int:
        """Both."""
        return self.read + self.written


@dataclass(frozen=True, slots=True)
class Served:
    """Who answers at a server, by its own word."""

    model: str | None
    fingerprint: str | None

    def __str__(self) -> str:
        name = self.model or "an unnamed model"
        return f"{name} ({self.fingerprint})" if self.fingerprint else name


@dataclass(frozen=True, slots=True)
class Change:
    """A change of who answers, within a run."""

    former: Served
    now: Served
    generation: int | None

    def __str__(self) -> str:
        return f"{self.now} since generation {self.generation}, {self.former} before"


def night_began(now: datetime) -> datetime:
    """The noon at which the night of a moment began; both are local."""
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    return noon if noon <= now else noon - timedelta(days=1)


class Spending:
    """Counts what is spent, and notes who answers.

    Attributes:
        run: tokens of the run.
        answers: who answered last in the run; None before the first answer.
        change: the last change of that.
        dearest: the most tokens that a request of the run has taken.
    """

    def __init__(self) -> None:
        self.run = Tokens()
        self.answers: Served | None = None
        self.change: Change | None = None
        self.dearest = 0
        self._seen: set[Served] = set()
        self._night = Tokens()
        self._night_began = night_began(datetime.now())

    @classmethod
    def journaled(cls, path: Path, run_id: int | None) -> Spending:
        """What a journal holds of the night, and of a run that is continued. For a thread."""
        spending, kinds = cls(), ["tokens_spent"]
        began_unix_s = spending._night_began.timestamp()
        with JournalReader(path) as reader:
            tonight = reader.history.events(kinds=kinds, since_unix_s=began_unix_s)
            of_run = reader.history.events(kinds=kinds, run_id=run_id) if run_id is not None else []
        for spent in (each.event for each in of_run):
            if isinstance(spent, TokensSpent):
                spending._count(spent)
        spending._night = sum((_tokens(each.event) for each in tonight), Tokens())
        return spending

    @property
    def night(self) -> Tokens:
        """Tokens of the night that it is."""
        began = night_began(datetime.now())
        if began != self._night_began:
            self._night, self._night_began = Tokens(), began
        return self._night

    def add(self, spent: TokensSpent) -> ModelChanged | None:
        """Count a request; the event to journal if another model has answered it, or another configuration of one.

        Of a model that is served by several configurations in turn each is told once.
        """
        self._night = self.night + _tokens(spent)
        return self._count(spent)

    def _count(self, spent: TokensSpent) -> ModelChanged | None:
        tokens = _tokens(spent)
        self.run += tokens
        self.dearest = max(self.dearest, tokens.total)
        if spent.model is None and spent.fingerprint is None:
            return None
        former, now = self.answers, Served(spent.model, spent.fingerprint)
        is_new = now not in self._seen
        self.answers = now
        self._seen.add(now)
        if former is None or former == now or (former.model == now.model and not is_new):
            return None
        self.change = Change(former, now, spent.generation)
        return ModelChanged(
            run_id=spent.run_id,
            generation=spent.generation,
            request_id=spent.request_id,
            model=now.model,
            fingerprint=now.fingerprint,
            former_model=former.model,
            former_fingerprint=former.fingerprint,
        )


def _tokens(event: Event) -> Tokens:
    return Tokens(event.tokens_in, event.tokens_out) if isinstance(event, TokensSpent) else Tokens()
