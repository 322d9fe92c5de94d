"""Builds riwoa's image without a hub and runs its Compose services by podman; the base is made of Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = "localhost/riwoa-test"
_BASE = "localhost/riwoa-test-base"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
# Podman asks for more files and processes than a machine within a machine may grant.
_LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")


def why_not() -> str | None:
    """Why no image can be built and run here."""
    if os.geteuid() != 0:
        return "making a base image needs root"
    missing = [tool for tool in ("podman", "buildah", "mmdebstrap") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not here; on Debian: apt install podman buildah mmdebstrap runc"
    if sys.version_info[:2] != (3, 11):
        return "the base's Python is 3.11, and the wheels are fetched for this one"
    return None


class Podman:
    """Podman with a runtime that starts containers on this machine.

    Args:
        folder: where the base and the wheels are made, and kept for the next time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runtime: list[str] = []

    def call(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a podman command."""
        done = subprocess.run(
            ["podman", *self._runtime, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
        )
        assert not check or done.returncode == 0, f"podman {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def import_base(self) -> None:
        """An image with Python and pip, of Debian's packages (two minutes the first time)."""
        archive = self._folder / "base.tar"
        if not archive.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = archive.with_suffix(".part.tar")
            command = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(unfinished)]
            subprocess.run(command, check=True, capture_output=True)
            unfinished.rename(archive)
        if self.call("image", "exists", _BASE, check=False).returncode != 0:
            self.call("import", str(archive), _BASE)

    def find_runtime(self) -> str | None:
        """Choose a runtime that starts a container here; what they say where none does."""
        said = []
        for name in ("crun", "runc"):
            if shutil.which(name) is not None:
                self._runtime = ["--runtime", name]
                done = self.call("run", "--rm", *_LIMITS, "--network", "none", _BASE, "true", check=False)
                if done.returncode == 0:
                    return None
                said.append(f"{name}: {done.stderr.strip()}")
        return "; ".join(said) or "no container runtime is here"

    def build(self) -> None:
        """The image, from wheels that this machine's pip fetches first: the build itself has no network."""
        wheels = self._folder / "wheels"
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), f"{REPOSITORY}[web]"]
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
            fetch[0] = str(Path(sys.base_prefix) / "bin" / "python3")  # this environment has no pip of its own
        subprocess.run([*fetch, "hatchling"], check=True, capture_output=True)
        settings = self._folder / "pip.conf"
        settings.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        mounts = ("--volume", f"{wheels}:/wheels:ro", "--volume", f"{settings}:/etc/pip.conf:ro")
        arguments = ("--build-arg", f"BASE={_BASE}", "--build-arg", "TORCH_INDEX=")
        file = ("--file", str(REPOSITORY / "container/Containerfile"), str(REPOSITORY))
        kind = ("--format", "docker", "--network", "none", "--tag", IMAGE)
        self.call("build", *kind, *_LIMITS, *mounts, *arguments, *file, timeout_s=800)

    def start(self, service: str, name: str, volume: str, config: Path) -> None:
        """Start a service of the Compose file, as that says it shall be; without a network even where it has one."""
        told = compose()["services"][service]
        places = {"state": volume, "./config": str(config)}
        flags = [f"--volume={_mount(places, each)}" for each in told["volumes"] if "RIWOA_PICTURES" not in each]
        flags += [f"--tmpfs={each}" for each in told["tmpfs"]] + [f"--cap-drop={each}" for each in told["cap_drop"]]
        flags += [f"--security-opt={each}" for each in told["security_opt"]]
        flags += ["--read-only", "--read-only-tmpfs=false"] if told["read_only"] else []
        flags += [f"--network={told.get('network_mode', 'none')}"]
        self.call("run", "--detach", f"--name={name}", *_LIMITS, *flags, IMAGE, *told.get("command", []))

    def remove(self, containers: Iterable[str], volume: str) -> None:
        """Remove containers and the volume that they share."""
        for name in containers:
            self.call("rm", "--force", "--time", "0", name, check=False)
        self.call("volume", "rm", "--force", volume, check=False)

    def status(self, name: str) -> dict[str, Any]:
        """What `riwoactl status` says in a container; empty where it does not run."""
        said = self.call("exec", name, "riwoactl", "status", "--json", check=False).stdout
        found: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
        return found


def compose() -> dict[str, Any]:
    """The Compose file."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "container/compose.yaml").read_text())
    return found


def _mount(places: dict[str, str], told: str) -> str:
    source, _, rest = told.partition(":")
    return f"{places[source]}:{rest}"
