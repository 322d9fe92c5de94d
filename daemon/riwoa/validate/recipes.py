"""How a network is retrained: CIFAR-100's protocol, or as suits the pictures. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from riwoa.supernet.geometry import Backbone
from riwoa.supernet.plan import Pictures, Wishes, plan
from riwoa.supernet.recipe import Recipe

Protocol = Literal["cifar100", "own"]

# SGD with Nesterov momentum, a cosine to zero, crop and flip.
CIFAR100 = Recipe(
    n_classes=100,
    largest_only_steps=0,
    batch_images=512,
    optimiser="sgd",
    learning_rate=0.2,
    weight_decay=5e-4,
    label_smoothing=0.1,
    crop_px=4,
    flip=True,
    ema=0.999,
    start="identity",
)
_CIFAR100_WARMUP_EPOCHS = 3.0
# The same for some minutes on two cores: more steps in an epoch, and an average that follows them.
_SMOKE_CIFAR100 = replace(CIFAR100, batch_images=64, learning_rate=0.1, label_smoothing=0.0, crop_px=2, ema=0.99)
_SMOKE_WARMUP_EPOCHS = 0.2
_CURRICULUM_SHARE = 4  # digits: in one step of so many they grow harder


@dataclass(frozen=True, slots=True)
class Retraining:
    """What is asked of every network alike; ``changes``: fields of the recipe that are named."""

    protocol: Protocol = "own"  # as the command line names it; once the pictures are known, theirs
    epochs: int = 100
    warmup_epochs: float | None = None  # None: as the protocol has it
    changes: Mapping[str, Any] = field(default_factory=dict)
    training_images: int | None = None  # None: all
    recalibration_images: int = 10_000  # most, for BatchNorm statistics of the averaged weights
    seed: int = 0
    smoke: bool = False  # in minutes: CIFAR-100's protocol with the numbers of a short training

    def recipe(self, pictures: Pictures, backbone: Backbone, resolution: int, device: str) -> Recipe:
        """The recipe of one network."""
        bound: dict[str, Any] = {
            "width_mult": backbone.width_mult,
            "stem": backbone.stem,
            "n_classes": backbone.n_classes,
            "resolutions": (resolution,),
            "seed": self.seed,
        }
        warmup_epochs = self.warmup_epochs
        if self.protocol == "cifar100":
            base, usual = (_SMOKE_CIFAR100, _SMOKE_WARMUP_EPOCHS) if self.smoke else (CIFAR100, _CIFAR100_WARMUP_EPOCHS)
            warmup_epochs = usual if warmup_epochs is None else warmup_epochs
        else:
            wishes = Wishes(
                epochs=self.epochs, width_mult=backbone.width_mult, stem=backbone.stem, resolutions=(resolution,)
            )
            base = plan(pictures, wishes, None)
        recipe = replace(base, **bound, **self.changes)
        batch_images = min(recipe.batch_images, pictures.images)
        steps_an_epoch = max(1, pictures.images // batch_images)
        steps = self.epochs * steps_an_epoch
        warmup = recipe.warmup_steps if warmup_epochs is None else round(warmup_epochs * steps_an_epoch)
        return replace(
            recipe,
            batch_images=batch_images,
            steps=steps,
            warmup_steps=warmup,
            curriculum_steps=max(1, steps // _CURRICULUM_SHARE),
            checks=0,  # nothing is chosen
            stored="float32",
            precision="bfloat16" if device == "cuda" else "float32",
        )
