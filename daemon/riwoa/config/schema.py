"""Configuration: TOML into frozen models; command line over environment over file over defaults.

A value's place is its dotted key, ``oracle.workers``; in the environment ``RIWOA_ORACLE__WORKERS=2``; on the command
line ``--set oracle.workers=2``. Where a key may change while a run goes on, its field says so; every other key is
refused on reload and, changed while the daemon was stopped, at the start (``--new-run`` is the way out).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from riwoa.config.hours import checked_deadline, checked_hours, deadline_text
from riwoa.supernet.published import PUBLISHED, check_name

_TUTORIAL_RESOLUTIONS_PX = (160, 176, 192, 208, 224)  # what OFA's own searches with its predictor choose from
MOST_PX = 1024  # no MobileNet is searched for larger inputs
# Bounds beyond all use: what is above them is a slip of the finger, and would end in memory or in an overflow.
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
NotNegative = Annotated[int, Field(ge=0, le=1_000_000_000)]
Processes = Annotated[int, Field(ge=1, le=1024)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
PositiveBytes = Annotated[int, Field(ge=1, le=2**60)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Seconds = Annotated[float, Field(gt=0.0, le=1e8, allow_inf_nan=False)]


def restart(default: Any, description: str, **rules: Any) -> Any:
    """A field that may change when the daemon is started again, without a new run: it decides no result."""
    return Field(default, description=description, json_schema_extra={"restart": True}, **rules)


def live(default: Any, description: str, **rules: Any) -> Any:
    """A field that may change in a run; the change applies at the next generation boundary."""
    return Field(default, description=description, json_schema_extra={"live": True}, **rules)


class Section(BaseModel):
    """A table of the file: unknown keys are refused, values never change in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Run(Section):
    """How long to search, and from which seed."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random draw of the run")
    generations: Positive = live(40, "generations of search before the polish")
    evaluations: Positive | None = live(None, "stop searching after this many unique evaluations")
    polish_evaluations: NotNegative = live(60, "unique evaluations of the polish; 0 for none")
    deadline: Annotated[str, BeforeValidator(deadline_text), AfterValidator(checked_deadline)] | None = live(
        None, "local time, 07:00 or 2026-01-31T07:00, by which the best answer is polished and exported"
    )
    deadline_margin_s: Annotated[float, Field(ge=0.0, le=1e8)] = live(
        120.0, "kept before the deadline to confirm and export the winner"
    )
    export: bool = live(True, "write the winner's files when the run ends")


class ObjectiveSection(Section):
    """What to look for."""

    latency_ms: Literal["auto"] | Annotated[float, Field(gt=0, le=1e9)] = live(
        "auto",
        "latency target of one image in milliseconds; auto = the geometric mean of the attainable range (of a table: "
        "the median)",
    )
    exponent: Annotated[float, Field(ge=-100, lt=0)] = live(-1.0, "w of accuracy*(latency/target)^w beyond the target")


class Search(Section):
    """Which optimiser, and its settings."""

    strategy: Literal["riwoa", "woa", "random"] = Field("riwoa", description="the optimiser")
    population: Annotated[int, Field(ge=4, le=10_000)] = Field(20, description="candidates a generation")
    elite_fraction: Share = Field(0.5, description="share of the population that shapes mean and covariance")
    basis_every: Positive = Field(5, description="generations between eigendecompositions")
    elitism: bool = Field(True, description="RI-IWOA: parents and children compete for a place")
    avoid_duplicates: bool = Field(True, description="RI-IWOA: step away from architectures evaluated before")
    signed_spiral: bool = Field(True, description="RI-IWOA: the spiral keeps the sign of the distance")
    rotated_encircle: bool = Field(True, description="RI-IWOA: encircle in the eigenbasis too")
    p_recombine: Share = Field(0.3, description="RI-IWOA: share of geometric moves that cross two elites instead")
    screened: Annotated[int, Field(ge=1, le=10_000)] = Field(
        16, description="RI-IWOA: children drawn a slot, of which a predictor learned from the run chooses; 1 = none"
    )
    predictor: str | None = restart(
        None,
        "file of `riwoactl predictor train`, to screen from the start; else from 20 evaluations on",
        min_length=1,
    )
    p_semantic: Share = live(0.3, "share of attacks handed to the language model")
    placebo_share: Share = live(0.1, "share of semantic slots handed to the placebo")
    adapt_semantic: bool = live(False, "let p_semantic follow what the language model's proposals win")


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)) or values[-1] > MOST_PX:
        raise ValueError(f"distinct, ascending and at most {MOST_PX}")
    return values


class Oracle(Section):
    """Where accuracies come from."""

    kind: Literal["supernet", "table", "predictor"] = Field(
        "supernet", description="supernet; table: a look-up in a file; predictor: OFA's accuracy predictor"
    )
    checkpoint: Annotated[str, AfterValidator(check_name)] = restart(
        "embedded", "a supernet in OFA's format: embedded, a path, or the name of a published one"
    )
    width_mult: Annotated[float, Field(gt=0, le=16)] = Field(0.25, description="width multiplier of the supernet")
    n_classes: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="classes of the supernet's head")
    stem: Literal["imagenet", "small"] = Field("imagenet", description="the supernet's strides; small = for some 32 px")
    resolutions: Annotated[tuple[Positive, ...], Field(strict=False), AfterValidator(_ascending)] = Field(
        (24, 32, 40), min_length=1, description="input resolutions in pixels, ascending"
    )
    data: str = restart(
        "digits", "digits, or the path of CIFAR-100, of an .npz file, or of an ImageNet-style folder", min_length=1
    )
    validation_images: Images = Field(2000, description="most images of a folder that judge")
    data_seed: int = Field(0, ge=0, lt=2**63, description="seed of the choice among a folder's images")
    recalibration_data: str = restart("train", "training images to recalibrate on: train = the data's own, or a folder")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = a CUDA GPU where torch finds one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto = bfloat16 where the device has it")
    recalibration_images: Images = Field(400, description="training images for BatchNorm statistics")
    validation_views: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="corrupted views of each digit; other images are shown once"
    )
    batch_images: Images = Field(200, description="images a forward pass; a GPU takes what fits")
    table: str | None = restart(None, "kind table: an .npz or .csv file, one row an architecture", min_length=1)
    table_genes: str = Field("ops", description="its genes: an array of integers (rows, genes), or columns, by commas")
    table_order: bool = Field(False, description="the choices of its genes are in order, as sizes are")
    table_accuracy: str | None = Field(None, description="column to raise: fractions, or percent")
    table_report: str | None = Field(None, description="column journaled beside it, never searched by (test accuracy)")
    table_latency: str | None = Field(
        None, description="column of milliseconds, or FILE:COLUMN of a file beside the table; without: no latency"
    )
    table_low_fidelity: str | None = Field(None, description="column of cheap accuracies, journaled likewise")
    table_low_fidelity_cost: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="what a cheap accuracy costs, relative to a full one"
    )
    rungs: Annotated[tuple[Images | Literal["low_fidelity"], ...], Field(strict=False)] = Field(
        (),
        description="candidates that can change nothing are given up on these: so many validation images, ascending; "
        "low_fidelity of a table",
    )
    rung_confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = Field(
        0.9, description="that an accuracy stays below what a rung says it can reach"
    )
    predictor: str | None = restart(None, "kind predictor: OFA's acc_predictor.pth", min_length=1)
    latency_tables: str | None = restart(
        None, "kind predictor: a folder of OFA's tables, one <resolution>_lookup_table.yaml each", min_length=1
    )
    workers: Literal["auto"] | Processes = restart(
        "auto", description="worker processes; auto = cores / threads, 1 on a GPU"
    )
    threads: Processes = Field(1, description="threads a worker")
    timeout_s: Seconds = live(120.0, "longest evaluation before the worker is killed")
    memory_bytes: PositiveBytes = live(4 * 2**30, "resident memory above which a worker is killed")

    @model_validator(mode="before")
    @classmethod
    def _published_settings(cls, given: Any) -> Any:
        """What follows from a published supernet or predictor need not be written down."""
        if not isinstance(given, dict):
            return given
        if given.get("kind") == "predictor":
            return {"resolutions": _TUTORIAL_RESOLUTIONS_PX, **given}
        net = PUBLISHED.get(str(given.get("checkpoint")))
        return given if net is None else {**net.settings, **given}

    @model_validator(mode="after")
    def _rungs_of_its_kind(self) -> Oracle:
        """Images for a supernet, the low fidelity for a table, nothing below a predictor."""
        images = [rung for rung in self.rungs if isinstance(rung, int)]
        if self.kind == "supernet" and list(self.rungs) != sorted(set(images)):
            raise ValueError(f"oracle.rungs = {list(self.rungs)}: a supernet's are numbers of images, ascending")
        if self.kind == "table" and self.rungs and (self.rungs != ("low_fidelity",) or not self.table_low_fidelity):
            raise ValueError('oracle.rungs of a table is ["low_fidelity"], with table_low_fidelity its column')
        if self.kind == "predictor" and self.rungs:
            raise ValueError("oracle.rungs: nothing is cheaper than a predictor; leave them out")
        return self

    @model_validator(mode="after")
    def _fits_published(self) -> Oracle:
        net = PUBLISHED.get(self.checkpoint)
        for name in ("width_mult", "n_classes", "stem"):
            if net is not None and getattr(self, name) != net.settings[name]:
                raise ValueError(
                    f"oracle.{name} = {getattr(self, name)!r}, but {net.name} has {net.settings[name]!r}; leave it out"
                )
        return self


class Latency(Section):
    """The operator table of this device."""

    threads: Processes = Field(1, description="threads that the network will run with")
    repeats: Annotated[int, Field(ge=1, le=1_000_000)] = Field(500, description="timed repeats of every operator")
    drift_every_s: Seconds | None = live(
        21600.0, "between two checks in a run whether the table still holds; the search pauses some seconds for each"
    )


class Cognition(Section):
    """Who writes semantic proposals, and how they learn."""

    provider: Literal["model", "scripted", "none"] = Field(
        "model", description="a language model; scripted: deterministic replies, for tests; none: geometric moves only"
    )
    model: str = restart(
        "auto", "auto, smollm2, a hub id (org/name), a directory or a GGUF file; see `riwoactl model`", min_length=1
    )
    script: Literal["good", "mixed", "failing", "slow"] = Field("good", description="how the scripted provider answers")
    lag: NotNegative = Field(1, description="generations between a request and its reply's joining")
    timeout_s: Seconds = live(120.0, "longest wait for the replies of a batch")
    memory_bytes: PositiveBytes = live(6 * 2**30, "resident memory above which the model's process is killed")
    threads: Processes = Field(1, description="threads of the model's process")
    template: Literal["auto", "compact", "full"] = Field("auto", description="prompt; auto = what suits the model")
    grammar: bool = Field(True, description="constrain the patch to legal choices that change the parent")
    thinking_tokens: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        "auto", description="most tokens of reasoning; auto = the model's"
    )
    temperature: Literal["auto"] | Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        "auto", description="auto = the model's"
    )
    top_p: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1.0)] = Field("auto", description="auto = the model's")
    patch_genes: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="genes that a patch, or a placebo, changes at most"
    )
    success_margin: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        0.0, description="a success is fitter than its parent by more than this"
    )
    breaker_failures: Positive = Field(3, description="failed batches in a row after which the model is left alone")
    breaker_rest: Positive = Field(10, description="batches it is left alone for, before one trial")
    train: bool = Field(True, description="learn from successes while the search goes on")
    train_after: Positive = Field(16, description="new successes that start a training")
    train_lag: Positive = Field(6, description="generations between a training's start and its adapter's swap")
    train_timeout_s: Seconds = live(1800.0, "longest training")
    train_batch: Annotated[int, Field(ge=1, le=10_000)] = Field(4, description="successes an optimiser step")
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(2, description="passes over the successes of a training")
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0.0, le=10.0)] = Field(
        "auto", description="auto = what suits the size of the model"
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="dropout of the adapter in training"
    )
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.25, description="share of successes that only judge adapters, never train one"
    )
    keep_adapters: Annotated[int, Field(ge=2, le=10_000)] = restart(
        8, "newest adapters whose weights stay in the journal; of older ones, hash and training record"
    )
    probes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        12, description="fixed requests that judge an adapter's validity and variety"
    )


class Log(Section):
    """What the daemon says while it works."""

    level: Literal["debug", "info", "warning", "error"] = live("info", "least level that is written")
    format: Literal["auto", "json", "pretty"] = restart("auto", description="auto = pretty on a terminal")


class Governor(Section):
    """When an unattended search pauses for others, and when it goes on."""

    every_s: Seconds = live(5.0, "between two looks at the machine")
    disk_pause_bytes: Bytes = live(256 * 2**20, "pause with less free on the state's disk")
    disk_resume_bytes: Bytes = live(512 * 2**20, "go on with more")
    memory_pause_bytes: Bytes = live(256 * 2**20, "pause, and end the workers, with less memory available")
    memory_resume_bytes: Bytes = live(1024 * 2**20, "go on with more")
    swap_pause_share: Share | None = live(None, "pause, and end the workers, with more of the swap in use")
    swap_resume_share: Share | None = live(None, "go on with less")
    load_pause: Seconds | None = live(None, "pause above this load a core; riwoa's own is part of it")
    load_resume: Seconds | None = live(None, "go on below")
    temperature_pause_c: Percent | None = live(90.0, "pause when the hottest sensor shows more, degrees Celsius")
    temperature_resume_c: Percent | None = live(80.0, "go on below")
    battery_pause_percent: Percent | None = live(30.0, "pause, and end the workers, with less, on battery")
    battery_resume_percent: Percent | None = live(50.0, "go on with more, or on mains")
    quiet_hours: Annotated[tuple[Annotated[str, AfterValidator(checked_hours)], ...], Field(strict=False)] = live(
        (), "spans of the day, local time, in which nothing runs: 08:00-18:00"
    )
    retry_s: Seconds = live(30.0, "before an oracle that fails altogether is tried again; doubles up to 32 times this")

    @model_validator(mode="after")
    def _calmer(self) -> Governor:
        """Each level to go on at lies on the calm side of the one to pause at, and both are set or neither."""
        for name, higher_is_calm in _LEVELS.items():
            pause_key = next(k for k in type(self).model_fields if k.startswith(f"{name}_pause"))
            pause, resume = getattr(self, pause_key), getattr(self, pause_key.replace("_pause", "_resume"))
            if (pause is None) != (resume is None):
                raise ValueError(f"governor.{name}: set the level to pause at and the one to resume at, or neither")
            if pause is not None and (resume < pause if higher_is_calm else resume > pause):
                raise ValueError(f"governor.{name}: it would resume at {resume:g} only to pause again at {pause:g}")
        return self


_LEVELS = {"disk": True, "memory": True, "swap": False, "load": False, "temperature": False, "battery": True}


class Control(Section):
    """Who may talk to the daemon beside root and its own user."""

    group: str = restart("riwoa", "members may ask for the status; where it does not exist, nobody else may connect")
    operators: Annotated[tuple[str, ...], Field(strict=False)] = live(
        (), "users of the group who may also pause, resume, stop and reload"
    )


class Config(Section):
    """The whole configuration."""

    run: Run = Run()
    objective: ObjectiveSection = ObjectiveSection()
    search: Search = Search()
    oracle: Oracle = Oracle()
    latency: Latency = Latency()
    cognition: Cognition = Cognition()
    governor: Governor = Governor()
    control: Control = Control()
    log: Log = Log()


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key and its pydantic field."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, info


def is_live(info: Any) -> bool:
    """Whether a field may change while a run goes on."""
    return bool((info.json_schema_extra or {}).get("live"))


def may_restart(key: str) -> bool:
    """Whether a key may change between two lives of one run."""
    return bool((dict(leaves())[key].json_schema_extra or {}).get("restart"))


def value_of(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def as_json(config: Config) -> dict[str, Any]:
    """The configuration as a JSON object, as journaled."""
    return config.model_dump(mode="json")
