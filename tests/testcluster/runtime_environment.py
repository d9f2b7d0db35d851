"""What runtime pods are on the nodes of a test cluster: the packages of uv.lock, mounted instead of copied.

The Dockerfile's target `runtime-cpu` holds 6 GiB of packages; two nodes would unpack them twice. So the same packages
are installed from the same lock into a folder of this machine, and pods of an image with an empty root file system
mount it read-only, together with this machine's /usr and Python. Pods of the level `restricted` may not mount folders
of a node, but claims of volumes that are such folders.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from tests.testcluster.build import Report, report_to_terminal
from tests.testcluster.commands import run
from tests.testcluster.dockerfile import image_digest
from tests.testcluster.errors import TestClusterError
from tests.testcluster.images import USUAL_PATH, empty_file_system, write_image
from tests.testcluster.programs import cache_folder

REPOSITORY = Path(__file__).parents[2]
RUNTIME_IMAGE = "localhost/distill-operator/runtime-mounted:1"
"""Image of runtime pods that get everything from `pod_volumes`."""
ENVIRONMENT = "/opt/venv"
"""Where pods find the packages, as in the images of the Dockerfile."""
SYSTEM = "/usr"
STAMP = ".installed"
"""Says of which state of the project the packages are."""

Manifest = dict[str, Any]


def install_packages(report: Report = report_to_terminal) -> Path:
    """Installs the packages of uv.lock for processors, and the project as it is now, as the Dockerfile does.

    Returns the folder. It is the same each time, so that only what has changed is installed; where nothing has, pods
    that run from it are left in peace.
    """
    digest = image_digest("runtime-cpu")
    with _installing() as folder:
        stamp, first = folder / STAMP, not folder.exists()
        if stamp.is_file() and stamp.read_text() == digest:
            return folder
        stamp.unlink(missing_ok=True)
        report(f"Installing the runtime of uv.lock into {folder}{': two to five minutes the first time' * first} …")
        run(
            _uv(),
            *("sync", "--quiet", "--frozen", "--no-editable", "--no-default-groups", "--extra", "cpu"),
            *("--compile-bytecode", "--python", sys.executable, "--reinstall-package", "distill-operator"),
            *("--project", str(REPOSITORY)),
            environment={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)},
        )
        stamp.write_text(digest)
    return folder


@contextmanager
def _installing() -> Iterator[Path]:
    folder = cache_folder() / "runtime-cpu"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield folder


def _uv() -> str:
    """The program uv that `make` uses."""
    found = os.environ.get("UV") or shutil.which("uv") or next(map(str, cache_folder().glob("uv-*/bin/uv")), None)
    if found is None:
        raise TestClusterError("There is no uv: run `make install` first.")
    return found


def write_runtime_image(archive: Path) -> Path:
    """Writes the image: an empty root file system with the environment of the target `runtime-cpu`."""
    environment = {
        "PATH": f"{ENVIRONMENT}/bin:{USUAL_PATH}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    write_image(archive, RUNTIME_IMAGE, empty_file_system(), environment=environment)
    return archive


def mounted_folders(packages: Path) -> dict[str, tuple[str, str]]:
    """What is mounted, by the name of its volume: the folder of this machine, and where pods have it."""
    python = sys.base_prefix
    return {
        "packages": (str(packages), ENVIRONMENT),
        "system": (SYSTEM, SYSTEM),
        # Programs of an environment are links to the interpreter's own folder.
        **({} if Path(python).is_relative_to(SYSTEM) else {"python": (python, python)}),
    }


def pod_volumes(packages: Path) -> list[Manifest]:
    """`volumes` of `spec.pods.<role>`, or of the chart's defaults."""
    return [
        {"name": name, "claim": _claim(name), "mountPath": path, "readOnly": True}
        for name, (_, path) in mounted_folders(packages).items()
    ]


def claims(packages: Path, namespace: str) -> list[Manifest]:
    """The volumes and claims that pods of a namespace need."""
    folders = mounted_folders(packages).items()
    return [manifest for name, (folder, _) in folders for manifest in folder_claim(_claim(name), namespace, folder)]


def folder_claim(name: str, namespace: str, folder: str) -> list[Manifest]:
    """A claim in a namespace that is a folder of this machine, read-only, and its volume."""
    volume = f"{namespace}-{name}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": name},
                "hostPath": {"path": folder},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]


def _claim(name: str) -> str:
    return f"runtime-{name}"
