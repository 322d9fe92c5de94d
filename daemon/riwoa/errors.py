"""The one tree of errors, each class with its exit code (sysexits.h, 64-78) and a message that says what to do next."""

from __future__ import annotations

from riwoa.text import printable

_MOST_CHARACTERS = 4_000


class RiwoaError(Exception):
    """Base of every error that riwoa raises on purpose.

    The message is one line: what is wrong, where, and what to do next. Console scripts print it and exit with
    ``exit_code``; a traceback is only ever shown for a bug.
    """

    exit_code: int = 70

    def __init__(self, *message: object) -> None:
        # Names of files, classes and genes are in it, which are anybody's: a terminal must not act on them.
        super().__init__(*(printable(part, _MOST_CHARACTERS) for part in message))


class UsageError(RiwoaError):
    """The command line was wrong."""

    exit_code = 64


class InputError(RiwoaError):
    """A file that the user named (checkpoint, data, space) is missing, truncated or not what it should be."""

    exit_code = 66


class InfeasibleTargetError(RiwoaError):
    """No architecture of the space can meet the latency target on this device."""

    exit_code = 68


class DaemonUnavailableError(RiwoaError):
    """A verb needs a running daemon and none answers."""

    exit_code = 69


class ServiceManagerError(RiwoaError):
    """systemd is missing, or refuses what it was asked."""

    exit_code = 69


class OracleError(RiwoaError):
    """Evaluations fail for a reason that is not the candidate's (workers die at start, every evaluation fails)."""

    exit_code = 71


class TableError(RiwoaError):
    """The latency table is missing an operator, damaged, or was measured on another device."""

    exit_code = 72


class StateDirectoryError(RiwoaError):
    """The state directory cannot be created or written."""

    exit_code = 73


class FullDiskError(RiwoaError):
    """Writing failed because the disk is full or broken."""

    exit_code = 74


class StateLockedError(RiwoaError):
    """Another daemon holds this state directory."""

    exit_code = 75


class ControlError(RiwoaError):
    """The daemon refused a request on its control socket."""

    exit_code = 77


class ConfigError(RiwoaError):
    """The configuration is invalid; nothing was changed.

    The message names the first problem, ``problems`` holds all of them.
    """

    exit_code = 78

    def __init__(self, *problems: str) -> None:
        more = f" (and {len(problems) - 1} more; `riwoactl config check FILE` lists them)" if len(problems) > 1 else ""
        super().__init__("".join(problems[:1]) + more)
        self.problems = problems


class PluginError(RiwoaError):
    """An oracle, a strategy or a provider of another installed package failed; the message names the package."""


class CognitionError(RiwoaError):
    """The language model cannot be used now; the search goes on without it."""


class ModelError(CognitionError):
    """No language model can be used: missing, damaged, or not loadable here."""

    exit_code = 66


class AdapterError(CognitionError):
    """LoRA weights are unreadable or were made for another model."""
