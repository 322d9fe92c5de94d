"""A service that nobody told what to search for says so, and burns no cores on the demo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_a_service_without_anything_to_search_for_says_so_and_ends(tmp_path: Path) -> None:
    config = tmp_path / "riwoa.toml"
    config.write_text("[run]\ngenerations = 3\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [sys.executable, "-P", "-m", "riwoa.service.main", "--config", str(config)]
        done = subprocess.run(
            [*command, "--state", str(tmp_path / "state")], env=environment, capture_output=True, text=True, timeout=60
        )
        assert b"READY=1" in systemd.recv(1000)
    assert done.returncode == 0, done.stderr
    assert "nothing says what to search for" in done.stdout
    assert str(config) in done.stdout
    assert not (tmp_path / "state" / "journal.db").exists()
