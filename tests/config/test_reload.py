from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.errors import ConfigError


def reloader_of(file: Path, *overrides: str) -> Reloader:
    return Reloader(load(file, overrides, {}), overrides)


def refusal_of(reloader: Reloader) -> tuple[str | None, tuple[str, ...]]:
    """Why the file was refused, and which of its keys only a restart changes."""
    return reloader.error, tuple(reloader.outcome.refused)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "riwoa.toml"
    path.write_text("[run]\ngenerations = 10\n")
    return path


def test_a_live_key_waits_for_the_boundary_and_applies_once(file: Path) -> None:
    reloader = reloader_of(file)
    file.write_text("[run]\ngenerations = 12\n")
    reloader.reload()
    assert reloader.config.run.generations == 10
    taken = reloader.take()
    assert taken is not None
    assert taken[0].run.generations == 12
    assert reloader.config.run.generations == 12
    assert reloader.take() is None


@pytest.mark.parametrize(
    "text", ["[run\n", "[run]\nseed = 'x'\n", "[rnu]\nseed = 1\n", "\x00", "[run]\ngenerations = 0\n"]
)
def test_a_bad_file_changes_nothing_and_shows_why_until_it_is_mended(file: Path, text: str) -> None:
    reloader = reloader_of(file)
    before = reloader.config
    file.write_text(text)
    with pytest.raises(ConfigError):
        reloader.reload()
    assert reloader.take() is None
    assert reloader.config is before
    assert str(file) in (reloader.error or "")
    file.write_text("[run]\ngenerations = 10\n")
    reloader.reload()
    assert reloader.error is None


def test_a_file_with_a_key_that_cannot_change_applies_none_of_it_and_names_the_key(file: Path) -> None:
    reloader = reloader_of(file)
    file.write_text("[run]\ngenerations = 11\nseed = 5\n[oracle]\nworkers = 3\n")
    with pytest.raises(ConfigError):
        reloader.reload()
    assert tuple(reloader.outcome.refused) == ("run.seed", "oracle.workers")
    refused = "refused: run.seed 0 → 5 (needs --new-run), oracle.workers auto → 3 (needs a restart of the daemon)"
    rest = "nothing of the file was applied, nor run.generations 10 → 11: `riwoactl reload --partial` applies that"
    assert reloader.error == f"{file}: {refused}; {rest}"
    assert reloader.take() is None
    file.write_text("[run]\ngenerations = 11\n")
    reloader.reload()
    assert refusal_of(reloader) == (None, ())
    taken = reloader.take()
    assert taken is not None
    assert taken[0].run.generations == 11


def test_a_partial_reload_applies_the_rest_of_such_a_file_and_says_both(file: Path) -> None:
    reloader = reloader_of(file)
    file.write_text("[run]\ngenerations = 11\nseed = 5\n")
    outcome = reloader.reload(partial=True)
    assert outcome.sentence == (
        "applies at the next generation: run.generations 10 → 11; refused: run.seed 0 → 5 (needs --new-run)"
    )
    assert outcome.told("applied").startswith("applied: run.generations 10 → 11; refused:")
    with pytest.raises(ConfigError):  # as the watcher reads it again
        reloader.reload()
    taken = reloader.take()  # the file still asks for it
    assert taken is not None
    assert (taken[0].run.generations, taken[0].run.seed) == (11, 0)
    told = reloader.take_refusal()
    assert told is not None
    assert dict(told.refused) == {"run.seed": (0, 5)}
    assert reloader.take_refusal() is None
    file.write_text("[run]\ngenerations = 11\n[oracle]\nworkers = 3\n")
    reloader.reload(partial=True)
    file.write_text("[run]\ngenerations = 11\n")  # a table of refused keys may go as it came
    reloader.reload()
    assert reloader.error is None


async def test_the_watcher_does_not_undo_what_a_partial_reload_said_of_the_same_writing(file: Path) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    file.write_text("[run]\ngenerations = 11\nseed = 5\n")
    await reloader.reload_aside(partial=True)
    await asyncio.sleep(1.0)  # longer than the watcher waits for a file to be whole
    assert reloader.error is None
    assert "refused: run.seed 0 → 5 (needs --new-run)" in reloader.outcome.sentence
    file.write_text("[run]\ngenerations = 12\nseed = 5\n")
    await until("error", reloader)
    watch.cancel()


def test_no_part_of_a_file_that_lost_a_table_applies(file: Path) -> None:
    file.write_text("[run]\ngenerations = 10\n[governor]\nevery_s = 9.0\n")
    reloader = reloader_of(file)
    file.write_text("[run]\ngenerations = 11\n")
    with pytest.raises(ConfigError, match=r"refused: \[governor\] is gone from it"):
        reloader.reload(partial=True)
    file.write_text("")
    with pytest.raises(ConfigError, match=r"refused: the file is empty, and had \[governor\], \[run\]"):
        reloader.reload(partial=True)
    assert reloader.take() is None


