from __future__ import annotations

import re
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.config.schema import Config, leaves
from riwoa.ctl import VERBS, main
from riwoa.oracle.space_file import read_space

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "daemon/README.md", "storage/README.md", "systemd/README.md")),
    ROOT / "tests/README.md",
    *sorted((ROOT / "daemon/riwoa").glob("*/README.md")),
    *sorted((ROOT / "daemon/riwoa/data/handbook").glob("*.md")),
]
ROOMS_WITH_A_PAGE = [
    ROOT / "storage/riwoa_storage",
    *(page.parent for page in sorted((ROOT / "daemon/riwoa").glob("*/README.md"))),
]
ROOTS = [ROOT, *(ROOT / root for root in ("daemon", "daemon/riwoa", "storage", "storage/riwoa_storage", "systemd"))]


def test_the_readme_can_be_read_in_ten_minutes() -> None:
    assert len(README.encode()) <= 10 * 1024


def test_the_readme_names_every_verb() -> None:
    commands = README.split("## What you see")[1].split("## What it promises")[0]
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
    files = set(re.findall(r"`([\w./-]+\.(?:py|sql|service|timer|conf|sysusers))`", text))
    assert sorted(file for file in files if not any((root / file).exists() for root in (path.parent, *ROOTS))) == []


@pytest.mark.parametrize("room", ROOMS_WITH_A_PAGE, ids=lambda room: room.name)
def test_a_room_s_page_names_each_of_its_modules(room: Path) -> None:
    page = (room / "README.md" if (room / "README.md").exists() else room.parent / "README.md").read_text(
        encoding="utf-8"
    )
    modules = {path.name for path in room.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(module for module in modules if f"`{module}`" not in page) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_has_no_number_left_to_fill_in_and_no_place_of_its_writer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [word for word in ("@@", "/work/", "/tmp/", "/root/") if word in text] == []


def commands() -> list[tuple[str, ...]]:
    """Verb, sub-verb and options of every command line of riwoactl in the documents' code."""
    found = set()
    for path in DOCUMENTS:
        blocks = re.findall(r"^```.*?\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            for words in re.findall(r"\briwoactl ([^;#&`]+)", line):
                tokens = [word for word in words.split() if word != "--json"]
                while tokens and tokens[0] == "--state":
                    del tokens[:2]
                if tokens and tokens[0] in VERBS:
                    verb = tokens[: 2 if tokens[0] in WITH_SUBVERBS and tokens[1:2] not in ([], ["|"], ["NAME"]) else 1]
                    found.add((*verb, *(token for token in tokens if re.fullmatch(r"--[a-z][a-z-]*", token))))
    return sorted(found)


WITH_SUBVERBS = (
    *("token", "lut", "supernet", "predictor", "table", "model", "service", "config", "validate", "bench", "alerts"),
)


def test_the_documents_hold_commands() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_of_a_document_exists_with_its_options(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    verb = [word for word in command if not word.startswith("--")]
    with pytest.raises(SystemExit) as stopped:
        main([*verb, "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert [option for option in command if option.startswith("--") and not re.search(rf"{option}\b", told)] == []


def settings() -> list[tuple[str, str]]:
    """Every block of TOML of the documents, with the name of its document."""
    return [
        (path.stem, block)
        for path in DOCUMENTS
        for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]


def test_the_documents_hold_settings() -> None:
    assert len(settings()) > 5


@pytest.mark.parametrize(("document", "block"), settings(), ids=[document for document, _ in settings()])
def test_settings_of_a_document_are_valid(document: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text(block)
    if block.startswith("[[genes]]"):
        assert read_space(file).genes
        return
    assert any(origin != "default" for origin in load(file, environment={}).origin.values())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_key_that_a_document_names_exists(path: Path) -> None:
    keys = {key for key, _ in leaves()}
    sections = "|".join(Config.model_fields)
    found = re.findall(rf"`((?:{sections})\.[a-z_.]+)\b[^`/]*`", path.read_text(encoding="utf-8"))
    files = ("py", "db", "json", "toml", "md")
    assert sorted({key for key in found if key.rpartition(".")[2] not in files} - keys) == []
