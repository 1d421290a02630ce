"""Write the dashboards and the alerting files of this checkout from their source.

python -m grafana.source            # write them; print the path of each
python -m grafana.source --check    # write nothing; a line for each file that differs, and exit status 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grafana.source import build, differing

FOLDER: Final = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write or check the generated files.

    Args:
        arguments: arguments of the command line; None: those of this process.
        folder: the folder of the files: `grafana/` of a checkout.

    Returns:
        The exit status: 0; 1 where a file differs from its source or cannot be written.
    """
    parser = argparse.ArgumentParser("python -m grafana.source", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; name each file that differs")
    if parser.parse_args(arguments).check:
        names = differing(folder)
        for name in names:
            print(f"grafana/{name} differs from its source; run `python -m grafana.source`", file=sys.stderr)
        return 1 if names else 0
    try:
        for path in build(folder):
            print(path)
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
