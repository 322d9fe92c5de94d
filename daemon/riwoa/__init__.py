"""riwoa: unattended neural architecture search for the device it runs on.

Kept empty of imports on purpose: ``riwoactl status`` passes through here and must start in milliseconds.
"""

__version__ = "0.1.0"
