"""The page: a process of its own that reads the journal, asks the daemon over its socket, and serves a browser.

Nothing here is imported by the daemon. ``tokens`` needs the standard library alone; the rest needs the extra ``web``.
"""