def test_what_waits_is_forgotten_when_the_file_no_longer_asks_for_it(file: Path) -> None:
    reloader = reloader_of(file)
    file.write_text("[run]\ngenerations = 12\npolish_evaluations = 7\n")
    reloader.reload()
    file.write_text("[run]\ngenerations = 10\npolish_evaluations = 7\nseed = 5\n")  # refused, and asks for less
    with pytest.raises(ConfigError):
        reloader.reload()
    assert list(reloader.waiting) == ["run.polish_evaluations"]
    file.write_text("[run]\ngenerations = 10\n")
    assert reloader.reload().sentence == "nothing changed: the file asks for what is in force"
    assert reloader.waiting == {}
    assert reloader.take() is None


def test_a_partial_reload_refuses_what_is_not_valid_without_the_rest(file: Path) -> None:
    file.write_text('[objective]\nkind = "front"\n')
    reloader = reloader_of(file)
    file.write_text('[objective]\nlatency_ms = "none"\n')  # a front has an end
    with pytest.raises(ConfigError, match="not valid alone"):
        reloader.reload(partial=True)
    assert reloader.take() is None


def test_while_there_are_further_limits_the_latency_target_cannot_change_in_a_run(file: Path) -> None:
    file.write_text("[objective]\nlatency_ms = 4.5\n")
    reloader = reloader_of(file, 'objective.constraints=["parameters <= 2e6"]')
    file.write_text("[objective]\nlatency_ms = 3.0\n")
    with pytest.raises(ConfigError, match=r"refused: objective\.latency_ms 4\.5 → 3\.0"):  # prompts count on it
        reloader.reload()
    assert reloader.take() is None
    plain = reloader_of(file)
    file.write_text("[objective]\nlatency_ms = 4.5\n")
    assert list(plain.reload().accepted) == ["objective.latency_ms"]


def test_a_run_that_stands_on_older_values_of_fixed_keys_still_takes_edits(file: Path) -> None:
    """What a resumed run stands on may differ from the file where the start allowed it; that is no edit."""
    reloader = reloader_of(file)
    reloader.continue_from(load(None, ["search.riwoa.screened=1", "run.generations=10"], {}).config)
    file.write_text("[run]\ngenerations = 11\n")
    reloader.reload()
    taken = reloader.take()
    assert taken is not None
    assert (taken[0].run.generations, taken[0].search.riwoa.screened) == (11, 1)


@pytest.mark.parametrize(
    ("text", "lost"),
    [("", r"\[governor\], \[run\]"), ("# all gone\n", r"\[run\]"), ("[run]\n", r"\[governor\] is gone")],
)
def test_a_file_that_lost_whole_tables_is_refused_whole_until_they_are_back(file: Path, text: str, lost: str) -> None:
    file.write_text("[run]\ngenerations = 10\n[governor]\nevery_s = 9.0\n")
    reloader = reloader_of(file)
    file.write_text(text)
    with pytest.raises(ConfigError, match=lost):
        reloader.reload()
    assert reloader.take() is None
    assert "still being written" in (reloader.error or "")
    file.write_text("[run]\n[governor]\n")  # meant so: the headers say it
    reloader.reload()
    assert reloader.error is None
    taken = reloader.take()
    assert taken is not None
    assert (taken[0].run.generations, taken[0].governor.every_s) == (200, 5.0)


