"""Reasons to pause from a person, a measurement and the governor, and the verbs and the watchdog that follow them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from riwoa.errors import DaemonUnavailableError
from riwoa.service.parts import DaemonParts
from riwoa.service.state import DaemonState
from riwoa.service.verbs import HARMLESS, Verbs

from .support import daemon_parts


class Search:
    phase = "search"

    def __init__(self) -> None:
        self.held: list[bool] = []

    def hold(self, held: bool) -> None:
        self.held.append(held)


@pytest.fixture
def parts(tmp_path: Path) -> DaemonParts:
    return daemon_parts(tmp_path)


@pytest.fixture
def verbs(parts: DaemonParts) -> Verbs:
    return Verbs(parts.board, parts.pauses, parts.reloader, asyncio.Event())


def test_a_search_goes_on_when_the_last_reason_is_gone(parts: DaemonParts) -> None:
    search, pauses = Search(), parts.pauses
    parts.board.show("running")
    with pauses.applied_to(search):
        pauses.hold("drift", "measuring")
        pauses.governor.holds = {"disk": "3 MiB free"}
        pauses.apply()
        assert parts.board.shown == DaemonState("paused", "measuring; 3 MiB free")
        pauses.release("drift")
        pauses.governor.holds = {}
        pauses.apply()
    assert search.held == [True, True, True, False]
    assert parts.board.shown == DaemonState("running")
    pauses.hold("drift", "measuring")
    assert len(search.held) == 4  # it has ended


async def test_pause_needs_a_search_and_resume_says_what_still_holds_it(parts: DaemonParts, verbs: Verbs) -> None:
    for verb in (verbs.pause, verbs.resume):
        with pytest.raises(DaemonUnavailableError, match="has not begun yet"):
            await verb()
    with parts.pauses.applied_to(Search()):
        parts.board.show("running")
        assert "end first" in (await verbs.pause())["message"]
        assert (await verbs.status())["status"]["message"] == "by riwoactl pause"
        parts.pauses.hold("drift", "measuring")
        assert await verbs.resume() == {"message": "still paused: measuring"}
        parts.pauses.release("drift")
        assert await verbs.resume() == {"message": "searching on"}
    await verbs.pause()  # between two searches, too


def test_only_verbs_that_exist_are_harmless(verbs: Verbs) -> None:
    assert set(verbs.handlers()) > HARMLESS


def test_the_watchdog_waits_for_what_is_paused_unhealthy_or_training(
    parts: DaemonParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parts.config
    idle_s = 2 * config.oracle.timeout_s + config.cognition.timeout_s + 61
    parts.board.show("running")
    assert not parts.heartbeat.stalled()
    monkeypatch.setattr(parts.progress, "idle_s", lambda: idle_s)
    assert parts.heartbeat.stalled()
    parts.heartbeat.training = lambda: True
    assert not parts.heartbeat.stalled()
    parts.heartbeat.training = lambda: False
    parts.pauses.hold("person", "by riwoactl pause")
    assert not parts.heartbeat.stalled()
    parts.pauses.release("person")
    parts.board.show("running")
    assert parts.heartbeat.stalled()
    parts.board.show("unhealthy", "no space left")
    assert not parts.heartbeat.stalled()
    parts.board.show("starting")
    assert not parts.heartbeat.stalled()  # workers may take their time to start
