"""What the clock said of a run's finalists, as the journal has it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from riwoa_storage.events import FinalistsTimed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json

BUSY = 0.10  # a clock that spreads further than this share, up or down, claims nothing


@dataclass(frozen=True, slots=True)
class TimedNetwork:
    """A network of a run and its time.

    Attributes:
        architecture_key: its name.
        origin: (generation, slot).
        predicted_ms: by the latency table.
        ms: by the clock, undisturbed.
        low_ms: where it is to be expected in another process, at least and ...
        high_ms: ... at most.
        spread: how far parts of the measurement lay from their middle, as a share of it.
        sha256: of graph and weights that were timed.
        accuracy: of that file on the validation pictures; None where it is in float32, as the search judged it.
    """

    architecture_key: str
    origin: tuple[int, int]
    predicted_ms: float
    ms: float
    low_ms: float
    high_ms: float
    spread: float
    sha256: str
    accuracy: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the clock was steady enough to say something."""
        return self.spread <= BUSY

    def to_json(self) -> dict[str, Any]:
        """As journaled."""
        return {**asdict(self), "is_clear": self.is_clear}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TimedNetwork:
        """What ``to_json`` gave; a newer version may have added to it."""
        values = {f.name: data[f.name] for f in fields(TimedNetwork) if f.name in data}
        return TimedNetwork(**{**values, "origin": tuple(data["origin"])})


@dataclass(frozen=True, slots=True)
class Finalists:
    """What the clock said at the end of a run.

    Attributes:
        networks: the search's winner first.
        runtime: in which they were timed, in words.
        interval: of the latency table, as a share; None where it has none.
        leader: the network that took the winner's place; None where the winner kept it.
        note: what people should know of it, in a line; "" where that is nothing.
    """

    networks: tuple[TimedNetwork, ...]
    runtime: str
    interval: float | None
    leader: Json | None = None
    note: str = ""

    @property
    def winner(self) -> TimedNetwork:
        """The run's."""
        key = self.networks[0].architecture_key if self.leader is None else self.leader["architecture_key"]
        return next(network for network in self.networks if network.architecture_key == key)

    def of(self, architecture_key: str) -> TimedNetwork | None:
        """The time of a network; None where it was not taken, or means nothing."""
        known = (n for n in self.networks if n.architecture_key == architecture_key and n.is_clear)
        return next(known, None)


def read_finalists(reader: JournalReader, run_id: int) -> Finalists | None:
    """What the clock said of a run's finalists; None where they were not timed.

    Raises:
        StorageError: a row is damaged.
    """
    timed = [event for event in reader.events(run_id, FinalistsTimed) if event.error is None]
    if not timed:
        return None
    event = timed[-1]
    networks = tuple(map(TimedNetwork.from_json, event.networks))
    return Finalists(networks, event.runtime, event.interval, event.leader, event.note)
