"""Images under the names that the stack uses, made here where they cannot be pulled.

The Python image is a Debian with its own Python; the InfluxDB image is the `influxd` that the other tests run too.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.conftest import ROOT, influxd_binary
from tests.stack.engine import Engine, NoDockerError

_BASE: Final = "gatewatch-check-base"
_PYTHON: Final = """\
FROM {base}
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
"""
# As the official image: the server's user is 1000, what it keeps is in these two folders, and curl is there.
_INFLUXDB: Final = """\
FROM {base}
RUN groupadd -r --gid 1000 influxdb && useradd -r -g influxdb --uid 1000 influxdb \\
    && install -d -o influxdb -g influxdb /var/lib/influxdb2 /etc/influxdb2
COPY influxd /usr/local/bin/influxd
ENV INFLUXD_BOLT_PATH=/var/lib/influxdb2/influxd.bolt INFLUXD_ENGINE_PATH=/var/lib/influxdb2/engine
USER influxdb
VOLUME /var/lib/influxdb2 /etc/influxdb2
ENTRYPOINT ["influxd"]
"""
# What of the machine's configuration of pip says where packages come from.
_PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "default-timeout")


def python_image() -> str:
    """The name of the image that the jobs' image is made of."""
    [name] = set(re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    return name


def provide(engine: Engine, images: Sequence[str]) -> list[str]:
    """See that images are there: pulled, or made here. Only a Docker that is somebody's is asked to pull.

    Returns:
        Those that were made here.
    """
    made = [image for image in images if not official(engine, image)]
    for image in made:
        _make(engine, image)
    return made


def official(engine: Engine, image: str) -> bool:
    """Whether an image is there as others made it, or could be pulled."""
    return not engine.own and bool(
        engine.docker("image", "inspect", "--format", "{{.Id}}", image, check=False)
        or engine.docker("pull", "--quiet", image, check=False)
    )


def _make(engine: Engine, image: str) -> None:
    base = _base(engine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if image.startswith("influxdb:"):
            shutil.copy(influxd_binary(), folder / "influxd")
            (folder / "Dockerfile").write_text(_INFLUXDB.format(base=base))
        elif image.startswith("python:"):
            shutil.copy(_authorities(), folder / "ca-certificates.crt")
            (folder / "pip.conf").write_text(_pip_configuration())
            (folder / "Dockerfile").write_text(_PYTHON.format(base=base))
        else:
            raise NoDockerError(f"{image} can neither be pulled nor made here")
        engine.docker("build", "--quiet", "--tag", image, folder)


def _base(engine: Engine) -> str:
    """The Debian that all of them are made of."""
    made = subprocess.run([ROOT / "tools/build-base"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoDockerError(" ".join(made.stderr.split()))
    tarball = Path(made.stdout.split()[-1])
    image = f"{_BASE}:{tarball.stem}"
    if not engine.docker("image", "inspect", "--format", "{{.Id}}", image, check=False):
        engine.docker("import", tarball, image)
    return image


def _authorities() -> Path:
    """The certificates that this machine trusts, for pip inside a build."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or "/etc/ssl/certs/ca-certificates.crt")


def _pip_configuration() -> str:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    entries = dict(re.findall(r"^(?:global|install|:env:)\.(\S+?)='(.*)'$", listed.stdout, re.M))
    lines = [f"{key} = {entries[key]}" for key in _PIP_KEYS if key in entries]
    return "\n".join(["[global]", "cert = /etc/ssl/certs/ca-certificates.crt", *lines, ""])
