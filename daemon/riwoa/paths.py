"""Where things lie. Light: ``riwoactl status`` passes through here, so no dataclasses, and socket only on use."""

from __future__ import annotations

import os
from pathlib import Path

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    import socket

LOCAL_STATE = ".riwoa"  # what `make run` uses, in the working directory
SYSTEM_STATE = "/var/lib/riwoa"
SYSTEM_RUNTIME = "/run/riwoa"


class StatePaths:
    """The files of one state directory."""

    __slots__ = ("state",)

    def __init__(self, state: Path) -> None:
        self.state = state

    @property
    def journal(self) -> Path:
        """The SQLite journal."""
        return self.state / "journal.db"

    @property
    def latency_table(self) -> Path:
        """This device's operator latencies."""
        return self.state / "latency_lut.json"

    @property
    def status(self) -> Path:
        """What the daemon last said of itself; read when it does not run."""
        return self.state / "status.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the one daemon of this state; holds its process id."""
        return self.state / "lock"

    @property
    def export(self) -> Path:
        """The winner's files."""
        return self.state / "export"

    @property
    def socket(self) -> Path:
        """The control socket: in systemd's runtime directory where there is one."""
        runtime = os.environ.get("RUNTIME_DIRECTORY")
        if runtime:
            return Path(runtime) / "control.sock"
        if str(self.state) == SYSTEM_STATE:
            return Path(SYSTEM_RUNTIME) / "control.sock"
        return self.state / "control.sock"


def daemon_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """The daemon's state directory: --state, RIWOA_STATE, systemd's STATE_DIRECTORY, then the user's."""
    chosen = explicit or os.environ.get("RIWOA_STATE") or os.environ.get("STATE_DIRECTORY")
    return StatePaths(Path(chosen).expanduser() if chosen else user_state())


def client_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """Where riwoactl looks: as the daemon, but a state that exists (here, the user's, the service's) goes first."""
    chosen = explicit or os.environ.get("RIWOA_STATE") or os.environ.get("STATE_DIRECTORY")
    if chosen:
        return StatePaths(Path(chosen).expanduser())
    for place in (Path(LOCAL_STATE), user_state(), Path(SYSTEM_STATE)):
        if (place / "status.json").exists() or (place / "journal.db").exists():
            return StatePaths(place)
    return StatePaths(user_state())


def user_state() -> Path:
    """``$XDG_STATE_HOME/riwoa``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "riwoa"


def socket_address(path: Path) -> tuple[str, int | None]:
    """An address for AF_UNIX and a directory descriptor to close after use.

    A socket's path may hold 107 bytes; a longer one is reached through its directory's descriptor.
    """
    text = str(path)
    if len(os.fsencode(text)) <= 107:
        return text, None
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{path.name}", descriptor


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect to the control socket.

    Raises:
        OSError: nothing listens there, or it may not be reached.
    """
    import socket

    address, descriptor = socket_address(path)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect(address)
    except OSError:
        client.close()
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return client
