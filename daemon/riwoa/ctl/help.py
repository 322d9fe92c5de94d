"""``riwoactl help``: the handbook, one page a topic, as plain text for a terminal of 80 columns."""

from __future__ import annotations

from riwoa.ctl import Options
from riwoa.errors import UsageError
from riwoa.paths import shipped

# In the order in which a user needs them; each is riwoa/data/handbook/TOPIC.md.
TOPICS = {
    "quickstart": "the first search, what it prints, and how to go on",
    "data": "your own pictures, and supernets for them",
    "space": "tables, OFA's predictor, and what else can be searched",
    "configuration": "every key, its default, and when it may change",
    "export": "the winner's files, and how to use them without riwoa",
    "service": "systemd, nights, deadlines, and when the search pauses",
    "cluster": "evaluations on several machines, with Ray",
    "containers": "an image without root or network, its health, a GPU, the page",
    "model": "the language model: which one, how it proposes and learns",
    "latency": "the table of this device: build, check, drift",
    "recovery": "what survives what, backup, verify, exit codes",
    "history": "runs, candidates and where they came from, replies, logs",
    "status": "what riwoactl status says; every field of its object",
    "web": "the page: tokens, REST, live events, metrics",
    "alerts": "being told when something happens, by a command or a webhook",
    "validate": "what a winner is worth: retrained, tested, corrupted",
    "benches": "the benchmarks, and how to run them",
    "results": "every measured number, with its command",
}
_INDENT = "    "


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print one page, or the list of topics.

    Raises:
        UsageError: no page has this name.
        SystemExit: 0 after --help.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: riwoactl {verb} [TOPIC | --man]\n\n--man prints riwoactl(1), for man -l.\n\n{topics()}")
        raise SystemExit(0)  # as argparse does for the other verbs
    if arguments == ["--man"]:
        from riwoa import __version__
        from riwoa.ctl.shells import manual

        page = manual(__version__)
        _emit(options, {"man": page}, page)
        return 0
    if len(arguments) > 1:
        raise UsageError(f"riwoactl help prints one topic at a time, not {' '.join(arguments)!r}")
    if not arguments:
        _emit(options, {"topics": TOPICS}, f"{topics()}\n\nriwoactl help TOPIC prints one.")
        return 0
    page = rendered(read_page(arguments[0]))
    _emit(options, {"topic": arguments[0], "text": page}, page)
    return 0


def topics() -> str:
    """One line a topic."""
    return "\n".join(f"  {name:<15}{what}" for name, what in TOPICS.items())


def exit_codes() -> str:
    """The handbook's table of exit codes, which is the only one."""
    return read_page("recovery").partition("## Exit codes")[2].split("```")[1].strip("\n")


def read_page(topic: str) -> str:
    """The Markdown of one topic.

    Raises:
        UsageError: there is none of this name.
    """
    if topic not in TOPICS:
        import difflib

        found = difflib.get_close_matches(topic, TOPICS, n=1, cutoff=0.4)
        hint = f"did you mean {found[0]!r}?" if found else f"topics are {', '.join(TOPICS)}"
        raise UsageError(f"riwoactl help: no topic {topic!r}; {hint}")
    return (shipped("handbook") / f"{topic}.md").read_text(encoding="utf-8")


def rendered(markdown: str) -> str:
    """A page as plain text: headings are underlined, code is indented; the pages need no more of Markdown.

    Comments (the generator's marks) are left out.
    """
    lines: list[str] = []
    in_code = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        elif in_code:
            lines.append(f"{_INDENT}{line}".rstrip())
        elif line.startswith("#"):
            hashes, _, title = line.partition(" ")
            lines += [title, ("=" if hashes == "#" else "-") * len(title)]
        elif not line.startswith("<!--"):
            lines.append(line)
    return "\n".join(lines)


def _emit(options: Options, data: object, text: str) -> None:
    if options.json:
        import json

        print(json.dumps(data))
    else:
        print(text)
