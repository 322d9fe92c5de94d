"""``riwoactl classify``: what an exported model sees in pictures. onnxruntime, numpy and Pillow; no torch, no journal.

All it needs to know is in the metadata of the ONNX file, so the file alone is enough.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.datasets import decoding
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError, UsageError
from riwoa.files.ownership import json_object, opened_file
from riwoa.parsing import parse_json, parse_json_object
from riwoa.paths import client_state
from riwoa.text import printable

_DESCRIPTION = """Say what an exported model sees in pictures: for each the likeliest classes with their probabilities.
A folder stands for every file in it. What is no picture is told in a line of its own, and the exit code is 66 then."""
_MODEL = "model.onnx"
_MOST_MODEL_BYTES = 1 << 31  # of a protocol buffer
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


@dataclass(frozen=True, slots=True)
class Classifier:
    """An exported model in onnxruntime, with what its metadata says of it."""

    path: Path
    class_names: tuple[str, ...]
    rule: Preprocessing
    takes_bytes: bool
    gives_probabilities: bool
    run_digest: str
    session: Any  # onnxruntime's, which is untyped

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """The model of an export's directory, or an ONNX file of one.

        Raises:
            InputError: it is missing, damaged, or of something else than riwoa's export.
        """
        file = path / _MODEL if path.is_dir() else path
        session = _session(_content(file))
        try:
            return cls._described(file, session)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            reason = printable(str(error), _MOST_NAME_CHARACTERS)
            raise InputError(
                f"{file} is no model that riwoactl export of this version wrote ({reason}); export it again"
            ) from error

    @classmethod
    def _described(cls, file: Path, session: Any) -> Classifier:
        facts = dict(session.get_modelmeta().custom_metadata_map)
        if "preprocess" not in facts:
            raise ValueError("its metadata has no 'preprocess'")
        described = parse_json_object(facts["preprocess"])
        names = tuple(str(name) for name in parse_json(facts["class_names"]))
        rule = Preprocessing.from_json(described)
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        takes_bytes = taken.type == "tensor(uint8)"
        side = rule.crop_px if takes_bytes else rule.resolution
        shape = [side, side, 3] if takes_bytes else [3, side, side]
        if list(taken.shape[1:]) != shape or list(given.shape[1:]) != [len(names)]:
            raise ValueError(f"it maps {taken.shape} to {given.shape}, and its metadata says otherwise")
        return cls(file, names, rule, takes_bytes, facts["output"] == "probabilities", facts["run_digest"], session)

    def probabilities(self, data: bytes) -> npt.NDArray[np.float32]:
        """The probability of each class, of a picture's file.

        Raises:
            Exception: what a decoder raises on a file that is no picture.
        """
        pixels = self.rule.pixels(data)[None]
        fed = pixels if self.takes_bytes else self.rule.images(pixels)
        (found,) = self.session.run(None, {self.session.get_inputs()[0].name: fed})
        scores = np.asarray(found[0], np.float32)
        if self.gives_probabilities:
            return scores
        grown = np.exp(scores - scores.max())
        return np.asarray(grown / grown.sum(), np.float32)


def _content(file: Path) -> bytes:
    """The ONNX file's bytes, as they were exported where provenance.json lies beside it.

    Raises:
        InputError: it cannot be read, or has changed.
    """
    try:
        with opened_file(file) as stream:
            content = stream.read(_MOST_MODEL_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"there is no model at {file}; riwoactl export writes one, --model names one") from None
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{printable(file, _MOST_NAME_CHARACTERS)} is no file's name") from None
    if len(content) > _MOST_MODEL_BYTES:
        raise InputError(f"{file} is larger than any ONNX file")
    listed = json_object(file.with_name("provenance.json")).get("files_sha256")
    expected = listed.get(file.name) if isinstance(listed, dict) else None
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise InputError(f"{file} is not as it was exported: provenance.json has another hash of it; export it again")
    return content


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime's many kinds, none of which it exports
        reason = printable(" ".join(str(error).split()), _MOST_NAME_CHARACTERS)
        raise InputError(f"the model is no ONNX file that onnxruntime can run ({reason}); export it again") from None


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
