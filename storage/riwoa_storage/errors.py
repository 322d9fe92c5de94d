"""Errors of the journal, each with its exit code (sysexits.h) and a message that says what to do next."""

from __future__ import annotations


class StorageError(Exception):
    """Base of every error that the journal raises on purpose; the message is one line."""

    exit_code: int = 74


class JournalCorruptError(StorageError):
    """The journal fails SQLite's integrity check or its digest chain is broken."""

    exit_code = 65


class JournalMissingError(StorageError):
    """There is no journal at the given path."""

    exit_code = 66


class JournalUnwritableError(StorageError):
    """The journal cannot be created or written: permissions, a full disk, or an I/O error."""

    exit_code = 74


class JournalVersionError(StorageError):
    """The journal was written by a newer riwoa; it is left untouched."""

    exit_code = 76
