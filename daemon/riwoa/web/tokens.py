"""Tokens of the page, one file each below the state directory, with a hash in place of the secret.

A secret has 256 random bits, so a plain SHA-256 is as hard to invert as any slow hash would be. A token names its file,
so that a revoked one is refused from the next request on, without anything to reload.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from riwoa.errors import InputError, UsageError
from riwoa.files.ownership import json_object, unwritable
from riwoa.paths import StatePaths
from riwoa_storage.durable import flush

READ, CONTROL = "read", "control"
SCOPES = (READ, CONTROL)
DAY_S = 86_400.0
_DIRECTORY = "web-tokens"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,39}")
_TOKEN = re.compile(r"riwoa-([0-9a-f]{8})-([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; its secret is not.

    Attributes:
        token_id: names its file.
        name: who has it, in the owner's words.
        scopes: what it allows; ``control`` allows reading too.
        sha256: of the secret.
        created_unix_s: when it was made.
        expires_unix_s: from when on it is refused; None for never.
    """

    token_id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    created_unix_s: float
    expires_unix_s: float | None

    def allows(self, scope: str) -> bool:
        """Whether it allows what needs this scope."""
        return scope in self.scopes or (scope == READ and CONTROL in self.scopes)

    def is_expired(self, now_unix_s: float) -> bool:
        """Whether its time is over."""
        return self.expires_unix_s is not None and now_unix_s >= self.expires_unix_s


class TokenStore:
    """The tokens of one state directory."""

    def __init__(self, paths: StatePaths) -> None:
        self._directory = paths.state / _DIRECTORY

    def create(self, name: str, scopes: tuple[str, ...], expires_s: float | None) -> tuple[Token, str]:
        """Make a token; returns what is stored, and the token itself, which is told this once.

        Raises:
            UsageError: the name is not one, or another token has it.
            StateDirectoryError, FullDiskError: it cannot be stored.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError("a token's name has 1 to 40 letters, digits, spaces or any of . _ @ -")
        if any(token.name == name for token in self.tokens()):
            raise UsageError(f"there is a token named {name!r}; revoke it first, or choose another name")
        now_unix_s, secret = time.time(), secrets.token_urlsafe(32)
        token = Token(
            token_id=secrets.token_hex(4),
            name=name,
            scopes=scopes,
            sha256=_hash(secret),
            created_unix_s=now_unix_s,
            expires_unix_s=None if expires_s is None else now_unix_s + expires_s,
        )
        try:
            self._store(token)
        except OSError as error:
            raise unwritable(self._directory, error, "run as the daemon's user, or name another --state") from None
        return token, f"riwoa-{token.token_id}-{secret}"

    def _store(self, token: Token) -> None:
        """Write a token's file, for its owner's eyes alone, durably."""
        owner = self._directory.parent.stat()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        _give(self._directory, owner)
        new = self._directory / f".{token.token_id}.tmp"
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as stream:
            json.dump(asdict(token), stream)
        _give(new, owner)
        flush(new)
        new.rename(self._file(token.token_id))
        flush(self._directory)

    def revoke(self, name: str) -> Token:
        """Remove the token of a name or an id.

        Raises:
            InputError: there is none.
            StateDirectoryError: it cannot be removed.
        """
        for token in self.tokens():
            if name in (token.name, token.token_id):
                try:
                    self._file(token.token_id).unlink()
                except OSError as error:
                    raise unwritable(self._directory, error, "run as the daemon's user") from None
                return token
        names = ", ".join(token.name for token in self.tokens()) or "none"
        raise InputError(f"no token is named {name!r}; there are: {names}")

    def tokens(self) -> tuple[Token, ...]:
        """All of them, oldest first, expired ones too."""
        return tuple(sorted(self._read_all(), key=lambda token: token.created_unix_s))

    def _read_all(self) -> Iterator[Token]:
        for file in self._directory.glob("[0-9a-f]*.json"):
            if (token := _read(file)) is not None:
                yield token

    def find(self, text: str) -> Token | None:
        """The token that a client showed; None where it was never made, is revoked, or its time is over."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        token = _read(self._file(match.group(1)))
        if token is None or not hmac.compare_digest(token.sha256, _hash(match.group(2))):
            return None
        return None if token.is_expired(time.time()) else token

    def _file(self, token_id: str) -> Path:
        return self._directory / f"{token_id}.json"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _give(path: Path, owner: os.stat_result) -> None:
    """Have a file belong to the owner of the state directory: root may make tokens for a page that is not root's."""
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)


def _read(file: Path) -> Token | None:
    """The token of a file; None where there is none, or it is damaged: such a one opens nothing."""
    found: dict[str, Any] = json_object(file)
    try:
        token = Token(**{f.name: found[f.name] for f in fields(Token)})
        scopes = tuple(scope for scope in SCOPES if scope in token.scopes)
        expires_unix_s = None if token.expires_unix_s is None else float(token.expires_unix_s)
        created_unix_s = float(token.created_unix_s)
    except (KeyError, TypeError, ValueError):
        return None
    return Token(file.stem, str(token.name), scopes, str(token.sha256), created_unix_s, expires_unix_s)
