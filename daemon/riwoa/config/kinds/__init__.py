"""Settings of each kind of oracle that is riwoa's own, one module a kind: the tables ``[oracle.NAME]``."""
