"""Run the `gatewatch` command: `python -m gatewatch`."""

import sys

from gatewatch.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
