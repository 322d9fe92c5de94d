"""Which machine this is, and how long operators and networks take on it: probes, clocks, tables and their drift.

Other rooms ask for a table (``obtain``), read one (``lut``, ``ofa_table``, ``interval``, ``target``), look at the
machine (``probe``, ``accelerator``) or have something measured in a child (``build``, ``check``, ``drift``); what
imports torch (``bench``, ``remeasure``) runs in those children.
"""
