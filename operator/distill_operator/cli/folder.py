"""The files of a run.

run.json              identity and number of the last attempt
config.json           run configuration of the last attempt
logs/<container>.log  what each container printed, attempt after attempt
state/<container>/    progress and outcome of each container
report.json, report.html
"""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError

from distill_operator.cli.refusal import Refusal
from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.plan import PLAN_FILE, JobPlan
from distill_runtime.contract.run import RunConfig

REPORTS = ("report.json", "report.html")
"""What the evaluation leaves in its state folder."""


class RunRecord(BaseModel):
    """What a run folder remembers between runs."""

    uid: str
    """Identity of the job."""
    attempt: int = 0
    """The last attempt that was started."""


class RunFolder:
    """The folder of one job on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            for folder in (self.path / "logs", self.path / "state"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(
                ExitCode.USER_ERROR, f"{self.path} can't be used as the run's folder: {error.strerror}"
            ) from error

    @property
    def config(self) -> Path:
        """The run configuration."""
        return self.path / "config.json"

    def log(self, container: str) -> Path:
        """The log of a container."""
        return self.path / "logs" / f"{container}.log"

    def state(self, container: str) -> Path:
        """The state folder of a container."""
        return self.path / "state" / container

    @contextmanager
    def lock(self, patience: float, waiting: Callable[[], None]) -> Generator[int]:
        """Holds the folder for one run, and gives the lock's descriptor.

        Containers inherit it, so that the lock lasts as long as any of them. Where the run that held it has died,
        this waits up to `patience` seconds for what is left of it (and calls `waiting` once).

        Raises
        ------
        Refusal
            Another run is going on.
        """
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(descriptor, patience, waiting)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, patience: float, waiting: Callable[[], None]) -> None:
        give_up = time.monotonic() + patience
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode()
                if (owner and _alive(int(owner))) or time.monotonic() >= give_up:
                    raise Refusal(
                        ExitCode.RETRY,
                        f"another run is going on in {self.path} (process {owner}): wait for it, or give --folder",
                    ) from None
            if not told:
                waiting()
                told = True
            time.sleep(0.1)

    def next_attempt(self, uid: str | None, least: int = 1) -> RunRecord:
        """Begins an attempt: its number is written before anything starts.

        `uid` is the job's own identity; without one, the folder's counts. The number is `least` or more.
        """
        last = self._record()
        number = max(least, last.attempt + 1 if last else 1)
        record = RunRecord(uid=uid or (last.uid if last else str(uuid.uuid4())), attempt=number)
        _write(self.path / "run.json", record.model_dump_json(indent=2))
        return record

    def _record(self) -> RunRecord | None:
        path = self.path / "run.json"
        if not path.exists():
            return None
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise Refusal(
                ExitCode.USER_ERROR, f"{path} is not this tool's: remove it, or give another --folder"
            ) from error

    def write_config(self, config: RunConfig) -> None:
        """Writes what the containers of the attempt read."""
        _write(self.config, config.model_dump_json(by_alias=True, indent=2))

    def fresh_state(self, container: str) -> Path:
        """An empty state folder."""
        folder = self.state(container)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def read_plan(self, container: str) -> JobPlan:
        """What `prepare` says that the job will need.

        Raises
        ------
        Refusal
            It left nothing that this version understands.
        """
        path = self.state(container) / PLAN_FILE
        try:
            return JobPlan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            message = f"prepare left no plan in {path}: distillctl and the runtime are of different versions"
            raise Refusal(ExitCode.RETRY, message) from error

    def keep_reports(self, container: str) -> list[Path]:
        """Copies the report out of the container's state folder; returns what there is."""
        kept: list[Path] = []
        for name in REPORTS:
            source = self.state(container) / name
            if source.exists():
                kept.append(Path(shutil.copyfile(source, self.path / name)))
        return kept


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
