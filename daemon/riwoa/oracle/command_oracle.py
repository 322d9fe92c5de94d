"""What a worker holds of a command: the program that it starts for each architecture, or the function that it calls."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from riwoa.errors import InputError
from riwoa.oracle.command_answer import metrics_of, parse_answer
from riwoa.oracle.program import ProgramRunner, executable
from riwoa.oracle.protocol import CandidateError, Metrics
from riwoa.text import printable

# Raised by hand whenever the same command gives other metrics.
RECIPE_VERSION = "command-1"
Judge = Callable[[Mapping[str, Any], str], Metrics]  # an architecture at a fidelity


class CommandOracle:
    """A user's command as an oracle.

    Args:
        settings: of ``[oracle.command]``, places absolute.
        threads: that numeric libraries are held to.

    Raises:
        InputError: the function cannot be imported, or a file cannot be read.
        ConfigError: the program is not there.
    """

    def __init__(self, settings: Mapping[str, Any], threads: int) -> None:
        self._fidelity = str(settings["fidelity"])
        self._attempts = 1 + int(settings["retries"])
        judge, facts = _program(settings) if settings["program"] else _function(settings)
        self._judge: Judge = judge
        common = {key: settings[key] for key in ("fidelity", "seed", "version")}
        files = [_sha256(Path(file)) for file in settings["files"]]
        content = json.dumps([RECIPE_VERSION, threads, common, facts, files], sort_keys=True)
        self._version = hashlib.sha256(content.encode()).hexdigest()

    @property
    def version(self) -> str:
        """Hash of the command line, of the contents of its files, and of what it is told."""
        return self._version

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """What the command answers in full.

        Raises:
            CandidateError: it fails as often as it may.
        """
        return self.evaluate_at(self._fidelity, architecture)

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """The same at a lower fidelity."""
        for left in reversed(range(self._attempts)):
            try:
                return self._judge(architecture, rung)
            except CandidateError:
                if not left:
                    raise
        raise AssertionError("there is at least one attempt")


# -- a program --------------------------------------------------------------------------------------------------------


def _program(settings: Mapping[str, Any]) -> tuple[Judge, object]:
    """How a program judges, and what decides what it answers."""
    program, directory = list(settings["program"]), Path(settings["directory"])
    runner = ProgramRunner([executable(program, directory), *program[1:]], directory)

    def judge(architecture: Mapping[str, Any], fidelity: str) -> Metrics:
        told = {"RIWOA_FIDELITY": fidelity, "RIWOA_SEED": str(settings["seed"])}
        return parse_answer(runner.run(json.dumps(architecture).encode() + b"\n", told))

    return judge, [_word(word, directory) for word in (runner.command[0], *program[1:])]


def _word(word: str, directory: Path) -> object:
    """A word of a command line as it decides answers: a file by name and content, wherever it lies."""
    place = directory / word
    return [place.name, _sha256(place)] if place.is_file() else word


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None


# -- a function -------------------------------------------------------------------------------------------------------


def _function(settings: Mapping[str, Any]) -> tuple[Judge, object]:
    """How a function judges, and what decides what it answers.

    Raises:
        InputError: there is no such function.
    """
    name, seed = str(settings["function"]), int(settings["seed"])
    called, file = _imported(name, settings["path"])

    def judge(architecture: Mapping[str, Any], fidelity: str) -> Metrics:
        told = int(fidelity) if fidelity.isdecimal() else fidelity
        try:
            answer = called(dict(architecture), fidelity=told, seed=seed)
        except Exception as error:  # the user's code: the candidate fails, the worker lives
            raise CandidateError(f"{type(error).__name__}: {printable(error, 200)}") from error
        if not isinstance(answer, Mapping):
            raise CandidateError(f"{name} returned {type(answer).__name__}, and should return a dictionary of numbers")
        return metrics_of({str(key): _plain(value) for key, value in answer.items()})

    return judge, [name, None if file is None else _sha256(file)]


def _plain(value: Any) -> Any:
    """A number of numpy's or torch's as Python's."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "size", 1) in (1, None) else value


def _imported(name: str, path: str | None) -> tuple[Callable[..., Any], Path | None]:
    """A function by its name, and the file of its module.

    Nothing is imported from the working directory: only from ``path``, where it is named, and what is installed.

    Raises:
        InputError: there is no such module or function, or its import fails.
    """
    module_name, _, function_name = name.partition(":")
    if path is not None:
        sys.path.insert(0, path)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        hint = "" if path is not None else "; name its directory in oracle.command.path, if it is not installed"
        raise InputError(
            f"oracle.command.function = {name}: {type(error).__name__}: {printable(error, 200)}{hint}"
        ) from error
    found = getattr(module, function_name, None)
    if not callable(found):
        raise InputError(f"oracle.command.function: {module_name} has no function {function_name!r}")
    file = getattr(module, "__file__", None)
    return found, Path(file) if file is not None and os.path.isfile(file) else None
