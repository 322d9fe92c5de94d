"""State and message: one value, and what it becomes when the search pauses or goes on."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import get_args

import pytest

from riwoa.service.state import DaemonState, State, searching_state
from riwoa.service.status import StatusBoard

HELD = {"person": "by riwoactl pause", "disk": "3 MiB free"}


@pytest.fixture
def board(tmp_path: Path) -> StatusBoard:
    return StatusBoard(tmp_path / "status.json", tmp_path)


def test_it_cannot_be_changed_in_part() -> None:
    with pytest.raises(FrozenInstanceError):
        DaemonState("running").message = "x"  # type: ignore[misc]
    assert DaemonState("running", "old").saying("new") == DaemonState("running", "new")


@pytest.mark.parametrize("state", ["starting", "running", "polishing", "paused"])
def test_a_search_that_is_held_is_paused_and_says_all_its_reasons(state: State) -> None:
    paused = DaemonState("paused", "by riwoactl pause; 3 MiB free")
    assert searching_state(DaemonState(state, "old"), HELD, "search") == paused
    assert searching_state(DaemonState(state, "old"), HELD, None) == paused


@pytest.mark.parametrize(
    "state", sorted({*get_args(State)} - {"starting", "training", "running", "polishing", "paused"})
)
def test_what_is_no_search_keeps_its_state_and_message(state: State) -> None:
    shown = DaemonState(state, "its own")
    assert searching_state(shown, HELD, "search") is shown
    assert searching_state(shown, {}, None) is shown


@pytest.mark.parametrize(
    ("before", "phase", "after"),
    [
        ("paused", "search", "running"),
        ("paused", "polish", "polishing"),
        ("running", "polish", "polishing"),
        ("paused", None, "starting"),  # the governor let go of it before there were workers
    ],
)
def test_a_search_that_goes_on_is_named_by_its_phase(before: State, phase: str | None, after: State) -> None:
    assert searching_state(DaemonState(before, "old"), {}, phase) == DaemonState(after)


def test_a_start_keeps_its_message_until_the_search_is_shown() -> None:
    starting = DaemonState("starting", "starting the workers")
    assert searching_state(starting, {}, "search") is starting


def test_the_board_shows_state_and_message_together(board: StatusBoard) -> None:
    board.show("unhealthy", "no space left")
    board.show("running")
    assert (board.look()["state"], board.look()["message"]) == ("running", "")


def test_a_message_is_withdrawn_only_while_it_is_the_one_shown(board: StatusBoard) -> None:
    told = board.change(lambda shown: shown.saying("verifying"))
    board.withdraw(told)
    assert board.shown == DaemonState("starting")
    told = board.change(lambda shown: shown.saying("verifying"))
    board.show("starting", "starting the workers")
    board.withdraw(told)
    assert board.shown == DaemonState("starting", "starting the workers")


def test_a_training_is_paused_and_goes_on_as_one() -> None:
    shown = DaemonState("training", "step 3 of 9")
    assert searching_state(shown, {}, "training") is shown
    paused = searching_state(shown, HELD, "training")
    assert paused.state == "paused"
    assert searching_state(paused, {}, "training") == DaemonState("training")
