"""What ``make gpu-evidence`` measures: riwoa's own commands, in the order in which each needs what came before.

All of it exists twice: on CIFAR-100 and a GPU, and as a rehearsal on digits and a processor, whose numbers mean
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CTL, DAEMON, MODEL = "riwoa.ctl", "riwoa.service", "riwoa.bench.gpu_model"
# As the page `latency` of the handbook has it.
TRTEXEC = """\
trtexec --onnx="$1" --fp16 --warmUp=500 --duration=3 |
    sed -n 's/.*\\[I\\] Latency: .*median = \\([0-9.]*\\) ms.*/\\1/p'
"""
_RESOLUTIONS = "24,28,32"
_OF_JUDGE = ("accuracy", "images", "lead", "lead_standard_errors", "random_subnets")
_OF_BUILD = ("calibration", "interval", "operators", "range_ms", "remarks", "settings", "sha256")
_OF_TENSORRT = ("calibration", "interval", "operators", "range_ms", "remarks")
_OF_CHECK = ("disturbance", "interval", "level", "load_average", "networks", "predictors", "repeatability", "rounds")
_OF_STATUS = ("evaluations", "leader", "operators", "run", "test", "timed")
_OF_MODEL = ("device", "dtype", "four_bit", "four_bit_reason", "load_s", "memory_bytes", "quantization", "settings",
             "threads", "tokens_per_s_alone", "tokens_per_s_batch", "vram_bytes")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """One of riwoa's own commands.

    Attributes:
        name: under which what it came to is kept. Without one it is run whenever its measurement is taken up, and has
            nothing to do where that was done before.
        module: what Python runs.
        arguments: of its command line.
        keeps: keys of the object that it prints; the others speak of this machine, or are many.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Some commands, one after another, and the folder of the same name that they work in.

    Attributes:
        name: of the measurement and of its folder.
        commands: each continues where it was, run again.
        needs: measurements that must be done before.
        files: what is put there first, by its path: a file that another measurement made, or a text.
        tool: a program without which there is nothing to measure.
        moves: whether another machine can go on with it; else what is unfinished is begun anew there.
        stays: whether others need its folder when it is done.
    """

    name: str
    commands: tuple[Command, ...]
    needs: tuple[str, ...] = ()
    files: Mapping[Path, Path | str] = field(default_factory=dict)
    tool: str | None = None
    moves: bool = False
    stays: bool = False


@dataclass(frozen=True, slots=True)
class _Sizes:
    """In what the rehearsal differs."""

    device: str
    train: str
    space: str
    backbone: Mapping[str, object]
    build: str
    tensorrt: str
    lut_check: str
    supernet_check: str
    search: str
    validate: str
    model: str
    loop: str


_FULL = _Sizes(
    device="cuda",
    train=f"--width 0.5 --stem small --resolutions {_RESOLUTIONS} --minutes 40 --threads 4",
    space=f"--width 0.5 --classes 100 --stem small --resolutions {_RESOLUTIONS}",
    backbone={"width_mult": 0.5, "n_classes": 100, "stem": "small", "resolutions": [24, 28, 32]},
    build="--repeats 500",
    tensorrt="--networks 10 --set latency.command_timeout_s=300",
    lut_check="",
    supernet_check="--random 15",
    search="oracle.supernet.recalibration_images=2000",
    validate="cifar100",
    model="",
    loop="run.generations=25 search.riwoa.first=8 cognition.thinking_tokens=256",
)
_REHEARSAL = _Sizes(
    device="cpu",
    train="--steps 4 --batch 16",
    space="--width 0.25 --classes 10 --stem imagenet --resolutions 24",
    backbone={"resolutions": [24]},
    build="--repeats 10 --networks 10 --sessions 0",
    tensorrt="--networks 10 --sessions 0",
    lut_check="--networks 4 --rounds 5",
    supernet_check="--random 1 --views 1",
    search="run.generations=1 search.population=4 run.finalists=1 "
    "oracle.supernet.validation_views=1 oracle.supernet.recalibration_images=100",
    validate="--epochs 1 --images 2 --no-controls",
    model="--tiny",
    loop="run.generations=4 run.finalists=0 search.riwoa.first=4 cognition.provider=model cognition.role=slot "
    "search.p_semantic=1.0 cognition.lag=1 "
    "cognition.train=false",
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the commands of all measurements have in common.

    Attributes:
        work: holds the measurements' folders.
        data: the pictures.
        sizes: how much of everything.
    """

    work: Path
    data: str
    sizes: _Sizes

    @property
    def weights(self) -> str:
        """Of the supernet that is trained."""
        return str(self.work / "supernet/supernet.safetensors")

    @property
    def table(self) -> str:
        """Of latencies in torch."""
        return str(self.work / "table/table.json")

    @property
    def on(self) -> tuple[str, ...]:
        """Where a verb computes."""
        return "--device", self.sizes.device

    def search(self, name: str, *more: str) -> tuple[Command, ...]:
        """A search with its oracle on the device, and how it stands then."""
        sizes, state = self.sizes, ("--state", str(self.work / name))
        keys = {f"oracle.supernet.{key}": json.dumps(value) for key, value in sizes.backbone.items()}
        keys |= {"oracle.supernet.checkpoint": self.weights, "oracle.supernet.data": self.data}
        keys |= {"oracle.supernet.device": sizes.device, "latency.runtime": "torch", "run.export": "false"}
        settings = (*(f"{key}={value}" for key, value in keys.items()), *sizes.search.split(), *more)
        told = [word for pair in settings for word in ("--set", pair)]
        run = Command("run", DAEMON, ("--foreground", *state, *told))
        return run, Command("status", CTL, ("status", *state), _OF_STATUS)

    def latencies(self, name: str) -> Mapping[Path, Path | str]:
        """The table, put where a search of this name looks for its own."""
        return {self.work / name / "latency_lut.json": Path(self.table)}


