"""The handbook's list of keys, made from the models: ``python -m riwoa.config.handbook`` writes it into the page.

A key's line holds its default and when it may change; its description stands below. Plain text in a code block, so that
it reads alike in a browser and in a terminal of 80 columns.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from riwoa.config.schema import Config, is_live, leaves, may_restart
from riwoa.paths import shipped

BEGIN, END = "<!-- keys: python -m riwoa.config.handbook -->", "<!-- end of keys -->"
_PAGE_WIDTH = 79
_WIDTH = 76  # of code, which riwoactl help indents by four
_WHEN_COLUMN = 56


def key_list() -> str:
    """Every key in Markdown: a heading a table of the file, nested ones too, and a code block of its keys."""
    tables: dict[str, list[str]] = {}
    for key, info in leaves():
        tables.setdefault(key.rpartition(".")[0], []).append(_entry(key, info))
    sections = [[f"## [{table}]", "", *_purpose(table), "", "```", *lines, "```"] for table, lines in tables.items()]
    return "\n\n".join("\n".join(section) for section in sections)


def with_key_list(page: str) -> str:
    """The page with the list of today between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{key_list()}\n{END}{after}"


def main() -> None:
    """Write today's list into the handbook."""
    path = shipped("handbook") / "configuration.md"
    path.write_text(with_key_list(path.read_text(encoding="utf-8")), encoding="utf-8")


def _entry(key: str, info: Any) -> str:
    default = _default(key)
    value = "(not set)" if default is None else f"= {json.dumps(default, ensure_ascii=False)}"
    when = "live" if is_live(info) else "at restart" if may_restart(key) else ""
    head = f"{key} {value}"
    head = f"{head:<{_WHEN_COLUMN}}  {when}".rstrip()
    text = textwrap.wrap(info.description or "", _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([head, *text])


def _default(key: str) -> Any:
    value: Any = Config()
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _purpose(table: str) -> list[str]:
    """What the table's model says of itself: the first line of its docstring, as lines of the page."""
    model: type[BaseModel] = Config
    for name in filter(None, table.split(".")):
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type), f"{table} is no table"
        assert issubclass(annotation, BaseModel), f"{table} is no table"
        model = annotation
    return textwrap.wrap((model.__doc__ or "").strip().partition("\n")[0], _PAGE_WIDTH)


if __name__ == "__main__":
    main()
