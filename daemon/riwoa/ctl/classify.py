"""``riwoactl classify``: what an exported model sees in pictures. onnxruntime, numpy and Pillow; no torch, no journal.

All it needs to know is in the metadata of the ONNX file, so the file alone is enough.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.datasets import decoding
from riwoa.errors import InputError, UsageError
from riwoa.paths import client_state
from riwoa.service.classifier import Classifier
from riwoa.text import printable

_DESCRIPTION = """Say what an exported model sees in pictures: for each the likeliest classes with their probabilities.
A folder stands for every file in it. What is no picture is told in a line of its own, and the exit code is 66 then."""
_MOST_NAME_CHARACTERS = 200
_BAD_INPUT = InputError.exit_code


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Classify, and print a block a picture, or one JSON object.

    Raises:
        UsageError: --top is no number of classes.
        InputError: the model or a folder cannot be read.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a picture's file, or a folder")
    where = "an export, or its ONNX file (default: export/ in the state directory)"
    parser.add_argument("--model", type=Path, metavar="PATH", help=where)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to print (default: 5)")
    given = parser.parse_args(arguments)
    if given.top < 1:
        raise UsageError(f"--top needs at least one class, not {given.top}")
    classifier = Classifier.load(given.model or client_state(options.state).export)
    pictures = [file for path in given.pictures for file in _files(path)]
    if not pictures:
        raise InputError(f"{given.pictures[0]} holds no file; name pictures")
    answers = []
    with bar("classifying", "picture") as progress:
        for done, file in enumerate(pictures, start=1):
            answers.append(_answer(classifier, file, given.top))
            progress(done, len(pictures), "")
    data = {"model": str(classifier.path), "run_digest": classifier.run_digest, "pictures": answers}
    if options.json or any("top" in answer for answer in answers):
        emit(options, data, render(data))
    bad = [answer for answer in answers if "error" in answer]
    for answer in [] if options.json else bad:
        print(f"riwoactl: {printable(answer['picture'], _MOST_NAME_CHARACTERS)}: {answer['error']}", file=sys.stderr)
    return _BAD_INPUT if bad else 0


def render(data: dict[str, Any]) -> str:
    """A picture's name, and its classes below it."""
    blocks = []
    for answer in data["pictures"]:
        if "top" in answer:
            rows = [[f"  {100 * best['probability']:6.2f} %", printable(best["class"], 60)] for best in answer["top"]]
            blocks.append(f"{printable(answer['picture'], _MOST_NAME_CHARACTERS)}\n{columns(rows)}")
    return "\n".join(blocks)


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or every file of a folder in the order of their names; hidden ones are none."""
    if not os.path.isdir(path):
        yield path
        return
    for directory, folders, names in os.walk(path):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield from (Path(directory, name) for name in sorted(names) if not name.startswith("."))


def _answer(classifier: Classifier, file: Path, top: int) -> dict[str, Any]:
    """The likeliest classes of a picture, or why it is none."""
    try:
        probabilities = classifier.probabilities(decoding.read_picture(file))
    except Exception as error:  # the decoders of hostile files raise whatever they met
        return {"picture": str(file), "error": decoding.reason(error)}
    best: Sequence[int] = np.argsort(-probabilities, kind="stable")[:top].tolist()
    named = [{"class": classifier.class_names[i], "index": i, "probability": float(probabilities[i])} for i in best]
    return {"picture": str(file), "top": named}
