import json

import pytest

from riwoa.ctl import main


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["embedded", "--strategies", "riwoa,whale"], "'whale' is none of riwoa, woa, random"),
        (["embedded", "--seeds", "0"], "must be at least 1"),
        (["journal", "--repeats", "0"], "must be at least 1"),
        (["status", "--runs", "-1"], "must be at least 1"),
        (["eval", "--subnets", "0"], "must be at least 1"),
        (["eval", "--threads", "0"], "must be at least 1"),
        (["jornal"], "did you mean 'journal'"),
    ],
)
def test_a_wrong_setting_exits_64_before_anything_is_measured(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 64
    assert hint in capsys.readouterr().err


def test_a_benchmark_prints_one_object_with_its_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "status", "--runs", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["ratio"] > 0
