"""One thread for native libraries, before anything loads them, in the tests and all that they start.

The networks are tiny: a second thread makes nothing faster here, and only waits, busily, for the first.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
