"""Child processes: how they start, are asked, watched and ended, and the JSON frames on their pipes.

Other rooms may use every public name: a parent ``process`` and ``child``, the child itself ``frames``.
"""
