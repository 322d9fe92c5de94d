"""``python -m riwoa.service`` is ``riwoad``."""

import sys

from riwoa.service.main import main

sys.exit(main())
