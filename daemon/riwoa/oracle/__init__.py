"""Who judges architectures: what an oracle is, its kinds by name, and the worker processes that hold one.

A kind is one class (``kind.OracleKind``) in one module: ``supernet`` (with ``supernet_oracle``, what workers hold, and
``supernet_export``, what is written of a winner), ``table`` (with ``table_file``, which reads them), ``predictor``,
``module`` (tests alone). Nobody outside asks which kind it is: ``kinds.kind_named`` finds the class of a name, riwoa's
own or another package's.

Other rooms use ``kinds``, ``kind.Problem``, ``protocol``, ``pool.WorkerPool`` and ``workers.pool_settings``; benchmarks
and ``validate``, which are about one kind, its own modules.
"""
