import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from riwoa.ctl import main, usage
from riwoa.ctl.help import TOPICS, read_page, rendered
from riwoa.hardware.drift import Drift, Sentinel
from riwoa.paths import shipped
from riwoa.service.governor import Readings
from riwoa.service.status import StatusBoard

from .support import environment, status_object

_FORBIDDEN = "argparse asyncio numpy pydantic sqlite3 torch".split()


def test_every_page_of_the_handbook_is_a_topic_and_every_topic_has_a_page() -> None:
    assert {page.stem for page in shipped("handbook").glob("*.md")} == set(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_fits_a_terminal_of_80_columns(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", topic]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert len(out) > 500
    assert [line for line in out.splitlines() if len(line) > 80] == []
    assert "```" not in out


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_names_no_place_of_its_writer(topic: str) -> None:
    page = read_page(topic)
    assert not [word for word in ("/work/", "/tmp/", "/root/", "@@") if word in page]


def test_without_a_topic_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {topic} " in out and what in out for topic, what in TOPICS.items())


def test_the_usage_names_the_topics() -> None:
    assert all(topic in usage().split("handbook, by riwoactl help TOPIC:")[1] for topic in TOPICS)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["confguration"], "no topic 'confguration'; did you mean 'configuration'?"),
        (["zzzz"], "topics are quickstart, "),
        (["../../README"], "no topic '../../README'"),
        (["latency", "model"], "one topic at a time, not 'latency model'"),
    ],
)
def test_a_wrong_topic_exits_64_and_names_the_nearest(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", *arguments]) == 64
    out, err = capsys.readouterr()
    assert hint in err
    assert not out


def test_json_holds_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "recovery", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["topic"] == "recovery"
    assert answer["text"] == rendered(read_page("recovery"))
    assert main(["help", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["topics"] == TOPICS


def test_headings_are_underlined_code_is_indented_and_comments_are_left_out() -> None:
    page = "# Title\n\n## Part\n<!-- mark -->\n```sh\n# no heading\n\nrun\n```\n- point"
    assert rendered(page).splitlines() == [
        *("Title", "=====", "", "Part", "----"),
        *("    # no heading", "", "    run", "- point"),
    ]


def test_a_page_passes_a_pipe_that_takes_ascii_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riwoa.ctl", "help", "results"],
        env=environment() | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == len(rendered(read_page("results")).splitlines())


def test_help_imports_only_what_starts_in_milliseconds() -> None:
    program = (
        "import sys; from riwoa.ctl import main; main(['help', 'quickstart']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert not [module for module in done.stderr.split() if module in _FORBIDDEN]


def test_the_handbook_lies_in_what_is_installed() -> None:
    assert Path(os.path.realpath(shipped("handbook"))).parent.name == "data"


def test_the_status_page_names_every_key_of_a_status_object(tmp_path: Path) -> None:
    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    written = StatusBoard(tmp_path / "status.json", tmp_path).look()
    named = set(re.findall(r"\w+", read_page("status")))
    parts = {field.name for part in (Drift, Sentinel, Readings) for field in fields(part)}
    assert keys(status_object()) | keys(written) | parts <= named
