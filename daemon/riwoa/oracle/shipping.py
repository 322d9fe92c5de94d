"""What an oracle reads, on its way to the nodes of a cluster: trees of files, each known by the hash of its content.

A node that has a tree of this hash is sent nothing. Trees go in packets of a few megabytes, so that neither the sender
nor an object store holds a whole data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.errors import InputError
from riwoa.oracle.kinds import kind_named

PACKET_BYTES = 16 * 2**20
_LEAST_BYTES = 256  # that a file counts in a packet, however small it is

Packet = list[tuple[str, int, bytes]]  # file below the tree, offset, content


@dataclass(frozen=True, slots=True)
class Tree:
    """Files that go together.

    Attributes:
        sha256: of the names and contents.
        entry: the name of the place below the tree: a file, or a directory.
        files: where each lies here, by its name below the tree.
        hashes: of each content, by the same names.
    """

    sha256: str
    entry: str
    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files.values())

    def packets(self, most_bytes: int = PACKET_BYTES) -> Iterator[Packet]:
        """The content in order; a large file is cut, small ones go together.

        Raises:
            InputError: a file cannot be read.
        """
        packet: Packet = []
        held = 0
        for name, file in self.files.items():
            with _opened(file) as stream:
                offset = 0
                while True:
                    content = stream.read(most_bytes - held)
                    if content or not offset:
                        packet.append((name, offset, content))
                    offset += len(content)
                    held += max(len(content), _LEAST_BYTES)
                    if held < most_bytes:
                        break  # the file ended before the packet was full
                    yield packet
                    packet, held = [], 0
        if packet:
            yield packet


def trees_of(spec: Mapping[str, Any]) -> dict[str, Tree]:
    """What the nodes need of an oracle's files, by the key of the specification that names them; reads them all.

    Raises:
        InputError: one is missing or cannot be read.
    """
    kind = kind_named(str(spec["kind"]))
    with kind.blamed("say what it reads"):
        places = kind.value.shipped(spec)
    return {key: tree_of(place) for key, place in places.items()}


def tree_of(places: Sequence[Path]) -> Tree:
    """The tree of a place, a file or a directory, and of files beside it.

    Raises:
        InputError: one is missing or cannot be read.
    """
    place = places[0]
    if place.is_dir():
        files = {f"{place.name}/{name}": file for name, file in _below(place)}
    else:
        files = {str(file.relative_to(place.parent)): file for file in places}
        if astray := [name for name in files if ".." in Path(name).parts]:
            raise InputError(f"{astray[0]} does not lie beside {place}; put it there, or set ray.ship = false")
    hashes = {name: _sha256(file) for name, file in files.items()}
    sha256 = hashlib.sha256(json.dumps([place.name, hashes], sort_keys=True).encode()).hexdigest()
    return Tree(sha256, place.name, files, hashes)


def with_places(spec: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The specification with its files where they lie on a node, by key."""
    return {**spec, **places}


def _below(directory: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, names in os.walk(directory, followlinks=True):
        folders.sort()
        for name in sorted(names):
            file = Path(root, name)
            yield str(file.relative_to(directory)), file


def _opened(file: Path) -> Any:
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: cannot be read to be sent to a node ({error.strerror or error})") from None


def _sha256(file: Path) -> str:
    with _opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
