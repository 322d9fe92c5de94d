"""The language model in its process: it writes patches in batches and learns from those that worked. Needs torch.

Writing has two parts. The reasoning is sampled freely up to a budget, between ``<think>`` and ``</think>``; the end tag
is forced when the budget is spent, and cannot come before the least. Then the patch, under a grammar of its own for
each request or, without one, to the end of the text. A request whose lead closes the reasoning gets a patch alone. One
for several samples has its prompt read once, and all of them are drawn from there, together.

What is written depends on the batch (requests, seeds, settings), the adapter, the thread count and the library
versions, never on what was written before: each row draws from its own counter-based stream (ruling 13), and the
prefix that the prompts share is computed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache

from riwoa.cognition.cache import growing_cache
from riwoa.cognition.grammar import patch_grammar
from riwoa.cognition.lora import Lora
from riwoa.cognition.protocol import (
    CLOSING,
    OPENING,
    GeneratedText,
    GenerationRequest,
    GenerationSettings,
    ModelSpec,
    Sample,
)
from riwoa.errors import ModelError

_CLOSED = "</think>"
_LIKELIEST = 256  # tokens that the nucleus is looked for in before the whole vocabulary is sorted


class LanguageModel:
    """A causal language model with one LoRA adapter; implements ``protocol.Writer``."""

    def __init__(self, spec: ModelSpec, model: Any, tokenizer: Any) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.lora = Lora(model, spec)
        self.device = torch.device(spec.device)
        self._grammar_tokens = llguidance.hf.from_tokenizer(tokenizer, n_vocab=model.config.vocab_size)
        self._ends = _end_tokens(model, tokenizer)
        self._angles = torch.tensor(_tokens_with("<", tokenizer), device=self.device)
        self._tags = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special and len(t.content) > 1]
        self.probed: dict[bytes, tuple[int, int]] = {}  # what adapters' probes came to; see training
        self.piece = 8  # examples in one backward pass; halved when memory runs out
        self.on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None  # called at each training step
        self._closing = tokenizer(CLOSING, add_special_tokens=False).input_ids
        self._prefix = _Prefix()

    @classmethod
    def load(cls, spec: ModelSpec) -> Self:
        """Read a model from its directory.

        Raises:
            ModelError: files are missing or unreadable, or 4-bit loading is not possible here.
        """
        torch.set_num_threads(spec.threads)
        options: dict[str, Any] = {"dtype": getattr(torch, spec.dtype)}
        if spec.quantization == "nf4":
            if spec.device != "cuda":
                raise ModelError(
                    "4-bit NF4 needs a CUDA GPU: on a CPU it is slower than float32 and, once it has generated, trains "
                    "with zero gradients; use the embedded model (cognition.model = smollm2)"
                )
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            )
            options["device_map"] = {"": 0}
        try:
            tokenizer = AutoTokenizer.from_pretrained(spec.directory)
            model: Any = AutoModelForCausalLM.from_pretrained(spec.directory, use_safetensors=True, **options)
            if spec.quantization == "none":
                model = model.to(spec.device)
            loaded = cls(spec, model.eval(), tokenizer)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # transformers, peft and llguidance raise whatever they met
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            raise ModelError(
                f"{spec.directory}: cannot be loaded ({reason}); choose another cognition.model, `riwoactl model list` "
                "shows what is here"
            ) from None
        if tokenizer.chat_template is None:
            tokenizer.chat_template = _plain_template(tokenizer)
        return loaded

    # -- Writer ------------------------------------------------------------------------------------------------------

    def use_adapter(self, path: str | None) -> None:
        """See ``Writer.use_adapter``."""
        self.lora.use(None if path is None else Path(path))
        self.weights_changed()

    @torch.inference_mode()
    def generate(self, requests: tuple[GenerationRequest, ...], settings: GenerationSettings) -> list[GeneratedText]:
        """See ``Writer.generate``."""
        written = {request.id: self._sampled(request, settings) for request in requests if request.samples is not None}
        single = [request for request in requests if request.samples is None]
        for start in range(0, len(single), settings.batch):
            rows = [self._row(request, settings) for request in single[start : start + settings.batch]]
            self._write(rows, *self._read_prompts(rows), settings)
            written |= {row.request.id: row.written(self.tokenizer) for row in rows}
        return [written[request.id] for request in requests]

    def weights_changed(self) -> None:
        """Forget what was computed with other weights."""
        self._prefix = _Prefix()

    # -- prompts -----------------------------------------------------------------------------------------------------

    def prompt_ids(self, system: str, prompt: str, lead: str = "") -> list[int]:
        """Token ids of a request up to the lead of its reasoning, shape (tokens,)."""
        return self._ids(self._rendered(system, prompt) + lead)

    def reply_ids(self, text: str, lead: str = "") -> list[int]:
        """Token ids of a reply after the lead of its reasoning, with the end of the text, shape (tokens,)."""
        # What a model wrote is text, though it may spell a token of the chat template.
        written = self.tokenizer(
            text.removeprefix(OPENING + lead), add_special_tokens=False, split_special_tokens=True
        ).input_ids
        return [*written, self.tokenizer.eos_token_id]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=False).input_ids)

    def _rendered(self, system: str, prompt: str) -> str:
        messages = [
            {"role": "system", "content": self._plain(system)},
            {"role": "user", "content": self._plain(prompt)},
        ]
        text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        # Some reasoning models' templates open the reasoning themselves.
        return text if text.rstrip().endswith("<think>") else text + OPENING

    def _plain(self, text: str) -> str:
        """The text with the chat template's own tokens pulled apart: a gene's name must not end the user's turn."""
        for token in self._tags:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _shared(self, system: str) -> list[int]:
        """The tokens that every request with this system message begins with; a function of the message alone."""
        first, second = self.prompt_ids(system, "a"), self.prompt_ids(system, "1")
        return first[: _common(first, second)]

    # -- writing -----------------------------------------------------------------------------------------------------

    def _sampled(self, request: GenerationRequest, settings: GenerationSettings) -> GeneratedText:
        """All samples of one request; of those with the same patch the first."""
        written: list[tuple[GeneratedText, Sample]] = []
        for start in range(0, request.texts, settings.batch):
            numbers = range(start, min(request.texts, start + settings.batch))
            rows = [self._row(request, settings, 1 + n) for n in numbers]
            logits, state = self._read_prompts(rows[:1])
            state.repeat(len(rows))
            self._write(rows, logits.repeat(len(rows), 1), state, settings)
            for row in rows:
                text = row.written(self.tokenizer)
                written.append((text, Sample(text.text, row.log_probability)))
        different: dict[str, Sample] = {}
        for _, sample in written:
            different.setdefault(sample.text.rpartition(_CLOSED)[2].strip(), sample)
        return GeneratedText(
            id=request.id,
            text=written[0][0].text,
            tokens=sum(text.tokens for text, _ in written),
            thinking_tokens=sum(text.thinking_tokens for text, _ in written),
            samples=tuple(different.values()),
        )

    def _row(self, request: GenerationRequest, settings: GenerationSettings, stream: int = 0) -> _Row:
        steps = settings.thinking_tokens + len(self._closing) + settings.patch_tokens
        return _Row(
            request,
            self.prompt_ids(request.system, request.prompt, request.lead),
            np.random.Generator(np.random.Philox(key=[request.seed, stream])).random(steps + 1),
            self._matcher(request) if settings.grammar else None,
            answer_from=0 if _CLOSED in request.lead else None,
        )

    def _matcher(self, request: GenerationRequest) -> Any:
        grammar = patch_grammar(request.choices, request.most_genes)
        matcher = llguidance.LLMatcher(self._grammar_tokens, llguidance.LLMatcher.grammar_from_lark(grammar))
        if matcher.is_error():
            raise ValueError(f"the grammar of request {request.id} is refused: {matcher.get_error()}")
        return matcher

    def _write(self, rows: list[_Row], logits: torch.Tensor, state: _State, settings: GenerationSettings) -> None:
        """Write every row to its end, from the last logits of its prompt, (rows, vocabulary)."""
        while True:
            live = [row for row in rows if not row.done]
            self._draw(live, logits, settings)
            left = [i for i, row in enumerate(live) if not row.done]
            if not left:
                return
            if len(left) < len(live):
                state.keep(left)
            logits = state.step(self.lora.model, [live[i].ids[-1] for i in left])

    def _read_prompts(self, rows: list[_Row]) -> tuple[torch.Tensor, _State]:
        """Last logits of each prompt, (rows, vocabulary), and the caches to go on from."""
        prefix, cache = self._prefix_of(rows)
        rests = [row.prompt[len(prefix) :] for row in rows]
        longest = max(map(len, rests))
        pad = [longest - len(rest) for rest in rests]
        ids = torch.tensor([[0] * n + rest for n, rest in zip(pad, rests, strict=True)], device=self.device)
        mask = torch.ones((len(rows), len(prefix) + longest), dtype=torch.long, device=self.device)
        for i, n in enumerate(pad):
            mask[i, len(prefix) : len(prefix) + n] = 0
        state = _State(cache, mask)
        return state.read(self.lora.model, ids), state

    def _prefix_of(self, rows: list[_Row]) -> tuple[list[int], DynamicCache]:
        """The shared prefix of the batch and its cache, one copy a row."""
        systems = {row.request.system for row in rows}
        prefix = self._shared(next(iter(systems))) if len(systems) == 1 else []
        cache = growing_cache()
        if prefix:
            if self._prefix.ids != prefix:
                filled = DynamicCache()
                ids = torch.tensor([prefix], device=self.device)
                self.lora.model(ids, past_key_values=filled, use_cache=True, logits_to_keep=1)
                layers = [(layer.keys, layer.values) for layer in filled.layers]  # type: ignore[union-attr]
                self._prefix = _Prefix(prefix, layers)
            for i, (keys, values) in enumerate(self._prefix.layers):
                # expand, not repeat: the copy is made where the first own token is appended.
                shape = (len(rows), -1, -1, -1)
                cache.update(keys.expand(shape), values.expand(shape), i)
        return prefix, cache

    # -- sampling ----------------------------------------------------------------------------------------------------

    def _draw(self, rows: Sequence[_Row], logits: torch.Tensor, settings: GenerationSettings) -> None:
        """Append one token to every row."""
        logits = logits.float()
        self._constrain(rows, logits, settings)
        uniform = torch.tensor([row.uniform[len(row.ids)] for row in rows], device=self.device)
        drawn = _nucleus(logits, uniform, settings.temperature, settings.top_p).tolist()
        self._weigh(rows, logits, drawn)
        for row, token in zip(rows, drawn, strict=True):
            self._append(row, row.forced.pop(0) if row.forced else token, settings)

    def _weigh(self, rows: Sequence[_Row], logits: torch.Tensor, drawn: Sequence[int]) -> None:
        """Add to samples' log-probabilities those of their patches' tokens among what the grammar allows."""
        weighed = [i for i, row in enumerate(rows) if row.answering and row.request.samples is not None]
        if weighed:
            chosen = torch.tensor([drawn[i] for i in weighed], device=self.device)[:, None]
            found = torch.log_softmax(logits[weighed], dim=-1).gather(-1, chosen)[:, 0].tolist()
            for i, log_probability in zip(weighed, found, strict=True):
                rows[i].log_probability += log_probability

    def _constrain(self, rows: Sequence[_Row], logits: torch.Tensor, settings: GenerationSettings) -> None:
        """Forbid what a row may not write next, in place; logits (rows, vocabulary)."""
        masked = [i for i, row in enumerate(rows) if row.answering and row.matcher is not None]
        if masked:
            width = self._grammar_tokens.vocab_size
            packed = llguidance.numpy.allocate_token_bitmask(len(masked), width)
            for j, i in enumerate(masked):
                llguidance.numpy.fill_next_token_bitmask(rows[i].matcher, packed, j)
            # Unpacked here: llguidance's own application compiles a kernel, which needs a C++ compiler at run time.
            bits = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")[:, : logits.shape[1]]
            allowed = torch.zeros((len(masked), logits.shape[1]), dtype=torch.bool)
            allowed[:, : bits.shape[1]] = torch.from_numpy(bits).bool()
            logits[masked] = logits[masked].masked_fill(~allowed.to(logits.device), -torch.inf)
        for i, row in enumerate(rows):
            if not row.answering:
                logits[i, self._ends] = -torch.inf
                if len(row.ids) < settings.least_thinking_tokens:
                    logits[i, self._angles] = -torch.inf  # no tag can begin

    def _append(self, row: _Row, token: int, settings: GenerationSettings) -> None:
        row.ids.append(token)
        if not row.answering:
            self._think_on(row, settings)
        elif row.matcher is not None:
            row.matcher.consume_token(token)
            row.done = row.matcher.is_stopped()
        else:
            row.done = token in self._ends
        row.done = row.done or row.answer_tokens >= settings.patch_tokens

    def _think_on(self, row: _Row, settings: GenerationSettings) -> None:
        """See whether the reasoning is over: closed by the model, or its budget spent."""
        if row.closing:
            if not row.forced:
                row.answer_from = len(row.ids)
            return
        if len(row.ids) >= settings.least_thinking_tokens and _CLOSED in self._tail(row):
            row.thinking_tokens = row.answer_from = len(row.ids)
        elif len(row.ids) >= settings.thinking_tokens:
            row.thinking_tokens = len(row.ids)
            row.closing, row.forced = True, list(self._closing)

    def _tail(self, row: _Row) -> str:
        return str(self.tokenizer.decode(row.ids[-8:]))


