"""The image that the Dockerfile begins with, made here: nothing is fetched from an image registry.

It is the same Debian release with the same minor version of Python, from Debian's own packages.
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from tests.testcluster.build import Report
from tests.testcluster.commands import failure
from tests.testcluster.errors import TestClusterError
from tests.testcluster.podman import image_folder, podman, podman_command

BASE_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
RELEASE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
LEFT_OUT = (
    "./usr/share/doc/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
)
"""What slim images go without."""
SETTINGS = ("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["python3"]')


def base_image_digest() -> str:
    """Identifies what the image is made from."""
    return hashlib.sha256(repr((BASE_IMAGE, RELEASE, PACKAGES, LEFT_OUT, SETTINGS)).encode()).hexdigest()[:12]


def make_base_image(report: Report) -> None:
    """Makes the image where the storage doesn't have it, or has one that was made from something else."""
    marked = f"localhost/distill-operator/base:{base_image_digest()}"
    if subprocess.run(podman_command("image", "exists", marked), check=False).returncode == 0:
        return
    report(f"Making a stand-in for {BASE_IMAGE} from Debian's packages: a minute …")
    with tempfile.TemporaryDirectory(prefix="base-", dir=image_folder()) as scratch:
        root = Path(scratch) / "root"
        _bootstrap(root)
        _import(root, marked)
    podman("tag", marked, BASE_IMAGE)


def _bootstrap(root: Path) -> None:
    command = [
        # What is mounted below `root` goes with the namespace, also if this is killed: nobody removes files through it.
        *("unshare", "--mount", "--propagation", "private"),
        *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, str(root), MIRROR),
    ]
    log = image_folder() / "base.log"
    with log.open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, check=False)
    if ended.returncode:
        last = log.read_text(errors="replace").splitlines()[-1:]
        raise TestClusterError(f"debootstrap can't make Debian {RELEASE} from {MIRROR}: {' '.join(last)} (log: {log}).")


def _import(root: Path, tag: str) -> None:
    pack = ["tar", "--directory", str(root), *(f"--exclude={pattern}" for pattern in LEFT_OUT), "--create", "."]
    changes = [argument for setting in SETTINGS for argument in ("--change", setting)]
    command = podman_command("import", "--quiet", *changes, "-", tag)
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        ended = subprocess.run(command, stdin=packing.stdout, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise TestClusterError(failure(command, ended))
    if packing.returncode:
        raise TestClusterError(f"`{' '.join(pack)}` ended with exit code {packing.returncode}.")
