"""A Debian with a real systemd in a container, this checkout's riwoa in its /opt/riwoa. Needs root, Debian's tools."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv"
SUITE = "bookworm"
DAEMON = "/opt/riwoa/bin/riwoad"
_BOOT_S = 60.0
_SOURCES = "/opt/riwoa/src"  # wherever this clone lies, the service must be able to read it: /home and /tmp are hidden
_SCRIPT = """\
#!/opt/riwoa/bin/python
import os
import sys
sys.path[:0] = ["{sources}/daemon", "{sources}/storage"]
os.environ["PYTHONPATH"] = "{sources}/storage"  # for its children
from {module} import main
sys.exit(main())
"""


def why_not() -> str | None:
    """Why no such container can be booted here."""
    if os.geteuid() != 0:
        return "booting a container needs root"
    missing = [tool for tool in ("systemd-nspawn", "debootstrap", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not here; on Debian: apt install systemd-container debootstrap"
    if sys.version_info[:2] != (3, 11):
        return "the container's Python is 3.11, and shares this one's packages"
    return None


def make_root(folder: Path) -> Path:
    """A root directory with systemd and an empty /opt/riwoa; made once (two minutes), then kept."""
    root = folder / "root"
    if not (root / "opt/riwoa/bin/python").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["chroot", str(root), "python3", "-m", "venv", "--without-pip", "/opt/riwoa"], check=True)
    return root


class Machine:
    """A container that boots, runs commands and can lose its power.

    Args:
        root: its root directory; what is written there outlives a loss of power.
        binds: further paths of this machine that it sees, read-only.
    """

    def __init__(self, root: Path, binds: Mapping[Path, str]) -> None:
        self._root = root
        packages = Path(sysconfig.get_paths()["purelib"])
        self._binds = {REPOSITORY: _SOURCES, packages: "/opt/riwoa/lib/python3.11/site-packages", **binds}
        for name, module in (("riwoad", "riwoa.service.main"), ("riwoactl", "riwoa.ctl")):
            script = root / "opt/riwoa/bin" / name
            script.write_text(_SCRIPT.format(module=module, sources=_SOURCES))
            script.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0  # process id, here, of its systemd

    def path(self, inside: str) -> Path:
        """Where one of its files lies."""
        return self._root / inside.lstrip("/")

    def boot(self) -> None:
        """Boot until systemd answers."""
        binds = " ".join(f"--bind-ro={ours}:{theirs}" for ours, theirs in self._binds.items())
        # /run is its own, since nspawn wants it on a tmpfs; nothing here registers it anywhere.
        nspawn = (
            f"systemd-nspawn --quiet --boot --directory={self._root} --register=no --keep-unit --private-network "
            f"--machine=riwoatest {binds} --console=read-only"
        )
        self._process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs /run && exec {nspawn}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end_s = time.monotonic() + _BOOT_S
        while time.monotonic() < end_s:
            time.sleep(0.5)
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._init = int(children.read_text().split()[0])
                if self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded"):
                    return
        raise AssertionError(f"the container did not boot within {_BOOT_S:g} s")

    def cut_power(self) -> None:
        """SIGKILL to everything in it at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)  # the first of a process namespace takes all others along
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, *command: str, user: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root or as one of its users."""
        inside = [
            "nsenter",
            "-t",
            str(self._init),
            "-a",
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/riwoa/bin",
        ]
        as_user = ["runuser", "-u", user, "--"] if user else []
        done = subprocess.run(
            [*inside, *as_user, *command], capture_output=True, text=True, check=False, timeout=120, cwd="/"
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done


@contextlib.contextmanager
def booted(root: Path, binds: Mapping[Path, str]) -> Iterator[Machine]:
    """A machine that is up, and gone afterwards."""
    machine = Machine(root, binds)
    try:
        machine.boot()
        yield machine
    finally:
        machine.cut_power()
