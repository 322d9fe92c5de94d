"""What other installed packages add to riwoa: objects that they offer by name, in entry points.

A package names them in its ``pyproject.toml``, ``[project.entry-points."riwoa.oracles"]`` and the like. Nothing is
looked up before somebody asks for a name that is none of riwoa's own, so a start without plug-ins costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from riwoa.errors import ConfigError, PluginError, RiwoaError

ORACLES = "riwoa.oracles"
STRATEGIES = "riwoa.strategies"
PROVIDERS = "riwoa.providers"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin:
    """An object of another package.

    Attributes:
        name: what the package calls it, and the configuration too.
        package: the package with its version, for messages.
        value: the object.
    """

    name: str
    package: str
    value: Any

    @contextmanager
    def blamed(self, doing: str) -> Iterator[None]:
        """Turn whatever the block raises that is no error of riwoa's own into one line that names the package.

        Args:
            doing: what the plug-in is asked for, "make its oracle".

        Raises:
            PluginError: the block failed.
        """
        try:
            yield
        except RiwoaError:
            raise
        except Exception as error:  # the boundary to somebody else's code
            raise PluginError(f"the package {self.package} could not {doing} ({self.name}): {_told(error)}") from error


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """Something that the configuration names, and the plug-in that it is; None for riwoa's own."""

    value: T
    plugin: Plugin | None = None

    @contextmanager
    def blamed(self, doing: str) -> Iterator[None]:
        """As ``Plugin.blamed``; what is riwoa's own raises what it raises.

        Raises:
            PluginError: another package's failed.
        """
        if self.plugin is None:
            yield
            return
        with self.plugin.blamed(doing):
            yield


@functools.cache
def find(group: str, name: str) -> Plugin | None:
    """What an installed package offers under a name; None where none does.

    Raises:
        ConfigError: several packages offer it, or the one that does cannot be imported.
    """
    found = list(dict.fromkeys(entry_points(group=group, name=name)))
    if not found:
        return None
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        raise ConfigError(f"{name} is offered by several packages, {' and '.join(packages)}; uninstall all but one")
    try:
        return Plugin(name, packages[0], found[0].load())
    except Exception as error:  # importing runs somebody else's code
        raise ConfigError(f"{name}, of the package {packages[0]}, cannot be loaded: {_told(error)}") from error


def names(group: str) -> list[str]:
    """All names that installed packages offer in a group."""
    return sorted({point.name for point in entry_points(group=group)})


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _told(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
