import csv
import hashlib
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.errors import InputError
from riwoa.ipc.child import child_environment
from riwoa.oracle import table_file as table_module
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.protocol import CandidateError
from riwoa.oracle.table import TableOracle, TableSpec
from riwoa.oracle.table_file import Table
from tests.support.official import official_data

GENES = np.array(list(itertools.product((0, 1, 2), (3, 5))), dtype=np.int8)  # the product of two genes, 6 rows
ACCURACY = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
LATENCY_MS = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])


def npz_file(folder: Path, name: str = "t.npz", **arrays: Any) -> Path:
    np.savez(folder / name, **{"ops": GENES, "acc": ACCURACY, "ms": LATENCY_MS, **arrays})
    return folder / name


def csv_file(folder: Path, rows: list[list[Any]], name: str = "t.csv") -> Path:
    with (folder / name).open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / name


def oracle(path: Path, **fields: Any) -> TableOracle:
    return TableOracle(TableSpec(path=str(path), **{"genes": "ops", "accuracy": "acc", **fields}))


def test_the_low_fidelity_is_a_rung_of_its_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", ops=[[0, 0], [0, 1], [1, 0]], acc=[50.0, 60.0, 70.0], early=[20.0, np.nan, 40.0])
    spec = TableSpec(path=str(tmp_path / "t.npz"), genes="ops", accuracy="acc", low_fidelity="early")
    oracle = TableOracle(spec)
    first, second = (oracle.space.architecture(np.array(row)) for row in ([0, 0], [0, 1]))
    assert oracle.evaluate_at("low_fidelity", first) == {"accuracy": 0.2}
    assert oracle.evaluate(first)["accuracy"] == 0.5
    with pytest.raises(CandidateError, match="without low_fidelity"):
        oracle.evaluate_at("low_fidelity", second)


def test_a_row_is_found_by_its_architecture_and_percent_become_a_fraction(tmp_path: Path) -> None:
    found = oracle(npz_file(tmp_path), latency="ms")
    assert [(g.name, g.choices, g.kind) for g in found.space.genes] == [
        ("ops.0", (0, 1, 2), "nominal"),
        ("ops.1", (3, 5), "nominal"),
    ]
    for genes, accuracy, ms in zip(GENES, ACCURACY, LATENCY_MS, strict=True):
        architecture = {"ops.0": int(genes[0]), "ops.1": int(genes[1])}
        assert found.evaluate(architecture) == {"accuracy": pytest.approx(accuracy / 100)}
        assert found.latency_ms(architecture) == ms
    assert found.range_ms == (1.0, 6.0)
    assert found.median_ms == 3.5


def test_a_column_of_fractions_stays_as_it_is(tmp_path: Path) -> None:
    found = oracle(npz_file(tmp_path, acc=ACCURACY / 100), report="acc")
    assert found.evaluate({"ops.0": 2, "ops.1": 5}) == {"accuracy": 0.6, "report": 0.6}


def accuracies_of(folder: Path, values: list[Any]) -> list[float]:
    """A CSV column of accuracies as the oracle gives them."""
    rows = [["g", "acc"], *([str(i), str(value)] for i, value in enumerate(values))]
    found = oracle(csv_file(folder, rows), genes="g")
    return [found.evaluate({"g": i})["accuracy"] for i, value in enumerate(values) if value != ""]


def test_a_fraction_that_rounding_took_above_1_is_1_and_no_sign_of_percent(tmp_path: Path) -> None:
    assert accuracies_of(tmp_path, [0.50, 0.61, 0.72, 1.0000001]) == [0.50, 0.61, 0.72, 1.0]
    assert accuracies_of(tmp_path, [50, 61, 72, 100.00001]) == [0.50, 0.61, 0.72, 1.0]


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ([0.50, 0.61, 0.72, 73.0], "0.5 in row 0 and 73 in row 3"),
        ([50.0, 61.0, "", 0.72, 73.0], "0.72 in row 3 and 50 in row 0"),
        ([0.50, 0.61, 0.72, 1.1], "0.5 in row 0 and 1.1 in row 3"),
        ([0.0, 0.93, 1.5], "0.93 in row 1 and 1.5 in row 2"),
    ],
    ids=["one of percent", "one fraction", "one out of range", "as many of either"],
)
def test_fractions_and_percent_in_one_column_are_refused_with_their_rows(
    tmp_path: Path, values: list[Any], rows: str
) -> None:
    with pytest.raises(InputError, match=rf"t\.csv: acc is {rows}.*all of the column as fractions"):
        accuracies_of(tmp_path, values)