def test_a_pipe_is_read_once_and_a_reload_says_so() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"[run]\ngenerations = 3\n")
    os.close(writing)
    reloader = reloader_of(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    assert reloader.config.run.generations == 3
    with pytest.raises(ConfigError, match="was a pipe and is read once"):
        reloader.reload()
    asyncio.run(asyncio.wait_for(reloader.watch(), 5))  # nothing to watch


HOSTILE = {
    "an integer of 5,000 digits": "[run]\nseed = " + "9" * 5000,
    "a hexadecimal one": "[run]\nseed = 0x" + "f" * 100_000,
    "nested without end": "x = " + "[" * 3000,
    "tables nested without end": "x = " + "{a=" * 3000,
    "a key of 50,000 parts": ".".join("a" * 50_000) + " = 1",
    "a table of 50,000 parts": "[" + ".".join("a" * 50_000) + "]",
    "a million bytes": "# " + "x" * 1_000_000,
    "NUL in a name": '[oracle]\ndata = "a\\u0000b"',
    "a surrogate": '[oracle]\ndata = "\\ud800"',
    "a date of no calendar": "[run]\ndeadline = 2026-02-31T07:00:00",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_no_text_ends_the_watching_or_holds_the_loop_up(file: Path, text: str) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    longest_s, ticking = 0.0, asyncio.create_task(asyncio.sleep(0))

    async def tick() -> None:
        nonlocal longest_s
        while True:
            before_s = asyncio.get_running_loop().time()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, asyncio.get_running_loop().time() - before_s)

    ticking = asyncio.create_task(tick())
    file.write_text(text)
    await until("error", reloader)
    assert len((reloader.error or "").splitlines()) == 1
    assert len(reloader.error or "") < 2000
    assert longest_s < 2.0
    file.write_text("[run]\ngenerations = 15\n")
    await until("taken", reloader)
    assert (reloader.config.run.generations, reloader.error) == (15, None)
    for task in (watch, ticking):
        task.cancel()


async def test_an_empty_file_of_an_edit_under_way_changes_nothing(file: Path) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    file.write_text("")
    await until("error", reloader)
    assert reloader.take() is None
    file.write_text("[run]\ngenerations = 16\n")
    await until("taken", reloader)
    assert (reloader.config.run.generations, reloader.error) == (16, None)
    watch.cancel()


def test_the_command_line_stays_on_top_of_a_reloaded_file(file: Path) -> None:
    reloader = reloader_of(file, "run.generations=3")
    file.write_text("[run]\ngenerations = 12\npolish_evaluations = 7\n")
    reloader.reload()
    taken = reloader.take()
    assert taken is not None
    assert (taken[0].run.generations, taken[0].run.polish_evaluations) == (3, 7)


def test_a_resumed_run_stands_on_its_last_configuration_and_takes_the_new_one_at_the_boundary(file: Path) -> None:
    reloader = reloader_of(file)
    journaled = load(None, ["run.generations=5"], {}).config
    reloader.continue_from(journaled)
    assert reloader.config.run.generations == 5
    taken = reloader.take()
    assert taken is not None
    assert taken[0].run.generations == 10


async def until(condition: object, reloader: Reloader) -> None:
    async with asyncio.timeout(10):
        while not (reloader.take() if condition == "taken" else reloader.error):
            await asyncio.sleep(0.05)


async def test_edits_are_seen_however_they_are_made(file: Path) -> None:
    reloader = reloader_of(file)
    watch = asyncio.create_task(reloader.watch())
    await asyncio.sleep(0.5)  # the watcher is up
    file.write_text("[run]\ngenerations = 12\n")  # truncate and write
    await until("taken", reloader)
    new = file.with_suffix(".new")
    new.write_text("[run]\ngenerations = 13\n")
    os.replace(new, file)  # as editors do
    await until("taken", reloader)
    assert reloader.config.run.generations == 13
    file.unlink()
    await until("error", reloader)
    target = file.with_suffix(".target")
    target.write_text("[run]\ngenerations = 14\n")
    file.symlink_to(target)  # as configuration managers do
    await until("taken", reloader)
    assert reloader.config.run.generations == 14
    watch.cancel()


async def watching(reloader: Reloader) -> asyncio.Task[None]:
    task = asyncio.create_task(reloader.watch())
    await asyncio.sleep(0.5)  # the watcher is up
    return task


async def test_a_number_that_is_still_being_written_is_not_read(file: Path) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    for _ in range(3):
        with file.open("w") as stream:
            for part in ("[run]\ngenera", "tions = 1", "2", "3\n"):
                stream.write(part)
                stream.flush()
                await asyncio.sleep(0.15)
                if (taken := reloader.take()) is not None:
                    assert taken[0].run.generations == 123
        await until("taken", reloader) if reloader.config.run.generations != 123 else None
        assert reloader.config.run.generations == 123
    assert reloader.error is None
    watch.cancel()


async def test_of_a_thousand_edits_in_a_row_the_last_one_stands(file: Path) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    new = file.with_suffix(".new")
    for number in range(1000):
        text = f"[run]\ngenerations = {1000 + number}\n"
        if number % 3 == 0:
            file.write_text(text)
        elif number % 3 == 1:
            new.write_text(text)
            os.replace(new, file)
        else:
            file.write_text("[run\nnonsense")
        await asyncio.sleep(0)
    file.write_text("[run]\ngenerations = 77\n")
    async with asyncio.timeout(20):
        while reloader.config.run.generations != 77:
            reloader.take()
            await asyncio.sleep(0.05)
    assert reloader.error is None
    watch.cancel()


async def test_a_directory_in_the_files_place_changes_nothing_and_the_file_back_is_seen(file: Path) -> None:
    reloader = reloader_of(file)
    watch = await watching(reloader)
    file.unlink()
    file.mkdir()
    await until("error", reloader)
    assert reloader.config.run.generations == 10
    file.rmdir()
    file.write_text("[run]\ngenerations = 15\n")
    await until("taken", reloader)
    assert (reloader.config.run.generations, reloader.error) == (15, None)
    watch.cancel()


async def test_a_folder_of_links_that_is_swapped_as_a_whole_is_seen(tmp_path: Path) -> None:
    """As container platforms mount configuration: riwoa.toml -> ..data/riwoa.toml, ..data -> a folder of the day."""
    for day, generations in (("monday", 10), ("tuesday", 11)):
        (tmp_path / day).mkdir()
        (tmp_path / day / "riwoa.toml").write_text(f"[run]\ngenerations = {generations}\n")
    (tmp_path / "..data").symlink_to("monday")
    (tmp_path / "riwoa.toml").symlink_to("..data/riwoa.toml")
    reloader = reloader_of(tmp_path / "riwoa.toml")
    watch = await watching(reloader)
    (tmp_path / "..new").symlink_to("tuesday")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    await until("taken", reloader)
    assert reloader.config.run.generations == 11
    watch.cancel()
