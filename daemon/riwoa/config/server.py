"""``[cognition.http]``: a language model on a server that speaks the OpenAI protocol."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from riwoa.config.fields import Positive, Processes, Seconds, Section, live


def _is_base_url(text: str) -> str:
    """The address as it stands.

    Raises:
        ValueError: it is no address of a server, or holds a secret; settings are journaled.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("no address of a server, such as http://127.0.0.1:11434/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("an address holds no name, key or question; a key goes into cognition.http.key_file")
    return text.rstrip("/")


Price = Annotated[float, Field(ge=0.0, le=1e9)]


class ServerSettings(Section):
    """A server: Ollama, vLLM, llama.cpp, or another that speaks the OpenAI protocol."""

    url: Annotated[str, AfterValidator(_is_base_url)] | None = live(
        None, "base URL of a server, mostly with /v1: http://127.0.0.1:11434/v1 is Ollama's"
    )
    model: str = Field(
        "auto", description="what the server calls the model; auto = the only one that it lists", min_length=1
    )
    key_file: str | None = live(
        None, "a file whose first line is the server's key; in a file, for settings are journaled", min_length=1
    )
    key_env: str | None = live(None, "instead: the environment variable that holds it", pattern=r"^[A-Za-z_]\w*$")
    timeout_s: Seconds = live(60.0, "longest wait for one answer; cognition.timeout_s bounds a batch of them")
    retries: Annotated[int, Field(ge=0, le=20)] = live(2, "further tries of a request that failed in passing")
    at_once: Processes = live(4, "requests under way at the same time")
    budget_tokens: Positive | None = live(
        None, "tokens a night, read and written, from noon to noon; then nothing is asked until noon"
    )
    price_per_million_in: Price | None = live(None, "price of a million tokens read; with it the status tells the cost")
    price_per_million_out: Price | None = live(None, "price of a million tokens written")

    @model_validator(mode="after")
    def _has_one_key(self) -> ServerSettings:
        if self.key_file is not None and self.key_env is not None:
            raise ValueError("key_file and key_env are both given; leave one out")
        return self

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; None where no price is given."""
        prices = self.price_per_million_in, self.price_per_million_out
        if prices == (None, None):
            return None
        return 1e-6 * (tokens_in * (prices[0] or 0.0) + tokens_out * (prices[1] or 0.0))