def test_percent_of_networks_that_learned_nothing_are_percent(tmp_path: Path) -> None:
    assert accuracies_of(tmp_path, [1.0, 1.0, 61.0, 73.5, 40.0]) == [0.01, 0.01, 0.61, 0.735, 0.40]
    assert accuracies_of(tmp_path, [0.0, 0.8333, 47.0, 30.0]) == [0.0, 0.008333, 0.47, 0.30]


def test_what_was_evaluated_when_a_rounded_one_meant_percent_is_not_found_again(tmp_path: Path) -> None:
    """The version is of more than the file: an earlier riwoa took this one for percent."""
    found = oracle(npz_file(tmp_path, acc=ACCURACY / 60 * (1 + 1e-7)))
    facts: list[Any] = ["table-1", found._table.sha256, [0, None, None, None]]
    assert found.version != hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    usual = oracle(npz_file(tmp_path))
    facts = ["table-1", usual._table.sha256, [0, None, None, None]]
    assert usual.version == hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def test_the_unit_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    for values in itertools.permutations([0.8333, 47.0, 30.0, 0.0]):
        assert sorted(accuracies_of(tmp_path, list(values))) == [0.0, 0.008333, 0.30, 0.47]
    for values in itertools.permutations([0.25, 47.0, 30.0, 0.0]):
        with pytest.raises(InputError, match=r"acc is 0\.25 in row"):
            accuracies_of(tmp_path, list(values))


def test_a_csv_file_is_the_same_table_as_its_npz(tmp_path: Path) -> None:
    lines = [["width", "kernel", "acc", "ms"]]
    lines += [[*map(str, g), str(a), str(m)] for g, a, m in zip(GENES, ACCURACY, LATENCY_MS, strict=True)]
    path = csv_file(tmp_path, lines)
    found = oracle(path, genes="width, kernel", gene_kind="ordered", latency="ms")
    other = npz_file(tmp_path, width=GENES[:, 0], kernel=GENES[:, 1])
    same = oracle(other, genes="width,kernel", gene_kind="ordered", latency="ms")
    assert found.space == same.space
    assert [g.kind for g in found.space.genes] == ["ordered", "ordered"]
    for width, kernel in itertools.product((0, 1, 2), (3, 5)):
        architecture = {"width": width, "kernel": kernel}
        assert found.evaluate(architecture) == same.evaluate(architecture)
        assert found.latency_ms(architecture) == same.latency_ms(architecture)


def test_an_architecture_without_a_row_fails_and_a_search_that_asks_keeps_away(tmp_path: Path) -> None:
    path = npz_file(tmp_path, ops=GENES[:5], acc=ACCURACY[:5], ms=LATENCY_MS[:5])
    found = oracle(path, latency="ms")
    with pytest.raises(CandidateError, match="not in the table"):
        found.evaluate({"ops.0": 2, "ops.1": 5})
    assert found.latency_ms({"ops.0": 2, "ops.1": 5}) == math.inf


@pytest.mark.parametrize("column", ["acc", "ms"])
def test_a_row_that_lacks_a_number_fails_alone(tmp_path: Path, column: str) -> None:
    values: dict[str, Any] = {"acc": ACCURACY.copy(), "ms": LATENCY_MS.copy()}
    values[column][5] = np.nan
    found = oracle(npz_file(tmp_path, **values), latency="ms")
    with pytest.raises(CandidateError, match="not measured"):
        found.evaluate({"ops.0": 2, "ops.1": 5})
    assert found.evaluate({"ops.0": 2, "ops.1": 3}) == {"accuracy": 0.5}
    assert found.range_ms == (2.0, 6.0)


def test_without_a_latency_column_nothing_takes_time(tmp_path: Path) -> None:
    found = oracle(npz_file(tmp_path))
    assert found.latency_ms({"ops.0": 0, "ops.1": 3}) == 0.0
    assert (found.range_ms, found.median_ms) == ((0.0, 0.0), None)


def test_what_is_reported_and_what_is_cheap_stand_beside_the_accuracy(tmp_path: Path) -> None:
    test, cheap = ACCURACY - 1, ACCURACY / 2
    cheap[0] = np.nan
    found = oracle(
        npz_file(tmp_path, test=test, cheap=cheap), report="test", low_fidelity="cheap", low_fidelity_cost=0.1
    )
    second = found.evaluate({"ops.0": 0, "ops.1": 5})
    assert second == {"accuracy": 0.2, "report": pytest.approx(0.19), "low_fidelity": 0.1}
    assert set(found.evaluate({"ops.0": 0, "ops.1": 3})) == {"accuracy", "report"}


