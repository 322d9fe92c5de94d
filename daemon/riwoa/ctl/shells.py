"""What shells and ``man`` know of riwoactl: made from what its verbs print for ``--help``, so there is one source."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from riwoa.ctl import VERBS, Options, usage

_SUBVERBS = re.compile(r"^usage: riwoactl \S+ \{([^}]+)\} \.\.\.$|^  \{([^}]+)\}", re.MULTILINE)
_OPTION = re.compile(r"^  (?:-\w, )?(--[a-z][a-z-]*)(?:[ =](\S+))?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Option:
    """An option, and what may follow it: None for nothing, words where only those may."""

    name: str
    takes: str | None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """What a verb, or a sub-verb of it, prints for ``--help``."""

    words: tuple[str, ...]
    text: str

    @property
    def subverbs(self) -> tuple[str, ...]:
        """Its sub-verbs, or the words of which one must follow; none where anything may."""
        found = _SUBVERBS.search(self.text)
        return tuple((found[1] or found[2]).split(",")) if found else ()

    @property
    def is_parted(self) -> bool:
        """Whether its sub-verbs have pages of their own."""
        found = _SUBVERBS.search(self.text)
        return bool(found and found[1])

    @property
    def options(self) -> tuple[Option, ...]:
        """Its options."""
        found = []
        for name, takes in _OPTION.findall(self.text):
            choices = tuple(takes.strip("{}").split(",")) if takes.startswith("{") else ()
            found.append(Option(name, takes or None, choices))
        return tuple(found)


def pages() -> Iterator[Page]:
    """Of every verb in their order, each followed by its sub-verbs."""
    for verb in VERBS:
        page = _page(verb)
        yield page
        for subverb in page.subverbs if page.is_parted else ():
            yield _page(verb, subverb)


def _page(*words: str) -> Page:
    verb, *more = words
    name = f"riwoa.ctl.{VERBS[verb][0]}"
    __import__(name)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        sys.modules[name].run(verb, [*more, "--help"], Options())
    return Page(words, out.getvalue())


# -- shells ------------------------------------------------------------------------------------------------------------

_BASH = """\
_riwoactl() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} path="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      -*) [[ ${{COMP_WORDS[i]}} == --state ]] && ((i++)) ;;
      *) path="$path ${{COMP_WORDS[i]}}" ;;
    esac
  done
  case "${{path# }} $previous" in
{values}
  esac
  if [[ -z $words ]]; then
    case "${{path# }}" in
      "") words="{verbs}" ;;
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _riwoactl riwoactl
"""


def bash() -> str:
    """A script that has bash complete verbs, sub-verbs, options, and what options take; files elsewhere."""
    cases, values = [], []
    for page in pages():
        path, options = " ".join(page.words), " ".join(option.name for option in page.options)
        words = " ".join(page.subverbs) or options
        # What follows a verb of its own is no part of the path: "show best" is completed as "show".
        cases.append(f'      "{path}"{"" if page.subverbs else f"|{chr(34)}{path} {chr(34)}*"}) words="{words}" ;;')
        values += [
            f'    "{path}"*" {option.name}") words="{" ".join(option.choices)}" ;;'
            for option in page.options
            if option.choices
        ]
    # The longest first: "lut build" is looked for before "lut".
    longest = sorted(cases, key=lambda line: -line.partition(")")[0].count(" "))
    return _BASH.format(verbs=" ".join(VERBS), cases="\n".join(longest), values="\n".join(values))


def zsh() -> str:
    """The same for zsh, which reads bash's."""
    return f"autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n{bash()}"


def fish() -> str:
    """The same for fish, with what each verb does."""
    lines = ["complete -c riwoactl -f"]
    for verb, (_, what) in VERBS.items():
        lines.append(f"complete -c riwoactl -n __fish_use_subcommand -a {verb} -d {_quoted(what)}")
    for page in pages():
        verb, *more = page.words
        here = f"__fish_seen_subcommand_from {verb}"
        if more:
            here += f"; and __fish_seen_subcommand_from {more[0]}"
        elif page.subverbs:
            lines.append(f'complete -c riwoactl -n "{here}" -a "{" ".join(page.subverbs)}"')
        for option in page.options:
            takes = ""
            if option.takes is not None:
                takes = f' -x -a "{" ".join(option.choices)}"' if option.choices else " -r -F"
            lines.append(f'complete -c riwoactl -n "{here}" -l {option.name[2:]}{takes}')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# -- man ---------------------------------------------------------------------------------------------------------------


def manual(version: str) -> str:
    """The page riwoactl(1), for ``man -l``."""
    what = "ask and steer riwoa, the search for the best neural network for this device"
    parts = [
        f'.TH RIWOACTL 1 "" "riwoa {version}"',
        ".SH NAME",
        f"riwoactl \\- {what}",
        ".SH SYNOPSIS",
        *_plain(usage()),
    ]
    parts.append(".SH VERBS")
    for page in pages():
        parts += [f'.SS "{" ".join(page.words)}"', *_plain(page.text)]
    parts += [".SH SEE ALSO", "riwoactl help lists the pages of the handbook; riwoactl help TOPIC prints one."]
    return "\n".join(parts) + "\n"


def _plain(text: str) -> list[str]:
    """A text as it stands: no line of it is a request to the formatter."""
    escaped = [line.replace("\\", "\\e").replace("-", "\\-") for line in text.rstrip().splitlines()]
    return [".nf", *(f"\\&{line}" if line[:1] in (".", "'") else line for line in escaped), ".fi"]
