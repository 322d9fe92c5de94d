"""``riwoactl completion bash | zsh | fish``: a script that has a shell complete riwoactl's command lines."""

from __future__ import annotations

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.shells import bash, fish, zsh

_SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
_DESCRIPTION = """Prints the script. bash: source <(riwoactl completion bash), in ~/.bashrc; zsh: the same with zsh, in
~/.zshrc; fish: riwoactl completion fish > ~/.config/fish/completions/riwoactl.fish"""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the script of a shell."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("shell", choices=list(_SHELLS))
    shell = parser.parse_args(arguments).shell
    script = _SHELLS[shell]()
    emit(options, {"shell": shell, "script": script}, script)
    return 0
