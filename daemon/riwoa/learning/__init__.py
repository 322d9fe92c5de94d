"""What a search learns of its own steps: who changed what in whom, and what came of it.

Everything here is a function of committed evaluations: a resumed run computes it again and has the same.
"""
