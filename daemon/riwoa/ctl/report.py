"""``riwoactl report``: what a run found, how sure that is, what it cost and what it came from, on one page."""

from __future__ import annotations

import json
from pathlib import Path

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser
from riwoa.ctl.past import add_run
from riwoa.ctl.screen import since
from riwoa.files.ownership import regular_file
from riwoa.paths import StatePaths, client_state
from riwoa.report import markdown, page
from riwoa.report.reading import read_report
from riwoa.report.writing import NAME, report_place, write_file

_DESCRIPTION = """Write what a run found as one HTML page that needs no network: the network to deploy and how sure that
is, what cannot be told from it, how the search went beside random search, who brought the gain, what to do next. Every
run leaves one with its exported files; this writes it at any time, also while the search goes on, from any journal.
--markdown and --json print the same facts."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Write the page, or print another form of it."""
    parser = Parser(verb, description=_DESCRIPTION)
    add = parser.add_argument
    add("--db", type=Path, metavar="FILE", help="another journal than the state directory's, such as a backup")
    add_run(parser)
    add(
        "--since",
        type=since,
        metavar="WHEN",
        help="say what happened since then too: a time ago (30min, 2h, 1d) or a date, 2026-01-31T22:00",
    )
    add("--markdown", action="store_true", help="print Markdown, without charts")
    add("--out", type=Path, metavar="FILE", help=f"where the page goes (default: export/{NAME} of the state directory)")
    given = parser.parse_args(arguments)
    if given.db is not None:
        paths, journal, place = StatePaths(given.db.absolute().parent), regular_file(given.db), Path(NAME)
    else:
        paths = client_state(options.state)
        journal, place = paths.journal, report_place(paths)
    with bar("reading the run"):
        report = read_report(journal, paths.latency_table, given.run, given.since)
    if options.json:
        print(json.dumps(report.to_json(), allow_nan=False))
    elif given.markdown:
        print(markdown.render(report), end="")
    else:
        print(write_file(given.out or place, page.render(report)))
    return 0
