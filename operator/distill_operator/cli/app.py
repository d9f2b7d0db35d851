"""The commands of `distillctl`: they read arguments, call, and turn errors into exit codes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from distill_operator.api import DistillJob, InvalidJob, load_job, resolve_local_paths
from distill_operator.api.quantities import amount
from distill_operator.cli.display import display_for
from distill_operator.cli.folder import RunFolder
from distill_operator.cli.placement import this_machine
from distill_operator.cli.refusal import Refusal
from distill_operator.cli.runner import LocalRun
from distill_runtime.contract.outcome import ExitCode

HELP = """Distil a large language model into a small one.

A job is one YAML file, a DistillJob: a teacher, a student, data, and a place for the results.

\b
  apiVersion: distill-operator.io/v1alpha1
  kind: DistillJob
  metadata: {name: qwen3-4b}
  spec:
    teacher: {model: "hf://Qwen/Qwen3-32B", gpus: 4}
    student: {model: "hf://Qwen/Qwen3-4B", gpusPerWorker: 4}
    data: {train: "file://train.jsonl", evaluation: "file://heldout.jsonl"}
    storage: {uri: "file://store"}

\b
  distillctl validate job.yaml    all errors at once
  distillctl plan job.yaml        sizes of its signals, and memory of both roles
  distillctl run job.yaml         the whole job on this machine; run it again and it continues
"""

RUN_HELP = """Run a job on this machine: the containers of a cluster become processes.

Stages: prepare (tokenise and check the data), teacher and student side by side (or one after the other with
spec.signal.mode: offline), evaluate. Whatever is in the store already is not computed again: after Ctrl-C, a crash, or
a change of batch size or workers, run the same command and it goes on.

Ctrl-C asks all processes to save their work and ends them; a second one kills them.

\b
  distillctl run examples/quickstart.yaml
  distillctl run job.yaml --folder /data/runs/job

The run's folder has logs/CONTAINER.log, state/CONTAINER/, config.json and, at the end, report.json and report.html.
Relative file:// paths in the manifest count from the manifest's folder.

\b
Exit codes: 0 finished, 65 the manifest, data or credentials are wrong, 75 something failed: try again,
130 Ctrl-C, 143 ended by SIGTERM.
"""

PLAN_HELP = """Prepare a job and say what it will need, before a GPU is asked for.

Which kind of signal its training data gets, and why; bytes of each kind; memory of teacher and student, part by part,
and whether it fits the GPUs. It tokenises the data, which a later `run` or the cluster finds done where it has the same
store.

\b
  distillctl plan job.yaml --gpu-memory 80Gi
"""

app = typer.Typer(
    name="distillctl", help=HELP, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)

Manifest = Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The DistillJob.", show_default=False)]


@app.command(help=RUN_HELP)
def run(
    manifest: Manifest,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run: logs, state, report.", show_default="distill-runs/NAME in the current folder"
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=1, help="Seconds that processes get to save their work when they are ended.")
    ] = 60.0,
    attempt: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of this attempt, if the folder's own count is lower. An older attempt's late writes are "
            "refused, so it must be higher than that of a run of the same training in another folder.",
            show_default="one more than the last one in the folder",
        ),
    ] = 1,
) -> None:
    """Runs a job on this machine."""
    errors, console = Console(stderr=True), Console()
    try:
        job = resolve_local_paths(_read(manifest), manifest.parent)
        if job.spec.suspend:
            raise Refusal(ExitCode.USER_ERROR, f"{manifest}: spec.suspend: is true; set it to false to run the job")
        code = _local_run(job, folder, console, grace=grace, least_attempt=attempt).run()
    except (InvalidJob, Refusal) as error:
        code = _tell(errors, error)
    raise typer.Exit(code)


@app.command(help=PLAN_HELP)
def plan(
    manifest: Manifest,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Memory of a GPU, as 80Gi: says whether both roles fit.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="distill-runs/NAME in the current folder"),
    ] = None,
) -> None:
    """Prepares a job and says what it will need."""
    errors, console = Console(stderr=True), Console()
    try:
        memory = None if gpu_memory is None else _memory(gpu_memory)
        job = resolve_local_paths(_read(manifest), manifest.parent)
        code = _local_run(job, folder, console).plan(memory)
    except (InvalidJob, Refusal) as error:
        code = _tell(errors, error)
    raise typer.Exit(code)


@app.command()
def validate(manifest: Manifest) -> None:
    """Check a job and tell all errors at once, each with its field. Reads nothing but the file."""
    errors, console = Console(stderr=True), Console()
    try:
        job = _read(manifest)
    except (InvalidJob, Refusal) as error:
        raise typer.Exit(_tell(errors, error)) from error
    _print(console, f"{manifest}: DistillJob {job.metadata.namespace}/{job.metadata.name} is valid.")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    _print(Console(), version_of("distill-operator"))


def main() -> None:
    """The entry point."""
    app()


def _local_run(
    job: DistillJob, folder: Path | None, console: Console, *, grace: float = 60.0, least_attempt: int = 1
) -> LocalRun:
    return LocalRun(
        job=job,
        folder=RunFolder(folder or Path("distill-runs") / job.metadata.name),
        machine=this_machine(),
        display=display_for(console),
        console=console,
        grace=grace,
        least_attempt=least_attempt,
    )


def _memory(text: str) -> int:
    try:
        return int(amount(text))
    except ValueError as error:
        raise Refusal(ExitCode.USER_ERROR, f"--gpu-memory {text}: is no amount of memory; write 80Gi") from error


def _read(path: Path) -> DistillJob:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Refusal(ExitCode.USER_ERROR, f"{path} can't be read: {reason}") from error
    return load_job(text, str(path))


def _tell(console: Console, error: InvalidJob | Refusal) -> int:
    for line in str(error).splitlines():
        _print(console, line)
    if isinstance(error, Refusal):
        return int(error.code)
    many = len(error.errors)
    _print(console, f"{many} error{'s' if many > 1 else ''}.")
    return int(ExitCode.USER_ERROR)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
