"""What shells and man are told of riwoactl: of every verb, in the shells and the man that are here."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache

import pytest

from riwoa.ctl import VERBS, main
from riwoa.ctl.shells import bash, fish, manual, pages, zsh


@cache
def script() -> str:
    """Of bash."""
    return bash()


def completed(*words: str) -> list[str]:
    """What a real bash offers for the last of these words."""
    asked = " ".join(f"'{word}'" for word in words)
    code = f"COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; _riwoactl; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script()}\n{code}"], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("riwoactl", "rel"), ["reload"]),
        (("riwoactl", "lut", ""), ["build", "check", "drift", "show"]),
        (("riwoactl", "lut", "build", "--st"), ["--state", "--stem"]),
        (("riwoactl", "lut", "build", "--stem", ""), ["imagenet", "small"]),
        (("riwoactl", "--state", "here", "pareto", "--w"), ["--within"]),
        (("riwoactl", "show", "best", "--r"), ["--run"]),
        (("riwoactl", "completion", ""), ["bash", "zsh", "fish"]),
        (("riwoactl", "classify", "pict"), []),  # files, by bash itself
    ],
)
def test_bash_offers_what_may_follow(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_bash_offers_every_verb() -> None:
    assert completed("riwoactl", "") == list(VERBS)


@pytest.mark.parametrize(("shell", "made"), [("zsh", zsh), ("fish", fish)])
def test_the_other_shells_read_their_script(shell: str, made: Callable[[], str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n"], input=made(), text=True, check=True)


def test_fish_is_told_every_verb_and_quotes_what_they_do() -> None:
    text = fish()
    assert all(f"-a {verb} -d '" in text for verb in VERBS)
    assert "device\\'s latency table" in text


def test_every_page_has_options_or_sub_verbs() -> None:
    assert [page.words for page in pages() if not page.options and not page.subverbs and page.words != ("help",)] == []


def test_the_manual_names_every_verb_and_man_finds_no_fault_in_it() -> None:
    page = manual("1.2.3")
    assert [verb for verb in VERBS if f'.SS "{verb}"' not in page] == []
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-z"], input=page, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_the_verbs_print_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.strip() == script().strip()
    assert main(["help", "--man"]) == 0
    assert capsys.readouterr().out.startswith(".TH RIWOACTL 1")
