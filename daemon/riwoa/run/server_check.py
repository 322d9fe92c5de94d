"""Does the model on the configured server answer, as a search would ask it, how soon, and with legal patches?"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from riwoa.cognition.chat_server import ChatServer, absence, lists, served_model
from riwoa.cognition.endpoint import ServerError
from riwoa.cognition.parse import PatchError, offered_patch
from riwoa.cognition.protocol import GenerationSettings
from riwoa.config.schema import Cognition, Config
from riwoa.run.provision import SERVED
from riwoa.run.sample_request import sample_request
from riwoa.run.style import style_of
from riwoa.supernet.space import mobilenet_space
from riwoa_storage.records import RequestRecord

_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """What a server is and does.

    Attributes:
        url: its base URL.
        model: that is asked for.
        listed: what it offers; None where it does not tell.
        answered: the model that answered, by its own word, with its fingerprint.
        schema: "kept" (it holds its texts to legal patches), "broken" (it takes the schema and does not), "refused", or
            "off" (``cognition.grammar``).
        several: whether it writes several texts at once.
        reply_s: seconds that the second reply took: the first may have loaded the model.
        tokens_in: that the second reply read.
        tokens_out: that it wrote.
        sample: what it wrote.
        cost: of a thousand such replies, by the prices that are given.
        settings: how it is asked to write.
        mends: what is not as it should be, and what to do.
    """

    url: str
    model: str
    listed: tuple[str, ...] | None
    answered: str
    schema: str
    several: bool
    reply_s: float
    tokens_in: int
    tokens_out: int
    sample: str
    cost: float | None
    settings: GenerationSettings
    mends: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON object."""
        return asdict(self)


async def check_server(config: Config, say: Callable[[str], None] = lambda _: None) -> CheckedServer:
    """Ask the server what it has, and for a few replies.

    Raises:
        ServerError: it does not answer; says what to do.
    """
    cognition = config.cognition
    http, style = cognition.http, style_of(cognition, SERVED)
    say(f"asking {http.url} for its models")
    model = await served_model(cognition)
    server = ChatServer(model, lambda: cognition)
    try:
        listed = await _listed(server)
        space = mobilenet_space(config.oracle.supernet.resolutions)
        requests = [sample_request(space, style, number) for number in range(3)]

        async def completed(request: RequestRecord, texts: int) -> Any:
            until_s = time.monotonic() + http.timeout_s
            return await server.complete(request, texts, number=0, until_s=until_s, on_late=lambda *_: None)

        say("asking for a reply")
        first = await completed(requests[0], 1)
        began_s = time.monotonic()
        second = await completed(requests[1], 1)
        reply_s = time.monotonic() - began_s
        say("asking for several at once")
        third = await completed(requests[2], _SEVERAL)
    finally:
        await server.close()
    kept = all(map(_is_legal, requests[:2], (first.texts[0], second.texts[0])))
    cost = http.cost(second.tokens_in, second.tokens_out)
    answered = second.model or "an unnamed model"
    found = CheckedServer(
        url=str(http.url),
        model=model,
        listed=listed,
        answered=f"{answered} ({second.fingerprint})" if second.fingerprint else answered,
        schema="off" if not cognition.grammar else _of_schema(constrained=server.constrained, kept=kept),
        several=len(third.texts) == _SEVERAL,
        reply_s=reply_s,
        tokens_in=second.tokens_in,
        tokens_out=second.tokens_out,
        sample=second.texts[0],
        cost=None if cost is None else 1000 * cost,
        settings=style.settings,
    )
    return replace(found, mends=tuple(_mends(found, cognition)))


def _of_schema(*, constrained: bool, kept: bool) -> str:
    if not constrained:
        return "refused"
    return "kept" if kept else "broken"


async def _listed(server: ChatServer) -> tuple[str, ...] | None:
    try:
        return tuple(await server.models())
    except ServerError:  # some servers have no such list, and answer all the same
        return None


def _is_legal(request: RequestRecord, text: str) -> bool:
    try:
        offered_patch(text, request.parameters["choices"], request.parameters["most_genes"])
    except PatchError:
        return False
    return True


def _mends(found: CheckedServer, cognition: Cognition) -> Iterator[str]:
    http, listed = cognition.http, found.listed
    if listed is not None and not lists(list(listed), found.model):
        yield f"it answers, but {absence(list(listed), found.model)}"
    if found.schema == "refused":
        yield "it takes no JSON schema: patches that are none are left out; a newer server holds to it"
    if found.schema == "broken":
        yield "it does not hold to the JSON schema that it takes; a newer server, or another model, may"
    most = found.settings.thinking_tokens + found.settings.patch_tokens
    if found.tokens_out >= most:
        yield f"its text was cut at {most} tokens: raise cognition.thinking_tokens, or have the server think less"
    if 2 * found.reply_s > min(http.timeout_s, cognition.timeout_s):
        yield (
            f"a reply takes {found.reply_s:.0f} s: raise cognition.http.timeout_s and cognition.timeout_s, or take a "
            "smaller model"
        )
    if (http.key_file or http.key_env) and found.url.startswith("http:") and not _is_near(found.url):
        yield "the key goes over the network in the clear: use an https address"


def _is_near(url: str) -> bool:
    """Whether an address is this machine's."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
