"""The journal: riwoa's only source of truth. SQLite, one writer, no torch, no numpy, nothing of riwoa."""
