"""The front of a run, kept between requests: each asks the journal only for what was committed since the last."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from riwoa.hardware.timed import read_finalists
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.web.journal import Journal
from riwoa.web.views import FrontPoint, FrontView, RunView
from riwoa_storage.errors import StorageError
from riwoa_storage.events import NetworkJudged
from riwoa_storage.reader import JournalReader

_MOST_RUNS = 16  # whose fronts are kept
_Known = tuple[dict[str, NetworkJudged], dict[str, float]]  # by architecture key: test accuracies, measured latencies


@dataclass(slots=True)
class _Kept:
    archive: ParetoArchive = field(default_factory=ParetoArchive)
    last: int = 0  # number of the row that was read last
    evaluated: int = 0


class Fronts:
    """The fronts of the runs of one journal; safe to use from several threads."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Look for the latest run's front, if there is one; what is wrong with the journal is told to whoever asks."""
        with suppress(StorageError):
            if self._journal.exists:
                self.front(self._journal.run("latest"))

    def front(self, run: RunView) -> FrontView:
        """The front of a run as it is now."""
        with self._lock:
            kept = self._kept.pop(run.run_id, None) or _Kept()
            self._kept[run.run_id] = kept  # the one asked for last stands last
            if len(self._kept) > _MOST_RUNS:
                del self._kept[next(iter(self._kept))]
            self._extend(kept, run)
            places, evaluated = [point.origin for point in kept.archive.front()], kept.evaluated
        judged, measured_ms = _said_at_the_end(self._journal.path, run)
        winner = (run.leader or {}).get("architecture_key")
        points = []
        for candidate in self._journal.candidates_at(run, places):
            key = candidate.architecture_key
            test = judged.get(key)
            accuracy, error = (None, None) if test is None else (test.accuracy, test.accuracy_error)
            points.append(FrontPoint(candidate, key == winner, accuracy, error, measured_ms.get(key)))
        return FrontView(tuple(points), evaluated)

    def _extend(self, kept: _Kept, run: RunView) -> None:
        for number, architecture, found, latency_ms, place in self._journal.outcomes(run, kept.last):
            kept.last = number
            kept.evaluated += 1
            value = -found if run.lowered else found
            if math.isfinite(value) and math.isfinite(latency_ms):
                kept.archive.add(ParetoPoint(str(architecture), value, latency_ms, place))


def _said_at_the_end(path: Path, run: RunView) -> _Known:
    """What test pictures and the clock said of networks when the run had ended."""
    with JournalReader(path) as reader:
        judged = {e.architecture_key: e for e in reader.events(run.run_id, NetworkJudged) if e.error is None}
        finalists = read_finalists(reader, run.run_id)
    clear = [] if finalists is None else [network for network in finalists.networks if network.is_clear]
    return judged, {network.architecture_key: network.ms for network in clear}
