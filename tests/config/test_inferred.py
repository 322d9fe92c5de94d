"""What a checkpoint or the pictures know need not be typed; what is typed counts."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from riwoa.config.loading import INFERRED, load
from riwoa.supernet.recipe import Recipe
from tests.support.picture_files import picture_folder
from tests.support.tiny_pictures import CLASSES, tiny_file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    recipe = Recipe(width_mult=0.5, n_classes=7, resolutions=(16, 20), stem="small")
    save_file({"w": torch.zeros(1)}, path, {"recipe": json.dumps(asdict(recipe))})
    return path


def test_a_checkpoint_s_file_says_what_it_is_and_a_typed_value_counts(checkpoint: Path) -> None:
    named = f"oracle.supernet.checkpoint={checkpoint}"
    found = load(None, [named, "oracle.supernet.resolutions=[16]"], {})
    settings = found.config.oracle.supernet
    assert (settings.width_mult, settings.n_classes, settings.stem) == (0.5, 7, "small")
    assert settings.resolutions == (16,)
    assert found.origin["oracle.supernet.width_mult"] == INFERRED
    assert found.origin["oracle.supernet.resolutions"] == "command line"


def test_pictures_say_it_of_a_supernet_that_is_still_to_be_trained(tmp_path: Path) -> None:
    trained = ("oracle.supernet.checkpoint=trained", "oracle.supernet.device=cpu")
    file = load(None, [*trained, f"oracle.supernet.data={tiny_file(tmp_path / 'a.npz')}"], {}).config.oracle.supernet
    assert (file.n_classes, file.width_mult, file.resolutions) == (CLASSES, 0.25, (8, 12))
    folder = picture_folder(tmp_path / "photos", classes=4, train_each=3, judging_each=2)
    wide = [*trained, f"oracle.supernet.data={folder}", "train.width=0.5", "train.resolutions=[20]"]
    found = load(None, wide, {}).config.oracle.supernet
    assert (found.n_classes, found.width_mult, found.resolutions) == (4, 0.5, (20,))


@pytest.mark.parametrize("settings", [("oracle.supernet.data=/nowhere", "oracle.supernet.checkpoint=trained"),
                                      ("oracle.supernet.checkpoint=/nowhere.safetensors",), ()])  # fmt: skip
def test_where_nothing_is_known_the_defaults_stand_and_a_start_says_what_is_missing(settings: tuple[str, ...]) -> None:
    found = load(None, settings, {})
    assert found.config.oracle.supernet.n_classes == 10
    assert INFERRED not in found.origin.values()