@dataclass(slots=True)
class _Row:
    """A reply while it is written."""

    request: GenerationRequest
    prompt: list[int]
    uniform: np.ndarray[Any, np.dtype[np.float64]]  # one draw a token
    matcher: Any  # of the grammar, or None
    ids: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    closing: bool = False
    answer_from: int | None = None  # where the answer begins in ids
    thinking_tokens: int = 0
    done: bool = False
    log_probability: float = 0.0  # of the patch so far

    @property
    def answering(self) -> bool:
        return self.answer_from is not None

    @property
    def answer_tokens(self) -> int:
        return 0 if self.answer_from is None else len(self.ids) - self.answer_from

    def written(self, tokenizer: Any) -> GeneratedText:
        text = tokenizer.decode(self.ids, skip_special_tokens=True)
        return GeneratedText(
            id=self.request.id,
            text=OPENING + self.request.lead + text,
            tokens=len(self.ids),
            thinking_tokens=self.thinking_tokens,
        )


class _State:
    """Key-value caches of the rows under way, and which positions of them count."""

    def __init__(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        self._cache = cache
        self._mask = mask  # (rows, positions), 1 where a token stands

    def read(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        """Feed (rows, tokens); logits after the last one, (rows, vocabulary)."""
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        # The last position by index: as a slice it is not contiguous, and torch then copies the whole vocabulary's
        # weights once a row (a quarter of the time of reading the prompts).
        last = torch.tensor([ids.shape[1] - 1], device=ids.device)
        out = model(
            ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=last,
        )
        return torch.as_tensor(out.logits[:, -1])

    def step(self, model: Any, tokens: Sequence[int]) -> torch.Tensor:
        """One more token in every row."""
        one = self._mask.new_ones((len(tokens), 1))
        self._mask = torch.cat([self._mask, one], dim=1)
        return self.read(model, torch.tensor(tokens, device=one.device)[:, None])

    def repeat(self, count: int) -> None:
        """So many rows of the one that was read."""
        self._cache.batch_repeat_interleave(count)
        self._mask = self._mask.repeat(count, 1)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop the rows that are done."""
        index = torch.tensor(rows, device=self._mask.device)
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]


@dataclass(frozen=True, slots=True)
class _Prefix:
    ids: list[int] = field(default_factory=list)
    layers: list[tuple[Any, Any]] = field(default_factory=list)


def _nucleus(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """One token a row from the smallest set that holds ``top_p`` of the probability (Holtzman et al., 2020).

    Args:
        logits: (rows, vocabulary), -inf where forbidden.
        uniform: (rows,) draws from [0, 1).
        temperature: 0 takes the likeliest.
        top_p: in (0, 1].
    """
    if temperature <= 0.0:
        return logits.argmax(-1)
    probability = torch.softmax(logits / temperature, dim=-1)
    ranked, tokens = probability.topk(min(_LIKELIEST, probability.shape[-1]), dim=-1)
    if bool((ranked.sum(-1) < top_p).any()) and ranked.shape[-1] < probability.shape[-1]:
        ranked, tokens = probability.sort(dim=-1, descending=True)
    mass = ranked.cumsum(-1)
    ranked = ranked.masked_fill(mass - ranked >= top_p, 0.0)
    mass = ranked.cumsum(-1)
    chosen = torch.searchsorted(mass, (uniform.to(mass.dtype) * mass[:, -1])[:, None], right=True)
    last = (ranked > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, torch.minimum(chosen, last))[:, 0]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text: the tokenizer's and those that the checkpoint's generation settings name."""
    named = model.generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return sorted({t for t in [tokenizer.eos_token_id, *several] if t is not None})


def _tokens_with(text: str, tokenizer: Any) -> list[int]:
    return sorted(i for token, i in tokenizer.get_vocab().items() if text in token)


def _plain_template(tokenizer: Any) -> str:
    """Of a base model, which knows no turns: the messages one after the other, as a text begins for it."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    start = "{{ bos_token }}" if begins else ""
    return start + "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
