"""What the daemon and the language-model process say to each other. No torch, no numpy.

Frames are lines of JSON (``riwoa.ipc.frames``). In: ``{"spec": ...}`` once, then one of

- ``{"op": "adapter", "path": ... | null}``: use these LoRA weights from now on (null: the bare model);
- ``{"op": "generate", "requests": [...], "settings": {...}}``;
- ``{"op": "train", "job": {...}}``: train a copy of the adapter in use, or try it; it stays in use as it is.

Out: ``{"ready": {...}}`` or ``{"fatal": ...}``, then for each frame any number of ``{"progress": {...}}`` and one
``{"ok": {...}}`` or ``{"error": {"class": ..., "message": ...}}``; "ok" holds ``replies`` or ``trained``, and the
``batch`` that memory allowed. Weights travel as files (safetensors), never inline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Choice = str | int | float
OPENING, CLOSING = "<think>\n", "\n</think>\n"  # of the reasoning; a lead that closes it leaves none
OnTrainingStep = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A language model on disk and how to load it."""

    name: str  # as journaled with every request
    directory: str  # weights (safetensors), config, tokenizer and chat template, as transformers saves them
    quantization: Literal["none", "nf4"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_modules: tuple[str, ...] = ("q_proj", "v_proj")

    def to_json(self) -> dict[str, Any]:
        """The first frame's ``spec``."""
        return {**asdict(self), "lora_modules": list(self.lora_modules)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        """The specification of ``to_json``, also of 0.1's first journals, which hold a field more."""
        known = {key: value for key, value in data.items() if key != "use_fast_tokenizer"}
        return cls(**{**known, "lora_modules": tuple(data["lora_modules"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSpec:
    """A writer made by a named function, ``package.module:function``; for tests alone (RIWOA_TEST_WRITERS=1)."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    name: str = "test"
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame's ``spec``."""
        return {**asdict(self), "arguments": dict(self.arguments)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """How the model writes; the same for a whole batch."""

    grammar: bool = True  # constrain the patch; the reasoning is free either way
    thinking_tokens: int = 48  # budget of the reasoning; then its end is forced
    least_thinking_tokens: int = 32  # the model cannot end its reasoning sooner
    patch_tokens: int = 96  # budget of what follows the reasoning
    temperature: float = 0.7
    top_p: float = 0.95
    batch: int = 16  # requests in one forward pass at most; more are slower on a CPU

    def to_json(self) -> dict[str, Any]:
        """As sent and as journaled with every request."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request for a patch, or for several.

    ``choices``: the genes that may change, each with the choices that change it. ``lead``: what the reasoning begins
    with; the model goes on from there. ``samples``: texts to draw from the one prompt; None for one, as it is written.
    """

    id: str
    seed: int
    system: str
    prompt: str
    choices: Mapping[str, tuple[Choice, ...]]
    most_genes: int = 1
    lead: str = ""
    samples: int | None = None

    @property
    def texts(self) -> int:
        """How many texts are to be written."""
        return 1 if self.samples is None else self.samples

    def to_json(self) -> dict[str, Any]:
        """As sent."""
        return {**asdict(self), "choices": {g: list(c) for g, c in self.choices.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GenerationRequest:
        """The request of ``to_json``."""
        return cls(**{**data, "choices": {g: tuple(c) for g, c in data["choices"].items()}})


@dataclass(frozen=True, slots=True)
class Sample:
    """One of several texts, and how likely its patch was under the grammar (natural logarithm); None if unknown."""

    text: str
    log_probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedText:
    """What the model wrote: reasoning and patch, verbatim. ``thinking_tokens`` of its ``tokens`` are reasoning.

    ``samples``: all of its texts, where several were asked for; ``text`` is then the first.
    """

    id: str
    text: str
    tokens: int
    thinking_tokens: int
    samples: tuple[Sample, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """As sent back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GeneratedText:
        """The text of ``to_json``."""
        samples = data.get("samples")
        return cls(**{**data, "samples": None if samples is None else tuple(Sample(**s) for s in samples)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A successful trace to learn from: the prompt as asked and the text as written, from its lead on."""

    id: str
    system: str
    prompt: str
    text: str
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What became of several patches of one parent: the prompt as it would be asked, answers, and what each gained.

    ``gains`` are of fitness over the parent's, negative for a loss. ``greedy`` is the answer that a rule without a
    model would choose (``riwoa.run.comparisons``); None where no rule is known.
    """

    id: str
    system: str
    prompt: str
    answers: tuple[str, ...]
    gains: tuple[float, ...]
    greedy: int | None = None
    lead: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Comparison:
        """The comparison of ``asdict``, by way of JSON."""
        return cls(**{**data, "answers": tuple(data["answers"]), "gains": tuple(data["gains"])})


def one_of_each(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The newest example of each answer, in order.

    A patch that won often would be learned as often and proposed ever more: repeats are what a model collapses on.
    """
    newest = {example.text.rpartition("</think>")[2].strip(): example for example in examples}
    return tuple(newest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One online training of the adapter.

    It imitates ``examples`` or, where there are any, prefers by ``comparisons``. ``held_out`` and ``judging`` are
    successes and comparisons that no training has seen or will see; ``probes`` are fixed for the whole run.

    A trial learns nothing: it measures the bare model and then the adapter in use, and writes no weights.
    """

    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    probes: tuple[GenerationRequest, ...]
    settings: GenerationSettings  # for the probes
    seed: int
    weights_path: str  # where the new adapter is written
    epochs: int = 2
    learning_rate: float = 1e-3
    batch: int = 4  # examples a step
    piece: int = 8  # examples in one backward pass at most: a step's gradient is summed over its pieces
    checkpointing: bool = False  # compute activations again in the backward pass: slower, in less memory
    comparisons: tuple[Comparison, ...] = ()
    judging: tuple[Comparison, ...] = ()
    trial: bool = False
    anchor_path: str | None = None  # the adapter of an earlier task that the new one is held to

    @property
    def compares(self) -> bool:
        """Whether it is about comparisons, or else about imitation."""
        return bool(self.comparisons or self.judging)

    def to_json(self) -> dict[str, Any]:
        """As sent."""
        return {**asdict(self), "probes": [p.to_json() for p in self.probes], "settings": self.settings.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingJob:
        """The job of ``to_json``."""
        return cls(
            **{
                **data,
                "examples": tuple(Example(**e) for e in data["examples"]),
                "held_out": tuple(Example(**e) for e in data["held_out"]),
                "probes": tuple(GenerationRequest.from_json(p) for p in data["probes"]),
                "settings": GenerationSettings(**data["settings"]),
                "comparisons": tuple(map(Comparison.from_json, data["comparisons"])),
                "judging": tuple(map(Comparison.from_json, data["judging"])),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the gate judges an adapter by."""

    held_out_loss: float | None  # mean over the held-out replies' tokens; None without held-out successes
    held_out_losses: tuple[float, ...]  # of each held-out example
    valid_without_grammar: int  # of the probes, written without the grammar
    distinct_with_grammar: int  # different patches among the probes
    probes: int
    top_gains: tuple[float, ...] | None = None  # of the likeliest answer of each judging comparison; None without any
    greedy: int = 0  # of these answers, how many are the greedy rule's
    greedy_known: int = 0  # of the judging comparisons, how many have a greedy answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training gave."""

    sha256: str  # of the weights file; of a trial "", until whoever asked for it says whose
    losses: tuple[float, ...]  # of each optimiser step
    tokens: int  # replies' tokens learned from, an epoch
    duration_s: float
    before: Measured
    after: Measured

    def to_json(self) -> dict[str, Any]:
        """As sent back and as journaled with the adapter."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trained:
        """The record of ``to_json``."""

        def measured(row: Mapping[str, Any]) -> Measured:
            gains = row.get("top_gains")  # none in 0.1's first journals
            listed = {"held_out_losses": tuple(row["held_out_losses"]), "top_gains": gains and tuple(gains)}
            return Measured(**{**row, **listed})

        return cls(
            **{
                **data,
                "losses": tuple(data["losses"]),
                "before": measured(data["before"]),
                "after": measured(data["after"]),
            }
        )


class Writer(Protocol):
    """What the process holds: the language model (``riwoa.cognition.language_model``), or a test's stand-in."""

    on_progress: OnTrainingStep  # set by the process; called at each training step

    def use_adapter(self, path: str | None) -> None:
        """Write with these LoRA weights from now on; None for the bare model.

        Raises:
            AdapterError: unreadable, or made for another model; the adapter in use stays.
        """

    def generate(self, requests: tuple[GenerationRequest, ...], settings: GenerationSettings) -> list[GeneratedText]:
        """A reply to each request, in order.

        Raises:
            MemoryError, torch.OutOfMemoryError: ``settings.batch`` is too large; tried again with half of it.
        """

    def train(self, job: TrainingJob) -> Trained:
        """Train, measure, write the weights; what ``generate`` uses is afterwards what it was before.

        Raises:
            MemoryError, torch.OutOfMemoryError: as for ``generate``.
        """
