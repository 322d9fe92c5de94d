import pytest

from riwoa.config.fields import Section
from riwoa.config.handbook import BEGIN, END, key_list, with_key_list
from riwoa.config.schema import Config, is_live, leaves, may_restart
from riwoa.paths import shipped

PAGE = (shipped("handbook") / "configuration.md").read_text(encoding="utf-8")


def test_the_handbook_lists_the_keys_of_the_models() -> None:
    assert with_key_list(PAGE) == PAGE, "write it again: python -m riwoa.config.handbook"


def test_every_key_stands_once_with_its_description_and_when_it_may_change() -> None:
    lines = PAGE.splitlines()
    words = " ".join(PAGE.split())
    for key, info in leaves():
        (line,) = [line for line in lines if line.startswith((f"{key} = ", f"{key} (not set)"))]
        when = "live" if is_live(info) else "at restart" if may_restart(key) else ""
        assert line.endswith(f"  {when}") if when else not line.endswith(("  live", "  at restart")), key
        assert " ".join(info.description.split()) in words, key


def test_every_table_has_a_heading_with_the_purpose_of_its_model() -> None:
    for name, info in Config.model_fields.items():
        assert isinstance(info.annotation, type)
        assert issubclass(info.annotation, Section)
        assert f"## [{name}]\n" in PAGE
        assert " ".join((info.annotation.__doc__ or "").split("\n")[0].split()) in " ".join(PAGE.split())


def test_a_nested_table_has_a_heading_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(Section):
        """What lies within."""

        depth: int = 3

    class Outer(Section):
        """What lies around."""

        inner: Inner = Inner()
        width: int = 4

    class Nested(Config):
        """A configuration with a table in a table."""

        outer: Outer = Outer()

    monkeypatch.setattr("riwoa.config.handbook.Config", Nested)
    monkeypatch.setattr("riwoa.config.handbook.leaves", lambda: leaves(Nested))
    monkeypatch.setattr("riwoa.config.handbook.may_restart", lambda key: False)
    found = key_list()
    assert "## [outer.inner]\n\nWhat lies within.\n\n```\nouter.inner.depth = 3\n" in found
    assert "## [outer]\n\nWhat lies around.\n\n```\nouter.width = 4\n" in found
    assert found.count("## [outer]") == 1


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_key_list(PAGE.replace(END, ""))
    with pytest.raises(ValueError, match="needs the lines"):
        with_key_list(PAGE.replace(BEGIN, ""))
