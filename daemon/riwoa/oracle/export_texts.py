"""What an export says of itself: README.md, model.py, labels.txt, preprocess.json, and the metadata of its ONNX files.

The code in README.md and model.py runs without riwoa. Tests run it as it stands, on pictures, and compare.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.datasets.preprocessing import Preprocessing
from riwoa.hardware.runtime import FLOAT32, INT8
from riwoa.oracle.onnx_files import IMAGES, LOGITS, OnnxNetwork
from riwoa.paths import shipped
from riwoa.supernet.geometry import squeezed_channels
from riwoa.text import against_float32, printable

_SIZES = re.compile(r"^# -- sizes.*?^# -- end of the sizes.*?$", re.MULTILINE | re.DOTALL)
_RULE_WIDTH = 120
_MOST_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One exported network, as its files tell of it.

    Attributes:
        class_names: in the order of the outputs.
        rule: how a picture becomes an input.
        accuracies: by split, {"accuracy", "correct", "images"}, of the float32 network.
        int8_accuracies: of the quantised one, where there is one.
        network: the ONNX network; None where none is written.
        notes: what is known of run and weights, by the names of the metadata.
        is_timed: whether the network's graph and weights are those that the clock was asked about.
        precision: that the latencies are of.
    """

    class_names: Sequence[str]
    rule: Preprocessing
    accuracies: Mapping[str, Mapping[str, Any]]
    int8_accuracies: Mapping[str, Mapping[str, Any]] | None
    network: OnnxNetwork | None
    notes: Mapping[str, str]
    is_timed: bool = False
    precision: str = FLOAT32

    @property
    def labels(self) -> str:
        """labels.txt: a class a line."""
        return "".join(f"{printable(name, _MOST_NAME_CHARACTERS)}\n" for name in self.class_names)

    @property
    def preprocess(self) -> dict[str, Any]:
        """preprocess.json."""
        return {**self.rule.to_json(), "input": self._input}

    def facts(self, *, int8: bool = False) -> dict[str, str]:
        """The metadata of model.onnx, or of model.int8.onnx; only one of them has a latency that is known."""
        accuracies = (self.int8_accuracies or {}) if int8 else self.accuracies
        precision = INT8 if int8 else FLOAT32
        notes = {
            key: value
            for key, value in self.notes.items()
            if precision == self.precision or not key.startswith("latency")
        }
        side = self.rule.resolution
        return {
            **notes,
            "class_names": json.dumps(list(self.class_names)),
            "input_size": f"{side}x{side}",
            "input_layout": str(self._input["layout"]),
            "input_dtype": str(self._input["dtype"]),
            "output": self._output,
            "mean": json.dumps(list(self.rule.mean)),
            "std": json.dumps(list(self.rule.std)),
            "preprocess": json.dumps(self.preprocess),
            "accuracy": json.dumps({split: dict(found) for split, found in accuracies.items()}),
            "precision": precision,
        }

    @property
    def readme(self) -> str:
        """README.md."""
        title = f"# A network for {len(self.class_names)} classes, {self.rule.resolution} px"
        origin = (
            f"Found by riwoa {self.notes['riwoa']}; provenance.json says how, its digest {self.notes['run_digest']}."
        )
        parts = [title, origin, self._numbers()]
        if self.network is not None:
            place = f"DIRECTORY/{self._model}" if self.precision == INT8 else "DIRECTORY"
            parts += ["## Use", _USING.format(place=place), f"```python\n{self._code()}```"]
        parts += ["## The same in PyTorch", _TORCH, "## Files", self._files()]
        return "\n\n".join(parts) + "\n"

    @property
    def _input(self) -> dict[str, Any]:
        if self.network is not None:
            return self.network.input
        side = self.rule.resolution
        shape = ["batch", 3, side, side]
        return {"name": IMAGES, "layout": "NCHW", "dtype": "float32", "shape": shape, "after": "to_floats"}

    @property
    def _model(self) -> str:
        """The file that was searched for: that of the latencies."""
        return "model.int8.onnx" if self.precision == INT8 else "model.onnx"

    @property
    def _output(self) -> str:
        return LOGITS if self.network is None else self.network.output

    def _numbers(self) -> str:
        of = {"test": "on the test pictures, which chose nothing", "validation": "on the validation pictures"}
        if int(self.notes.get("tries", 1)) > 1:
            of["validation"] += f", which judged {self.notes['tries']} networks and chose"
        rows = [
            f"- accuracy {_percent(self.accuracies[split])} {of[split]}" for split in of if split in self.accuracies
        ]
        for split in of:
            if self.int8_accuracies is not None and split in self.int8_accuracies:
                small = self.int8_accuracies[split]
                less = against_float32(small["against_float32"])
                rows.append(f"- model.int8.onnx: accuracy {_percent(small)} {of[split]}, {less}")
        of_int8 = "model.int8.onnx: " if self.precision == INT8 else ""
        if "latency_ms" in self.notes:
            interval = f" {self.notes['latency_interval']}" if "latency_interval" in self.notes else ""
            rows.append(
                f"- {of_int8}latency {self.notes['latency_ms']} ms{interval} a picture, {self.notes['latency_of']}"
            )
        if "latency_measured_ms" in self.notes:
            ms, between, runtime = (self.notes[f"latency_measured_{name}"] for name in ("ms", "between", "in"))
            what = "this very graph with its weights" if self.is_timed else "the network as the search found it"
            rows.append(f"- measured there: {ms} ms (between {between}) in {runtime}, {what}")
        if "test" in self.accuracies:
            rows.append("- the test pictures: `riwoactl pictures test` lists them, one a line")
        return "\n".join([*rows, f"- weights: {self.notes['weights_licence']}"])

    def _files(self) -> str:
        made_of = "model.py" if self.network is None else "model.onnx and model.py"
        rows = {
            "model.onnx": "the network, checked in onnxruntime against torch; its metadata repeats these files",
            "model.int8.onnx": "the same in 8 bits",
            "model.safetensors, model.py": "weights, and the plain PyTorch module that they are of",
            "labels.txt": "the classes, a line each, in the order of the outputs",
            "preprocess.json": f"how a picture becomes what {made_of} are given",
            "architecture.json": "the sizes that were found, and every number",
            "provenance.json": "the run: seed, configuration, versions, and a hash of each file here",
        }
        missing = [] if self.int8_accuracies is not None else ["model.int8.onnx"]
        missing += ["model.onnx"] if self.network is None else []
        return "\n".join(f"- `{name}`: {what}" for name, what in rows.items() if name not in missing)

    def _code(self) -> str:
        """The program of README.md."""
        rule, probabilities = self.rule, self._output != LOGITS
        short, crop = rule.shorter_side_px, rule.crop_px
        lines = [_USE.format(model=self._model, short=short, crop=crop, opened=_OPENED[rule.rules])]
        if self._input["name"] != IMAGES:
            lines.append("    x = np.asarray(picture)")
        else:
            lines.append("    x = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255")
            if rule.resolution != crop:
                lines[0] = (
                    f"{_MATRIX_OF[rule.resolution < crop].format(side=crop, resolution=rule.resolution)}{lines[0]}"
                )
                lines.append("    x = rows @ x @ rows.T")
            mean, std = ([round(value, 9) for value in values] for values in (rule.mean, rule.std))
            lines.append(f"    x = (x - np.reshape({mean}, (3, 1, 1))) / np.reshape({std}, (3, 1, 1))")
            lines.append("    x = x.astype(np.float32)")
        lines.append(f'    p = model.run(None, {{"{self._input["name"]}": x[None]}})[0][0]')
        if not probabilities:
            lines.append("    p = np.exp(p - p.max()) / np.exp(p - p.max()).sum()")
        lines.append('    print(f"{path}: {labels[p.argmax()]} {100 * p.max():.2f} %")')
        return _IMPORTS.format(ops=", ImageOps" if rule.rules > 1 else "") + "\n".join(lines) + "\n"


