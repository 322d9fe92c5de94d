"""Packages of others: one is really installed, and a real daemon searches with its oracle, strategy and provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.ctl.support import environment

SOURCE = Path(__file__).parents[1] / "support" / "tiny_plugin.py"
TINY = {
    "riwoa.oracles": "switches = tiny_plugin:Switches",
    "riwoa.strategies": "flip = tiny_plugin:Flip",
    "riwoa.providers": "scribe = tiny_plugin:Scribe",
}
SETTINGS = (
    *("oracle.kind=switches", "oracle.workers=1", "oracle.switches.wanted=1"),
    *("search.strategy=flip", "search.flip.flips=2", "search.population=5"),
    *("cognition.provider=scribe", "cognition.scribe.favourite=1", "cognition.lag=1", "cognition.role=slot"),
    *("run.generations=6", "run.polish_evaluations=4"),
)


def installed(place: Path, offered: Mapping[str, str], source: str | None = None) -> Path:
    """Build a wheel of a package and have pip install it, without any network, into a folder for PYTHONPATH."""
    place.mkdir(exist_ok=True)
    wheel = place / "tiny_plugin-1.0-py3-none-any.whl"
    files = {
        "tiny_plugin.py": SOURCE.read_text() if source is None else source,
        "tiny_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n",
        "tiny_plugin-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n",
        "tiny_plugin-1.0.dist-info/entry_points.txt": "".join(f"[{g}]\n{line}\n" for g, line in offered.items()),
    }
    files["tiny_plugin-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", "site", wheel.name]
    subprocess.run(pip, cwd=place, check=True, timeout=120)
    return place / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("plugin"), TINY)


def riwoad(
    site: Path | None, state: Path, settings: tuple[str, ...], program: str = "riwoa.service", **more: str
) -> subprocess.CompletedProcess[str]:
    given = [part for setting in settings for part in ("--set", setting)]
    known = environment(**more)
    if site is not None:
        known["PYTHONPATH"] += os.pathsep + str(site)
    command = [sys.executable, "-P", "-m", program, *given, "--state", str(state)]
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)


def test_a_package_brings_an_oracle_a_strategy_and_a_provider_and_the_daemon_searches_with_them(
    site: Path, tmp_path: Path
) -> None:
    done = riwoad(site, tmp_path / "state", SETTINGS)
    assert done.returncode == 0, done.stderr
    with JournalReader(tmp_path / "state" / "journal.db") as reader:
        run = reader.latest_run()
        assert run is not None
        assert run.status == "finished"
        assert run.provenance["strategy"] == "flip"
        assert run.provenance["oracle"] == {"kind": "switches", "settings": {"wanted": 1}, "threads": 1}
        assert run.provenance["model"] == "scribe:1"
        last = reader.last_generation(run.run_id)
        operators = {individual.operator for _, individual in reader.individuals(run.run_id)}
        config = reader.config_revisions(run.run_id)[0].config
    assert last is not None
    assert last.leader is not None
    assert last.leader["metrics"]["accuracy"] == 1.0
    assert {"init", "mutate", "semantic"} <= operators
    assert (config["search"]["flip"], config["cognition"]["scribe"]) == ({"flips": 2}, {"favourite": 1})
    described = json.loads((tmp_path / "state" / "export" / "architecture.json").read_text())
    assert described["architecture"] == {f"switch{i}": 1 for i in range(6)}


def test_a_search_of_another_package_that_is_killed_continues_as_if_it_had_not_been(site: Path, tmp_path: Path) -> None:
    assert riwoad(site, tmp_path / "whole", SETTINGS).returncode == 0
    killed = riwoad(site, tmp_path / "killed", SETTINGS, RIWOA_FAILPOINT="conductor.evaluated:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert riwoad(site, tmp_path / "killed", SETTINGS).returncode == 0
    assert compare(tmp_path / "whole" / "journal.db", tmp_path / "killed" / "journal.db").same
    gone = riwoad(None, tmp_path / "killed", (*SETTINGS, "run.seed=1"))
    assert gone.returncode == 78
    assert "no installed package offers" in gone.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("oracle.kind=nothing",), "should be one of supernet, table, predictor, command, switches"),
        (("search.strategy=nothing",), "should be one of riwoa, gp, woa, random, flip; no installed package offers"),
        (("cognition.provider=nothing",), "should be one of auto, model, http, scripted, none, scribe; no installed"),
        (("oracle.kind=switches", "oracle.switches.wanted=3"), "oracle.switches.wanted = 3, should be less than"),
        (("oracle.kind=switches", "oracle.switches.wamted=3"), "did you mean 'oracle.switches.wanted'?"),
        (("oracle.kind=switches", "oracle.rungs=[1]"), "this kind of oracle has none"),
    ],
)
def test_a_name_or_a_key_that_nobody_offers_is_refused_with_those_that_there_are(
    site: Path, tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    done = riwoad(site, tmp_path / "state", settings)
    assert (done.returncode, told in done.stderr) == (78, True), done.stderr


BROKEN = {
    "an import that fails": (
        "import nothing_of_this_name\n",
        78,
        "switches, of the package tiny-plugin 1.0, cannot be",
    ),
    "something else than an oracle": ("class Switches: pass\n", 78, "the package tiny-plugin 1.0"),
    "a problem that raises": (
        SOURCE.read_text().replace("return Problem(", "raise KeyError('switch') or Problem("),
        70,
        "the package tiny-plugin 1.0 could not pose its problem (switches): KeyError: 'switch'",
    ),
    "an oracle that raises": (
        SOURCE.read_text().replace("return SwitchOracle(", "raise KeyError('switch') or SwitchOracle("),
        70,
        "the package tiny-plugin 1.0 could not make its oracle (switches): KeyError: 'switch'",
    ),
    "a strategy that raises": (
        SOURCE.read_text().replace('draws = generator(self.seed, self.generation, "flip")', "raise KeyError('switch')"),
        70,
        "the package tiny-plugin 1.0 could not propose candidates (flip): KeyError: 'switch'",
    ),
    "a provider that raises": (
        SOURCE.read_text().replace("self._favourite: int = ", "self._favourite: int = cognition.nothing or "),
        70,
        "the package tiny-plugin 1.0 could not make its provider (scribe): AttributeError",
    ),
    "a setting without a default": (
        SOURCE.read_text().replace("wanted: int = Field(2, ", "wanted: int = Field("),
        78,
        "the package tiny-plugin 1.0: switches.wanted needs a default that is valid",
    ),
}


@pytest.mark.parametrize(("source", "code", "told"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_with_a_package_is_one_line_that_names_it(
    tmp_path: Path, source: str, code: int, told: str
) -> None:
    done = riwoad(installed(tmp_path / "broken", TINY, source), tmp_path / "state", SETTINGS)
    said = [line for line in done.stderr.splitlines() if line.startswith("riwoad: ")]
    assert (done.returncode, len(said)) == (code, 1), done.stderr
    assert told in said[0]
    assert "Traceback" not in done.stderr


def test_a_name_that_two_packages_offer_is_refused(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other_plugin-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other-plugin\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text("[riwoa.oracles]\nswitches = other_plugin:Switches\n")
    place = Path(f"{site}{os.pathsep}{tmp_path}")
    done = riwoad(place, tmp_path / "state", SETTINGS)
    assert done.returncode == 78
    assert "switches is offered by several packages, other-plugin 2.0 and tiny-plugin 1.0" in done.stderr


def test_config_show_prints_the_tables_of_another_package(site: Path, tmp_path: Path) -> None:
    given = [part for setting in SETTINGS for part in ("--set", setting)]
    known = environment()
    known["PYTHONPATH"] += os.pathsep + str(site)
    shown = subprocess.run(
        [sys.executable, "-m", "riwoa.ctl", "config", "show", *given],
        env=known,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "[oracle.switches]\n# the choice that each switch should have\nwanted = 1\n" in shown
    assert "[search.flip]\n# genes that change at once\nflips = 2\n" in shown
    (tmp_path / "riwoa.toml").write_text(shown)
    check = [sys.executable, "-m", "riwoa.ctl", "config", "check", str(tmp_path / "riwoa.toml")]
    assert subprocess.run(check, env=known, capture_output=True, text=True).returncode == 0


def test_nothing_is_looked_up_where_all_names_are_riwoas_own() -> None:
    code = "import riwoa.plugins as p; p.entry_points = None; from riwoa.config.loading import load; load(None)"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
