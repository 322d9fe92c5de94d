"""``riwoad --continuous FRESH``: search, deploy, watch what is deployed, and search again when it has fallen.

A process without a state of its own around the daemon: what it does next follows from the record of champions and from
the journal. Killed anywhere and started again, it goes on with the search that it began, or judges what that left.

Once in a while, on a quiet machine, the latency table is checked as a run does; one that has drifted is measured
anew, and a search with the new one begins: what was best under the old one need not be.

Of the fresh pictures one half, by the hash of each picture's bytes, says whether the champion has fallen; the other is
kept for the gate, so that what called for a search does not judge its outcome. On the same pictures it searches once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from riwoa.errors import InputError, RiwoaError, TableError, UsageError
from riwoa.files.lock import holder
from riwoa.files.ownership import json_object
from riwoa.hardware.drift import check_drift_in_child
from riwoa.hardware.lut import LatencyTable
from riwoa.log import get_logger
from riwoa.paths import StatePaths
from riwoa.service.champion_status import LAST_LOOK
from riwoa.service.champions import REFUSED, SEARCHING, Champions, Decision
from riwoa.service.promotion import FALLEN, Gate, Half, Watch, judge, watch
from riwoa_storage.durable import replace_durably
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader

_log = get_logger("service")
_LOOK_EVERY_S = 60.0
_ASK_EVERY_S = 0.2
_REFUSED = 1
_QUIET_LOAD_PER_CORE = 0.5  # runnable threads over a minute: above, times are of the neighbours, too


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes round.

    Attributes:
        paths: of the state directory.
        fresh: labelled pictures, a folder a class, that are in no training data.
        within_ms: milliseconds that a champion may take; None: as many as the one before.
        search: the command line of one search; ``--new-run`` is added for another.
        build: the command line that sets the latency table aside and measures another; ``--runtime`` is added.
        drift_every_s: between two checks of the table; None: it is not checked.
    """

    paths: StatePaths
    fresh: Path
    within_ms: float | None
    search: Sequence[str]
    build: Sequence[str]
    drift_every_s: float | None