def model_source(config: Mapping[str, Any], resolution: int) -> str:
    """model.py with the sizes of an OFA network's configuration.

    The constants are those of the file in ``data/export``, whose own are an example.
    """
    blocks = [_block(block["conv"], block["shortcut"] is not None) for block in config["blocks"]]
    stem, last = config["first_conv"], config["final_expand_layer"]
    mixed, classes = config["feature_mix_layer"]["out_channels"], config["classifier"]["out_features"]
    channels = ", ".join(str(n) for n in (stem["out_channels"], last["out_channels"], mixed, classes))
    sizes = [
        "# -- sizes: written by the export --".ljust(_RULE_WIDTH, "-"),
        f"RESOLUTION = {resolution}",
        f"STEM_STRIDE = {stem['stride']}",
        f"STEM, EXPANDED, MIXED, CLASSES = {channels}  # channels",
        f"NORM_EPS = {config['bn']['eps']}",
        "BLOCKS = (",
        *(f"    Block{block}," for block in blocks),
        ")",
        "# -- end of the sizes --".ljust(_RULE_WIDTH, "-"),
    ]
    template = (shipped("export") / "model.py").read_text(encoding="utf-8")
    return _SIZES.sub("\n".join(sizes), template)


def _block(conv: Mapping[str, Any], shortcut: bool) -> tuple[Any, ...]:
    """The fields of model.py's ``Block``."""
    channels_in = conv["in_channels"]
    mid = conv["mid_channels"] or round(channels_in * conv["expand_ratio"])
    squeezed = squeezed_channels(mid) if conv["use_se"] else 0
    hard_swish = conv["act_func"] == "h_swish"
    return channels_in, mid, conv["out_channels"], conv["kernel_size"], conv["stride"], squeezed, hard_swish, shortcut


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['accuracy']:.2f} % ({found['correct']} of {found['images']})"


