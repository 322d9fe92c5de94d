"""The fingerprint is stable where the device is the same and different where latencies are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.hardware.probe import Device, library_versions, notes, probe, sensors
from riwoa.ipc.child import child_environment

RASPBERRY_CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

processor\t: 1
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd03
"""


def fake_root(folder: Path, *, memory_kb: int = 3_884_000, load_mhz: str = "600.000") -> Path:
    files = {
        "proc/cpuinfo": RASPBERRY_CPUINFO + f"cpu MHz\t\t: {load_mhz}\n",
        "proc/meminfo": f"MemTotal:        {memory_kb} kB\nMemFree: 1 kB\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A100\nIRQ: 44\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_two_probes_of_this_machine_agree() -> None:
    assert probe() == probe()
    assert probe().hash == probe().hash
    assert probe().cores >= 1


def test_a_board_is_recognised_with_each_kind_of_core_and_its_card(tmp_path: Path) -> None:
    device = probe(fake_root(tmp_path))
    assert device.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.cpu == "CPU implementer 0x41, CPU part 0xd08; CPU implementer 0x41, CPU part 0xd03"
    assert (device.cores, device.memory_gib, device.max_frequency_khz) == (2, 4, 1_500_000)
    assert device.flags == ("asimd",)
    assert device.gpus == ("NVIDIA A100",)
    assert notes(tmp_path)["governor"] == "ondemand"


def test_what_changes_between_boots_leaves_the_hash_alone(tmp_path: Path) -> None:
    before = probe(fake_root(tmp_path / "a"))
    after = probe(fake_root(tmp_path / "b", memory_kb=3_870_000, load_mhz="1500.000"))
    assert after.hash == before.hash


def test_another_card_is_another_device_and_says_so() -> None:
    mine = probe()
    other = replace(mine, gpus=("Tesla T4",))
    assert other.hash != mine.hash
    assert mine.differences(other) == [f"gpus: {list(mine.gpus)} is not ['Tesla T4']"]


def test_a_machine_without_proc_still_has_a_fingerprint(tmp_path: Path) -> None:
    assert probe(tmp_path).cores >= 1


def test_the_json_form_reads_back_and_refuses_other_shapes() -> None:
    data = probe().to_json()
    assert Device.from_json(data) == probe()
    for bad in ({**data, "cores": "2"}, {**data, "cores": True}, {**data, "extra": 1}, {**data, "gpus": "x"}, {}):
        with pytest.raises(ValueError, match=r"device"):
            Device.from_json(bad)


def test_probing_and_reading_tables_imports_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, riwoa.hardware.lut, riwoa.hardware.build, riwoa.hardware.probe as p; p.probe();"
        "p.library_versions();"
        "sys.exit(str(sorted({'torch', 'scipy', 'ofa'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=child_environment(1), stderr=subprocess.PIPE)
    assert done.stderr.strip() == b"[]"


def test_library_versions_name_torch() -> None:
    assert {"python", "torch", "ofa"} <= set(library_versions())


def test_clocks_and_temperatures_are_noted_where_the_machine_shows_them(tmp_path: Path) -> None:
    root = fake_root(tmp_path, load_mhz="1450.500")
    assert sensors(root) == {"cpu_mhz": 1450.5}
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1400000\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone1/temp": "61500\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert sensors(root) == {"cpu_mhz": 1400.0, "cpu_celsius": 61.5}
    assert sensors(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 'NVIDIA X, 580.1, P0, 1980 MHz, 2619 MHz, 1980 MHz, 41, 118.20 W, Default, Enabled'", "1980 MHz"),
        ("echo 'No devices were found'", None),
        ("exit 9", None),
        ("echo", None),
        (":", None),
    ],
)
def test_a_card_is_asked_through_its_own_tool_whatever_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: str | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ "$2" = GPU-1 ] || exit 1\n{answer}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = sensors(tmp_path / "nothing", card="GPU-1")
    assert found.get("gpu", {}).get("clocks.sm") == expected
    monkeypatch.setenv("PATH", "")
    assert sensors(tmp_path / "nothing", card="GPU-1") == {}
