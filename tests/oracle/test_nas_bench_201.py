import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nas_201_api import NASBench201API

from riwoa.errors import InputError, StateDirectoryError
from riwoa.oracle.cells import OPERATIONS, operations
from riwoa.oracle.nas_bench_201 import convert, load
from riwoa.oracle.table import TableOracle, TableSpec
from riwoa.search.space import Space
from tests.support.nas_bench_201_file import TRIALS, accuracy, arch_string, official, write
from tests.support.official import official_data

CELLS = [(4, 2, 1, 2, 1, 1), (0, 0, 0, 0, 0, 0), (3, 3, 3, 1, 3, 3), (1, 2, 3, 4, 0, 1)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(official(CELLS, left_out=[1]), tmp_path_factory.mktemp("official") / "NAS-Bench-201-v1_1-096897.pth")


def test_the_last_epoch_of_every_trial_is_averaged(source: Path, tmp_path: Path) -> None:
    facts = convert(source, tmp_path / "nb.npz")
    table = np.load(tmp_path / "nb.npz")
    assert table["ops"].dtype == np.uint8
    assert table["ops"].tolist() == [list(CELLS[i]) for i in (0, 2, 3)]  # the second cell was never evaluated
    columns = {"c10v": "cifar10-valid", "c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120"}
    for short, dataset in columns.items():
        test = "ori-test" if short in ("c10v", "c10") else "x-test"
        for epochs, hp in ((12, "less"), (200, "full")):
            for split, name in (("train", "train"), ("val", "x-valid"), ("test", test)):
                column = f"{short}_{split}{epochs}"
                if column in ("c10_val12", "c10_val200"):  # trained on the validation images: there is none
                    assert column not in table
                    continue
                seeds = TRIALS[hp][dataset]
                expected = [np.mean([accuracy(i, hp, dataset, name, s, epochs - 1) for s in seeds]) for i in (0, 2, 3)]
                assert table[column].dtype == np.float32
                np.testing.assert_allclose(table[column], expected, rtol=1e-6, err_msg=column)
    assert json.loads(str(table["metadata"])) == facts
    assert facts["seeds"]["c10 200"] == [777, 888, 999]
    assert facts["seeds"]["c100 12"] == [777]


def test_the_package_reads_the_same_numbers_from_the_same_dictionary(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "nb.npz")
    table = np.load(tmp_path / "nb.npz")
    api = NASBench201API(load(source), verbose=False)
    for row, index in enumerate((0, 2, 3)):
        more = api.get_more_info(index, "cifar100", hp="200", is_random=False)
        assert table["c100_val200"][row] == pytest.approx(more["valid-accuracy"], rel=1e-6)
        assert table["c100_test200"][row] == pytest.approx(more["test-accuracy"], rel=1e-6)


def test_the_compact_table_is_an_oracle(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "nb.npz")
    oracle = TableOracle(TableSpec(path=str(tmp_path / "nb.npz"), genes="ops", accuracy="c10v_val200"))
    found = oracle.evaluate({f"ops.{i}": op for i, op in enumerate(CELLS[2])})
    expected = np.mean([accuracy(2, "full", "cifar10-valid", "x-valid", s, 199) for s in (777, 888)])
    assert found["accuracy"] == pytest.approx(expected / 100, rel=1e-6)


def test_files_of_either_format_are_read(source: Path, tmp_path: Path) -> None:
    new = write(official(CELLS[:1]), tmp_path / "new.pth", as_2020=False)
    assert load(new)["meta_archs"] == [arch_string(CELLS[0])]
    assert b"cnumpy.core.multiarray\nscalar\n" in source.read_bytes()  # as numpy 1 wrote it, and none of numpy 2's
    assert b"numpy._core" not in source.read_bytes()


def test_progress_is_told_while_it_reads_and_while_it_converts(source: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    convert(source, tmp_path / "nb.npz", lambda *step: told.append(step))
    reading = [(done, total) for what, done, total in told if what == "reading"]
    assert reading[-1] == (source.stat().st_size, source.stat().st_size)
    assert [done for what, done, _ in told if what == "converting"] == [0, 1, 2]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/never"),))  # type: ignore[return-value]


@pytest.mark.parametrize("as_2020", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, as_2020: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**official(CELLS[:1]), "evaluated_indexes": Bomb()}
    touched: list[Path] = []
    path = write(content, tmp_path / "bomb.pth", as_2020=as_2020)
    monkeypatch.setattr(Path, "touch", lambda self: touched.append(self))
    with pytest.raises(InputError, match="no intact NAS-Bench-201 file"):
        load(path)
    assert not touched


def test_anything_else_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match="no file at"):
        load(tmp_path / "nowhere.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="not NAS-Bench-201's dictionary"):
        load(tmp_path / "weights.pth")
    (tmp_path / "half.pth").write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(InputError, match="no intact"):
        load(tmp_path / "half.pth")


def test_a_cell_of_another_shape_is_named(tmp_path: Path) -> None:
    content = official(CELLS[:2])
    del content["arch2infos"][1]["full"]
    with pytest.raises(InputError, match="cell 1 is not as NAS-Bench-201 stores it"):
        convert(write(content, tmp_path / "odd.pth"), tmp_path / "nb.npz")
    content = official(CELLS[:1])
    content["meta_archs"] = ["|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
    with pytest.raises(InputError, match="cell 0 is not"):
        convert(write(content, tmp_path / "ops.pth"), tmp_path / "nb.npz")
    assert not (tmp_path / "nb.npz").exists()


def test_an_output_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryError, match="name another --out"):
        convert(source, tmp_path / "no" / "such" / "folder.npz")


def test_operations_are_numbered_as_in_the_published_table() -> None:
    table = np.load(official_data("nas-bench-201/accuracy.npz"))
    for row in (0, 6111, 9930, 15624):
        assert list(operations(table["arch"][row].decode())) == table["ops"][row].tolist()


def test_the_numbers_of_a_table_that_says_what_it_is_go_by_their_words(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "nb.npz")
    table = np.load(tmp_path / "nb.npz")
    numbers = {"ops": table["ops"], "acc": table["c10v_val200"]}
    written_out = np.array([arch_string(CELLS[i]).encode() for i in (0, 2, 3)])
    np.savez(tmp_path / "written.npz", arch=written_out, **numbers)
    np.savez(tmp_path / "other.npz", arch=written_out[::-1], **numbers)
    np.savez(tmp_path / "pickled.npz", arch=written_out.astype(object), **numbers)  # never loaded, and not asked for
    np.savez(tmp_path / "bare.npz", **numbers)

    def space_of(name: str, accuracy: str = "acc") -> Space:
        return TableOracle(TableSpec(path=str(tmp_path / name), genes="ops", accuracy=accuracy)).space

    bare = space_of("bare.npz")
    for found in (space_of("nb.npz", "c10v_val200"), space_of("written.npz")):
        assert found == bare
        assert found.sha256 == bare.sha256  # as runs of before know it
        assert found.to_json() == bare.to_json()
        for gene in found.genes:
            assert gene.words == tuple(OPERATIONS[int(choice)] for choice in gene.choices)
        assert found.worded({"ops.0": 3, "ops.1": 2}) == {"ops.0": "nor_conv_3x3", "ops.1": "nor_conv_1x1"}
    for name in ("other.npz", "pickled.npz", "bare.npz"):
        assert all(gene.words is None for gene in space_of(name).genes)
