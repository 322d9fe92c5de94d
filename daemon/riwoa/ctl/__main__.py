"""``python -m riwoa.ctl``, where the console script is not installed."""

import sys

from riwoa.ctl import main

sys.exit(main())
