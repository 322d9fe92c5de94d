"""The daemon's own page, where ``[web]`` asks for one: `riwoactl web` as a child that ends with the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from riwoa.config.schema import Web
from riwoa.ipc.child import child_command, child_environment
from riwoa.log import get_logger
from riwoa.text import printable

_log = get_logger("web")
_LOOK_EVERY_S = 1.0
_WAIT_S = 60.0  # before a page that ended is started again
_MOST_SAID = 300


async def keep_page(settings: Callable[[], Web], state: str) -> None:
    """Serve the page as the settings in force say, until cancelled; what ends it is logged, and it is tried again.

    Args:
        settings: in force.
        state: the state directory.
    """
    while True:
        wanted = settings()
        if wanted.listen is None:
            await asyncio.sleep(_LOOK_EVERY_S)
            continue
        said = await _serve(wanted, settings, state)
        if said is not None:
            _log.warning("page_ended", reason=said)
            await asyncio.sleep(_WAIT_S)


async def _serve(wanted: Web, settings: Callable[[], Web], state: str) -> str | None:
    """One page, until it ends by itself (why) or is wanted otherwise (None)."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *child_command("riwoa.ctl", "--child", "--state", state, "web", *arguments(wanted)),
        stdin=pipe,  # held open: the child ends with the daemon, however that ends
        stdout=asyncio.subprocess.DEVNULL,
        stderr=pipe,
        env=child_environment(1),
    )
    ended = asyncio.create_task(process.communicate())
    try:
        _log.info("page_served", at=wanted.listen)
        while not ended.done() and settings() == wanted:
            await asyncio.wait((ended,), timeout=_LOOK_EVERY_S)
        if not ended.done():
            return None
        text = (await ended)[1].decode(errors="replace").strip()
        return printable(text.splitlines()[-1] if text else f"exit {process.returncode}", _MOST_SAID)
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait((ended,))


def arguments(wanted: Web) -> list[str]:
    """What the settings are on the command line of `riwoactl web`."""
    assert wanted.listen is not None
    where = ["--socket", wanted.listen] if "/" in wanted.listen else ["--listen", wanted.listen]
    return [*where, *(["--require-token"] if wanted.require_token else [])]
