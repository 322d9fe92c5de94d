"""``riwoactl token create | list | revoke``: who may use the page."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, subverb
from riwoa.paths import client_state
from riwoa.web.tokens import CONTROL, DAY_S, READ, SCOPES, Token, TokenStore

_KNOWN = {
    "create": "make a token; it is shown once",
    "list": "the tokens, what they allow and until when",
    "revoke": "remove a token; it is refused from the next request on",
}
_UNITS_S = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
_DESCRIPTION = """Make a token for the page of `riwoactl web`. It is printed once; only its hash is stored, in the state
directory. A token with the scope control may pause, resume, stop and reload, and read."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Carry out the sub-verb."""
    chosen = subverb(verb, arguments, _KNOWN)
    return {"create": _create, "list": _list, "revoke": _revoke}[chosen](verb, arguments[1:], options)


def _create(verb: str, arguments: list[str], options: Options) -> int:
    parser = Parser(f"{verb} create", description=_DESCRIPTION)
    parser.add_argument("name", help="who will have it; the daemon's log names it where it controls")
    parser.add_argument("--scope", choices=SCOPES, default=READ, help="what it allows (default: read)")
    parser.add_argument(
        "--expires",
        type=_lifetime_s,
        default=30 * DAY_S,
        metavar="TIME",
        help="how long it is good, such as 12h, 30d or 8w, or never (default: 30d)",
    )
    given = parser.parse_args(arguments)
    expires_s = given.expires if given.expires > 0 else None
    token, text = TokenStore(client_state(options.state)).create(given.name, (given.scope,), expires_s)
    words = f"{text}\n{token.name} may {_may(token)} {_until(token)}. It is shown this once; only its hash is stored."
    emit(options, {"token": text, **_view(token)}, words)
    return 0


def _list(verb: str, arguments: list[str], options: Options) -> int:
    Parser(f"{verb} list", description="The tokens of the page. Their secrets are stored nowhere.").parse_args(
        arguments
    )
    tokens = TokenStore(client_state(options.state)).tokens()
    rows = [["id", "name", "may", "until"], *([t.token_id, t.name, _may(t), _until(t)] for t in tokens)]
    words = columns(rows) if tokens else "no token; make one with riwoactl token create NAME --scope control"
    emit(options, {"tokens": [_view(token) for token in tokens]}, words)
    return 0


def _revoke(verb: str, arguments: list[str], options: Options) -> int:
    parser = Parser(f"{verb} revoke", description="Remove a token; it is refused from the next request on.")
    parser.add_argument("name", help="its name or its id")
    token = TokenStore(client_state(options.state)).revoke(parser.parse_args(arguments).name)
    emit(options, _view(token), f"{token.name} is revoked")
    return 0


def _lifetime_s(text: str) -> float:
    """Seconds of 12h, 30d, 8w; 0 for never."""
    if text == "never":
        return 0.0
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"needs a time such as 12h, 30d or 8w, or never, not {text!r}")
    return int(match.group(1)) * _UNITS_S[match.group(2)]


def _may(token: Token) -> str:
    return "read and control" if token.allows(CONTROL) else "read"


def _until(token: Token) -> str:
    if token.expires_unix_s is None:
        return "for ever"
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(token.expires_unix_s))
    return f"expired {day}" if token.is_expired(time.time()) else f"until {day}"


def _view(token: Token) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "scopes": list(token.scopes),
        "created_unix_s": token.created_unix_s,
        "expires_unix_s": token.expires_unix_s,
    }
