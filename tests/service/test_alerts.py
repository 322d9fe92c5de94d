"""Alerts: what is worth telling, and that it is told at least once, whatever ends in between."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.schema import Alerts
from riwoa.ctl import main
from riwoa.service.alerts import Alert, Alerter, AlertError, Occurrences, post, run_command
from riwoa.service.status import StatusBoard
from riwoa_storage.writer import JournalWriter

ALL = Alerts(on=("finished", "unhealthy", "held", "stalled", "drift", "leader"), stalled_evaluations=10)
ALERT = Alert("finished", "1 finished", "the search is finished: 87 %", 1)


def status(**more: Any) -> Any:
    """Of a run that goes on."""
    run = {"run_id": 1, "phase": "search", "generation": 3, "generations": 9}
    leader = {"latency_ms": 1.0, "feasible": True, "origin": [2, 0], "value": 0.8, "accuracy": 0.8}
    counts = {"unique": 12, "per_s": 1.0}
    shown = {"state": "running", "run": run, "leader": leader, "evaluations": counts, "state_since_unix_s": 5.0}
    return {**shown, **more}


def kinds(found: list[Alert]) -> list[str]:
    """What is told of."""
    return [alert.kind for alert in found]


def test_a_run_that_goes_on_is_not_worth_telling_and_each_that_does_not_is() -> None:
    seen = Occurrences(lambda: ALL)
    assert seen.of(status()) == []
    assert kinds(seen.of(status(state="finished"))) == ["finished"]
    assert "no room" in seen.of(status(state="unhealthy", message="no room"))[0].text
    assert kinds(seen.of(status(governor={"holds": {"disk": "3 MiB free"}}))) == ["held"]
    assert seen.of(status(governor={"holds": {"quiet hours": "22:00-06:00"}})) == []
    assert kinds(seen.of(status(latency={"verdict": "slower", "affects": ["networks"], "checked_unix_s": 7.0}))) == [
        "drift"
    ]
    assert seen.of(status(latency={"verdict": "holds", "affects": []})) == []


def test_a_stall_is_counted_from_when_the_leader_was_first_seen_and_told_by_one_key() -> None:
    seen = Occurrences(lambda: ALL)
    assert seen.of(status()) == []
    assert seen.of(status(evaluations={"unique": 21, "per_s": 1.0})) == []
    (first,) = seen.of(status(evaluations={"unique": 22, "per_s": 1.0}))
    (second,) = seen.of(status(evaluations={"unique": 40, "per_s": 1.0}))
    assert first.kind == "stalled"
    assert first.key == second.key
    better = {"latency_ms": 1.0, "feasible": True, "origin": [3, 1], "value": 0.9, "accuracy": 0.9}
    found = {"generation": 3, "found_unix_s": 1.0, "operator": "climb", "value": 0.9, "former_value": 0.8}
    (alert,) = seen.of(status(evaluations={"unique": 41, "per_s": 1.0}, leader=better, improvement=found))
    assert alert.kind == "leader"
    assert "+10.00 points" in alert.text


def test_only_what_is_asked_for_is_told() -> None:
    seen = Occurrences(lambda: Alerts(on=("unhealthy",)))
    assert seen.of(status(state="finished")) == []
    assert kinds(seen.of(status(state="unhealthy"))) == ["unhealthy"]


class Shown:
    """A board that shows one status."""

    def __init__(self, shown: Any) -> None:
        self.shown = shown

    def look(self) -> Any:
        """As ``StatusBoard.look``."""
        return self.shown


async def test_what_could_not_be_told_is_told_by_the_next_daemon_and_never_twice_after_it_was(tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    settings = Alerts(command="false")
    board: StatusBoard = Shown(status(state="finished"))  # type: ignore[assignment]
    for command, lines in (("false", 0), (f"tee -a {told}", 1), (f"tee -a {told}", 1)):  # each another daemon
        settings = Alerts(command=command)
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            await journal.begin_run({"target_ms": None}, {})
            alerter = Alerter(journal, tmp_path / "journal.db", board, lambda now=settings: now, "here")  # type: ignore[misc]
            await alerter.finish()
            await alerter.finish()
        assert len(told.read_text().splitlines() if told.exists() else []) == lines
    assert "the search is finished" in told.read_text()


async def test_nothing_is_journaled_where_nobody_is_to_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board: StatusBoard = Shown(status(state="finished"))  # type: ignore[assignment]
    async with await JournalWriter.open(tmp_path / "journal.db") as journal:
        await Alerter(journal, tmp_path / "journal.db", board, Alerts, "here").finish()
    assert main(["alerts", "list", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing was due\n"


async def test_a_command_gets_text_and_facts_and_its_failure_says_what_it_said(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.stdin.read().strip(), os.environ['RIWOA_ALERT'], os.environ['RIWOA_STATE'])"
    assert await run_command(f'{sys.executable} -c "{code}"', ALERT, "here") == f"{ALERT.text} finished here"
    with pytest.raises(AlertError, match="ended with 3: no such topic"):
        await run_command(f"{sys.executable} -c \"import sys; print('no such topic'); sys.exit(3)\"", ALERT, "here")
    with pytest.raises(AlertError, match="cannot be started"):
        await run_command("/no/such/program", ALERT, "here")


async def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa.service.alerts._PATIENCE_S", 0.2)
    with pytest.raises(AlertError, match="took more than"):
        await asyncio.wait_for(run_command("sleep 60", ALERT, "here"), 10.0)


@contextmanager
def server(answer: int) -> Iterator[tuple[str, list[Any]]]:
    """A real web server; its address, and the bodies that it was posted."""
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/secret", bodies
        httpd.shutdown()
        thread.join()


def test_a_webhook_is_posted_what_chats_read_and_no_message_holds_its_address(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with server(200) as (address, bodies):
        file.write_text(f"{address}\n")
        post(file, ALERT, "here")
    assert bodies[0]["text"] == bodies[0]["content"]
    assert ALERT.text in bodies[0]["text"]
    assert (bodies[0]["kind"], bodies[0]["run_id"], bodies[0]["state_directory"]) == ("finished", 1, "here")
    with pytest.raises(AlertError) as caught:  # nobody listens any more
        post(file, ALERT, "here")
    assert "secret" not in str(caught.value)
    file.write_text("file:///etc/passwd")
    with pytest.raises(AlertError, match="no http"):
        post(file, ALERT, "here")


def test_the_test_verb_says_of_each_way_whether_it_delivered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, state = tmp_path / "address", ("--state", str(tmp_path / "state"))
    with server(500) as (address, _):
        file.write_text(address)
        asked = ("--set", "alerts.command=true", "--set", f"alerts.webhook_file={file}")
        assert main(["alerts", "test", *asked, *state]) == 74
    said = capsys.readouterr().out
    assert "command       delivered" in said or "command  " in said
    assert "500" in said
    assert main(["alerts", "test", *state]) == 78
    assert "set alerts.command" in capsys.readouterr().err
