"""Layers that builds leave in the storage: kept while the last build of some target used them, removed afterwards.

Nobody but a build that prints the layer knows that it is used: to podman, the last layer of a stage that is copied from
is a nameless image that may go, with gigabytes of packages that would be installed again.
"""

import re
import subprocess
from pathlib import Path

from tests.testcluster.podman import image_folder, podman, podman_command

LAYER = re.compile(r"^--> (?:Using cache )?([0-9a-f]{11})[0-9a-f]*$", re.MULTILINE)
LIST_SUFFIX = ".layers"


def named_in(log: str) -> list[str]:
    """The layers that a build made or found, the first first, by the beginnings of their names."""
    return list(dict.fromkeys(LAYER.findall(log)))


def remember(target: str, log: str) -> None:
    """Writes down what a build left that may not have come to its end."""
    written = _list_of(target)
    written.write_text("\n".join(dict.fromkeys([*_read(written), *named_in(log)])))


def keep_only(target: str, name: str, log: str) -> None:
    """Removes earlier images of a target, and the layers that no target's last build used."""
    before = _read(_list_of(target))
    _list_of(target).write_text("\n".join(named_in(log)))
    used = {layer for written in image_folder().glob(f"*{LIST_SUFFIX}") for layer in _read(written)}
    repository = name.rpartition(":")[0]
    images = podman("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={repository}").split()
    # Children go before their parents.
    for stale in [image for image in images if image != name] + [layer for layer in before[::-1] if layer not in used]:
        _remove(stale)


def remove_unfinished() -> None:
    """Removes what builds left that were killed; there is none at work."""
    for line in podman("ps", "--all", "--external", "--format", "{{.ID}} {{.Status}}").splitlines():
        identifier, status = line.split(maxsplit=1)
        if status == "Storage":
            podman("rm", "--force", identifier)


def _list_of(target: str) -> Path:
    return image_folder() / f"{target}{LIST_SUFFIX}"


def _read(written: Path) -> list[str]:
    return written.read_text().split() if written.exists() else []


def _remove(image: str) -> None:
    """Removes an image, but not its parents. One that is needed otherwise stays."""
    subprocess.run(podman_command("rmi", "--ignore", "--no-prune", image), capture_output=True, check=False)
