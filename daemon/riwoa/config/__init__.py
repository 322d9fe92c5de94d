"""Settings: their models, where each value came from, and how a watched file is reloaded.

``schema`` has the tables, ``kinds`` those of each kind of oracle, ``extended`` those of other packages, ``renamed`` the
old names of keys; ``loading`` merges defaults, file, environment and command line, ``reload`` watches the file, and
``hours`` reckons with times of day. Other rooms use ``loading.load``, ``schema.Config`` and ``reload.Reloader``; who
adds a kind of oracle or a provider, ``fields``.
"""