def test_a_column_of_another_file_is_joined_row_by_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "latency.npz", phone_ms=LATENCY_MS * 2)
    found = oracle(npz_file(tmp_path), latency="latency.npz:phone_ms")
    assert found.latency_ms({"ops.0": 0, "ops.1": 3}) == 12.0


def test_the_version_follows_contents_and_columns_and_no_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "latency.npz", a_ms=LATENCY_MS, b_ms=LATENCY_MS * 2)
    path = npz_file(tmp_path)
    first = oracle(path, latency="latency.npz:a_ms")
    (tmp_path / "elsewhere").mkdir()
    for name in ("t.npz", "latency.npz"):
        (tmp_path / "elsewhere" / name).write_bytes((tmp_path / name).read_bytes())
    moved = oracle(tmp_path / "elsewhere" / "t.npz", latency="latency.npz:a_ms")
    assert (moved.version, moved.latency_sha256) == (first.version, first.latency_sha256)
    others = [
        oracle(path, latency="latency.npz:b_ms"),
        oracle(path, latency="ms"),
        oracle(path, accuracy="ms", latency="latency.npz:a_ms"),
        oracle(path, report="ms", latency="latency.npz:a_ms"),
        oracle(path, report="ms", latency="ms"),
        oracle(path, gene_kind="ordered", latency="latency.npz:a_ms"),
        oracle(npz_file(tmp_path, acc=ACCURACY + 1), latency="latency.npz:a_ms"),
    ]
    versions = [found.version for found in (first, *others)]
    assert len(set(versions)) == len(versions)
    assert others[0].latency_sha256 != first.latency_sha256


def test_the_worker_builds_it_from_the_frame_of_its_specification(tmp_path: Path) -> None:
    spec = TableSpec(path=str(npz_file(tmp_path)), genes="ops", accuracy="acc", latency="ms")
    assert TableSpec.from_json(spec.to_json()) == spec
    assert build_oracle(spec.to_json()).evaluate({"ops.0": 1, "ops.1": 5}) == {"accuracy": 0.4}


def test_neither_the_worker_nor_the_daemon_loads_torch_for_a_table(tmp_path: Path) -> None:
    spec = TableSpec(path=str(npz_file(tmp_path)), genes="ops", accuracy="acc").to_json()
    code = (
        "import sys, json, riwoa.service, riwoa.oracle.worker\n"
        "from riwoa.oracle.kinds import build_oracle\n"
        "assert build_oracle(json.loads(sys.argv[1])).evaluate({'ops.0': 1, 'ops.1': 5}) == {'accuracy': 0.4}\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(spec)], check=True, env=child_environment(1), timeout=60)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "twice the same row": ({"ops": np.vstack((GENES[:5], GENES[:1]))}, "rows 0 and 5 are the same architecture"),
    "genes that are no integers": ({"ops": GENES.astype(float)}, "float64.*should be integers"),
    "genes that are text": ({"ops": np.array(["a"] * 6)}, "should be integers"),
    "a gene with one value": ({"ops": np.column_stack((GENES, np.full(6, 7)))}, "gene ops.2 is 7 in every row"),
    "a gene too large": ({"ops": np.where(GENES == 2, 2**40, GENES.astype(np.int64))}, "number its choices from 0"),
    "genes in three dimensions": ({"ops": GENES[None]}, r"should be integers \(rows,\) or \(rows, genes\)"),
    "no rows": ({"ops": GENES[:0], "acc": ACCURACY[:0]}, "empty"),
    "columns of other lengths": ({"acc": ACCURACY[:5]}, "columns of different lengths"),
    "a metric in two dimensions": ({"acc": ACCURACY[:, None]}, r"should be numbers \(rows,\)"),
    "a metric that is infinite": ({"acc": np.where(ACCURACY > 50, np.inf, ACCURACY)}, "acc is infinite in row 5"),
    "a metric that is nowhere": ({"acc": np.full(6, np.nan)}, "holds no number at all"),
    "a metric that is no accuracy": ({"acc": ACCURACY * 10}, "fraction or percent"),
    "a metric below zero": ({"acc": ACCURACY - 20}, "fraction or percent"),
    "pickled objects": ({"acc": np.array([object()] * 6, dtype=object)}, "pickled objects"),
}


