"""Configuration: TOML into frozen models; command line over environment over file over defaults.

A value's place is its dotted key, ``oracle.workers``; in the environment ``RIWOA_ORACLE__WORKERS=2``; on the command
line ``--set oracle.workers=2``. Where a key may change while a run goes on, its field says so; every other key is
refused on reload and, changed while the daemon was stopped, at the start (``--new-run`` is the way out).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from riwoa.errors import ConfigError

ENVIRONMENT_PREFIX = "RIWOA_"
_NOT_KEYS = {
    *("RIWOA_STATE", "RIWOA_CONFIG", "RIWOA_DATA", "RIWOA_MODELS"),
    *("RIWOA_FAILPOINT", "RIWOA_CHILD_FAILPOINT", "RIWOA_TEST_ORACLES", "RIWOA_TEST_WRITERS"),
}

MOST_PX = 1024  # no MobileNet is searched for larger inputs
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


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
    polish_evaluations: Annotated[int, Field(ge=0)] = live(60, "unique evaluations of the polish; 0 for none")
    export: bool = live(True, "write the winner's files when the run ends")


class ObjectiveSection(Section):
    """What to look for."""

    latency_ms: Literal["auto"] | Annotated[float, Field(gt=0)] = live(
        "auto", "latency target of one image in milliseconds; auto = the geometric mean of the attainable range"
    )
    exponent: Annotated[float, Field(lt=0)] = live(-1.0, "w of accuracy*(latency/target)^w beyond the target")


class Search(Section):
    """Which optimiser, and its settings."""

    strategy: Literal["riwoa", "woa", "random"] = Field("riwoa", description="the optimiser")
    population: Annotated[int, Field(ge=4)] = Field(20, description="candidates a generation")
    elite_fraction: Share = Field(0.5, description="share of the population that shapes mean and covariance")
    basis_every: Positive = Field(5, description="generations between eigendecompositions")
    elitism: bool = Field(True, description="RI-IWOA: parents and children compete for a place")
    avoid_duplicates: bool = Field(True, description="RI-IWOA: step away from architectures evaluated before")
    signed_spiral: bool = Field(True, description="RI-IWOA: the spiral keeps the sign of the distance")
    rotated_encircle: bool = Field(True, description="RI-IWOA: encircle in the eigenbasis too")
    p_recombine: Share = Field(0.3, description="RI-IWOA: share of geometric moves that cross two elites instead")
    p_semantic: Share = live(0.3, "share of attacks handed to the language model")
    placebo_share: Share = live(0.1, "share of semantic slots handed to the placebo")
    adapt_semantic: bool = live(False, "let p_semantic follow what the language model's proposals win")


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)) or values[-1] > MOST_PX:
        raise ValueError(f"distinct, ascending and at most {MOST_PX}")
    return values


class Oracle(Section):
    """Where accuracies come from."""

    kind: Literal["supernet"] = Field("supernet", description="the kind of oracle")
    checkpoint: str = restart("embedded", "a supernet in OFA's format: embedded, or a path")
    width_mult: Annotated[float, Field(gt=0)] = Field(0.25, description="width multiplier of the supernet")
    n_classes: Positive = Field(10, description="classes of the supernet's head")
    stem: Literal["imagenet", "small"] = Field("imagenet", description="the supernet's strides; small = for some 32 px")
    resolutions: Annotated[tuple[Positive, ...], Field(strict=False), AfterValidator(_ascending)] = Field(
        (24, 32, 40), min_length=1, description="input resolutions in pixels, ascending"
    )
    data: str = restart("digits", "the embedded digits, or the path of CIFAR-100 or of an .npz file of images")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = a CUDA GPU where torch finds one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto = bfloat16 where the device has it")
    recalibration_images: Positive = Field(400, description="training images for BatchNorm statistics")
    validation_views: Positive = Field(8, description="corrupted views of each digit; a file's images are shown once")
    batch_images: Positive = Field(200, description="images a forward pass; a GPU takes what fits")
    workers: Literal["auto"] | Positive = restart(
        "auto", description="worker processes; auto = cores / threads, 1 on a GPU"
    )
    threads: Positive = Field(1, description="threads a worker")
    timeout_s: Seconds = live(120.0, "longest evaluation before the worker is killed")
    memory_bytes: Positive = live(4 * 2**30, "resident memory above which a worker is killed")


class Latency(Section):
    """The operator table of this device."""

    threads: Positive = Field(1, description="threads that the network will run with")
    repeats: Positive = Field(500, description="timed repeats of every operator")


class Cognition(Section):
    """Who writes semantic proposals, and how they learn."""

    provider: Literal["model", "scripted", "none"] = Field(
        "model", description="a language model; scripted: deterministic replies, for tests; none: geometric moves only"
    )
    model: str = restart(
        "auto", "auto, smollm2, a hub id (org/name), a directory or a GGUF file; see `riwoactl model`", min_length=1
    )
    script: Literal["good", "mixed", "failing", "slow"] = Field("good", description="how the scripted provider answers")
    lag: Annotated[int, Field(ge=0)] = Field(1, description="generations between a request and its reply's joining")
    timeout_s: Seconds = live(120.0, "longest wait for the replies of a batch")
    memory_bytes: Positive = live(6 * 2**30, "resident memory above which the model's process is killed")
    threads: Positive = Field(1, description="threads of the model's process")
    template: Literal["auto", "compact", "full"] = Field("auto", description="prompt; auto = what suits the model")
    grammar: bool = Field(True, description="constrain the patch to legal choices that change the parent")
    thinking_tokens: Literal["auto"] | Positive = Field(
        "auto", description="most tokens of reasoning; auto = the model's"
    )
    temperature: Literal["auto"] | Annotated[float, Field(ge=0.0)] = Field("auto", description="auto = the model's")
    top_p: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1.0)] = Field("auto", description="auto = the model's")
    patch_genes: Positive = Field(1, description="genes that a patch, or a placebo, changes at most")
    success_margin: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="a success is fitter than its parent by more than this"
    )
    breaker_failures: Positive = Field(3, description="failed batches in a row after which the model is left alone")
    breaker_rest: Positive = Field(10, description="batches it is left alone for, before one trial")
    train: bool = Field(True, description="learn from successes while the search goes on")
    train_after: Positive = Field(16, description="new successes that start a training")
    train_lag: Positive = Field(6, description="generations between a training's start and its adapter's swap")
    train_timeout_s: Seconds = live(1800.0, "longest training")
    train_batch: Positive = Field(4, description="successes an optimiser step")
    epochs: Positive = Field(2, description="passes over the successes of a training")
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0.0)] = Field(
        "auto", description="auto = what suits the size of the model"
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="dropout of the adapter in training"
    )
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.25, description="share of successes that only judge adapters, never train one"
    )
    probes: Positive = Field(12, description="fixed requests that judge an adapter's validity and variety")


class Log(Section):
    """What the daemon says while it works."""

    level: Literal["debug", "info", "warning", "error"] = live("info", "least level that is written")
    format: Literal["auto", "json", "pretty"] = restart("auto", description="auto = pretty on a terminal")


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
    control: Control = Control()
    log: Log = Log()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for each dotted key where its value came from."""

    config: Config
    origin: Mapping[str, str]
    file: Path | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Changed keys: dotted key -> (old, new), those that may change in a run and those that may not."""

    live: Mapping[str, tuple[Any, Any]]
    refused: Mapping[str, tuple[Any, Any]]


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


def load(file: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Loaded:
    """Merge defaults, file, environment and ``key=value`` overrides, then validate the whole.

    Raises:
        ConfigError: unreadable file, invalid TOML, an unknown key (with the nearest valid one), a wrong value.
    """
    environment = os.environ if environment is None else environment
    layers = [
        (f"file {file}", _read_file(file) if file else {}),
        ("environment", _from_environment(environment)),
        ("command line", _from_overrides(overrides)),
    ]
    merged: dict[str, dict[str, Any]] = {}
    origin = dict.fromkeys((key for key, _ in leaves()), "default")
    for where, layer in layers:
        for key, value in _flatten(layer, where):
            section, name = key.split(".")
            merged.setdefault(section, {})[name] = value
            origin[key] = where
    return Loaded(_validate(merged, origin), origin, file)


def difference(old: Config, new: Config) -> Difference:
    """What changed, sorted by whether it may change in a run."""
    allowed: dict[str, tuple[Any, Any]] = {}
    refused: dict[str, tuple[Any, Any]] = {}
    before, after = as_json(old), as_json(new)
    for key, info in leaves():
        section, name = key.split(".")
        pair = (before[section][name], after[section][name])
        if pair[0] != pair[1]:
            (allowed if is_live(info) else refused)[key] = pair
    return Difference(allowed, refused)


def from_journal(data: Mapping[str, Any]) -> Config:
    """A journaled configuration read back; keys that this version no longer knows are left out."""
    known = {key for key, _ in leaves()}
    kept: dict[str, dict[str, Any]] = {}
    for section, values in data.items():
        for name, value in values.items():
            if f"{section}.{name}" in known:
                kept.setdefault(section, {})[name] = value
    return _validate(kept, {})


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file; `riwoactl config show` prints a complete one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NOT_KEYS:
            continue
        section, _, key = name[len(ENVIRONMENT_PREFIX) :].lower().partition("__")
        layer.setdefault(section, {})[key] = _scalar(text)
    return layer


def _from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot:
            raise ConfigError(f"--set {text!r} is not of the form section.key=value, for example run.seed=1")
        layer.setdefault(section, {})[name] = _scalar(value.strip())
    return layer


def _scalar(text: str) -> Any:
    """TOML's reading of a value where it is one (numbers, booleans, lists), the bare string otherwise."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _flatten(layer: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    known = dict(leaves())
    sections = sorted({k.split(".")[0] for k in known})
    for section, values in layer.items():
        if section not in sections:
            raise ConfigError(f"{where}: unknown section {section!r}{_nearest(section, sections)}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: {section!r} is a section; write its keys below [{section}]")
        for name, value in values.items():
            key = f"{section}.{name}"
            if key not in known:
                raise ConfigError(f"{where}: unknown key {key!r}{_nearest(key, list(known))}")
            yield key, value


def _nearest(word: str, known: Sequence[str]) -> str:
    """The nearest valid name; a key in the wrong section is found by its last part."""
    tail = word.rpartition(".")[2]
    same_tail = [k for k in known if k.rpartition(".")[2] == tail]
    found = same_tail or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; valid names: {', '.join(known)}"


def _validate(merged: Mapping[str, Any], origin: Mapping[str, str]) -> Config:
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"][:2])
        # A key that takes several kinds of values has an error of each.
        alike = [first, *(e for e in others if e["loc"][:2] == first["loc"][:2])]
        reason = " or ".join(dict.fromkeys(_wanted(e["type"], e["msg"]) for e in alike))
        given = first["input"]
        raise ConfigError(f"{origin.get(key, 'configuration')}: {key} = {given!r}, should be {reason}") from None


def _wanted(kind: str, message: str) -> str:
    """What pydantic would have accepted."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message.lower().removeprefix("input should be ")
