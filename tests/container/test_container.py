"""The image: built, and run as the Compose file says: no root, no network, nothing written but the volume.

``make test-container``; base and wheels are made once and kept in RIWOA_TEST_ROOT.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.podman import IMAGE, Podman, compose, why_not
from tests.support.waiting import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(1200)]
DAEMON, PAGE, VOLUME = "riwoa-test-daemon", "riwoa-test-page", "riwoa-test-state"
CONFIG = """\
[run]
generations = 100000
[search]
population = 6
[oracle]
workers = 1
[oracle.supernet]
validation_views = 1
recalibration_images = 100
[latency]
repeats = 10
[cognition]
provider = "none"
"""
ASK = """\
import sys, urllib.error, urllib.request
headers = {"Authorization": "Bearer " + sys.argv[2]} if sys.argv[2:] else {}
verb, path = sys.argv[1].split()
asked = urllib.request.Request("http://127.0.0.1:8321" + path, headers=headers, method=verb)
try:
    print(urllib.request.urlopen(asked, timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    podman = Podman(Path(os.environ.get("RIWOA_TEST_ROOT", "/var/tmp/riwoa-test")) / "container")
    podman.import_base()
    if (reason := podman.find_runtime()) is not None:
        pytest.skip(f"no container starts here: {reason}")
    podman.build()
    yield podman
    podman.remove([DAEMON, PAGE], VOLUME)


@pytest.fixture(scope="module")
def searching(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Podman:
    config = tmp_path_factory.mktemp("config")
    config.chmod(0o755)
    (config / "riwoa.toml").write_text(CONFIG)
    podman.remove([DAEMON, PAGE], VOLUME)
    podman.start("riwoad", DAEMON, VOLUME, config)
    until(lambda: generation(podman) > 0, "a first generation", 300)
    podman.start("page", PAGE, VOLUME, config)
    return podman


def generation(podman: Podman) -> int:
    return int((podman.status(DAEMON).get("run") or {}).get("generation", 0))


def token(podman: Podman, *how: str) -> str:
    found = re.search(r"riwoa-\S+", podman.call("exec", DAEMON, "riwoactl", "token", "create", *how).stdout)
    assert found is not None
    return found[0]


def asked(podman: Podman, what: str, *token: str) -> str:
    """What the page answers; the code of an error."""
    return podman.call("exec", PAGE, "python3", "-c", ASK, what, *token).stdout.strip()


def test_the_image_names_a_user_without_rights_and_how_its_health_is_asked(podman: Podman) -> None:
    (made,) = json.loads(podman.call("image", "inspect", IMAGE).stdout)
    assert made["User"] == "10001:10001"
    assert made["Config"]["Volumes"] == {"/state": {}}
    told = compose()["services"]["riwoad"]["healthcheck"]["test"]
    assert told == made["Healthcheck"]["Test"] == ["CMD", "riwoactl", "status"]


def test_it_searches_without_root_network_or_a_file_beside_its_volume(searching: Podman) -> None:
    inside = searching.call("exec", DAEMON, "sh", "-c", "id -u; ls /sys/class/net; grep CapEff /proc/1/status").stdout
    assert inside.split() == ["10001", "lo", "CapEff:", "0000000000000000"]
    written = searching.call("exec", DAEMON, "sh", "-c", "touch /opt/riwoa/a || touch /etc/riwoa/a", check=False)
    assert written.returncode != 0
    assert written.stderr.count("Read-only file system") == 2
    assert searching.status(DAEMON)["alive"]


def test_its_health_is_that_of_the_search(searching: Podman) -> None:
    assert searching.call("healthcheck", "run", DAEMON).returncode == 0
    searching.call("exec", DAEMON, "riwoactl", "pause")
    assert searching.status(DAEMON)["state"] == "paused"
    assert searching.call("healthcheck", "run", DAEMON).returncode == 0  # what was asked for is no illness
    searching.call("exec", DAEMON, "riwoactl", "resume")


def test_the_page_reads_the_volume_and_lets_nobody_in_without_a_token(searching: Podman) -> None:
    reads, controls = token(searching, "eva"), token(searching, "adam", "--scope", "control")
    assert asked(searching, "GET /api/v1/status") == "401"
    shown = json.loads(asked(searching, "GET /api/v1/status", reads))
    assert shown["run"]["generation"] > 0
    assert shown["alive"]
    assert asked(searching, "POST /api/v1/pause", reads) == "403"
    asked(searching, "POST /api/v1/pause", controls)
    assert searching.status(DAEMON)["state"] == "paused"
    asked(searching, "POST /api/v1/resume", controls)
    assert searching.call("exec", PAGE, "touch", "/state/a", check=False).returncode != 0


def test_killed_it_is_ill_and_started_again_it_goes_on(searching: Podman) -> None:
    until(lambda: generation(searching) > 2, "a third generation", 120)
    before = generation(searching)
    searching.call("kill", "--signal", "KILL", DAEMON)
    until(lambda: not searching.status(DAEMON), "it ends", 20)
    assert searching.call("exec", PAGE, "riwoactl", "status", check=False).returncode == 3
    searching.call("start", DAEMON)
    until(lambda: generation(searching) > before, "it goes on", 120)
    assert searching.status(DAEMON)["run"]["resumed_from"] >= before - 1


def test_stopped_it_ends_in_good_order(searching: Podman) -> None:
    searching.call("stop", "--time", "60", DAEMON)
    (ended,) = json.loads(searching.call("inspect", DAEMON).stdout)
    assert ended["State"]["ExitCode"] == 0
    asked = searching.call("exec", PAGE, "riwoactl", "status", check=False)
    assert asked.returncode == 3
    assert "stopped" in asked.stdout
