"""The morning report: what a run found, how sure that is, what it cost and what it came from, in one file.

``facts`` says what a report knows, ``reading`` gets it from a journal; ``page``, ``markdown`` and JSON tell the same.
"""
