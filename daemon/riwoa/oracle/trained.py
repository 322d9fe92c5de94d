"""The supernet that a search trains for itself, before anything else: ``oracle.supernet.checkpoint = "trained"``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.config.inferred import NAMES, wishes_of
from riwoa.errors import InputError
from riwoa.files.ownership import safetensors_notes
from riwoa.hardware.process import BuildProgress, ProgressCallback
from riwoa.ipc.job import RunJob, run_job
from riwoa.log import get_logger
from riwoa.supernet.job import TrainingJob
from riwoa.supernet.recipe import read_recipe
from riwoa.supernet.spec import SupernetSpec

if TYPE_CHECKING:
    from riwoa.config.schema import Config

_log = get_logger("training")
_AGAIN = "`riwoactl train --again` trains another"


def training_job(path: Path, config: Config, spec: SupernetSpec) -> TrainingJob:
    """What is to be trained for a configuration.

    Args:
        path: where the supernet is to lie.
        config: in force.
        spec: of the oracle that will judge its subnets.
    """
    train, settings = config.train, config.oracle.supernet
    wishes = wishes_of(train, {name: getattr(settings, name) for name in NAMES})
    return TrainingJob(path, spec, wishes, train.start, train.threads)


async def obtain_supernet(job: TrainingJob, progress: ProgressCallback | None = None, run: RunJob = run_job) -> None:
    """Have the supernet lie in its place, trained in a process of its own if it does not; cancelling loses little.

    Args:
        job: what is trained.
        progress: told how it goes.
        run: runs the process.

    Raises:
        InputError: the one that lies there is another, or the pictures cannot train one.
        RiwoaError: as ``train_job``; OracleError when the child dies.
    """
    if job.out.exists():
        require_planned(job)
        return

    def tell(event: dict[str, Any]) -> None:
        if progress is not None:
            progress(BuildProgress(event["done"], event["total"], event["left_s"], "training", event["words"]))

    _log.info("supernet_training", data=job.judged.data, minutes=job.wishes.minutes, epochs=job.wishes.epochs)
    tell({"done": 0, "total": 0, "left_s": None, "words": "starting"})
    arguments = [json.dumps(job.to_json())]
    found = await run("riwoa.supernet.job", arguments, job.threads, "the training of the supernet", tell)
    told = {name: found.get(name) for name in ("steps", "loss_largest", "lead", "lead_standard_errors")}
    _log.info("supernet_trained", **told)


def require_planned(job: TrainingJob) -> None:
    """Refuse a supernet that is none that the job would train.

    Raises:
        InputError: says what differs and the way out.
    """
    recipe = read_recipe(job.out)
    wanted = {"width_mult": job.judged.width_mult, "n_classes": job.judged.n_classes, "stem": job.judged.stem}
    for name, value in wanted.items():
        if getattr(recipe, name) != value:
            raise InputError(
                f"{job.out} was trained with {name} = {getattr(recipe, name)}, and {value} is configured; change it "
                f"back, or {_AGAIN}"
            )


def trained_on(path: Path) -> str | None:
    """Hash of the pictures that a supernet was trained on, as its file says."""
    told = safetensors_notes(path).get("data")
    return told if isinstance(told, str) else None
