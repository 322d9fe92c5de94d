"""Reload (ruling 17): parse whole, validate whole, hand one new configuration over; a bad file changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from watchfiles import awatch

from riwoa.config import Config, Difference, Loaded, difference, load
from riwoa.errors import RiwoaError
from riwoa.log import get_logger

_log = get_logger("reload")
_SETTLED_S = 0.3  # a file that nobody touched for so long is whole
_MOST_LOOKS = 20


class Reloader:
    """The configuration in force, the one waiting for the next boundary, and what is wrong with the file.

    Args:
        loaded: the configuration that the daemon started with.
        overrides: the command line's ``--set`` values, which stay on top at each reload.
    """

    def __init__(self, loaded: Loaded, overrides: Sequence[str]) -> None:
        self.file = loaded.file
        self.config = loaded.config
        self.error: str | None = None
        self.restart_keys: tuple[str, ...] = ()
        self._overrides = tuple(overrides)
        self.check: Callable[[Config], None] = lambda _: None  # refuses what parses but cannot be met here
        self._pending: Config | None = None

    @property
    def newest(self) -> Config:
        """What the file says now, boundary or not: for what decides no result, and must end a pause."""
        return self._pending or self.config

    def continue_from(self, in_force: Config) -> None:
        """Stand on what a resumed run used last; what the daemon was started with waits for the boundary."""
        self._pending = self._pending or self.config
        self.config = in_force

    def reload(self) -> Difference:
        """Read the file again. Live keys wait for the boundary; keys that need a restart are named and left.

        Raises:
            RiwoaError: the file is bad, or its target is out of reach; the old configuration stays in force.
        """
        try:
            fresh = load(self.file, self._overrides).config
            self.check(fresh)
        except RiwoaError as error:
            self.error = str(error)
            raise
        found = difference(self.config, fresh)
        self.restart_keys = tuple(found.refused)
        self.error = None
        if found.refused:
            names = ", ".join(found.refused)
            self.error = f"cannot change in a run, left as they were: {names}; restart with --new-run to apply them"
            _log.warning("config_keys_refused", keys=list(found.refused))
        self._pending = with_keys(self.config, fresh, found.live)
        return found

    def take(self) -> tuple[Config, Difference] | None:
        """At a generation boundary: the new configuration and what changed, or None; it is then in force."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        found = difference(self.config, pending)
        self.config = pending
        return (pending, found) if found.live else None

    async def watch(self) -> None:
        """Reload at every change of the file. The directory is watched: editors rename, managers swap links."""
        if self.file is None:
            return
        name = self.file.name
        async for changes in awatch(
            self.file.absolute().parent, watch_filter=None, recursive=False, debounce=200, step=50
        ):
            if any(Path(path).name == name for _, path in changes) or self._is_link():
                await self._settled()
                self.try_reload()

    async def _settled(self) -> None:
        """Wait while somebody is still writing: a number that is cut short is a number, too."""
        seen: tuple[int, int, int] | None = None
        for _ in range(_MOST_LOOKS):
            before, seen = seen, self._stamp()
            if seen == before:
                return
            await asyncio.sleep(_SETTLED_S)

    def _stamp(self) -> tuple[int, int, int]:
        assert self.file is not None
        try:
            found = self.file.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def try_reload(self) -> None:
        """Reload; a bad file is kept in ``error`` and logged, nothing more."""
        try:
            found = self.reload()
        except RiwoaError as error:
            _log.warning("config_refused", reason=str(error))
            return
        if found.live:
            _log.info("config_reloaded", keys=sorted(found.live))

    def _is_link(self) -> bool:
        assert self.file is not None
        return self.file.is_symlink()


def with_keys(old: Config, new: Config, keys: Iterable[str]) -> Config:
    """The old configuration with some keys of the new one."""
    sections: dict[str, dict[str, object]] = {}
    for key in keys:
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = getattr(getattr(new, section), name)
    updates = {s: getattr(old, s).model_copy(update=values) for s, values in sections.items()}
    return old.model_copy(update=updates)


async def watch_forever(reloader: Reloader) -> None:
    """``Reloader.watch`` as a task that ends only by cancellation, even where the file cannot be watched."""
    try:
        await reloader.watch()
    except (OSError, RuntimeError) as error:
        reloader.error = f"edits of {reloader.file} are not seen ({error}); send SIGHUP or `riwoactl reload` instead"
        _log.warning("config_not_watched", reason=str(error))
    await asyncio.Event().wait()
