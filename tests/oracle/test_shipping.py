"""Files on their way to a node: whole, by their hash, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from riwoa.errors import InputError
from riwoa.oracle.ray_actor import NodeWorker
from riwoa.oracle.shipping import tree_of, trees_of, with_places


async def send(tree_source: list[Path], node: NodeWorker, most_bytes: int) -> Path:
    tree = tree_of(tree_source)
    for packet in tree.packets(most_bytes):
        await node.receive(tree.sha256, packet)
    return Path(await node.settle(tree.sha256, tree.hashes)) / tree.entry


def folder(place: Path) -> Path:
    for name, content in {"b/2.bin": os.urandom(5000), "a/1.bin": b"", "a/3.bin": os.urandom(4096)}.items():
        file = place / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return place / "photos"


@pytest.mark.parametrize("most_bytes", [700, 4096, 2**20])
async def test_a_folder_arrives_byte_for_byte_in_packets_of_any_size(tmp_path: Path, most_bytes: int) -> None:
    source, node = folder(tmp_path), NodeWorker(str(tmp_path / "cache"))
    tree = tree_of([source])
    assert await node.place(tree.sha256) is None
    assert all(sum(len(content) for _, _, content in packet) <= most_bytes for packet in tree.packets(most_bytes))
    arrived = await send([source], node, most_bytes)
    files = sorted(str(f.relative_to(source)) for f in source.rglob("*") if f.is_file())
    assert sorted(str(f.relative_to(arrived)) for f in arrived.rglob("*") if f.is_file()) == files
    assert all((arrived / name).read_bytes() == (source / name).read_bytes() for name in files)
    assert await node.place(tree.sha256) == str(arrived.parent)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [tree.sha256]


async def test_files_beside_a_table_go_with_it_and_keep_their_names(tmp_path: Path) -> None:
    for name in ("table.npz", "latency.npz", "else.npz"):
        (tmp_path / name).write_bytes(name.encode())
    spec = {"kind": "table", "path": str(tmp_path / "table.npz"), "accuracy": "acc", "latency": "latency.npz:ms"}
    (tree,) = trees_of(spec).values()
    assert sorted(tree.files) == ["latency.npz", "table.npz"]
    node = NodeWorker(str(tmp_path / "cache"))
    arrived = await send([tmp_path / "table.npz", tmp_path / "latency.npz"], node, 2**20)
    assert with_places(spec, {"path": str(arrived)})["path"].endswith("/table.npz")
    assert (arrived.parent / "latency.npz").read_bytes() == b"latency.npz"


async def test_what_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    source, node = folder(tmp_path), NodeWorker(str(tmp_path / "cache"))
    tree = tree_of([source])
    for packet in tree.packets():
        await node.receive(tree.sha256, [(name, at, content[::-1]) for name, at, content in packet])
    with pytest.raises(OSError, match="arrived damaged"):
        await node.settle(tree.sha256, tree.hashes)
    assert list((tmp_path / "cache").iterdir()) == []
    assert await node.place(tree.sha256) is None


async def test_two_workers_of_a_machine_may_receive_the_same_at_once(tmp_path: Path) -> None:
    source = folder(tmp_path)
    tree = tree_of([source])
    nodes = [NodeWorker(str(tmp_path / "cache")) for _ in range(2)]
    for node in nodes:
        for packet in tree.packets():
            await node.receive(tree.sha256, packet)
    places = [await node.settle(tree.sha256, tree.hashes) for node in nodes]
    assert places[0] == places[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_content_or_name_is_another_tree(tmp_path: Path) -> None:
    file = tmp_path / "table.npz"
    file.write_bytes(b"1")
    first = tree_of([file]).sha256
    assert tree_of([file]).sha256 == first
    file.write_bytes(b"2")
    assert tree_of([file]).sha256 != first


def test_a_missing_file_and_one_that_lies_elsewhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.npz: cannot be read to be sent to a node"):
        tree_of([tmp_path / "none.npz"])
    (tmp_path / "x").mkdir()
    for name in ("x/table.npz", "beside.npz"):
        (tmp_path / name).write_bytes(b"1")
    with pytest.raises(InputError, match="does not lie beside"):
        tree_of([tmp_path / "x" / "table.npz", tmp_path / "x" / ".." / "beside.npz"])


def test_what_is_in_the_package_is_not_sent() -> None:
    from riwoa.supernet.spec import SupernetSpec

    assert trees_of(SupernetSpec().to_json()) == {}
