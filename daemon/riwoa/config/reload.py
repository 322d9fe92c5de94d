"""Reload (ruling 17): parse whole, validate whole, hand one new configuration over; a bad file changes nothing.

A file applies whole or not at all. Refused are also one that names a key which cannot change in a run, and one that
lacks a table which it had: that is how a file looks while somebody is writing it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel
from watchfiles import awatch

from riwoa.config.loading import Difference, Loaded, difference, load
from riwoa.config.schema import Config, value_of
from riwoa.errors import ConfigError, RiwoaError
from riwoa.log import get_logger

_log = get_logger("reload")
_SETTLED_S = 0.3  # a file that nobody touched for so long is whole
_MOST_LOOKS = 20
Model = TypeVar("Model", bound=BaseModel)


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
        self._started = loaded.config  # what a key that cannot change must stay, whatever a resumed run stands on
        self._tables = _tables(loaded)
        self._piped = loaded.source is not None and loaded.source.piped
        self._pending: Config | None = None
        self._former: Mapping[str, Any] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def newest(self) -> Config:
        """What the file says now, boundary or not: for what decides no result, and must end a pause."""
        return self._pending or self.config

    def continue_from(
        self, in_force: Config, started: Config | None = None, former: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Stand on what a resumed run used last; what the daemon was started with waits for the boundary.

        Args:
            in_force: what the run used last.
            started: what the daemon was started with, with the run's defaults; None: as it was loaded.
            former: defaults of the version that began the run, where they are others today.
        """
        self._started = started or self._started
        self._former = former
        asked = self._pending or started or self.config
        self._pending = with_keys(in_force, asked, difference(in_force, asked).live)
        self.config = in_force

    def reload(self) -> Difference:
        """Read the file again, in this thread; what changed waits for the boundary.

        Raises:
            RiwoaError: the file is bad, or asks for what a run cannot have; the old configuration stays in force.
        """
        with self._told():
            return self._accept(self._read())

    async def reload_aside(self) -> Difference:
        """``reload``, for the event loop: the file is read and parsed in another thread."""
        async with self._one_at_a_time:
            with self._told():
                return self._accept(await asyncio.to_thread(self._read))

    def _read(self) -> Loaded:
        if self._piped:
            raise ConfigError(f"{self.file} was a pipe and is read once; name a file to change keys in a run")
        return with_defaults(load(self.file, self._overrides), self._former)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong is shown until a reload goes well."""
        try:
            yield
        except RiwoaError as error:
            self.error = str(error)
            raise
        self.error = None

    def _accept(self, fresh: Loaded) -> Difference:
        self.restart_keys = ()
        lost = sorted(self._tables - _tables(fresh))
        if lost:
            names = ", ".join(f"[{name}]" for name in lost)
            raise ConfigError(
                f"{self.file}: {names} is gone from it, as if it were still being written; nothing of it was applied. "
                "Put the table back (its header alone means its defaults) or restart"
            )
        refused = difference(self._started, fresh.config).refused
        self.restart_keys = tuple(refused)
        if refused:
            _log.warning("config_keys_refused", keys=list(refused))
            raise ConfigError(
                f"{self.file}: {', '.join(refused)} cannot change in a run; nothing of it was applied. "
                "Change it back, or restart (`riwoactl config diff FILE` says which keys need --new-run)"
            )
        self.check(fresh.config)
        found = Difference(difference(self.config, fresh.config).live, {})
        self._pending = with_keys(self.config, fresh.config, found.live)
        self._tables = _tables(fresh)
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
        if self.file is None or self._piped:
            return
        name = self.file.name
        async for changes in awatch(
            self.file.absolute().parent, watch_filter=None, recursive=False, debounce=200, step=50
        ):
            if any(Path(path).name == name for _, path in changes) or self._is_link():
                await self._settled()
                await self.try_reload()

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

    async def try_reload(self) -> None:
        """Reload; a bad file is kept in ``error`` and logged, nothing more."""
        try:
            found = await self.reload_aside()
        except RiwoaError as error:
            _log.warning("config_refused", reason=str(error))
        except Exception as error:  # a fault of ours must not end the watching: later edits are still to be seen
            self.error = f"{self.file}: {type(error).__name__}: {error}"
            _log.exception("config_not_read")
        else:
            if found.live:
                _log.info("config_reloaded", keys=sorted(found.live))

    def _is_link(self) -> bool:
        assert self.file is not None
        return self.file.is_symlink()


def _tables(loaded: Loaded) -> frozenset[str]:
    """Dotted names of the file's tables."""
    tables = loaded.source.tables if loaded.source is not None else {}
    inner = {
        f"{name}.{below}"
        for name, table in tables.items()
        if isinstance(table, Mapping)
        for below, value in table.items()
        if isinstance(value, Mapping)
    }
    return frozenset(tables) | inner


def with_keys(old: Config, new: Config, keys: Iterable[str]) -> Config:
    """The old configuration with some keys of the new one."""
    changed: Config = old
    for key in keys:
        changed = _with_value(changed, key.split("."), value_of(new, key))
    return changed


def with_defaults(loaded: Loaded, defaults: Mapping[str, Any]) -> Loaded:
    """What was loaded, with these values where nobody says anything."""
    config = loaded.config
    for key, value in defaults.items():
        if loaded.origin.get(key, "default") == "default":
            config = _with_value(config, key.split("."), value)
    return replace(loaded, config=config)


def _with_value(model: Model, path: Sequence[str], value: object) -> Model:
    """A copy of a table with another value at a path of keys."""
    name, *below = path
    return model.model_copy(update={name: _with_value(getattr(model, name), below, value) if below else value})


async def watch_forever(reloader: Reloader) -> None:
    """``Reloader.watch`` as a task that ends only by cancellation, even where the file cannot be watched."""
    try:
        await reloader.watch()
    except (OSError, RuntimeError) as error:
        reloader.error = f"edits of {reloader.file} are not seen ({error}); send SIGHUP or `riwoactl reload` instead"
        _log.warning("config_not_watched", reason=str(error))
    await asyncio.Event().wait()
