"""Files and directories that people name: reading, locking, recognising and replacing them, and where models lie.

Other rooms may use every public name; ``lock`` and ``ownership`` start in milliseconds, for ``riwoactl status``.
"""
