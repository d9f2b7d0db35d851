"""Images of the project's Dockerfile, built without a container engine and without an image registry.

An image is named by what goes into it, so that it is built once, and an old one is never taken for a new one. Layers
are kept: a change of the project's own code installs no package again. What is no longer needed of a target's earlier
image is removed.
"""

import fcntl
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.testcluster import image_layers
from tests.testcluster.base_image import base_image_digest, make_base_image
from tests.testcluster.build import Report, report_to_terminal
from tests.testcluster.errors import TestClusterError
from tests.testcluster.packages import check_image_builder_installed
from tests.testcluster.podman import image_folder, podman, podman_command

REPOSITORY = Path(__file__).parents[2]
REPOSITORY_OF_IMAGES = "localhost/distill-operator"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""This machine's: those of a proxy may be among them, without which a build gets no package."""
DIGEST_LENGTH = 12
LOG_LINES = 15


@dataclass(frozen=True)
class ImageArchive:
    """An image in a file that nodes load."""

    name: str
    """As pods name it."""
    path: Path
    """The archive, in `docker save`'s format."""


def build_archive(target: str, report: Report = report_to_terminal) -> ImageArchive:
    """Builds a target of the Dockerfile, if it isn't there, and returns its archive. Two builds wait for each other."""
    digest = image_digest(target)
    image = ImageArchive(_name(target, digest), image_folder() / f"{target}-{digest}.tar")
    if image.path.exists():
        return image
    with _one_build_at_a_time() as lock:
        _build(target, image.name, report, lock)
        _save(image)
        for archive in image_folder().glob(f"{target}-{'[0-9a-f]' * DIGEST_LENGTH}.tar"):
            if archive != image.path:
                archive.unlink()
    return image


def build_image(target: str, report: Report = report_to_terminal) -> str:
    """The same without an archive, for images that are run by podman. Returns the image's name."""
    name = _name(target, image_digest(target))
    with _one_build_at_a_time() as lock:
        _build(target, name, report, lock)
    return name


def image_digest(target: str, repository: Path = REPOSITORY) -> str:
    """Identifies everything that the build of a target reads, but for the packages that uv.lock names."""
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    if target not in targets:
        raise TestClusterError(f"The Dockerfile has no target {target}; there are {', '.join(targets)}.")
    digest = hashlib.sha256(f"{target} {base_image_digest()}".encode())
    for file in context_files(repository):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"\n{file.relative_to(repository)} {file.stat().st_mode:o} {content}".encode())
    return digest.hexdigest()[:DIGEST_LENGTH]


def context_files(repository: Path = REPOSITORY) -> list[Path]:
    """The files that a build may copy, as .dockerignore lets them in, and the two that say so."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    included = ["Dockerfile", ".dockerignore", *(line[1:] for line in lines if line.startswith("!"))]
    ignored = {line.removeprefix("**/") for line in lines if line.startswith("**/")}
    found: set[Path] = set()
    for entry in (repository / name for name in included):
        found |= {file for file in (entry.rglob("*") if entry.is_dir() else [entry]) if file.is_file()}
    return sorted(file for file in found if not ignored & set(file.relative_to(repository).parts))


def build_command(target: str, name: str, repository: Path = REPOSITORY) -> list[str]:
    """The command line of a build: nothing is pulled, and nothing of this machine stays in the image."""
    certificates = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
    return podman_command(
        *("build", "--layers", "--pull=never", "--isolation", "chroot", "--network", "host"),
        *certificates,
        *("--target", target, "--tag", name, str(repository)),
    )


def _name(target: str, digest: str) -> str:
    return f"{REPOSITORY_OF_IMAGES}/{target}:{digest}"


@contextmanager
def _one_build_at_a_time() -> Iterator[int]:
    """Gives the lock's descriptor: a build has it too, so that one whose starter was killed is waited for."""
    check_image_builder_installed()
    image_folder().mkdir(parents=True, exist_ok=True)
    with (image_folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _build(target: str, name: str, report: Report, lock: int) -> None:
    if subprocess.run(podman_command("image", "exists", name), check=False).returncode == 0:
        return
    image_layers.remove_unfinished()
    make_base_image(report)
    log = image_folder() / f"{target}.log"
    if log.exists():
        image_layers.remember(target, log.read_text(errors="replace"))
    report(f"Building the image {name}: seconds where only our own code has changed, else minutes; log: {log} …")
    code = _run_logged(build_command(target, name), log, lock)
    said = log.read_text(errors="replace")
    if code:
        end = said.splitlines()[-LOG_LINES:]
        raise TestClusterError("\n".join([f"The image {target} does not build. The end of {log}:", *end]))
    image_layers.keep_only(target, name, said)


def _run_logged(command: list[str], log: Path, lock: int) -> int:
    """Runs a build to its end. Whoever interrupts this ends the build too."""
    with log.open("w") as output:
        building = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[lock],
            start_new_session=True,
        )
        try:
            return building.wait()
        except BaseException:
            os.killpg(building.pid, signal.SIGKILL)
            building.wait()
            raise


def _save(image: ImageArchive) -> None:
    fresh = image.path.with_suffix(".part")
    fresh.unlink(missing_ok=True)
    podman("save", "--quiet", "--format", "docker-archive", "--output", str(fresh), image.name)
    os.replace(fresh, image.path)
