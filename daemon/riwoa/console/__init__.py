"""What a program shows a person: streams that cannot end it, what a terminal can show, progress of long work.

Other rooms may use every public name; ``streams`` starts in milliseconds, for ``riwoactl status``.
"""
