"""Where things lie. Light: ``riwoactl status`` passes through here, so pathlib and socket are imported only on use."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    import socket
    from pathlib import Path

LOCAL_STATE = ".riwoa"  # what `make run` uses, in the working directory
SYSTEM_STATE = "/var/lib/riwoa"
SYSTEM_RUNTIME = "/run/riwoa"


class StatePaths:
    """The files of one state directory; ``directory`` and ``socket_name`` are the same as strings."""

    __slots__ = ("directory",)

    def __init__(self, state: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(state)

    def name(self, file: str) -> str:
        """A file of the state directory as a string."""
        return os.path.join(self.directory, file)

    def _path(self, file: str) -> Path:
        from pathlib import Path

        return Path(self.directory, file)

    @property
    def state(self) -> Path:
        """The directory."""
        return self._path("")

    @property
    def journal(self) -> Path:
        """The SQLite journal."""
        return self._path("journal.db")

    @property
    def latency_table(self) -> Path:
        """This device's operator latencies."""
        return self._path("latency_lut.json")

    @property
    def status(self) -> Path:
        """What the daemon last said of itself; read when it does not run."""
        return self._path("status.json")

    @property
    def lock(self) -> Path:
        """Held (flock) by the one daemon of this state; holds its process id."""
        return self._path("lock")

    @property
    def export(self) -> Path:
        """The winner's files."""
        return self._path("export")

    @property
    def socket(self) -> Path:
        """The control socket."""
        from pathlib import Path

        return Path(self.socket_name)

    @property
    def socket_name(self) -> str:
        """The control socket: in systemd's runtime directory where there is one."""
        runtime = os.environ.get("RUNTIME_DIRECTORY")
        if not runtime and self.directory == SYSTEM_STATE:
            runtime = SYSTEM_RUNTIME
        return os.path.join(runtime, "control.sock") if runtime else self.name("control.sock")


def shipped(name: str) -> Path:
    """A file that comes with riwoa: inside an installed package, else at the root of the checkout."""
    from pathlib import Path

    packaged = Path(__file__).resolve().parent / "data" / name
    return packaged if packaged.exists() else Path(__file__).resolve().parents[2] / name


def daemon_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """The daemon's state directory: --state, RIWOA_STATE, systemd's STATE_DIRECTORY, then the user's."""
    chosen = explicit or os.environ.get("RIWOA_STATE") or os.environ.get("STATE_DIRECTORY")
    return StatePaths(os.path.expanduser(chosen) if chosen else user_state())


def client_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """Where riwoactl looks: as the daemon, but a state that exists (here, the user's, the service's) goes first."""
    chosen = explicit or os.environ.get("RIWOA_STATE") or os.environ.get("STATE_DIRECTORY")
    if chosen:
        return StatePaths(os.path.expanduser(chosen))
    for place in (LOCAL_STATE, user_state(), SYSTEM_STATE):
        if any(os.path.exists(os.path.join(place, file)) for file in ("status.json", "journal.db")):
            return StatePaths(place)
    return StatePaths(user_state())


def user_state() -> str:
    """``$XDG_STATE_HOME/riwoa``."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "riwoa")


def socket_address(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """An address for AF_UNIX and a directory descriptor to close after use.

    A socket's path may hold 107 bytes; a longer one is reached through its directory's descriptor.
    """
    text = os.fspath(path)
    if len(os.fsencode(text)) <= 107:
        return text, None
    parent, name = os.path.split(text)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/self/fd/{descriptor}/{name}", descriptor


def connect(path: str | os.PathLike[str], timeout_s: float) -> socket.socket:
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
