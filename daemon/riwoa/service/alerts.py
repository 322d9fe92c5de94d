"""Tells somebody who is not looking: a command of theirs, or a webhook, at least once for everything worth telling.

What is due is journaled before it is sent, and that it was sent afterwards: a daemon that is killed in between sends it
again, and nothing that was told is told anew. The search never waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from riwoa.config.schema import Alerts
from riwoa.errors import RiwoaError
from riwoa.log import get_logger
from riwoa.patience import Backoff
from riwoa.service.limit_text import value_words
from riwoa.service.progress import improvement_words
from riwoa.service.status import StatusBoard
from riwoa.service.status_object import StatusObject
from riwoa.text import printable
from riwoa_storage.errors import StorageError
from riwoa_storage.events import AlertDue, AlertSent
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter

_log = get_logger("alerts")
_LOOK_EVERY_S = 2.0
_PATIENCE_S = 20.0  # with a command or a server
_FIRST_WAIT_S = 30.0  # after a failure
_MOST_TEXT = 1_000
_MOST_ANSWER = 300


class AlertError(RiwoaError):
    """An alert could not be delivered."""

    exit_code = 74


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing worth telling.

    Attributes:
        kind: of ``alerts.on``.
        key: the same for the same occurrence, also to another daemon.
        text: a line for people.
        run_id: of the run that it is about.
    """

    kind: str
    key: str
    text: str
    run_id: int | None = None


class Occurrences:
    """Finds in one status after the other what is worth telling.

    Args:
        settings: in force.
    """

    def __init__(self, settings: Callable[[], Alerts]) -> None:
        self._settings = settings
        self._led: tuple[object, int] | None = None  # the leader, and how many evaluations there were when it was seen

    def of(self, status: StatusObject) -> list[Alert]:
        """What a status tells; the same occurrence again and again while it lasts, by the same key."""
        wanted = self._settings().on
        return [alert for alert in self._all(status) if alert.kind in wanted]

    def _all(self, status: StatusObject) -> Iterator[Alert]:
        run, state = status.get("run"), status["state"]
        run_id = run["run_id"] if run else None
        since = int(status.get("state_since_unix_s") or 0)
        if state == "finished":
            yield Alert("finished", f"{run_id} finished", f"the search is finished: {_best_words(status)}", run_id)
        if state == "unhealthy":
            reason = printable(status.get("message") or "no reason is known")
            yield Alert("unhealthy", f"{run_id} unhealthy {since}", f"the search cannot go on: {reason}", run_id)
        holds = (status.get("governor") or {}).get("holds") or {}
        held = {name: words for name, words in holds.items() if name != "quiet hours"}
        if held:
            yield Alert("held", f"{run_id} held {since}", f"the search pauses: {'; '.join(held.values())}", run_id)
        drift = status.get("latency")
        if drift and drift.get("affects"):
            when = int(drift.get("checked_unix_s") or 0)
            text = f"the device no longer runs as its latency table says ({drift['verdict']}); `riwoactl lut build`"
            yield Alert("drift", f"{run_id} drift {when}", text, run_id)
        yield from self._of_leader(status, run_id)

    def _of_leader(self, status: StatusObject, run_id: int | None) -> Iterator[Alert]:
        leader, counts = status.get("leader"), status.get("evaluations")
        if not leader or not counts:
            return
        origin = leader.get("origin")
        if self._led is None or self._led[0] != origin:
            self._led = origin, counts["unique"]
        found = status.get("improvement")
        if leader["feasible"] and found and origin and found["generation"] == origin[0]:
            text = f"{improvement_words(found, leader, 'a better network')}; now {_best_words(status)}"
            yield Alert("leader", f"{run_id} leader {origin[0]}/{origin[1]}", text, run_id)
        idle = counts["unique"] - self._led[1]
        if status["state"] == "running" and idle >= self._settings().stalled_evaluations:
            text = f"nothing better for {idle:,} evaluations than {_best_words(status)}"
            yield Alert("stalled", f"{run_id} stalled {origin}", text, run_id)


def _best_words(status: StatusObject) -> str:
    """The best network so far, on pictures that chose nothing where they were asked."""
    leader, counts, test = status.get("leader"), status.get("evaluations"), status.get("test") or {}
    if not leader:
        return "no network was found"
    found = test.get("accuracy")
    value = value_words(leader) if found is None else f"{100 * found:.2f} % on test"
    at = f" at {leader['latency_ms']:.3f} ms" if leader["latency_ms"] else ""
    return f"{value}{at}" + (f", after {counts['unique']:,} evaluations" if counts else "")


