"""Container images without a container engine: archives as `docker save` writes them, with one layer."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tests.testcluster.commands import run

PAUSE_IMAGE = "localhost/pause:1"
COREDNS_IMAGE = "localhost/coredns:1"
BUSYBOX_IMAGE = "localhost/busybox:1"
"""A shell and small programs, for pods of tests."""
HOST_IMAGE = "localhost/host:1"
"""An empty root file system, for pods that mount this machine's /usr and an environment read-only."""
BUSYBOX = Path("/bin/busybox")
WORLD_WRITABLE = ("tmp", "var/tmp")

ROOT_FOLDERS = ("dev", "etc", "etc/ssl", "home", "proc", "root", "run", "sys", "tmp", "usr", "var", "var/tmp")
ROOT_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
ROOT_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
        "nonroot:x:65532:65532:nonroot:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


class Layer:
    """The files of an image. The same files give the same bytes."""

    def __init__(self) -> None:
        self._content = io.BytesIO()
        self._archive = tarfile.TarFile(fileobj=self._content, mode="w")
        self._folders: set[str] = set()

    def folder(self, name: str) -> None:
        """Adds a folder, and those above it, where they aren't there yet."""
        for part in [*reversed(PurePosixPath(name).parents), PurePosixPath(name)]:
            path = str(part)
            if path not in (".", *self._folders):
                self._folders.add(path)
                self._add(path, tarfile.DIRTYPE, mode=0o1777 if path in WORLD_WRITABLE else 0o755)

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        """Adds a file."""
        self.folder(str(PurePosixPath(name).parent))
        self._add(name, tarfile.REGTYPE, mode=mode, content=content)

    def link(self, name: str, target: str) -> None:
        """Adds a symbolic link."""
        self.folder(str(PurePosixPath(name).parent))
        self._add(name, tarfile.SYMTYPE, mode=0o777, target=target)

    def _add(self, name: str, kind: bytes, *, mode: int, content: bytes = b"", target: str = "") -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), target
        self._archive.addfile(entry, io.BytesIO(content))

    def content(self) -> bytes:
        """The whole layer; nothing can be added after this."""
        self._archive.close()
        return self._content.getvalue()


USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_image(
    archive: Path,
    name: str,
    layer: Layer,
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Writes an image with one layer."""
    content = layer.content()
    digest = hashlib.sha256(content).hexdigest()
    settings = {
        "Entrypoint": list(entrypoint),
        "Cmd": list(command),
        "Env": [f"{name}={value}" for name, value in {"PATH": USUAL_PATH, **(environment or {})}.items()],
        "WorkingDir": "/",
    }
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    configuration_file = f"{hashlib.sha256(configuration).hexdigest()}.json"
    layer_file = f"{digest}/layer.tar"
    manifest = [{"Config": configuration_file, "RepoTags": [name], "Layers": [layer_file]}]
    _write_archive(
        archive,
        {configuration_file: configuration, layer_file: content, "manifest.json": json.dumps(manifest).encode()},
    )


def _write_archive(archive: Path, files: Mapping[str, bytes]) -> None:
    fresh = archive.with_name(f"{archive.name}.{os.getpid()}")
    with tarfile.open(fresh, "w") as written:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            written.addfile(entry, io.BytesIO(content))
    os.replace(fresh, archive)


def _one_program(program: Path) -> Layer:
    layer = Layer()
    layer.file(program.name, program.read_bytes())
    return layer


def _busybox() -> Layer:
    layer = Layer()
    layer.file("bin/busybox", BUSYBOX.read_bytes())
    for applet in run(str(BUSYBOX), "--list").split():
        if applet != "busybox":
            layer.link(f"bin/{applet}", "/bin/busybox")
    layer.link("etc/mtab", "/proc/mounts")
    return layer


def empty_file_system() -> Layer:
    """Folders, users and links of a root file system, for images whose programs are mounted."""
    layer = Layer()
    for name in ROOT_FOLDERS:
        layer.folder(name)
    for name, target in ROOT_LINKS.items():
        layer.link(name, target)
    for name, text in ROOT_FILES.items():
        layer.file(name, text.encode(), mode=0o644)
    return layer


def write_base_images(folder: Path, pause: Path, coredns: Path) -> list[Path]:
    """Writes the images that every node has, and returns their archives."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = [folder / f"{name}.tar" for name in ("pause", "coredns", "busybox", "host")]
    write_image(archives[0], PAUSE_IMAGE, _one_program(pause), entrypoint=["/pause"])
    write_image(archives[1], COREDNS_IMAGE, _one_program(coredns), entrypoint=["/coredns"])
    write_image(archives[2], BUSYBOX_IMAGE, _busybox(), command=["/bin/sh"])
    write_image(archives[3], HOST_IMAGE, empty_file_system())
    return archives
