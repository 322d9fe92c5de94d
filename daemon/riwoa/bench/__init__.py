"""Experiments: one module a verb of ``riwoactl bench``, each a comparison within one run, most of them resumable.

No other room but ``ctl`` imports it.
"""