def measurements(work: Path, data: str, *, rehearsal: bool) -> tuple[Measurement, ...]:
    """Everything there is to measure, in order.

    Args:
        work: holds the measurements' folders. Its path enters what is measured: a machine that goes on needs the same.
        data: the pictures: CIFAR-100's archive, or digits for a rehearsal.
        rehearsal: in seconds, on a processor.
    """
    plan = _Plan(work, data, _REHEARSAL if rehearsal else _FULL)
    return *_of_device(plan), *_of_searches(plan, () if rehearsal else ("--data", data))


def _of_device(plan: _Plan) -> tuple[Measurement, ...]:
    """A supernet worth searching in, and the tables of latencies."""
    sizes, table, space = plan.sizes, plan.table, plan.sizes.space.split()
    train = ("supernet", "train", plan.data, "--out", plan.weights, *sizes.train.split(), *plan.on)
    named = ("--data", plan.data, "--checkpoint", plan.weights)
    judge = ("supernet", "check", *named, *sizes.supernet_check.split(), *plan.on)
    torch = ("--runtime", "torch", "--compute", sizes.device)
    build = ("lut", "build", "--table", table, *space, *torch, *sizes.build.split())
    script, of_tensorrt = str(plan.work / "tensorrt/trt.sh"), str(plan.work / "tensorrt/table.json")
    command = ("--runtime", "command", "--set", "latency.runtime=command", "--set", f"latency.command=sh {script}")
    program = ("lut", "build", "--table", of_tensorrt, *space, *command, *sizes.tensorrt.split())
    trained = (Command("train", CTL, train, ("steps", "seed")), Command("check", CTL, judge, _OF_JUDGE))
    check = ("lut", "check", "--table", table, *sizes.lut_check.split())
    timed = (Command("build", CTL, build, _OF_BUILD), Command("check", CTL, check, _OF_CHECK))
    of_program = (Command("build", CTL, program, _OF_TENSORRT),)
    return (
        Measurement("supernet", trained, moves=True, stays=True),
        Measurement("table", timed, stays=True),
        Measurement("tensorrt", of_program, files={Path(script): TRTEXEC}, tool="trtexec"),
    )


def _of_searches(plan: _Plan, pictures: tuple[str, ...]) -> tuple[Measurement, ...]:
    """Searches in that supernet, what they are worth, and a model of the preferred one's shape in the loop."""
    sizes, work, model = plan.sizes, plan.work, str(plan.work / "model/files")
    asked = ("validate", *sizes.validate.split(), *pictures, "--jobs", "1", *plan.on)
    validate = ("--state", str(work / "search"), *asked, "--out", str(work / "validate"))
    here = f"cognition.model={model}"
    with_model = (
        Command("", MODEL, (model, *sizes.model.split())),
        Command("check", CTL, ("model", "check", "--set", here), _OF_MODEL),
        *plan.search("model", "run.polish_evaluations=0", here, *sizes.loop.split()),
    )
    return (
        Measurement(
            "search",
            plan.search("search", "run.polish_evaluations=0", "cognition.provider=none"),
            needs=("supernet", "table"),
            files=plan.latencies("search"),
            stays=True,
        ),
        Measurement(
            "validate",
            (Command("report", CTL, validate, ("networks", "corrupted", "mce")),),
            needs=("search",),
            moves=True,
        ),
        Measurement("model", with_model, needs=("supernet", "table"), files=plan.latencies("model")),
    )
