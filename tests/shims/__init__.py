"""Small libraries in C that stand between a process and the system: a clock that jumps, a file system without locks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.conftest import lacking


def shim(name: str, **settings: object) -> dict[str, str]:
    """Build `<name>.c` of this folder; return the environment of a process that loads it.

    Args:
        name: of the shim.
        settings: what it is told: the variables `SHIM_<NAME>`.
    """
    if shutil.which("cc") is None:
        lacking("the shims cannot be built without cc; install a C compiler")
    source = Path(__file__).with_name(f"{name}.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"gatewatch-shim-{os.getuid()}-{name}-{digest}.so"
    if not library.exists():
        built = library.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
        built.replace(library)
    return {"LD_PRELOAD": str(library)} | {f"SHIM_{key.upper()}": str(value) for key, value in settings.items()}
