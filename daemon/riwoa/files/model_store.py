"""Where pulled models and supernets lie on this machine, and the lock that lets one fetch in at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from riwoa.files.lock import Lock
from riwoa.paths import expanded, xdg

SUPERNETS = "supernets"  # a directory of the home that holds no language model

Say = Callable[[str], None]


def models_home(environment: Mapping[str, str] | None = None) -> Path:
    """The directory of pulled models.

    The first of $RIWOA_MODELS, ``models`` in systemd's state directory, and $XDG_DATA_HOME/riwoa/models.

    Raises:
        UsageError: none of them is set, and this user has no home directory.
    """
    env = os.environ if environment is None else environment
    if chosen := env.get("RIWOA_MODELS"):
        return Path(os.path.realpath(expanded(chosen)))
    if state := env.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(os.path.realpath(state), "models")
    return Path(xdg("XDG_DATA_HOME", ".local/share", "RIWOA_MODELS", env), "riwoa", "models")


@contextmanager
def alone(home: Path, say: Say) -> Iterator[None]:
    """A context that one process at a time may enter; the next one waits, and then mostly finds what it wants."""
    with Lock(home / ".lock") as lock:
        lock.wait(lambda: say(f"another process is fetching into {home}; waiting for it"))
        yield
