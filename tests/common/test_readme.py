from __future__ import annotations

import json
from pathlib import Path

from riwoa.config.schema import Config, is_live, leaves, may_restart, value_of
from riwoa.ctl import VERBS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_readme_lists_every_configuration_key_with_its_default() -> None:
    for key, info in leaves():
        value = value_of(Config(), key)
        value = list(value) if isinstance(value, tuple) else value
        default = "not set" if value is None else f"`{json.dumps(value)}`"
        live = "yes" if is_live(info) else "at restart" if may_restart(key) else ""
        assert f"| `{key}` | {default} | {live} | {info.description} |" in README, key


def test_the_readme_names_every_verb() -> None:
    for verb in VERBS:
        assert verb in README


def test_the_readme_has_no_number_left_to_fill_in() -> None:
    assert "@@" not in README
