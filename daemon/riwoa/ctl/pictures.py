"""``riwoactl pictures``: which pictures judge or train, one a line, so that any other program can use the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, default_config, emit, loaded
from riwoa.errors import InputError
from riwoa.paths import client_state
from riwoa_storage.errors import JournalMissingError

if TYPE_CHECKING:
    from riwoa.supernet.spec import SupernetSpec

_DESCRIPTION = """Prints the pictures of a split, one a line: those of the latest run, or with --config those that a run
by this file would have. Of a folder they are paths; of one file of arrays its name and the row, FILE:test_images[3].
In their order, which is that of riwoa's own labels; what cannot be read is left out."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print them.

    Raises:
        InputError: there is no such split, or the oracle is judged on no pictures.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("split", choices=["train", "validation", "test"], help="which of them")
    parser.add_argument("--classes", action="store_true", help="after each, a tab and its class")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: the latest run's, else ./riwoa.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key of the file")
    given = parser.parse_args(arguments)
    spec = _spec(given.config, given.set, options)
    from riwoa.datasets.catalogue import task_of

    task = task_of(spec)
    if given.split not in task.splits:
        raise InputError(f"{task.name} has no {given.split} pictures; it has {', '.join(task.splits)}")
    sources, names = task.sources(given.split), task.class_names
    classes = [names[label] for label in task.labels(given.split)]
    rows = [{"picture": source, "class": name} for source, name in zip(sources, classes, strict=True)]
    lines = [f"{row['picture']}\t{row['class']}" if given.classes else row["picture"] for row in rows]
    emit(options, {"data": task.name, "split": given.split, "pictures": rows}, "\n".join(lines))
    return 0


def _spec(config: Path | None, overrides: list[str], options: Options) -> SupernetSpec:
    """What the latest run was judged on, or what a file says."""
    from riwoa.oracle.supernet import supernet_spec
    from riwoa.supernet.spec import SupernetSpec

    if config is None and not overrides:
        from riwoa.export import found_network, read_winner

        journal = client_state(options.state).journal
        try:
            _, found = found_network(read_winner(journal), journal)
        except JournalMissingError:
            config = default_config()
            if config is None:
                raise InputError(f"no run in {journal.parent}, no riwoa.toml here; name --config") from None
        else:
            if found.spec.get("kind") != "supernet":
                raise InputError(f"the latest run was judged by a {found.spec.get('kind')}, on no pictures")
            return SupernetSpec.from_json(found.spec)
    settings = loaded(config or default_config(), overrides).config.oracle
    if settings.kind != "supernet":
        raise InputError(f"oracle.kind = {settings.kind}, which is judged on no pictures")
    return supernet_spec(settings)