class Alerter:
    """Journals what is due, and delivers it, until cancelled; then once more with ``finish``.

    Args:
        journal: where it is told what is due and what was sent.
        path: the same journal, to be read.
        board: the status.
        settings: in force.
        state_directory: of the daemon, for whoever has several.
    """

    def __init__(
        self,
        journal: JournalWriter,
        path: Path,
        board: StatusBoard,
        settings: Callable[[], Alerts],
        state_directory: str,
    ) -> None:
        self._journal = journal
        self._path = path
        self._board = board
        self._settings = settings
        self._place = state_directory
        self._occurrences = Occurrences(settings)
        self._known: set[str] | None = None  # keys that are journaled; None until the journal was read
        self._waiting: list[Alert] = []  # journaled, not sent
        self._backoff = Backoff()
        self._next_s = 0.0  # when to try again

    async def watch(self) -> None:
        """Look and deliver every few seconds."""
        while True:
            await self._attempt()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def finish(self) -> None:
        """Look once more, and deliver what can be delivered soon: the daemon ends."""
        self._next_s = 0.0
        try:
            await asyncio.wait_for(self._attempt(), _PATIENCE_S)
        except TimeoutError:
            _log.warning("alerts_left", count=len(self._waiting))

    async def _attempt(self) -> None:
        """One look and one delivery; what goes wrong is logged, and tried again."""
        if not _channels(self._settings()):
            return
        try:
            await self._note()
            if self._waiting and time.monotonic() >= self._next_s:
                await self._deliver()
        except (AlertError, StorageError, OSError) as error:
            self._next_s = time.monotonic() + self._backoff.wait_s(0.0, _FIRST_WAIT_S)
            _log.warning("alert_not_sent", reason=str(error), waiting=len(self._waiting))

    async def _note(self) -> None:
        """Journal what is newly due."""
        if self._known is None:
            self._waiting = await asyncio.to_thread(self._unsent)
        assert self._known is not None
        for alert in self._occurrences.of(self._board.look()):
            if alert.key not in self._known:
                text = alert.text[:_MOST_TEXT]
                await self._journal.put_event(
                    AlertDue(
                        run_id=alert.run_id, alert=alert.kind, key=alert.key, text=text, created_unix_s=time.time()
                    )
                )
                self._known.add(alert.key)
                self._waiting.append(Alert(alert.kind, alert.key, text, alert.run_id))

    def _unsent(self) -> list[Alert]:
        """What an earlier daemon left, by the journal; notes what it knew."""
        with JournalReader(self._path) as reader:
            due = [e.event for e in reader.history.events(kinds=["alert_due"])]
            sent = {e.event.key for e in reader.history.events(kinds=["alert_sent"]) if isinstance(e.event, AlertSent)}
        alerts = [Alert(e.alert, e.key, e.text, e.run_id) for e in due if isinstance(e, AlertDue)]
        self._known = {alert.key for alert in alerts}
        return [alert for alert in alerts if alert.key not in sent]

    async def _deliver(self) -> None:
        """Send what waits, oldest first.

        Raises:
            AlertError: one could not be sent; it and the later ones wait.
        """
        while self._waiting:
            alert = self._waiting[0]
            for name, send in _channels(self._settings()).items():
                await send(alert, self._place)
                _log.info("alert_sent", kind=alert.kind, by=name)
            sent = AlertSent(run_id=alert.run_id, key=alert.key, by=tuple(_channels(self._settings())))
            await self._journal.put_event(sent)
            self._waiting.pop(0)
            self._backoff.reset()


Send = Callable[[Alert, str], Awaitable[str]]


def _channels(settings: Alerts) -> dict[str, Send]:
    """Who is told, by name."""
    command, file = settings.command, settings.webhook_file
    found: dict[str, Send] = {}
    if command is not None:
        found["command"] = lambda alert, place: run_command(command, alert, place)
    if file is not None:
        found["webhook"] = lambda alert, place: asyncio.to_thread(post, Path(file), alert, place)
    return found


async def send_test(settings: Alerts, state_directory: str) -> dict[str, str]:
    """What each way of telling says to a test: "delivered", or why it was not."""
    alert = Alert("test", "test", "a test of riwoa's alerts: this is how you will be told")
    found = {}
    for name, send in _channels(settings).items():
        try:
            said = await send(alert, state_directory)
            found[name] = "delivered" + (f": {said}" if said else "")
        except AlertError as error:
            found[name] = str(error)
    return found


async def run_command(command: str, alert: Alert, place: str) -> str:
    """Run a command with the text on its standard input and the facts in its environment; what it printed.

    Raises:
        AlertError: it cannot be started, takes too long, or fails.
    """
    facts = {"RIWOA_ALERT": alert.kind, "RIWOA_RUN": str(alert.run_id or ""), "RIWOA_STATE": place}
    pipe = asyncio.subprocess.PIPE
    try:
        words = shlex.split(command)
        process = await asyncio.create_subprocess_exec(
            *words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **facts}
        )
    except (OSError, ValueError) as error:
        raise AlertError(f"alerts.command cannot be started ({error})") from None
    try:
        said, _ = await asyncio.wait_for(process.communicate(f"{alert.text}\n".encode()), _PATIENCE_S)
    except TimeoutError:
        raise AlertError(f"alerts.command took more than {_PATIENCE_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = printable(said.decode(errors="replace").strip(), _MOST_ANSWER)
    if process.returncode:
        raise AlertError(f"alerts.command ended with {process.returncode}: {text or 'it said nothing'}")
    return text


def post(file: Path, alert: Alert, place: str) -> str:
    """Post an alert as JSON: "text" (Slack, Mattermost) and "content" (Discord) beside the facts; nothing is said back.

    Args:
        file: its first line is the address; no message holds it, for with most services it is a secret.
        alert: what to tell.
        place: the state directory.

    Raises:
        AlertError: there is no address, or the server cannot be reached, or refuses.
    """
    import urllib.request  # TLS and all: only for those who are told by it

    facts = {"kind": alert.kind, "run_id": alert.run_id, "host": socket.gethostname(), "state_directory": place}
    said = f"riwoa on {facts['host']}: {alert.text}"
    body = json.dumps({"text": said, "content": said, **facts}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "riwoa"}
    try:
        address = file.read_text(encoding="utf-8").partition("\n")[0].strip()
        if not address.startswith(("http://", "https://")):
            raise AlertError(f"alerts.webhook_file: the first line of {file} is no http(s) address")
        request = urllib.request.Request(address, body, headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            answer.read(_MOST_ANSWER)
    except (OSError, ValueError) as error:  # an HTTP status is an OSError, too
        raise AlertError(f"alerts.webhook_file: {printable(error, _MOST_ANSWER)}") from None
    return ""
