"""Reload (ruling 17): parse whole, validate whole, hand one new configuration over; a bad file changes nothing.

A file applies whole or not at all. Refused is also one that changes a key which cannot change in a run, unless somebody
asks for the rest of it (``riwoactl reload --partial``), and one that lacks a table which it had: that is how a file
looks while somebody is writing it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from watchfiles import awatch

from riwoa.config.loading import Difference, Loaded, difference, load
from riwoa.config.outcome import Changes, Outcome, changes_words
from riwoa.config.schema import Config, leaves, may_restart, value_of
from riwoa.errors import ConfigError, RiwoaError
from riwoa.log import get_logger

_log = get_logger("reload")
_SETTLED_S = 0.3  # a file that nobody touched for so long is whole
_MOST_LOOKS = 20
Model = TypeVar("Model", bound=BaseModel)
_Stamp = tuple[int, int, int]  # tells one writing of a file from another


class Reloader:
    """The configuration in force, the one waiting for the next boundary, and what is wrong with the file.

    Args:
        loaded: the configuration that the daemon started with.
        overrides: the command line's ``--set`` values, which stay on top at each reload.
    """

    def __init__(self, loaded: Loaded, overrides: Sequence[str]) -> None:
        self.file = loaded.file
        self.config = loaded.config
        self.outcome = Outcome()  # of the last reading
        self._overrides = tuple(overrides)
        self.check: Callable[[Config], None] = lambda _: None  # refuses what parses but cannot be met here
        self._started = loaded.config  # what a key that cannot change must stay, whatever a resumed run stands on
        self._tables = _tables(loaded)
        self._piped = loaded.source is not None and loaded.source.piped
        self._pending: Config | None = None
        self._former: Mapping[str, Any] = {}
        self._refusal: Outcome | None = None  # that nobody has journaled yet
        self._read_stamp: _Stamp | None = None  # of the file as it was when it was read last
        self._one_at_a_time = asyncio.Lock()

    @property
    def error(self) -> str | None:
        """Why nothing of the file, as it is now, is accepted; None where that is not so."""
        return self.outcome.error

    @property
    def waiting(self) -> Changes:
        """The changes that wait for the boundary."""
        return {} if self._pending is None else difference(self.config, self._pending).live

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

    def reload(self, *, partial: bool = False) -> Outcome:
        """Read the file again, in this thread; what changed waits for the boundary.

        Args:
            partial: take what may change of a file that also changes what may not.

        Raises:
            RiwoaError: the file is bad, or asks for what a run cannot have; the old configuration stays in force.
        """
        with self._noted():
            return self._accept(self._read(), partial=partial)

    async def reload_aside(self, *, partial: bool = False) -> Outcome:
        """``reload``, for the event loop: the file is read and parsed in another thread."""
        async with self._one_at_a_time:
            with self._noted():
                return self._accept(await asyncio.to_thread(self._read), partial=partial)

    def _read(self) -> Loaded:
        if self._piped:
            raise ConfigError(f"{self.file} was a pipe and is read once; name a file to change keys in a run")
        self._read_stamp = self._stamp()
        return with_defaults(load(self.file, self._overrides), self._former)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """What goes wrong is told as what is accepted is."""
        try:
            yield
        except RiwoaError as error:
            refused = error.refused if isinstance(error, _KeysRefusedError) else {}
            self._tell(Outcome(refused=refused, error=str(error)))
            raise

    def _tell(self, outcome: Outcome) -> None:
        """Show what a reading came to until the next, and log it; a refusal is to be journaled, too."""
        self.outcome = outcome
        if outcome.error is not None or outcome.refused:
            self._refusal = outcome
            _log.warning("config_refused", outcome=outcome.sentence)
        elif outcome.accepted:
            _log.info("config_reloaded", outcome=outcome.sentence)

    def _accept(self, fresh: Loaded, *, partial: bool) -> Outcome:
        lost = sorted(self._tables - _tables(fresh))
        if lost:
            raise ConfigError(_lost_words(self.file, lost, is_empty=not _tables(fresh)))
        refused = difference(self._started, fresh.config).refused
        ways_out = {key: _way_out(key, fresh.config) for key in refused}
        accepted = self._changeable(fresh.config)
        if refused and not partial:
            self._drop_what_nobody_asks(fresh.config)
            raise _KeysRefusedError(self.file, Outcome(accepted, refused, ways_out))
        pending = with_keys(self.config, fresh.config, accepted)
        if refused:
            _require_valid(self.file, pending)
        self.check(pending)
        self._pending = pending
        if not refused:  # a table of refused keys alone may go as it came
            self._tables = _tables(fresh)
        self._tell(Outcome(accepted, refused, ways_out))
        return self.outcome

    def _changeable(self, fresh: Config) -> Changes:
        """What a new configuration changes of the one in force, as far as a run can have it."""
        known = {key for key, _ in leaves(type(self.config))}
        return {key: pair for key, pair in difference(self.config, fresh).live.items() if key in known}

    def _drop_what_nobody_asks(self, fresh: Config) -> None:
        """Keep of the changes that wait only those which a file that was refused still asks for."""
        if self._pending is None:
            return
        other = difference(self._pending, fresh)
        kept = [key for key in self.waiting if key not in other.live and key not in other.refused]
        self._pending = with_keys(self.config, self._pending, kept) if kept else None

    def take_refusal(self) -> Outcome | None:
        """The last refusal, once: for the journal."""
        refusal, self._refusal = self._refusal, None
        return refusal

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
                if self._stamp() != self._read_stamp:  # else somebody asked for it meanwhile, and was told
                    await self.try_reload()

    async def _settled(self) -> None:
        """Wait while somebody is still writing: a number that is cut short is a number, too."""
        seen: _Stamp | None = None
        for _ in range(_MOST_LOOKS):
            before, seen = seen, self._stamp()
            if seen == before:
                return
            await asyncio.sleep(_SETTLED_S)

    def _stamp(self) -> _Stamp:
        if self.file is None:
            return (0, 0, 0)
        try:
            found = self.file.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    async def try_reload(self) -> None:
        """Reload; a bad file is kept in ``outcome`` and logged, nothing more."""
        try:
            await self.reload_aside()
        except RiwoaError:
            pass  # told already
        except Exception as error:  # a fault of ours must not end the watching: later edits are still to be seen
            self.outcome = Outcome(error=f"{self.file}: {type(error).__name__}: {error}")
            _log.exception("config_not_read")

    def _is_link(self) -> bool:
        assert self.file is not None
        return self.file.is_symlink()


class _KeysRefusedError(ConfigError):
    """A file changes keys that no run can change, which are ``refused``: key -> (old, new)."""

    def __init__(self, file: Path | None, outcome: Outcome) -> None:
        others = changes_words(outcome.accepted)
        rest = f", nor {others}: `riwoactl reload --partial` applies that" if others else ""
        super().__init__(f"{file}: refused: {outcome.refused_words}; nothing of the file was applied{rest}")
        self.refused = outcome.refused


def _way_out(key: str, config: Config) -> str:
    """What brings another value of a key into force that cannot change in a run."""
    return "a restart of the daemon" if may_restart(key, type(config)) else "--new-run"


def _lost_words(file: Path | None, lost: Sequence[str], *, is_empty: bool) -> str:
    names = ", ".join(f"[{name}]" for name in lost)
    gone = f"the file is empty, and had {names}" if is_empty else f"{names} is gone from it"
    return (
        f"{file}: refused: {gone}, as if it were still being written; nothing of the file was applied. "
        "Put the table back (its header alone means its defaults) or restart"
    )


def _require_valid(file: Path | None, config: Config) -> None:
    """Refuse a part of a file that means nothing without the rest.

    Raises:
        ConfigError: says so.
    """
    try:
        type(config).model_validate(config.model_dump())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{file}: refused: its other keys are not valid alone ({reason})") from None


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
        why = f"edits of {reloader.file} are not seen ({error}); send SIGHUP or `riwoactl reload` instead"
        reloader.outcome = Outcome(error=why)
        _log.warning("config_not_watched", reason=str(error))
    await asyncio.Event().wait()
