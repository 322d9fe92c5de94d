"""``riwoactl model pull | check | list``: the language models of this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.console.bar import bar, say
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, loaded, subverb
from riwoa.text import printable

if TYPE_CHECKING:
    from riwoa.config.schema import Config

_KNOWN = {
    "pull": "bring a model here: auto (what suits this machine), smollm2, a hub id (org/name), a GGUF file converted",
    "check": "start the configured model, or ask the configured server, and measure it: memory, speed, 4-bit, schema",
    "list": "show the models that are here, or on the configured server, and which one the configuration means",
}


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Dispatch to pull, check or list."""
    name = subverb(verb, arguments, _KNOWN)
    return {"pull": _pull, "check": _check, "list": _list}[name](arguments[1:], options)


def _pull(arguments: list[str], options: Options) -> int:
    parser = Parser("model pull", description="What is here already stays; killed and run again, it begins anew.")
    parser.add_argument("model", help="auto, smollm2, org/name, or FILE.gguf")
    given = parser.parse_args(arguments)
    from riwoa.cognition.fetch import pull

    with bar("pulling"):
        files = pull(given.model, say)
    data = {"model": files.name, "directory": str(files.directory), "parameters": files.parameters}
    emit(options, data, f"{files.name}: {files.parameters / 1e6:.0f} million parameters in {files.directory}")
    return 0


def _configured(name: str, arguments: list[str], description: str) -> Any:
    parser = Parser(f"model {name}", description=description)
    parser.add_argument("--config", type=Path, metavar="FILE", help="where cognition.model and its settings come from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    given = parser.parse_args(arguments)
    return loaded(given.config, given.set).config


def _check(arguments: list[str], options: Options) -> int:
    what = "Loads the model in a process of its own, as the daemon does; of a server asks for three replies."
    config = _configured("check", arguments, what)
    if config.cognition.provider == "http":
        return _check_server(config, options)
    from riwoa.bench.model import check_model

    with bar("measuring"):
        data = asyncio.run(check_model(config, say)).to_json()
    emit(options, data, render(data))
    return 0


def _check_server(config: Config, options: Options) -> int:
    """Exits 1 where something is to be mended."""
    from riwoa.run.server_check import check_server

    with bar("asking"):
        data = asyncio.run(check_server(config, say)).to_json()
    emit(options, data, render_server(data))
    return 1 if data["mends"] else 0


_OF_SCHEMA = {
    "kept": "kept: it holds its texts to legal patches",
    "broken": "taken, but not kept",
    "refused": "refused: it is asked without one",
    "off": "not asked for (cognition.grammar = false)",
}


def render_server(data: dict[str, Any]) -> str:
    """What a server is and does, as aligned lines."""
    settings, seconds = data["settings"], data["reply_s"]
    listed = "does not list its models" if data["listed"] is None else f"lists {len(data['listed'])}"
    rows = [
        ["server", f"{data['url']}, {listed}"],
        ["model", f"{data['model']}, answered by {data['answered']}"],
        ["settings", f"temperature {settings['temperature']:g}, top-p {settings['top_p']:g}, at most "
                     f"{settings['thinking_tokens'] + settings['patch_tokens']} tokens a text"],
        ["schema", _OF_SCHEMA[data["schema"]]],
        ["at once", "several texts a request" if data["several"] else "one text a request"],
        ["reply", f"{seconds:.1f} s: {data['tokens_in']} tokens read, {data['tokens_out']} written"],
        ["sample", printable(data["sample"], 200)],
    ]  # fmt: skip
    if data["cost"] is not None:
        rows.append(["cost", f"{data['cost']:.3g} for a thousand such replies"])
    return columns([*rows, *(["mend" if not i else "", mend] for i, mend in enumerate(data["mends"]))])


def render(data: dict[str, Any]) -> str:
    """The measurements as aligned lines."""
    settings = data["settings"]
    memory = "unknown" if data["memory_bytes"] is None else f"{data['memory_bytes'] / 2**20:,.0f} MiB resident"
    if data["vram_bytes"] is not None:
        memory += f", {data['vram_bytes'] / 2**20:,.0f} MiB on the GPU"
    quantization = "" if data["quantization"] == "none" else f"{data['quantization']}, computed in "
    rows = [
        ["model", data["model"]],
        ["why", data["reason"]],
        ["files", data["directory"]],
        ["runs in", f"{quantization}{data['dtype']} on {data['device']}, {data['threads']} thread(s)"],
        ["settings", f"temperature {settings['temperature']:g}, top-p {settings['top_p']:g}, "
                     f"{settings['thinking_tokens']} tokens of reasoning, {data['template']} prompts"],
        ["loaded in", f"{data['load_s']:.1f} s"],
        ["memory", memory],
        ["speed", f"{data['tokens_per_s_alone']:.1f} tokens/s alone, {data['tokens_per_s_batch']:.1f} in a batch of 8"],
        ["4-bit", "works here" if data["four_bit"] else f"no: {data['four_bit_reason']}"],
    ]  # fmt: skip
    return columns(rows)


def _list(arguments: list[str], options: Options) -> int:
    config = _configured("list", arguments, "What lies in the models directory ($RIWOA_MODELS moves it).")
    if config.cognition.provider == "http":
        return _list_server(config, options)
    from riwoa.cognition.models import ModelFiles, choose, present
    from riwoa.errors import ModelError
    from riwoa.files.model_store import models_home

    models: list[dict[str, Any]] = []
    for found in present():
        if isinstance(found, ModelFiles):
            sizes = {"parameters": found.parameters, "bytes": found.weights_bytes}
            models.append({"model": found.name, "directory": str(found.directory), **sizes})
        else:
            models.append({"error": str(found)})
    data: dict[str, Any] = {"home": str(models_home()), "models": models, "configured": config.cognition.model}
    try:
        chosen = choose(config.cognition.model, memory_bytes=config.cognition.memory_bytes)
        data |= {"chosen": chosen.spec.name, "reason": chosen.reason}
    except ModelError as error:
        data |= {"chosen": None, "reason": str(error)}
    emit(options, data, _render_list(data))
    return 0


def _list_server(config: Config, options: Options) -> int:
    from riwoa.cognition.chat_server import ChatServer

    async def listed() -> list[str]:
        server = ChatServer(config.cognition.http.model, lambda: config.cognition)
        try:
            return await server.models()
        finally:
            await server.close()

    http, models = config.cognition.http, asyncio.run(listed())
    data = {"url": http.url, "models": models, "configured": http.model}
    emit(options, data, "\n".join([*models, f"cognition.http.model = {http.model}, at {http.url}"]))
    return 0


def _render_list(data: dict[str, Any]) -> str:
    rows = [
        [m["model"], f"{m['parameters'] / 1e6:,.0f} M parameters", f"{m['bytes'] / 2**20:,.0f} MiB", m["directory"]]
        for m in data["models"]
        if "model" in m
    ]
    lines = [columns(rows)] if rows else [f"no models in {data['home']}"]
    lines += [m["error"] for m in data["models"] if "error" in m]
    chosen = data["chosen"] or "none, a search goes on geometrically"
    return "\n".join([*lines, f"cognition.model = {data['configured']}: {chosen}; {data['reason']}"])