_USING = """\
Save this as `use.py` in this directory, then `python use.py PICTURE...`. It needs numpy, onnxruntime and Pillow, and
not riwoa; `riwoactl classify PICTURE... --model {place}` does the same with riwoa."""
_TORCH = """\
```python
import model  # this directory's model.py, which needs torch and safetensors

network = model.load()  # takes what preprocess.json makes by to_bytes, then to_floats
```"""
_IMPORTS = """\
import sys
import numpy as np
import onnxruntime
from PIL import Image{ops}

"""
# By whether pictures are made smaller: the weights of one axis.
_MATRIX_OF = {
    True: """\
edges, cell = np.linspace(0, {side}, {resolution} + 1), np.arange({side})  # {side} px to {resolution} px, by area
rows = np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell)
rows = (np.clip(rows, 0, None) * {resolution} / {side}).astype(np.float32)
""",
    False: """\
centre = np.clip((np.arange({resolution}) + 0.5) * {side} / {resolution} - 0.5, 0, {side} - 1)  # bilinear
rows = np.clip(1 - np.abs(centre[:, None] - np.arange({side})), 0, None).astype(np.float32)
""",
}
# By the rules of ``decoding.coloured``.
_OPENED = {
    1: '    picture = Image.open(path).convert("RGB")',
    2: """\
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):  # grey of 16 bits
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = picture.convert("RGB")""",
}
_USE = """\
labels = open("labels.txt", encoding="utf-8").read().split("\\n")
model = onnxruntime.InferenceSession("{model}", providers=["CPUExecutionProvider"])
for path in sys.argv[1:]:
{opened}
    w, h = picture.size
    w, h = ({short}, int({short} * h / w)) if w <= h else (int({short} * w / h), {short})
    left, top = round((w - {crop}) / 2), round((h - {crop}) / 2)
    picture = picture.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + {crop}, top + {crop}))"""