@pytest.mark.parametrize(("arrays", "reason"), REFUSED.values(), ids=REFUSED)
def test_odd_arrays_are_refused_in_plain_words(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        oracle(npz_file(tmp_path, **arrays))
    assert "t.npz" in str(refused.value)


@pytest.mark.parametrize("metric", ["accuracy", "latency", "report", "low_fidelity"])
def test_all_the_genes_are_no_metric(tmp_path: Path, metric: str) -> None:
    with pytest.raises(InputError, match=r"ops is all the genes, \(6, 2\), and no metric"):
        oracle(npz_file(tmp_path), **{metric: "ops"})


CSV_REFUSED: dict[str, tuple[list[list[Any]], str]] = {
    "a gene that is no integer": ([["g", "acc"], ["0", "1"], ["1.5", "2"]], "line 3: g is '1.5'"),
    "a gene too long": ([["g", "acc"], ["0", "1"], ["9" * 5000, "2"]], "a gene is a whole number"),
    "a metric that is text": ([["g", "acc"], ["0", "high"]], "line 2: acc is 'high', should be a number"),
    "a short line": ([["g", "acc"], ["0", "1"], ["1"]], "line 3 has 1 cells, the first line 2"),
    "no rows": ([["g", "acc"]], "no rows"),
    "nothing": ([], "no column 'g'"),
    "two columns of one name": ([["g", "acc", "g"], ["0", "1", "2"]], "2 columns are called 'g'"),
    "another column": ([["g", "loss"], ["0", "1"]], "no column 'acc'; it has g, loss"),
}


@pytest.mark.parametrize(("rows", "reason"), CSV_REFUSED.values(), ids=CSV_REFUSED)
def test_odd_text_is_refused_with_its_line(tmp_path: Path, rows: list[list[Any]], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        oracle(csv_file(tmp_path, rows), genes="g")


def test_an_empty_cell_was_not_measured(tmp_path: Path) -> None:
    found = oracle(csv_file(tmp_path, [["g", "acc"], ["0", "0.5"], [], ["1", " "]]), genes="g")
    assert found.evaluate({"g": 0}) == {"accuracy": 0.5}
    with pytest.raises(CandidateError):
        found.evaluate({"g": 1})


def test_a_latency_is_above_zero(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ms is 0 in row 5"):
        oracle(npz_file(tmp_path, ms=LATENCY_MS - 1), latency="ms")


def test_rows_that_all_lack_something_are_refused(tmp_path: Path) -> None:
    acc, ms = ACCURACY.copy(), LATENCY_MS.copy()
    acc[:3], ms[3:] = np.nan, np.nan
    with pytest.raises(InputError, match="no row has all of acc, ms"):
        oracle(npz_file(tmp_path, acc=acc, ms=ms), latency="ms")


def test_a_joined_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = npz_file(tmp_path)
    np.savez(tmp_path / "short.npz", ms=LATENCY_MS[:5])
    with pytest.raises(InputError, match=r"has 5 rows and .* has 6"):
        oracle(path, latency="short.npz:ms")
    np.savez(tmp_path / "shuffled.npz", ms=LATENCY_MS, ops=GENES[::-1].copy())
    with pytest.raises(InputError, match="must be in the same order"):
        oracle(path, latency="shuffled.npz:ms")
    with pytest.raises(InputError, match="there is no table at"):
        oracle(path, latency="nowhere.npz:ms")


@pytest.mark.parametrize("name", ["t.npz", "t.csv"])
def test_bytes_of_anything_else_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 10)
    with pytest.raises(InputError, match=r"no intact \.npz|cannot be read as text"):
        oracle(tmp_path / name)


def test_what_a_table_is_its_content_says_not_its_name(tmp_path: Path) -> None:
    arrays, text = npz_file(tmp_path), csv_file(tmp_path, [["ops", "acc"], [0, 0.5], [1, 0.25]])
    expected = {arrays: oracle(arrays).version, text: oracle(text).version}
    for file, name in ((arrays, "A.NPZ"), (arrays, "a"), (arrays, "a.csv"), (text, "B.CSV"), (text, "b.txt")):
        (tmp_path / "as").mkdir(exist_ok=True)
        renamed = tmp_path / "as" / name
        renamed.write_bytes(file.read_bytes())
        assert oracle(renamed).version == expected[file]
        assert table_module.column_names(renamed) == table_module.column_names(file)


def test_another_kind_of_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(InputError, match=r"t\.xlsx holds no arrays; write it with numpy\.savez"):
        oracle(tmp_path / "t.xlsx")


HEADERS = {
    "truth values": "(6, True)",
    "a negative size": "(-6, 2)",
    "sizes of 5,000 digits": f"({'9' * 5000}, 2)",
    "sizes beyond any memory": "(4611686018427387904, 4)",
    "a deep nest": "(" * 500 + ")" * 500,
    "text": "('6', 2)",
    "no tuple": "6",
}


@pytest.mark.parametrize("shape", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("dtype", ["'>i8'", "'|i1'", "'|O'", "'|V0'", "[('a', '<i8')]"])
def test_a_header_of_impossible_sizes_is_refused_in_one_line(tmp_path: Path, shape: str, dtype: str) -> None:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(48)
    path = npz_file(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | {"ops.npy": member}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"t\.npz") as refused:
        oracle(path)
    assert "\n" not in str(refused.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_no_table_and_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.csv"
    {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    with pytest.raises(InputError, match=r"no table at .*t\.csv"):
        oracle(path)
    with pytest.raises(InputError, match=r"t\.csv"):
        table_module.column_names(path)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({"ops": [[0]]}))
    with pytest.raises(InputError, match=r"neither \.npz nor \.csv"):
        oracle(tmp_path / "t.pkl")


def test_an_array_that_declares_more_than_any_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = npz_file(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["acc.npy"] = members["acc.npy"].replace(b"(6,), }    ", b"(9000000000000,), }")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="not what the file holds"):
        oracle(path)


def test_an_array_under_another_ending_is_not_there(tmp_path: Path) -> None:
    path = npz_file(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name.replace("ops.npy", "ops"): archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="no column 'ops'; it has acc, ms"):
        oracle(path)


def test_two_genes_of_one_name_are_refused(tmp_path: Path) -> None:
    twice: dict[str, Any] = {"ops.0": GENES[:, 0]}
    path = npz_file(tmp_path, **twice)
    with pytest.raises(InputError, match=r"two genes are called ops\.0"):
        oracle(path, genes="ops,ops.0")


def test_a_file_with_damaged_bytes_is_refused_or_read_and_never_breaks(tmp_path: Path) -> None:
    whole = npz_file(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = int(rng.integers(256))
        (tmp_path / "t.npz").write_bytes(damaged)
        try:
            oracle(tmp_path / "t.npz")
        except InputError:
            refused += 1
    assert refused > 200


def test_more_rows_or_genes_than_a_search_can_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="3000 genes, at most 2048"):
        oracle(npz_file(tmp_path, ops=np.zeros((6, 3000), dtype=np.int8)))
    many = np.arange(3000)
    with pytest.raises(InputError, match="ops has 3000 choices, at most 2048"):
        oracle(npz_file(tmp_path, ops=many, acc=many / 3000))
    wide = np.random.default_rng(0).integers(0, 5, (6, 600))
    with pytest.raises(InputError, match="coordinates, at most 2048"):
        oracle(npz_file(tmp_path, ops=wide))
    monkeypatch.setattr(table_module, "MAX_ROWS", 5)
    with pytest.raises(InputError, match="6 rows, at most 5"):
        oracle(npz_file(tmp_path))
    with pytest.raises(InputError, match="more than 5 rows"):
        oracle(csv_file(tmp_path, [["g", "acc"], *([str(i), "0.5"] for i in range(6))]), genes="g")


def test_nas_bench_201_as_it_was_published() -> None:
    path = official_data("nas-bench-201/accuracy.npz")
    metrics = ["c10v_val200", "c100_test200", "latency.npz:raspi4_ms"]
    found = Table.open(path, "ops", "nominal", metrics)
    assert len(found.indices) == 5**6
    assert [len(g.choices) for g in found.space.genes] == [5] * 6
    validation, test, ms = (found.columns[name] for name in metrics)
    assert int(validation.argmax()) == 6111
    assert validation[6111] == pytest.approx(91.6067, abs=1e-4)
    assert int(test.argmax()) == 9930
    assert test[9930] == pytest.approx(73.5133, abs=1e-4)
    assert float(ms.min()) > 0
    best = found.space.architecture(found.indices[9930])
    assert found.row(found.space.indices(best)) == 9930
    judged = oracle(path, accuracy="c100_val200", report="c100_test200", latency="latency.npz:raspi4_ms")
    assert judged.evaluate(best)["report"] == pytest.approx(0.735133, abs=1e-6)
    assert judged.latency_ms(best) == pytest.approx(80.4001, abs=1e-3)
