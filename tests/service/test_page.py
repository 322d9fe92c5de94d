"""The page that a daemon serves by itself: as its settings say, anew when they change, gone when it ends."""

import asyncio
import socket
from pathlib import Path

import pytest

from riwoa.config.schema import Web
from riwoa.service import page
from riwoa.service.page import arguments, keep_page


def test_an_address_with_a_slash_is_a_socket() -> None:
    assert arguments(Web(listen="127.0.0.1:1")) == ["--listen", "127.0.0.1:1"]
    assert arguments(Web(listen="./s", require_token=True)) == ["--socket", "./s", "--require-token"]


async def answers(place: Path, patience_s: float = 60.0) -> bool:
    """Whether somebody answers on a Unix socket within some seconds."""
    for _ in range(int(patience_s * 10)):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(place))
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return True
    return False


async def test_it_is_served_where_it_is_wanted_moves_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_LOOK_EVERY_S", 0.1)
    wanted = [Web(listen=str(tmp_path / "one"))]
    task = asyncio.create_task(keep_page(lambda: wanted[0], str(tmp_path)))
    try:
        assert await answers(tmp_path / "one")
        wanted[0] = Web(listen=str(tmp_path / "two"))
        assert await answers(tmp_path / "two")
        assert not await answers(tmp_path / "one", 0.2)
    finally:
        task.cancel()
        await asyncio.wait((task,))
    assert not await answers(tmp_path / "two", 0.2)


async def test_why_it_ended_is_logged_and_the_search_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = asyncio.create_task(keep_page(lambda: Web(listen=str(tmp_path / "no" / "such" / "s")), str(tmp_path)))
    said = ""
    for _ in range(600):
        await asyncio.sleep(0.1)
        said += capsys.readouterr().out
        if "page_ended" in said:
            break
    task.cancel()
    await asyncio.wait((task,))
    assert "page_ended" in said
    assert "such" in said
