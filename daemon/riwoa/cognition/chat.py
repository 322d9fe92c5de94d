"""A request as a chat completion of the OpenAI protocol, and what comes back; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.cognition.endpoint import ServerError
from riwoa.cognition.prompt import spoken_choices
from riwoa.cognition.protocol import Choice, GenerationSettings
from riwoa.text import printable
from riwoa_storage.records import RequestRecord

_MOST_CHARACTERS = 200_000  # of one text, reasoning and all; a budget of tokens ends sooner
_MOST_NAME = 200
_CHARACTERS_A_TOKEN = 3  # few, so that a guess is on the safe side
_MOST_SEED = 2**31  # llama.cpp takes 32 bits


@dataclass(frozen=True, slots=True)
class Completion:
    """What a server wrote, and what it says of itself.

    Attributes:
        texts: as written, with the reasoning, where the server tells it apart, in front in ``<think>``.
        model: that answered, by its own word.
        fingerprint: of the server's configuration, likewise.
        tokens_in: read.
        tokens_out: written.
        estimated: the server does not count its tokens, or not credibly.
    """

    texts: tuple[str, ...]
    model: str | None
    fingerprint: str | None
    tokens_in: int
    tokens_out: int
    estimated: bool


def patch_schema(choices: Mapping[str, Sequence[Choice]], most_genes: int) -> dict[str, Any]:
    """The JSON schema of the patches that a request may be answered with.

    A patch of one gene is one of several objects, since llama.cpp heeds no ``maxProperties``.
    """
    properties = {gene: {"enum": list(offered)} for gene, offered in choices.items()}
    if most_genes == 1:
        return {
            "anyOf": [
                {"type": "object", "properties": {gene: one}, "required": [gene], "additionalProperties": False}
                for gene, one in properties.items()
            ]
        }
    return {
        "type": "object",
        "properties": properties,
        "minProperties": 1,
        "maxProperties": most_genes,
        "additionalProperties": False,
    }


def chat_body(request: RequestRecord, model: str, texts: int, *, number: int = 0, constrained: bool) -> dict[str, Any]:
    """What is posted for ``texts`` answers to a request.

    Args:
        request: as journaled.
        model: what the server calls it.
        texts: how many answers to write.
        number: of this post for the request: another draws other answers.
        constrained: let the server hold the answers to the schema of legal patches.
    """
    p = request.parameters
    settings = GenerationSettings(**p["settings"])
    system = [{"role": "system", "content": p["system"]}] if p["system"] else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*system, {"role": "user", "content": request.prompt}],
        "max_tokens": settings.thinking_tokens + settings.patch_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": (request.seed + number) % _MOST_SEED,
        "stream": False,
    }
    if texts > 1:
        body["n"] = texts
    if constrained:
        schema = patch_schema(spoken_choices(p), p["most_genes"])
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "patch", "schema": schema}}
    return body


def most_tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    """What a request may cost at most: tokens read, about, and written."""
    return _tokens(sum(len(m["content"]) for m in body["messages"])), body["max_tokens"] * body.get("n", 1)


def read_completion(answer: Any, body: Mapping[str, Any]) -> Completion:
    """What a server's answer to ``body`` holds.

    Raises:
        ServerError: it is no chat completion.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ServerError("the server's answer holds no choices: it is no chat completion", "strange")
    texts = tuple(_text(choice) for choice in choices[: body.get("n", 1)])
    usage = answer.get("usage")
    counted = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    guessed = (most_tokens(body)[0], _tokens(sum(map(len, texts))))
    tokens = [n if _is_credible(n) else guess for n, guess in zip(counted, guessed, strict=True)]
    return Completion(
        texts=texts,
        model=_name(answer.get("model")),
        fingerprint=_name(answer.get("system_fingerprint")),
        tokens_in=tokens[0],
        tokens_out=tokens[1],
        estimated=not all(map(_is_credible, counted)),
    )


def _text(choice: Any) -> str:
    """What one choice says.

    Raises:
        ServerError: it holds no message.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ServerError("the server's answer holds a choice without a message: it is no chat completion", "strange")
    said = message.get("content")
    if isinstance(said, list):  # parts, of which some are text
        said = "".join(str(part["text"]) for part in said if isinstance(part, dict) and "text" in part)
    answer = said if isinstance(said, str) else ""
    reasoning = next((r for name in ("reasoning_content", "reasoning") if isinstance(r := message.get(name), str)), "")
    text = f"<think>{reasoning}</think>\n{answer}" if reasoning else answer
    return text[:_MOST_CHARACTERS].encode(errors="replace").decode()  # half a surrogate pair has no place in a database


def _name(said: Any) -> str | None:
    return printable(said, _MOST_NAME).encode(errors="replace").decode() if isinstance(said, str) and said else None


def _is_credible(count: Any) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 10**9


def _tokens(characters: int) -> int:
    return characters // _CHARACTERS_A_TOKEN + 1
