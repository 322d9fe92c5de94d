"""Subnets of a supernet as an oracle: what a worker of the kind ``supernet`` holds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from riwoa.datasets.arrays import ChosenImages
from riwoa.errors import InputError
from riwoa.oracle.answers import pack_answers
from riwoa.oracle.protocol import CandidateError, Judgement, Metrics
from riwoa.supernet.published import PUBLISHED, published_path
from riwoa.supernet.spec import SupernetSpec

if TYPE_CHECKING:
    from riwoa.datasets.arrays import Images, IntArray
    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.evaluator import SubnetEvaluator

# Raised by hand whenever the evaluator's arithmetic changes, so that cached accuracies of the old one are not used.
ARITHMETIC_REVISION = 1
EMBEDDED_SUPERNET = "digits_supernet.safetensors"
_RUNG_SEED = 20_262


class SupernetOracle:
    """Accuracy of subnets of one checkpoint on one task; on a lower rung, on so many of its validation images."""

    def __init__(self, version: str, evaluator: SubnetEvaluator, rungs: Mapping[str, SubnetEvaluator]) -> None:
        self._version = version
        self._evaluator = evaluator
        self._rungs = rungs

    @property
    def version(self) -> str:
        """Hash of everything that decides an accuracy."""
        return self._version

    @property
    def subnets(self) -> SubnetEvaluator:
        """Who evaluates."""
        return self._evaluator

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """Accuracy, MACs and parameters of one architecture; independent of what was evaluated before."""
        return cast("Metrics", self._evaluator.evaluate(architecture))

    def judge(self, architecture: Mapping[str, Any]) -> Judgement:
        """``evaluate``, and which of the images were read right."""
        metrics, right = self._evaluator.judge(architecture)
        return Judgement(cast("Metrics", metrics), pack_answers(right))

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """The same on the validation images of a lower rung.

        Raises:
            CandidateError: there is none of this name.
        """
        if rung not in self._rungs:
            raise CandidateError(f"the supernet has no rung of {rung} images, only {', '.join(self._rungs) or 'all'}")
        return cast("Metrics", self._rungs[rung].evaluate(architecture))


def checkpoint_path(spec: SupernetSpec) -> Path:
    """The spec's checkpoint, by path or published name, or the one inside the package.

    Raises:
        InputError: the file does not exist, or is not what was pulled.
    """
    if spec.checkpoint in PUBLISHED:
        return published_path(PUBLISHED[spec.checkpoint])
    if spec.checkpoint is not None:
        if not os.path.isfile(spec.checkpoint):
            raise InputError(f"there is no checkpoint at {spec.checkpoint}; check oracle.supernet.checkpoint")
        return Path(spec.checkpoint)
    path = Path(str(resources.files("riwoa"))) / "data" / EMBEDDED_SUPERNET
    if not path.is_file():
        raise InputError(f"the embedded supernet is missing at {path}; run `riwoactl supernet train digits`")
    return path


def build_supernet_oracle(spec: SupernetSpec) -> SupernetOracle:
    """Load the supernet, prepare the images, and hash what decides an accuracy.

    Raises:
        InputError: the checkpoint or the data is missing, damaged or of other classes, or there is no such GPU.
    """
    # Before torch is imported: a wrong name, or data of another task, is refused at once.
    path = checkpoint_path(spec)
    from riwoa.datasets.catalogue import check_task, task_of

    task = task_of(spec)
    check_task(task, spec)
    with ThreadPoolExecutor(1, thread_name_prefix="images") as executor:
        # Both take more than a second: numpy renders, or reads and hashes the file, while torch is imported.
        images = executor.submit(_images, task, spec)
        import torch

        from riwoa.supernet.evaluator import SubnetEvaluator
        from riwoa.supernet.network import Supernet

        if spec.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "the oracle is to run on a GPU, but torch finds none here; set oracle.supernet.device to auto"
            )
        torch.set_num_threads(spec.threads)
        supernet = Supernet.load(path, spec.width_mult, spec.n_classes, spec.stem)
        recalibration, validation, data_sha256 = images.result()
    if spec.split == "validation" and spec.trained_on not in (None, data_sha256):
        raise other_pictures(path, spec.data)

    judges: dict[int | None, dict[int, tuple[Images, IntArray]]] = {None: validation}
    judges |= {n: {r: _part(*pair, n) for r, pair in validation.items()} for n in spec.rung_images}
    most = {rung: max(len(images) for images, _ in judging.values()) for rung, judging in judges.items()}
    every = sum(spec.recalibration_images + count for count in most.values())

    def evaluator_on(rung: int | None) -> SubnetEvaluator:
        share = (spec.recalibration_images + most[rung]) / every  # an activation is as large as the images are many
        return SubnetEvaluator(
            supernet,
            recalibration,
            judges[rung],
            dtype=spec.dtype,
            batch_size=spec.batch_size,
            prefix_cache_bytes=int(spec.prefix_cache_bytes * share),
            device=spec.device,
        )

    evaluator = evaluator_on(None)
    rungs = {str(count): evaluator_on(count) for count in spec.rung_images}
    version = _version(spec, evaluator.settings(), supernet.weights_sha256(), data_sha256)
    return SupernetOracle(version, evaluator, rungs)


def other_pictures(checkpoint: Path, data: str) -> InputError:
    """Why a supernet that was trained for some pictures may not be judged on others, as an error."""
    return InputError(
        f"{checkpoint} was trained on other pictures than {data} has now, or on pictures that judge now: the folder "
        "changed, or data_seed, validation_images or recalibration_images; change that back, or train another: "
        "`riwoactl train --again`"
    )


def _part(images: Images, labels: IntArray, count: int) -> tuple[Images, IntArray]:
    """So many validation images of a fixed random choice; a longer choice holds a shorter one.

    Raises:
        InputError: there are no more than these.
    """
    if count >= len(images):
        raise InputError(f"oracle.rungs: {count} of {len(images)} validation images are no part; name fewer")
    rows = np.sort(np.random.Generator(np.random.Philox(key=_RUNG_SEED)).permutation(len(images))[:count])
    return ChosenImages(images, rows), labels[rows]


def _images(task: ImageTask, spec: SupernetSpec) -> tuple[dict[int, Images], dict[int, tuple[Images, IntArray]], str]:
    """Recalibration images, and validation images with labels, by resolution; the task's hash."""
    recalibration = {r: task.recalibration(r, spec.recalibration_images) for r in spec.resolutions}
    validation = {r: task.views(spec.split, r, spec.validation_views) for r in spec.resolutions}
    return recalibration, validation, task.sha256


def _version(spec: SupernetSpec, settings: Mapping[str, Any], weights_sha256: str, data_sha256: str) -> str:
    """Ruling 4. The last bits depend on dtype, batch size, thread count, processor and libraries.

    The resolutions are left out: a result depends on its own alone, so one of 24 px holds whatever else is prepared.
    The evaluator lists its batches by resolution; the size they follow from (None: its own rule) says the same.
    """
    facts = {
        "weights": weights_sha256,
        "data": data_sha256,
        "split": spec.split,
        "recalibration_images": spec.recalibration_images,
        "validation_views": spec.validation_views,
        "batch_size": spec.batch_size,
        "evaluator": {name: value for name, value in settings.items() if name != "batch_images"},
        "libraries": {name: metadata.version(name) for name in ("torch", "numpy", "ofa")},
        "revision": ARITHMETIC_REVISION,
        # Hashes of before there was another stem still hold.
        **({} if spec.stem == "imagenet" else {"stem": spec.stem}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()
