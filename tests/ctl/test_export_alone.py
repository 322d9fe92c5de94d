"""An export is used as its README says, by programs that know nothing of riwoa; and by ``riwoactl classify``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from riwoa.ctl import main
from riwoa.ctl.export import _place
from riwoa.datasets.arrays import Split
from riwoa.datasets.catalogue import task_of
from riwoa.datasets.digits import load_digits_task
from riwoa.oracle.onnx_files import Session
from riwoa.oracle.supernet_export import load_exported, weights_licence
from riwoa.paths import StatePaths
from riwoa.service.classifier import Classifier
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec

from .support import individual, riwoactl, write_journal

Pictures = list[tuple[Path, int]]  # files with their classes


def journal_of(state: Path, spec: SupernetSpec, resolutions: Sequence[int]) -> None:
    """A run over the embedded supernet that evaluated one architecture a resolution; the last one leads."""
    space = mobilenet_space(spec.resolutions)
    rows = []
    for place, resolution in enumerate(resolutions):
        genes = np.full(len(space), 1 + place, np.int64)
        genes[[gene.name for gene in space.genes].index("resolution")] = spec.resolutions.index(resolution)
        accuracy, latency_ms = 0.8 + place / 10, 0.9 + place
        rows.append((individual(0, (space.key(genes), accuracy, latency_ms), space.architecture(genes)),))
    state.mkdir()
    write_journal(state / "journal.db", rows, oracle=spec.to_json(), oracle_version="v", latency_table_sha256="t")


def described(export: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((export / "architecture.json").read_text())
    return found


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory of a run on the embedded digits, whose winner takes 24 px and was exported, in 8 bits too."""
    state = tmp_path_factory.mktemp("digits") / "state"
    journal_of(state, SupernetSpec(recalibration_images=100, validation_views=1), (40, 24))
    assert main(["export", "--state", str(state), "--int8"]) == 0
    return state


@pytest.fixture(scope="module")
def digit_pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The test split of the digits as files."""
    folder = tmp_path_factory.mktemp("pictures")
    task = load_digits_task()
    canvases = task.canvas("test", 0).transpose(0, 2, 3, 1)
    files = [folder / f"{i:03}.png" for i in range(len(canvases))]
    for file, pixels in zip(files, canvases, strict=True):
        Image.fromarray(pixels).save(file)
    return list(zip(files, task.labels("test").tolist(), strict=True))


def saved_oddly(picture: Image.Image, stem: Path, number: int) -> Path:
    """The picture's file: of one of eight kinds, by its number."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    clear = picture.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    kinds: tuple[tuple[Image.Image, str, dict[str, Any]], ...] = (
        (picture, ".png", {}),
        (picture, ".jpg", {"quality": 90}),
        (picture, ".webp", {"quality": 90}),
        (picture.transpose(Image.Transpose.ROTATE_90), ".JPG", {"quality": 90, "exif": exif}),
        (clear, ".png", {}),
        (picture.convert("CMYK"), ".jpg", {"quality": 90}),
        (deep, ".png", {}),
        (picture.convert("P", palette=Image.Palette.ADAPTIVE), ".gif", {}),
    )
    content, ending, options = kinds[number % len(kinds)]
    file = stem.with_suffix(ending)
    content.save(file, **options)
    return file


def folder_spec(root: Path) -> SupernetSpec:
    return SupernetSpec(data=str(root / "data"), resolutions=(24, 32), recalibration_images=50, data_rules=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Pictures]]:
    """A state directory, an export with everything inside and the test split of a run on a folder of mixed pictures."""
    root = tmp_path_factory.mktemp("folder")
    task = load_digits_task()
    pictures: Pictures = []
    splits: tuple[tuple[Split, str, int], ...] = (
        ("train", "train", 60),
        ("validation", "val", 100),
        ("test", "test", 120),
    )
    for split, place, count in splits:
        for i, label in enumerate(task.labels(split)[:count].tolist()):
            picture = Image.fromarray(task.canvas(split, 0)[i].transpose(1, 2, 0))
            parent = root / "data" / place / f"the {label}"
            parent.mkdir(parents=True, exist_ok=True)
            file = saved_oddly(picture.resize((40 + i % 29, 40 + i % 17)), parent / str(i), i)
            if split == "test":
                pictures.append((file, label))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        journal_of(root / "state", folder_spec(root), (32,))
        for out, inside in (("export", []), ("whole", ["--with", "preprocessing,softmax"])):
            assert main(["export", "--state", str(root / "state"), "--out", str(root / out), *inside]) == 0
        yield root / "state", root, sorted(pictures)


