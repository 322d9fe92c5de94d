"""Whether an export may take the champion's place, and whether the champion still does what it did.

Both are judged on fresh pictures: ``folder/CLASS/*``, which trained neither and chose neither. Two networks are
compared on the same pictures, by McNemar's exact test (``search.paired``), and timed in turns, as they are deployed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.datasets import decoding
from riwoa.datasets.entries import inventory, some
from riwoa.errors import InputError
from riwoa.hardware.deployed import DeployedNetwork, MeasuredLatency, time_deployed
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.runtime import ONNXRUNTIME, Runtime, Settings
from riwoa.search.paired import LEVEL, Accuracy, BoolArray, Difference, accuracy_of, difference_of
from riwoa.service.classifier import Classifier
from riwoa.text import points

LEAST_PICTURES = 30  # below, an interval is as wide as what it should find
_Z = 1.96  # standard errors either way of a 95 % interval
_MOST_PICTURES = 10**9


class Half(Enum):
    """Of the pictures, by the hash of their bytes: one that watches a champion, one that is kept for the gate."""

    WATCHED = 0
    KEPT = 1

    def has(self, picture: bytes) -> bool:
        """Whether a picture is in it."""
        return hashlib.sha256(picture).digest()[0] % 2 == self.value


HOLDS, FALLEN, TOO_FEW = "holds", "fallen", "too few"


@dataclass(frozen=True, slots=True)
class FreshAnswers:
    """What networks said of fresh pictures.

    Attributes:
        right: of each network (pictures, 1), in the order in which they were given.
        new_classes: folders of classes that no network knows, with the number of their pictures; they do not count.
        remarks: what else was left out.
    """

    right: tuple[BoolArray, ...]
    new_classes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def pictures(self) -> int:
        """How many counted."""
        return len(self.right[0])


def answers_of(models: Sequence[Classifier], folder: Path, half: Half | None = None) -> FreshAnswers:
    """Show the labelled pictures of a folder, or one half, to networks; a class that a network lacks it gets wrong.

    Raises:
        InputError: no folder of class folders, or no picture in it of a class that one of them knows.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; --fresh names one with a folder of pictures a class")
    found = inventory(folder)
    known = {name for model in models for name in model.class_names}
    new: dict[str, int] = {}
    rows: list[list[bool]] = []
    unreadable: dict[str, str] = {}
    for name, number in found.pictures:
        label = found.classes[number]
        if label not in known:
            new[label] = new.get(label, 0) + 1
            continue
        try:
            picture = decoding.read_picture(folder / name)
            if half is not None and not half.has(picture):
                continue
            said = [model.class_names[int(np.argmax(model.probabilities(picture)))] for model in models]
        except Exception as error:  # the decoders of hostile files raise whatever they met
            unreadable[name] = decoding.reason(error)
            continue
        rows.append([answer == label for answer in said])
    remarks = found.remarks()
    if unreadable:
        remarks.append(f"left out {len(unreadable)} that cannot be read: {decoding.named(unreadable)}")
    if not rows:
        why = "; ".join([*([_new_words(new)] if new else []), *remarks]) or "it is empty"
        raise InputError(f"{folder} has no labelled picture ({why}); put pictures into folders named as the classes")
    right = np.array(rows, dtype=np.bool_)
    return FreshAnswers(tuple(right[:, [i]] for i in range(len(models))), new, tuple(remarks))


def _new_words(new: Mapping[str, int]) -> str:
    return f"{sum(new.values())} pictures of classes that it does not know: {some(sorted(new))}"


