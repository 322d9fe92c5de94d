"""The life of the daemon: command line, supervisor, sessions, status object, control socket, governor, systemd.

Other rooms may use ``status_object`` and ``status_check``, which say what a status holds; everything else is for
``riwoad`` alone, which starts in ``main``.
"""
