"""riwoa: unattended neural architecture search for the device it runs on.

No imports but what every interpreter holds already: ``riwoactl status`` passes through here, in milliseconds.
"""

import os
import sys

__version__ = "0.1.0"


def _leave_working_directory() -> None:
    """Import nothing from the working directory, where a user's ``random.py`` may lie.

    ``python -m`` looks there, and so does every Python where PYTHONPATH has an empty entry, as ``$PYTHONPATH:/x`` makes
    it where it was not set. What PYTHONPATH names in full is meant, and where riwoa itself lies is needed.
    """
    try:
        here = os.path.realpath(".")
    except OSError:  # it was removed: nothing lies there
        return
    meant = filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    kept = {os.path.realpath(entry) for entry in meant}
    if here not in kept and not os.path.isdir("riwoa") and not os.path.isdir("riwoa_storage"):
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]


# Of a program alone: whoever imports riwoa into one of their own has reasons for their path. ("-m" until Python knows.)
if os.path.basename(sys.argv[0] if sys.argv else "") in ("riwoad", "riwoactl", "-m"):
    _leave_working_directory()