# -- the gate --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate found.

    Attributes:
        is_open: whether the challenger becomes the champion.
        why: in a sentence.
        challenger: its accuracy; None where there were no pictures.
        champion: its, on the same pictures; None where there was none.
        difference: the challenger's accuracy less the champion's.
        latency: the challenger's, in turns with the champion's; None where nothing asked for it.
        limit_ms: that it had to keep.
        remarks: what of the pictures did not count.
    """

    is_open: bool
    why: str
    challenger: Accuracy | None = None
    champion: Accuracy | None = None
    difference: Difference | None = None
    latency: MeasuredLatency | None = None
    limit_ms: float | None = None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the record keeps it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), [])}


def judge(
    challenger: Path,
    champion: Path | None,
    fresh: Path | None,
    within_ms: float | None,
    progress: ProgressCallback | None = None,
    half: Half | None = None,
) -> Gate:
    """Whether a challenger may take the champion's place: clearly better on fresh pictures, and fast enough.

    Where the champion itself surely takes longer than ``within_ms``, as on a device that became slower, it is enough
    that the challenger is not clearly worse.

    Args:
        challenger: an export.
        champion: another; None where there is none, and nothing to be better than.
        fresh: a folder of class folders; needed where there is a champion.
        within_ms: milliseconds that the challenger may take; None: as many as the champion.
        progress: told of each round of the timing.
        half: of the pictures; None: all.

    Raises:
        InputError: an export or the folder is none.
        TableError: a network cannot be timed.
    """
    exports = [challenger] if champion is None else [challenger, champion]
    models = [Classifier.load(export) for export in exports]
    if champion is not None and fresh is None:
        raise InputError("there is a champion: name labelled pictures that neither was trained on with --fresh FOLDER")
    answers = None if fresh is None else answers_of(models, fresh, half)
    timed = [] if champion is None and within_ms is None else _timed(models, progress)
    limit_ms = within_ms if within_ms is not None or not timed else timed[-1].high_ms
    accuracies = [] if answers is None else [accuracy_of(right) for right in answers.right]
    ours, theirs = accuracies[0] if accuracies else None, accuracies[1] if len(accuracies) > 1 else None
    difference = difference_of(*answers.right) if answers is not None and theirs is not None else None
    slow_ms = timed[-1].ms if within_ms is not None and len(timed) > 1 and timed[-1].low_ms > within_ms else None
    is_open, why = _verdict(difference, answers, timed[0].ms if timed else None, limit_ms, slow_ms)
    remarks = () if answers is None else answers.remarks
    if answers is not None and answers.new_classes:
        remarks = (f"left out {_new_words(answers.new_classes)}", *remarks)
    return Gate(is_open, why, ours, theirs, difference, timed[0] if timed else None, limit_ms, remarks)


def _verdict(
    difference: Difference | None,
    answers: FreshAnswers | None,
    ms: float | None,
    limit_ms: float | None,
    slow_ms: float | None,
) -> tuple[bool, str]:
    """Whether the gate opens, and why; ``slow_ms``: what a champion takes that is beyond the limit."""
    if ms is not None and limit_ms is not None and ms > limit_ms:
        return False, f"it takes {ms:.3f} ms, and may take {limit_ms:.3f}"
    if difference is None or answers is None:
        return True, "there was no champion"
    gain = f"{points(difference.value, difference.error)} points on {answers.pictures:,} fresh pictures"
    if difference.is_clear:
        return difference.value > 0, f"{gain} (p = {difference.p:.2g})"
    if slow_ms is not None:
        return (
            True,
            f"the champion takes {slow_ms:.3f} ms, and may take {limit_ms:.3f}; {gain} (p = {difference.p:.2g})",
        )
    more = ""
    if difference.value > 0:
        ratio = (_Z * difference.error / difference.value) ** 2
        more = f"; if that is so, about {math.ceil(min(_MOST_PICTURES, answers.pictures * ratio)):,} would tell"
    return False, f"{gain} may be chance (p = {difference.p:.2g}, and it must be below {LEVEL:g}){more}"


def _timed(models: Sequence[Classifier], progress: ProgressCallback | None) -> list[MeasuredLatency]:
    """Milliseconds of a picture, in turns, in onnxruntime on one thread."""
    from riwoa.hardware.onnx_clock import visit_ms  # slow to import, and not every gate asks for it

    runtime = Runtime(ONNXRUNTIME)
    networks, expected_ms = [], []
    for model in models:
        if model.takes_bytes:
            raise InputError(f"{model.path} has its preprocessing inside; export it without --with preprocessing")
        shape = (3, model.rule.resolution, model.rule.resolution)
        content = model.path.read_bytes()
        expected_ms.append(float(np.median(visit_ms(content, (1, *shape), runtime))))
        networks.append(DeployedNetwork(content, shape, None))
    settings = Settings("cpu", 1, len(networks), regime="session", runtime=ONNXRUNTIME, graph_level="all")
    return time_deployed(networks, expected_ms, settings, runtime, progress)


# -- the champion, later ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watch:
    """How the champion does on pictures of today.

    Attributes:
        verdict: HOLDS, FALLEN or TOO_FEW.
        now: its accuracy.
        then: that of the pictures on which it was promoted.
        acts_below: accuracy below which it has fallen, with so many pictures.
        new_classes: that it does not know, with the number of their pictures; they do not count.
        remarks: what else did not count.
    """

    verdict: str
    now: Accuracy
    then: Accuracy | None
    acts_below: float | None
    new_classes: Mapping[str, int]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def watch(champion: Path, gate: Mapping[str, Any], fresh: Path, half: Half | None = None) -> Watch:
    """Whether the champion's accuracy has fallen by more than the interval of the difference.

    Args:
        champion: its files.
        gate: what was measured when it was promoted.
        fresh: a folder of class folders, as of today.
        half: of the pictures; None: all.

    Raises:
        InputError: the files or the folder are none.
    """
    answers = answers_of([Classifier.load(champion)], fresh, half)
    now = accuracy_of(answers.right[0])
    then = _accuracy(gate.get("challenger"))
    acts_below = None if then is None else then.value - _Z * math.hypot(now.error, then.error)
    if now.pictures < LEAST_PICTURES or (then is not None and then.pictures < LEAST_PICTURES):
        verdict = TOO_FEW
    else:
        verdict = FALLEN if acts_below is not None and now.value < acts_below else HOLDS
    return Watch(verdict, now, then, acts_below, answers.new_classes, answers.remarks)


def _accuracy(found: Any) -> Accuracy | None:
    try:
        return Accuracy(float(found["value"]), float(found["error"]), int(found["pictures"]), int(found["views"]))
    except (TypeError, KeyError, ValueError):
        return None
