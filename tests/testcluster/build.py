"""Building the programs of a test cluster into the user's cache folder, once."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.testcluster.commands import failure, run
from tests.testcluster.errors import TestClusterError
from tests.testcluster.programs import KUBERNETES_LINKS, MODULES, Program, cache_folder

Report = Callable[[str], None]
"""Takes one line that says how far the build is."""
GO_DOWNLOADS = "https://go.dev/dl/"


def report_to_terminal(line: str) -> None:
    """Writes a line of progress where output that is used by other programs isn't disturbed."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def build(programs: Sequence[Program], report: Report = report_to_terminal) -> None:
    """Builds what is missing or was made from other sources. Two builds at once wait for each other."""
    go = shutil.which("go")
    compiler = run(go, "env", "GOVERSION").strip() if go else None
    if all(_up_to_date(program, compiler) for program in programs):
        return
    with _one_build_at_a_time():
        stale = [program for program in programs if not _up_to_date(program, compiler)]
        if not stale:
            return
        if go is None or compiler is None:
            raise TestClusterError(_go_is_missing(stale))
        for number, program in enumerate(stale, start=1):
            _build_one(program, go, compiler, f"{number}/{len(stale)}", report)


def _go_is_missing(programs: Sequence[Program]) -> str:
    wanted = max(_go_version(program) for program in programs)
    names = ", ".join(program.name for program in programs)
    return (
        f"The test cluster needs {names}, which must be built first, and the program `go` is not on the PATH: "
        f"install Go {'.'.join(map(str, wanted))} or later from {GO_DOWNLOADS}."
    )


def _go_version(program: Program) -> tuple[int, ...]:
    found = re.search(r"^go ([\d.]+)$", (MODULES / program.module / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"{program.module}/go.mod names no version of Go"
    return tuple(int(part) for part in found[1].split("."))


def _stamp(program: Program) -> Path:
    return program.folder / f".{program.name}.json"


def _up_to_date(program: Program, compiler: str | None) -> bool:
    """Whether the program is there and made from these sources; where there is no compiler, any did."""
    if not program.path.exists() or not _stamp(program).exists():
        return False
    made_from = json.loads(_stamp(program).read_text())
    return made_from["sources"] == program.digest() and compiler in (None, made_from["compiler"])


@contextmanager
def _one_build_at_a_time() -> Iterator[None]:
    folder = cache_folder() / "kube"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_one(program: Program, go: str, compiler: str, count: str, report: Report) -> None:
    report(
        f"Building {program.name} {program.version} ({count}): {program.minutes} min the first time, "
        f"less with Go's cache; about 4 GiB of disk …"
    )
    begun = time.monotonic()
    program.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=program.folder) as scratch:
        fresh = Path(scratch) / program.name
        command = [
            go,
            "build",
            "-buildvcs=false",
            "-ldflags",
            program.linker_flags(),
            "-o",
            str(fresh),
            program.package,
        ]
        ended = subprocess.run(
            command,
            cwd=MODULES / program.module,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise TestClusterError(f"{program.name} does not build. {failure(command, ended)}")
        os.replace(fresh, program.path)
    if program.kubernetes_version_packages:
        _link_kubernetes(program)
    _stamp(program).write_text(json.dumps({"sources": program.digest(), "compiler": compiler}))
    report(f"Built {program.path} in {time.monotonic() - begun:.0f} s.")


def _link_kubernetes(program: Program) -> None:
    for name in KUBERNETES_LINKS:
        link = program.folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(program.name)