def answers_of_the_readme(export: Path, pictures: Pictures, tmp_path: Path) -> list[tuple[str, float]]:
    """What README.md's program prints, run by a Python that finds no riwoa: labels and probabilities."""
    readme = (export / "README.md").read_text()
    (tmp_path / "use.py").write_text(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0])
    command = [
        sys.executable,
        "-I",
        "-c",
        _WITHOUT_RIWOA.format(str(tmp_path / "use.py")),
        *(str(file) for file, _ in pictures),
    ]
    done = subprocess.run(command, cwd=export, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [re.fullmatch(r"(.*): (.*) ([0-9.]+) %", line) for line in done.stdout.splitlines()]
    assert [match[1] for match in found if match] == [str(file) for file, _ in pictures]
    return [(match[2], float(match[3]) / 100) for match in found if match]


_WITHOUT_RIWOA = """
import runpy, sys
sys.modules["riwoa"] = sys.modules["ofa"] = sys.modules["torch"] = None
runpy.run_path({!r:}, run_name="__main__")
"""


def reported(export: Path) -> dict[str, Any]:
    found: dict[str, Any] = described(export)["exported"]["test"]
    return found


def test_the_program_of_the_readme_reaches_the_reported_accuracy_to_one_picture(
    digits: Path, digit_pictures: Pictures, tmp_path: Path
) -> None:
    export = digits / "export"
    answers = answers_of_the_readme(export, digit_pictures, tmp_path)
    correct = sum(label == str(digit) for (label, _), (_, digit) in zip(answers, digit_pictures, strict=True))
    assert reported(export)["images"] == len(digit_pictures)
    assert abs(correct - reported(export)["correct"]) <= 1
    assert correct > len(digit_pictures) / 2  # of ten classes: it sees something


@pytest.mark.parametrize("form", ["export", "whole"])
def test_the_program_of_the_readme_crops_photographs_as_the_search_did(
    folder: tuple[Path, Path, Pictures], form: str, tmp_path: Path
) -> None:
    _, root, pictures = folder
    labels = (root / form / "labels.txt").read_text().splitlines()
    assert labels == [f"the {digit}" for digit in range(10)]
    answers = answers_of_the_readme(root / form, pictures, tmp_path)
    correct = sum(label == labels[digit] for (label, _), (_, digit) in zip(answers, pictures, strict=True))
    assert reported(root / form)["images"] == len(pictures)
    assert abs(correct - reported(root / form)["correct"]) <= 1
    assert correct > len(pictures) / 5
    code = (root / form / "README.md").read_text()
    assert ("np.exp" in code, "np.reshape" in code) == ((False, False) if form == "whole" else (True, True))


def test_classify_sees_in_the_file_alone_what_torch_sees(
    folder: tuple[Path, Path, Pictures], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, root, pictures = folder
    seen: dict[str, list[Any]] = {}
    for form in ("export", "whole"):
        alone = tmp_path / f"{form}.onnx"
        alone.write_bytes((root / form / "model.onnx").read_bytes())
        assert main(["classify", *(str(file) for file, _ in pictures), "--model", str(alone), "--json"]) == 0
        seen[form] = json.loads(capsys.readouterr().out)["pictures"]
    net, resolution = load_exported(root / "export")
    task = task_of(folder_spec(root))
    images, labels = task.views("test", resolution, 1)
    with torch.inference_mode():
        expected = net(torch.from_numpy(images[:])).softmax(1).numpy()
    for answers in seen.values():
        assert [answer["picture"] for answer in answers] == [str(file) for file, _ in pictures]
        found = np.array(
            [[{b["index"]: b["probability"] for b in a["top"]}.get(i, 0) for i in range(10)] for a in answers]
        )
        correct = int((found.argmax(1) == [digit for _, digit in pictures]).sum())
        assert correct == int((expected.argmax(1) == labels).sum())
        assert np.abs(np.sort(found.max(1)) - np.sort(expected.max(1))).max() < 1e-4


def test_classify_prints_a_block_a_picture_of_a_folder(
    digits: Path, digit_pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    for name, (file, _) in zip(("b.png", "sub/a.png", ".hidden.png"), digit_pictures, strict=False):
        (tmp_path / name).write_bytes(file.read_bytes())
    assert main(["classify", str(tmp_path), "--state", str(digits), "--top", "3"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [f"{tmp_path}/b.png", f"{tmp_path}/sub/a.png"]
    assert re.fullmatch(r"  +[0-9]+\.[0-9]{2} %  [0-9]", lines[1])
    assert len(lines) == 8
    assert not err


def test_classify_needs_no_torch_and_no_journal(digits: Path, digit_pictures: Pictures, tmp_path: Path) -> None:
    code = (
        "import sys; from riwoa.ctl import main; code = main(sys.argv[1:]);"
        "print([m for m in ('torch', 'ofa', 'onnx', 'scipy', 'pydantic', 'sqlite3') if m in sys.modules]);"
        "sys.exit(code)"
    )
    file = str(digit_pictures[0][0])
    command = [sys.executable, "-c", code, "classify", file, "--model", str(digits / "export/model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


BAD_PICTURES = {
    "text.png": b"not a picture",
    "empty.jpg": b"",
    "short.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
}


def test_each_bad_picture_is_one_line_and_the_others_are_classified(
    digits: Path, digit_pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in BAD_PICTURES.items():
        (tmp_path / name).write_bytes(content)
    Image.new("1", (12_000, 10_000)).save(tmp_path / "huge.png")  # 15 kB that would unpack to 360 MB
    Image.new("RGB", (1, 80_000)).save(tmp_path / "narrow.png")
    (tmp_path / "whole.png").write_bytes(digit_pictures[0][0].read_bytes())
    missing = tmp_path / "missing.png"
    model = ["--model", str(digits / "export")]
    assert main(["classify", str(tmp_path), str(missing), *model]) == 66
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [f"{tmp_path}/whole.png"]
    told = {Path(line.split(": ")[1]).name: line for line in err.splitlines()}
    assert set(told) == {*BAD_PICTURES, "huge.png", "missing.png", "narrow.png"}
    assert "100,000,000" in told["huge.png"]
    assert "No such file" in told["missing.png"]
    assert main(["classify", str(tmp_path / "text.png"), "--json", *model]) == 66
    assert json.loads(capsys.readouterr().out)["pictures"][0]["error"]


def without_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def of_other_classes(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "class_names").value = '["cat", "dog"]'


def of_another_rule(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "preprocess")
    entry.value = entry.value.replace('"std": [', '"std": [0.0, ')


def of_a_later_version(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "preprocess")
    entry.value = entry.value.replace('"schema": 1', '"schema": 2')


@pytest.mark.parametrize("change", [without_metadata, of_other_classes, of_another_rule, of_a_later_version])
def test_a_model_of_something_else_is_refused_in_one_line(
    change: Any, digits: Path, digit_pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(digits / "export/model.onnx")
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert main(["classify", str(digit_pictures[0][0]), "--model", str(tmp_path)]) == 66
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is no model that riwoactl export" in err


@pytest.mark.parametrize("how", ["cut", "flipped", "text", "missing"])
def test_a_damaged_export_is_refused_in_one_line(
    how: str, digits: Path, digit_pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((digits / "export/model.onnx").read_bytes())
    content[len(content) // 2] ^= how == "flipped"
    kept = {"cut": bytes(content[: len(content) // 2]), "flipped": bytes(content), "text": b"no model"}
    if how in kept:
        (tmp_path / "model.onnx").write_bytes(kept[how])
    if how == "flipped":  # in a weight: onnxruntime finds nothing wrong with it
        (tmp_path / "provenance.json").write_bytes((digits / "export/provenance.json").read_bytes())
    assert main(["classify", str(digit_pictures[0][0]), "--model", str(tmp_path)]) == 66
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    expected = {"flipped": "not as it was exported", "missing": "there is no model at"}
    assert expected.get(how, "no ONNX file that onnxruntime can run") in err


def test_the_plain_module_computes_the_same_bits_without_riwoa(digits: Path, tmp_path: Path) -> None:
    images = load_digits_task().views("test", 24, 1)[0][:20]
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['riwoa'] = sys.modules['ofa'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import model, numpy, torch; torch.set_num_threads(1); network = model.load()\n"
        "with torch.inference_mode(): numpy.save(sys.argv[3], network(torch.from_numpy(numpy.load(sys.argv[2]))))"
    )
    places = [digits / "export", tmp_path / "images.npy", tmp_path / "logits.npy"]
    done = subprocess.run([sys.executable, "-I", "-B", "-c", code, *map(str, places)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    net, _ = load_exported(digits / "export")
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    assert np.abs(np.load(tmp_path / "logits.npy") - expected).max() <= 1e-6


def test_the_metadata_of_the_model_tells_all_that_its_user_needs(digits: Path) -> None:
    facts = {entry.key: entry.value for entry in onnx.load(digits / "export/model.onnx").metadata_props}
    told = described(digits / "export")
    assert json.loads(facts["class_names"]) == [str(digit) for digit in range(10)]
    assert (facts["input_size"], facts["input_layout"], facts["input_dtype"]) == ("24x24", "NCHW", "float32")
    assert json.loads(facts["mean"]) == told["input"]["mean"]
    assert json.loads(facts["std"]) == told["input"]["std"]
    assert json.loads(facts["preprocess"]) == json.loads((digits / "export/preprocess.json").read_text())
    assert json.loads(facts["accuracy"]) == told["exported"]
    assert facts["latency_ms"] == "1.900"
    assert facts["run_digest"] == json.loads((digits / "export/provenance.json").read_text())["digest"]
    assert facts["weights_licence"] == "MIT, riwoa"


@pytest.mark.parametrize(
    ("notes", "licence"),
    [
        ({}, "not stated by net.safetensors"),
        ({"license": "CC0"}, "CC0"),
        ({"recipe": "{"}, "not stated by net.safetensors"),
        ({"recipe": '{"steps": 5}'}, "yours, trained by riwoa from scratch"),
        (
            {"recipe": '{"source": "ofa_mbv3_d234_e346_k357_w1.0"}'},
            "trained by riwoa from ofa_mbv3_d234_e346_k357_w1.0 (MIT",
        ),
    ],
)
def test_the_licence_of_the_weights_is_told_as_far_as_it_is_known(
    notes: dict[str, str], licence: str, tmp_path: Path
) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "net.safetensors", notes)
    assert weights_licence(SupernetSpec(checkpoint=str(tmp_path / "net.safetensors"))).startswith(licence)
    assert weights_licence(SupernetSpec(checkpoint="riwoa_cifar100_w0.25")) == "MIT, riwoa"


def test_the_model_in_8_bits_is_smaller_and_as_accurate_as_it_says(digits: Path) -> None:
    export = digits / "export"
    content = (export / "model.int8.onnx").read_bytes()
    assert len(content) < 0.6 * (export / "model.onnx").stat().st_size
    images, labels = load_digits_task().views("test", 24, 1)
    found = described(export)["int8"]["test"]
    assert found["correct"] == Session(content).right(images, labels).sum()
    assert abs(found["accuracy"] - reported(export)["accuracy"]) < 0.05
    facts = {entry.key: entry.value for entry in onnx.load(export / "model.int8.onnx").metadata_props}
    assert facts["precision"] == "int8"
    assert "latency_ms" not in facts
    assert Classifier.load(export / "model.int8.onnx").class_names == Classifier.load(export).class_names


def test_any_evaluated_network_is_exported_by_row_by_place_and_by_key(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state", str(digits), "--json"]
    assert main(["pareto", *state]) == 0
    fastest = json.loads(capsys.readouterr().out)["front"][0]
    names = ("1", f"{fastest['generation']}/{fastest['slot']}", fastest["architecture_key"])
    assert {_place(StatePaths(digits), None, name) for name in names} == {(0, 0)}
    before = (digits / "export/provenance.json").read_bytes()
    assert main(["export", "--arch", "1", "--no-onnx", *state]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["directory"] == str(digits / "export-0-0")
    assert done["architecture"]["architecture_key"] == fastest["architecture_key"]
    assert done["architecture"]["resolution"] == 40
    assert done["onnx_left_out"] == "not asked for"
    assert (digits / "export/provenance.json").read_bytes() == before  # the winner's stays


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--arch", "3"], 66, "the rows 1 to 2"),
        (["--arch", "0"], 66, "the rows 1 to 2"),
        (["--arch", "7/0"], 66, "run 1, 7/0: there is none"),
        (["--arch", "0.1.2"], 66, "evaluated no network of the key 0.1.2"),
        (["--with", "preprocessing,magic"], 64, "not 'magic'"),
        (["--with", "softmax", "--no-onnx"], 64, "--no-onnx leaves out what --with is about"),
        (["--int8", "--no-onnx"], 64, "--no-onnx leaves out what --int8 is about"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    arguments: list[str], code: int, hint: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--state", str(digits), *arguments]) == code
    err = capsys.readouterr().err
    assert hint in err
    assert err.count("\n") == 1


def test_classify_without_an_export_says_what_writes_one(tmp_path: Path, digit_pictures: Pictures) -> None:
    write_journal(tmp_path / "journal.db", [])
    done = riwoactl("classify", digit_pictures[0][0], "--state", tmp_path)
    assert done.returncode == 66
    assert "riwoactl export writes one" in done.stderr
