"""``[oracle.supernet]``: subnets of a trained supernet, judged on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from riwoa.config.fields import Images, KindSettings, ResolutionsPx, restart
from riwoa.supernet.published import PUBLISHED, check_name

TRAINED = "trained"  # the checkpoint that is made before a search, in the state directory


class SupernetSettings(KindSettings):
    """A supernet, the data that judge its subnets, and the arithmetic."""

    checkpoint: Annotated[str, AfterValidator(check_name)] = restart(
        "embedded",
        "a supernet in OFA's format: embedded, a path, the name of a published one; trained = one that is trained on "
        "the data first, as [train] says",
    )
    width_mult: Annotated[float, Field(gt=0, le=16)] = Field(0.25, description="width multiplier of the supernet")
    n_classes: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="classes of the supernet's head")
    stem: Literal["imagenet", "small"] = Field("imagenet", description="the supernet's strides; small = for some 32 px")
    resolutions: ResolutionsPx = Field((24, 32, 40), description="input resolutions in pixels, ascending")
    data: str = restart(
        "digits", "digits, or the path of CIFAR-100, of an .npz file, or of an ImageNet-style folder", min_length=1
    )
    validation_images: Images = Field(2000, description="most images of a folder that judge")
    data_seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the splits that are held out and of the choice among images"
    )
    data_rules: Literal[1, 2] = Field(
        2,
        description="2 = pictures upright by EXIF and over white, missing splits held out; 1 = none of it, as in runs "
        "of before",
    )
    recalibration_data: str = restart("train", "training images to recalibrate on: train = the data's own, or a folder")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = a CUDA GPU where torch finds one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto = bfloat16 where the device has it")
    recalibration_images: Images = Field(400, description="training images for BatchNorm statistics")
    validation_views: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="corrupted views of each digit; other images are shown once"
    )
    batch_images: Images = Field(200, description="images a forward pass; a GPU takes what fits")

    def check_rungs(self, rungs: Sequence[int | str]) -> None:
        """Numbers of validation images, ascending.

        Raises:
            ValueError: they are not.
        """
        if list(rungs) != sorted({rung for rung in rungs if isinstance(rung, int)}):
            raise ValueError(f"oracle.rungs = {list(rungs)}: a supernet's are numbers of images, ascending")

    @model_validator(mode="before")
    @classmethod
    def _published_settings(cls, given: Any) -> Any:
        """What follows from a published supernet need not be written down."""
        net = PUBLISHED.get(str(given.get("checkpoint"))) if isinstance(given, dict) else None
        return given if net is None else {**net.settings, **given}

    @model_validator(mode="after")
    def _fits_published(self) -> SupernetSettings:
        net = PUBLISHED.get(self.checkpoint)
        for name in ("width_mult", "n_classes", "stem"):
            if net is not None and getattr(self, name) != net.settings[name]:
                raise ValueError(
                    f"oracle.supernet.{name} = {getattr(self, name)!r}, but {net.name} has {net.settings[name]!r}; "
                    "leave it out"
                )
        return self
