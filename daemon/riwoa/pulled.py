"""Where pulled models and supernets lie on this machine, and how no two fetches meet there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SUPERNETS = "supernets"  # a directory of the home that holds no language model

Say = Callable[[str], None]


def models_home(environment: Mapping[str, str] | None = None) -> Path:
    """Where pulled models lie: $RIWOA_MODELS, ``models`` in systemd's state directory, $XDG_DATA_HOME/riwoa/models."""
    env = os.environ if environment is None else environment
    if chosen := env.get("RIWOA_MODELS"):
        return Path(chosen).expanduser().absolute()
    if state := env.get("STATE_DIRECTORY"):
        return Path(state).absolute() / "models"
    return Path(env.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "riwoa" / "models"


@contextmanager
def alone(home: Path, say: Say) -> Iterator[None]:
    """One fetch at a time in one home; a second waits, and then mostly finds what it wanted."""
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is fetching into {home}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
