"""Where the state directory, its files and the control socket lie; the same for riwoad and riwoactl.

The state directory is the first of: ``--state``; ``$RIWOA_STATE``; ``$STATE_DIRECTORY`` (systemd's); ``./.riwoa``, if a
run lies there or ``riwoactl init`` made it; ``$XDG_STATE_HOME/riwoa`` (``~/.local/state/riwoa``). Where none lies in
the last either, riwoactl alone looks at the service's ``/var/lib/riwoa`` too: a daemon started by hand never writes
there unasked.

A variable that is empty counts as not set, and so does an XDG directory that is not absolute. A place is resolved
once, to its real path; from then on everything is relative to that, so that one directory has one lock and one journal,
however it was spelt. ``riwoactl status`` imports this, so pathlib and socket are imported only on use.
"""

from __future__ import annotations

import os

from riwoa.errors import UsageError

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

LOCAL_STATE = ".riwoa"  # what `make run` and `riwoactl init` use, in the working directory
PROJECT = "init.json"  # what `riwoactl init` saw; it makes a directory the state of what follows
SYSTEM_STATE = "/var/lib/riwoa"
SYSTEM_RUNTIME = "/run/riwoa"
ORDER = "$RIWOA_STATE, systemd's, ./.riwoa if a run lies there, the user's"  # for --help
_MOST_LOCK_BYTES = 8192


class StatePaths:
    """The files of one state directory; ``directory`` is its real path, however it was spelt."""

    __slots__ = ("directory",)

    def __init__(self, state: str | os.PathLike[str]) -> None:
        self.directory = os.path.realpath(state)

    def name(self, file: str) -> str:
        """The path of a file in the state directory, as a string."""
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
    def supernet(self) -> Path:
        """The supernet that was trained on the configured pictures: ``oracle.supernet.checkpoint = "trained"``."""
        return self._path("supernet.safetensors")

    @property
    def finetuned(self) -> Path:
        """The winner's weights after ``riwoactl finetune``."""
        return self._path("finetuned.safetensors")

    @property
    def status(self) -> Path:
        """The status object that the daemon wrote last; read when it does not run."""
        return self._path("status.json")

    @property
    def lock(self) -> Path:
        """The lock file of the one daemon of this state; it holds the process id."""
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
        """The socket of the daemon that runs here, or ran last, as it noted it in the lock file."""
        try:
            descriptor = os.open(self.name("lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return self.socket_to_bind
        try:
            lines = os.fsdecode(os.read(descriptor, _MOST_LOCK_BYTES)).split("\n")
        except OSError:
            lines = []
        finally:
            os.close(descriptor)
        return next((line[7:] for line in lines if line.startswith("socket=/")), self.socket_to_bind)

    @property
    def socket_to_bind(self) -> str:
        """Where a daemon of this state listens: $RIWOA_SOCKET, else systemd's runtime directory, else the state."""
        if chosen := os.environ.get("RIWOA_SOCKET"):
            parent, name = os.path.split(chosen)
            return os.path.join(os.path.realpath(parent), name)
        runtime = _first(os.environ.get("RUNTIME_DIRECTORY"))
        if not runtime and self.directory == os.path.realpath(SYSTEM_STATE):
            runtime = SYSTEM_RUNTIME
        return os.path.join(runtime, "control.sock") if runtime else self.name("control.sock")


def shipped(name: str) -> Path:
    """A file that comes with riwoa: inside an installed package, else at the root of the checkout."""
    from pathlib import Path

    packaged = Path(__file__).resolve().parent / "data" / name
    return packaged if packaged.exists() else Path(__file__).resolve().parents[2] / name


def daemon_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """The state directory of a daemon, and of verbs that write into one; the module says in which order it is sought.

    Raises:
        UsageError: none is named, and this user has no home directory.
    """
    return _chosen(explicit) or StatePaths(user_state())


def client_state(explicit: str | os.PathLike[str] | None) -> StatePaths:
    """The state directory that riwoactl looks at: the daemon's, and at last the service's.

    Raises:
        UsageError: as ``daemon_state``.
    """
    chosen = _chosen(explicit)
    if chosen is not None:
        return chosen
    try:
        users = user_state()
    except UsageError:
        if _holds_run(SYSTEM_STATE):
            return StatePaths(SYSTEM_STATE)
        raise
    return StatePaths(SYSTEM_STATE if not _holds_run(users) and _holds_run(SYSTEM_STATE) else users)


def _chosen(explicit: str | os.PathLike[str] | None) -> StatePaths | None:
    named = explicit or os.environ.get("RIWOA_STATE") or _first(os.environ.get("STATE_DIRECTORY"))
    if named:
        return StatePaths(expanded(os.fspath(named)))
    return StatePaths(LOCAL_STATE) if _holds_run(LOCAL_STATE) else None


def _first(directories: str | None) -> str:
    """The first of several directories, which systemd separates by colons."""
    return (directories or "").partition(":")[0]


def _holds_run(place: str) -> bool:
    return any(os.path.exists(os.path.join(place, file)) for file in ("status.json", "journal.db", PROJECT))


def expanded(path: str) -> str:
    """A path with its leading tilde replaced, which a shell leaves alone in ``--state=~/run``.

    Raises:
        UsageError: this user has no home directory.
    """
    if path == "~" or path.startswith("~/"):
        return home("the path without a tilde") + path[1:]
    return path


def user_state() -> str:
    """``$XDG_STATE_HOME/riwoa``, in ``~/.local/state`` where that is not set."""
    return os.path.join(xdg("XDG_STATE_HOME", ".local/state", "--state or RIWOA_STATE"), "riwoa")


def xdg(variable: str, below_home: str, otherwise: str, environment: Mapping[str, str] | None = None) -> str:
    """A base directory of the XDG specification, which ignores a relative one.

    Args:
        variable: that names it.
        below_home: where it lies where the variable says nothing.
        otherwise: what the user may set where there is no home, for the message.
        environment: default: this process's.

    Raises:
        UsageError: the variable is not set, and this user has no home directory.
    """
    named = (os.environ if environment is None else environment).get(variable, "")
    return named if os.path.isabs(named) else os.path.join(home(otherwise), below_home)


def home(otherwise: str) -> str:
    """The user's home directory.

    Raises:
        UsageError: HOME is not set, and the system does not know the user; ``otherwise`` says what to set.
    """
    named = os.environ.get("HOME", "")
    if os.path.isabs(named):
        return named
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise UsageError(f"user {os.getuid()} has no home directory here: set {otherwise}") from None


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
