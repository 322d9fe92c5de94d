"""An exported model and what it says of pictures. onnxruntime, numpy and Pillow; no torch, no journal.

All it needs to know is in the metadata of the ONNX file, so the file alone is enough.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError
from riwoa.files.ownership import json_object, opened_file
from riwoa.parsing import parse_json, parse_json_object
from riwoa.text import printable

MODEL = "model.onnx"
_MOST_MODEL_BYTES = 1 << 31  # of a protocol buffer
_MOST_NAME_CHARACTERS = 200


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
        file = path / MODEL if path.is_dir() else path
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
