from __future__ import annotations

import re
from pathlib import Path

import pytest

from riwoa.ctl import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "daemon/README.md", "storage/README.md", "systemd/README.md")),
    ROOT / "tests/README.md",
    *sorted((ROOT / "daemon/riwoa").glob("*/README.md")),
    *sorted((ROOT / "daemon/riwoa/data/handbook").glob("*.md")),
]
ROOTS = [ROOT, ROOT / "daemon/riwoa", ROOT / "daemon", ROOT / "storage", ROOT / "storage/riwoa_storage", ROOT / "tests"]


def test_the_readme_can_be_read_in_ten_minutes() -> None:
    assert len(README.encode()) <= 10 * 1024


def test_the_readme_names_every_verb() -> None:
    commands = README.split("While it searches")[1].split("## What it promises")[0]
    assert [verb for verb in VERBS if not re.search(rf"\b{verb}\b", commands)] == []


def test_the_readme_names_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "daemon/riwoa").glob("*/__init__.py")}
    rooms |= {path.stem for path in (ROOT / "daemon/riwoa").glob("*.py")} - {"__init__"}
    assert sorted(room for room in rooms if f"`{room}`" not in README) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_links_and_names_only_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in links if not (path.parent / link).exists()] == []
    files = re.findall(r"`([\w./]+\.(?:py|sql|md|toml|service|timer|json))(?:::\w+)?`", text)
    roots = [path.parent, *ROOTS]
    assert [file for file in files if "/" in file and not any((root / file).exists() for root in roots)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_has_no_number_left_to_fill_in_and_no_place_of_its_writer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [word for word in ("@@", "/work/", "/tmp/", "/root/") if word in text] == []
