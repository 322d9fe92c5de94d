"""A training of a tiny supernet on tiny pictures: seconds."""

from pathlib import Path

from tests.support.tiny_pictures import CLASSES, tiny_file

from riwoa.supernet.job import TrainingJob
from riwoa.supernet.plan import Wishes
from riwoa.supernet.spec import SupernetSpec


def tiny_training(place: Path, epochs: int) -> TrainingJob:
    """A training whose pictures and result lie in a folder."""
    spec = SupernetSpec(
        checkpoint="trained",
        data=str(tiny_file(place / "tiny.npz")),
        n_classes=CLASSES,
        width_mult=0.1,
        resolutions=(12,),
        data_rules=2,
    )
    wishes = Wishes(epochs=epochs, width_mult=0.1, resolutions=(12,), stem="imagenet")
    return TrainingJob(place / "whole.safetensors", spec, wishes, "scratch", 1)