class Rounds:
    """The rounds of a plan, until it is told to stop."""

    def __init__(self, plan: Plan, stopped: threading.Event) -> None:
        self._plan = plan
        self._stopped = stopped
        self._seen = ("", "")  # champion, and fingerprint of the pictures, at the last look
        self._checked_s = time.monotonic()  # the latency table, or the start
        self._is_busy = False  # and has said so

    def serve(self) -> int:
        """Go round; the exit code.

        0 when told to stop, else that of a search that failed, or 1 where the gate refuses a first champion.

        Raises:
            InputError: a search ended without an export.
        """
        while not self._stopped.is_set():
            with Champions(self._plan.paths) as champions:
                due = self.due(champions)
            if not due:
                due = self.due_to_drift()
            if not due:
                self._stopped.wait(_LOOK_EVERY_S)
                continue
            code = self._search(due)
            if code or self._stopped.is_set():
                return code
            with Champions(self._plan.paths) as champions:
                decision = self._judge(champions)
                if decision.decision == REFUSED and champions.champion is None:
                    return _REFUSED
        return 0

    def due(self, champions: Champions) -> Decision | None:
        """The search that is to be done or to go on; None while the champion holds.

        Raises:
            StateDirectoryError, FullDiskError: the store cannot be written.
        """
        last = champions.decisions[-1] if champions.decisions else None
        if last is not None and last.decision == SEARCHING:
            return last
        if champions.champion is None:
            return champions.begin_search("there is no champion", self._facts(""))
        fingerprint = fingerprint_of(self._plan.fresh)
        seen_before, self._seen = self._seen, (champions.champion.champion, fingerprint)
        if seen_before == self._seen:
            return None
        try:
            seen = watch(
                champions.files(champions.champion.champion), champions.champion.gate, self._plan.fresh, Half.WATCHED
            )
        except InputError as error:
            _log.warning("champion_not_watched", reason=str(error))
            return None
        self._tell(champions, champions.champion.champion, seen)
        asked = [d for d in champions.decisions if d.decision == SEARCHING and d.gate.get("fresh") == fingerprint]
        if seen.verdict != FALLEN or seen.acts_below is None or asked:
            return None
        why = (
            f"{100 * seen.now.value:.2f} % on {seen.now.pictures:,} fresh pictures, below {100 * seen.acts_below:.2f} %"
        )
        return champions.begin_search(why, self._facts(fingerprint))

    def due_to_drift(self) -> Decision | None:
        """The search that a drifted latency table calls for; None where it holds, or where nobody can tell now.

        Raises:
            StateDirectoryError, FullDiskError: the store cannot be written.
        """
        paths, every_s = self._plan.paths, self._plan.drift_every_s
        if every_s is None or time.monotonic() - self._checked_s < every_s or self._is_in_use():
            return None
        self._checked_s = time.monotonic()
        try:
            runtime = LatencyTable.load(paths.latency_table).settings.runtime
            drift = asyncio.run(check_drift_in_child(paths.latency_table))
        except (RiwoaError, OSError) as error:
            _log.warning("drift_not_checked", reason=str(error))
            return None
        _log.info(
            "latency_drift", verdict=drift.verdict, networks=round(drift.networks, 3), affects=list(drift.affects)
        )
        if drift.verdict != "drifted":
            return None
        facts = {**self._facts(""), "drift": drift.to_json(), "runtime": runtime}
        with Champions(paths) as champions:
            return champions.begin_search(f"the latency table has drifted: {'; '.join(drift.affects)}", facts)

    def _is_in_use(self) -> bool:
        """Whether others use the machine, so that times tell nothing, or a run uses the table."""
        latest, paths = latest_run(self._plan.paths), self._plan.paths
        if not paths.latency_table.exists() or holder(paths) is not None or (latest is not None and not latest[1]):
            return True
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        was_busy, self._is_busy = self._is_busy, load > _QUIET_LOAD_PER_CORE
        if self._is_busy and not was_busy:
            _log.warning("drift_not_checked", reason=f"the machine is busy: {load:.2f} runnable threads a core")
        return self._is_busy

    def _needs_table(self, due: Decision) -> bool:
        """Whether the table that called for a search still lies there, or was set aside and has no successor yet."""
        drift, table = due.gate.get("drift"), self._plan.paths.latency_table
        if not isinstance(drift, dict) or "runtime" not in due.gate:
            return False
        try:
            return LatencyTable.load(table).sha256 == drift.get("table_sha256")
        except TableError:
            return True

    def _facts(self, fingerprint: str) -> dict[str, object]:
        latest = latest_run(self._plan.paths)
        after = 0 if latest is None else latest[0] if latest[1] else latest[0] - 1
        return {"after_run": after, "fresh": fingerprint}

    def _tell(self, champions: Champions, name: str, seen: Watch) -> None:
        told = {"champion": name, "folder": str(self._plan.fresh), "unix_s": time.time(), **seen.to_json()}
        replace_durably(champions.folder / LAST_LOOK, json.dumps(told).encode())
        _log.info("champion_watched", verdict=seen.verdict, accuracy=seen.now.value, pictures=seen.now.pictures)

    def _search(self, due: Decision) -> int:
        """Have the search that is due finished; the exit code."""
        after, latest = int(due.gate.get("after_run", 0)), latest_run(self._plan.paths)
        if latest is not None and latest[0] > after and latest[1] and self._exported_run() == latest[0]:
            return 0
        new = latest is not None and latest[0] <= after and latest[1]
        if self._needs_table(due):
            _log.info("measuring", why=due.why)
            code = self._done([*self._plan.build, "--runtime", str(due.gate["runtime"])])  # as that of the old one
            if code or self._stopped.is_set():
                return code
        _log.info("searching", why=due.why, new_run=new)
        return self._done([*self._plan.search, *(["--new-run"] if new else [])])

    def _done(self, command: Sequence[str]) -> int:
        """Have a command finished, or stopped when this is; the exit code."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            if self._stopped.wait(_ASK_EVERY_S):
                process.terminate()
                process.wait()
                return 0
        return process.returncode

    def _exported_run(self) -> object:
        return json_object(self._plan.paths.export / "provenance.json").get("run_id")

    def _judge(self, champions: Champions) -> Decision:
        champion = None if champions.champion is None else champions.files(champions.champion.champion)
        export, latest = self._plan.paths.export, latest_run(self._plan.paths)
        if latest is None or self._exported_run() != latest[0]:
            raise InputError(
                f"the search left no export in {export}; run.export must be true, and the oracle a supernet"
            )
        try:
            gate = judge(export, champion, self._plan.fresh, self._plan.within_ms, half=Half.KEPT)
        except InputError as error:
            gate = self._without_pictures(champion, error)
        decide = champions.promote if gate.is_open else champions.refuse
        decision = decide(export, gate.why, gate.to_json())
        _log.info("champion_decided", decision=decision.decision, why=decision.why)
        return decision

    def _without_pictures(self, champion: Path | None, error: InputError) -> Gate:
        """What the gate says where the pictures cannot be shown: a first champion needs none."""
        _log.warning("gate_without_pictures", reason=str(error))
        if champion is not None:
            return Gate(False, str(error))
        try:
            return judge(self._plan.paths.export, None, None, self._plan.within_ms)
        except InputError as worse:
            return Gate(False, str(worse))


def serve(plan: Plan) -> int:
    """Go round until SIGTERM or SIGINT; the exit code.

    Raises:
        UsageError: there is no such folder of fresh pictures.
    """
    if not plan.fresh.is_dir():
        raise UsageError(f"--continuous {plan.fresh}: there is no such folder; make it, with a folder a class in it")
    stopped = threading.Event()
    with _stopping(stopped):
        return Rounds(plan, stopped).serve()


@contextmanager
def _stopping(stopped: threading.Event) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def latest_run(paths: StatePaths) -> tuple[int, bool] | None:
    """Number of the latest run, and whether it has finished; None where none was begun."""
    try:
        with JournalReader(paths.journal) as reader:
            run = reader.latest_run()
    except JournalMissingError:
        return None
    return None if run is None else (run.run_id, run.status == "finished")


def fingerprint_of(folder: Path) -> str:
    """A hash of the names, sizes and times of what lies in a folder: another where pictures came or went."""
    rows = []
    for directory, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            try:
                found = os.stat(os.path.join(directory, name))
            except OSError:
                continue
            rows.append((os.path.relpath(os.path.join(directory, name), folder), found.st_size, found.st_mtime_ns))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
