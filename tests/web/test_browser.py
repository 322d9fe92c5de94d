"""The page in a real browser, served by ``riwoactl web``, over the daemon's own control socket."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from riwoa.paths import StatePaths
from riwoa.service.control import ControlServer
from tests.ctl.support import environment, held_lock, status_object

from .browser import CHROMIUM, Browser
from .conftest import bearer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")


@contextmanager
def controlled(state: Path) -> Iterator[list[str]]:
    """A daemon's control socket, whose pause and resume change the status; yields the verbs that were asked."""
    asked: list[str] = []
    holds: dict[str, str] = {}

    async def status() -> Mapping[str, Any]:
        run = {**(status_object()["run"] or {}), "run_id": 2}
        shown = "paused" if holds else "running"
        return {"status": status_object(state=shown, governor={"holds": dict(holds), "readings": {}}, run=run)}

    def verb(name: str) -> Any:
        async def handle() -> Mapping[str, Any]:
            asked.append(name)
            holds.update({"person": "by riwoactl pause"}) if name == "pause" else holds.clear()
            return {"message": f"{name} it is"}

        return handle

    async def serve(ready: threading.Event, ended: asyncio.Event) -> None:
        handlers = {"status": status, **{name: verb(name) for name in ("pause", "resume", "stop", "reload")}}
        server = ControlServer(StatePaths(state).socket, handlers, harmless={"status"}, state=str(state))
        await server.start()
        ready.set()
        await ended.wait()
        await server.close()

    loop, ended, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(ready, ended)), daemon=True)
    with held_lock(state):
        thread.start()
        assert ready.wait(10)
        yield asked
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


@contextmanager
def served(state: Path) -> Iterator[str]:
    """The address of a page that ``riwoactl web`` serves."""
    command = [sys.executable, "-m", "riwoa.ctl", "web", "--listen", "127.0.0.1:0", "--state", str(state)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert found is not None
            yield found.group()
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_the_page_shows_explores_and_controls_a_search(paths: StatePaths, state: Path, tmp_path: Path) -> None:
    token = bearer(paths, "control")["authorization"].removeprefix("Bearer ")
    profile = tmp_path / "profile"
    with controlled(state) as asked, served(state) as address, Browser(profile) as browser:
        browser.show(1280)
        browser.open(address)
        browser.wait_for("document.querySelectorAll('#candidates tbody tr').length === 12")
        browser.wait_for("document.querySelectorAll('#front circle.point, #front circle.leader').length === 3")
        browser.wait_for("document.querySelector('#state').textContent === 'running'")
        assert "81.00 %" in browser.evaluate("document.querySelector('#best').textContent")
        browser.wait_for("document.querySelector('#operator').textContent.includes('semantic')")

        # A filter, and a candidate with its ancestors and the model's words, by the keyboard alone.
        browser.evaluate("document.querySelector('#operator').focus()")
        browser.evaluate(
            "document.querySelector('#operator').value = 'semantic';"
            "document.querySelector('#operator').dispatchEvent(new Event('input', {bubbles: true}))"
        )
        browser.wait_for("document.querySelectorAll('#candidates tbody tr').length === 1")
        browser.evaluate("document.querySelector('#candidates tbody button').focus()")
        browser.press("Enter", 13)
        browser.wait_for("document.querySelector('#detail').open")
        detail = browser.evaluate("document.querySelector('#detail').textContent")
        assert "width 0 → 1" in detail
        assert "größer" in detail
        browser.press("Escape", 27)
        browser.wait_for("!document.querySelector('#detail').open")
        assert browser.evaluate("document.activeElement.textContent") == "1/0"

        # No token: the page asks for one, and nothing is done.
        browser.evaluate("window.same = true; document.querySelector('#pause').click()")
        browser.wait_for("document.querySelector('#ask-token').open")
        assert asked == []
        browser.evaluate(f"document.querySelector('#token-text').value = {token!r}")
        browser.evaluate("document.querySelector('#token-form').requestSubmit()")

        # What was asked for is done, and the state changes by the stream: the page is not loaded anew.
        browser.wait_for("document.querySelector('#state').textContent === 'paused'")
        browser.wait_for("document.querySelector('#pause').textContent === 'Resume'")
        browser.evaluate("document.querySelector('#pause').click()")
        browser.wait_for("document.querySelector('#state').textContent === 'running' && window.same")
        assert asked == ["pause", "resume"]

        browser.evaluate(
            "document.querySelector('#against').value = '1';"
            "document.querySelector('#against').dispatchEvent(new Event('change'))"
        )
        browser.wait_for("document.querySelectorAll('#front .other').length === 1")

        for width in (390, 320):
            browser.show(width)
            assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert browser.complaints == []
