"""``riwoactl alerts test | list``: try how alerts are told, and see what was due and whether it was told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, default_config, emit, loaded, subverb
from riwoa.ctl.past import opened
from riwoa.ctl.screen import facts, moment, paragraph
from riwoa.errors import ConfigError
from riwoa.paths import client_state
from riwoa.service.alerts import send_test
from riwoa.text import printable
from riwoa_storage.events import AlertDue, AlertSent

_KNOWN = {
    "test": "tell a test by alerts.command and alerts.webhook_file, as the daemon would",
    "list": "what was due in this state directory, and whether it was told",
}
_NOT_DELIVERED = 74


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to test or list."""
    name = subverb(verb, arguments, _KNOWN)
    return {"test": _test, "list": _list}[name](arguments[1:], options)


def _test(arguments: list[str], options: Options) -> int:
    parser = Parser("alerts test", description="Runs as this user; a service runs as its own, in its own sandbox.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file (default: $RIWOA_CONFIG, ./riwoa.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    given = parser.parse_args(arguments)
    settings = loaded(given.config or default_config(), given.set).config.alerts
    found = asyncio.run(send_test(settings, client_state(options.state).directory))
    if not found:
        raise ConfigError("nobody is told: set alerts.command or alerts.webhook_file (`riwoactl help alerts`)")
    emit(options, {"told": found}, facts(found.items(), indent=0))
    return 0 if all(said.startswith("delivered") for said in found.values()) else _NOT_DELIVERED


def _list(arguments: list[str], options: Options) -> int:
    Parser("alerts list", description=_KNOWN["list"]).parse_args(arguments)
    with opened(options) as (reader, _):
        events = [e.event for e in reader.history.events(kinds=["alert_due", "alert_sent"])]
    sent = {e.key: e.created_unix_s for e in events if isinstance(e, AlertSent)}
    due = [e for e in events if isinstance(e, AlertDue)]
    rows = [
        {"kind": e.alert, "text": e.text, "due_unix_s": e.created_unix_s, "sent": e.key in sent, "run_id": e.run_id}
        for e in due
    ]
    lines = [
        paragraph(f"{moment(e.created_unix_s)}  {_told(sent.get(e.key))}  {printable(e.text)}", "  ", "") for e in due
    ]
    emit(options, {"alerts": rows}, "\n".join(lines) or "nothing was due")
    return 0


def _told(unix_s: float | None) -> str:
    return "not told yet" if unix_s is None else "told"
