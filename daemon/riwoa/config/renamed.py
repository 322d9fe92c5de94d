"""Keys that were once called something else: they are still read, from files, the environment, ``--set``, journals.

And the one that a file may write in short.

Until each kind of oracle and each strategy had a table, all of its keys stood in ``[oracle]`` and ``[search]``.
"""

from __future__ import annotations

from collections.abc import Mapping

_SUPERNET = (
    *("checkpoint", "width_mult", "n_classes", "stem", "data", "validation_images", "data_seed"),
    *("recalibration_data", "device", "dtype", "recalibration_images", "validation_views", "batch_images"),
)
_TABLE = ("genes", "order", "accuracy", "report", "latency", "low_fidelity", "low_fidelity_cost")
_RIWOA = (
    *("elite_fraction", "basis_every", "elitism", "avoid_duplicates", "signed_spiral", "rotated_encircle"),
    *("p_recombine", "screened", "predictor"),
)

RENAMED: Mapping[str, str] = {
    **{f"oracle.{name}": f"oracle.supernet.{name}" for name in _SUPERNET},
    "oracle.table": "oracle.table.file",
    **{f"oracle.table_{name}": f"oracle.table.{name}" for name in _TABLE},
    "oracle.predictor": "oracle.predictor.file",
    "oracle.latency_tables": "oracle.predictor.latency_tables",
    "oracle.resolutions": "oracle.supernet.resolutions",
    **{f"search.{name}": f"search.riwoa.{name}" for name in _RIWOA},
    "search.gp.offspring": "search.offspring",
}
# An array of tables that a file may write without its section: [[target]].
SHORT: Mapping[str, str] = {"target": "objective.targets"}
_OF_A_PREDICTOR = {"oracle.resolutions": "oracle.predictor.resolutions"}  # the one key that two kinds shared


def new_name(key: str, kind: object) -> str:
    """What a dotted key is called today, itself where it kept its name; ``kind`` is the value of ``oracle.kind``."""
    if kind == "predictor" and key in _OF_A_PREDICTOR:
        return _OF_A_PREDICTOR[key]
    return RENAMED.get(key, key)
