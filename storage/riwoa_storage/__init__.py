"""The journal: riwoa's only source of truth. SQLite, one writer, no torch, no numpy, nothing of riwoa.

Others write with ``writer``, read with ``reader`` (``overview`` where milliseconds count), prove and compare with
``replay``, copy with ``backup``; what passes between are ``records``, ``events`` and ``errors``, and ``digest`` has the
canonical JSON. ``durable``, ``fault`` and ``failpoint`` are for any file that must survive. The rest is the journal's
own: tables, checksums, migrations, transactions.
"""
