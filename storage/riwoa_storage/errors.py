"""Errors of the journal, each with its exit code (sysexits.h) and a message that says what to do next."""

from __future__ import annotations


class StorageError(Exception):
    """Base of every error that the journal raises on purpose; the message is one line."""

    exit_code: int = 74


class JournalCorruptError(StorageError):
    """The journal fails SQLite's integrity check or its digest chain is broken."""

    exit_code = 65


class RowDamagedError(JournalCorruptError):
    """A row's checksum does not match its content; others can be read."""


class JournalMissingError(StorageError):
    """There is no journal at the given path."""

    exit_code = 66


class JournalUnreadableError(StorageError):
    """There is a journal but this user cannot read it."""

    exit_code = 66


class JournalRefusedError(StorageError):
    """A record breaks a rule of the journal (a gap in the generations, an unknown run); nothing was written."""

    exit_code = 70


class JournalClosedError(StorageError):
    """The writer was closed before it could say that this transaction is durable."""

    exit_code = 70


class JournalUnwritableError(StorageError):
    """The journal cannot be created or written: permissions, a full disk, or an I/O error."""

    exit_code = 74


class JournalFullError(JournalUnwritableError):
    """The disk is full. The transaction was rolled back; the writer goes on and it may be submitted again."""


class JournalLockedError(StorageError):
    """Another process holds the journal's write lock."""

    exit_code = 75


class JournalVersionError(StorageError):
    """The journal was written by another version of riwoa; it is left untouched."""

    exit_code = 76
