"""One run of a job on this machine: attempts, their stages, and what comes of them."""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from distill_operator.api import DistillJob
from distill_operator.cli.display import Display
from distill_operator.cli.folder import RunFolder
from distill_operator.cli.placement import Machine, check_gpus, free_port, shares
from distill_operator.cli.plans import plan_tables
from distill_operator.cli.processes import Ended, Interrupts, Launch, last_lines, run_together
from distill_operator.cli.refusal import Refusal
from distill_operator.cli.results import score_table
from distill_operator.cli.stages import Stage, facts_of, stages
from distill_operator.render import (
    Container,
    evaluate_container,
    prepare_container,
    run_config,
    student_containers,
    teacher_containers,
)
from distill_runtime.contract import environment
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.outcome import CRASHED, GRACE_EXCEEDED, KILLED, SILENT, ExitCode
from distill_runtime.contract.report import Report
from distill_runtime.contract.run import Work

ATTEMPTS_OF_A_RUN = 3
"""How often a run may begin again because a student found that signals are missing."""
LINES_OF_A_LOG = 20
"""Lines of the log that are shown after a crash."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
FENCED = "Fenced"
"""Reason of a student whose training belongs to an attempt with a higher number."""
UNEXPLAINED = {CRASHED, KILLED, SILENT, GRACE_EXCEEDED}
"""Reasons behind which the log has more to say than the message."""


class _Failed(Exception):
    """A container ended the stage."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.outcome.message)
        self.ended = ended


class _Interrupted(Exception):
    """The user ended the stage."""


@dataclass
class LocalRun:
    """A job in a run folder. `run` does all of it and returns the exit code."""

    job: DistillJob
    folder: RunFolder
    machine: Machine
    display: Display
    console: Console
    grace: float = 60.0
    """Time that processes get to save their work when they are asked to end."""
    least_attempt: int = 1
    """Number of the first attempt, where the folder's own count is lower."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    command_of: Callable[[Container], list[str]] = lambda container: [sys.executable, *container.command[1:]]
    """What is started for a container."""
    _teachers_started: int = 0
    _lock: int = -1
    _first_facts: PrepareFacts | None = None

    @property
    def work(self) -> Work:
        """What is to be done."""
        return self.job.spec.work()

    def run(self) -> int:
        """Runs the job to its end.

        Raises
        ------
        Refusal
            It can't start: too few GPUs, or another run is going on in this folder.
        """
        check_gpus(self.work, self.machine)
        return self._locked(self._attempts, self._tell_results)

    def plan(self, gpu_memory: int | None) -> int:
        """Prepares the job, and prints what it will need. `gpu_memory`: bytes of a GPU, to say whether it fits.

        Raises
        ------
        Refusal
            Another run is going on in this folder.
        """

        def tell() -> int:
            plan = self.folder.read_plan("prepare")
            for table in plan_tables(plan, gpu_memory):
                self.console.print(table)
            self._print(f"Signal: {plan.signal.kind}: {plan.signal.why}")
            return int(ExitCode.FINISHED)

        return self._locked(self._prepare_and_plan, tell)

    def _locked(self, work: Callable[[Interrupts], object], tell: Callable[[], int]) -> int:
        """Does something in the folder, alone, and tells what came of it; returns the exit code."""
        patience = self.grace + 15

        def waiting() -> None:
            self.console.print("Waiting for processes of an earlier run to end …")

        with self.folder.lock(patience, waiting) as self._lock, Interrupts() as interrupts:
            try:
                with self.display:
                    work(interrupts)
            except _Failed as failure:
                return self._tell_failure(failure.ended)
            except _Interrupted:
                return self._tell_interrupt(interrupts)
            return tell()

    def _prepare_and_plan(self, interrupts: Interrupts) -> None:
        self._begin_attempt()
        container = prepare_container()
        asked = replace(container, environment={**container.environment, environment.PLAN: "yes"})
        self._side_by_side([asked], interrupts)

    def _attempts(self, interrupts: Interrupts) -> None:
        """Attempts until one doesn't end for want of signals."""
        for number in range(1, ATTEMPTS_OF_A_RUN + 1):
            try:
                return self._attempt(interrupts, signals_needed=number > 1)
            except _Failed as failure:
                outcome = failure.ended.outcome
                if outcome.needs != "signals" or number == ATTEMPTS_OF_A_RUN:
                    raise
                self.display.say(f"{failure.ended.launch.name}: {outcome.message}")
                self.display.say("Signals are missing: starting again, with the teacher.")

    def _attempt(self, interrupts: Interrupts, *, signals_needed: bool) -> None:
        self._begin_attempt()
        (prepared,) = self._side_by_side([prepare_container()], interrupts)
        facts = facts_of(prepared.outcome)
        self._first_facts = self._first_facts or facts
        for stage in stages(facts, self.work, signals_needed=signals_needed):
            self._teachers_started += stage.teachers
            self._side_by_side(self._containers(stage), interrupts)

    def _begin_attempt(self) -> None:
        record = self.folder.next_attempt(self.job.metadata.uid, self.least_attempt)
        self.folder.write_config(run_config(self.job, uid=record.uid, attempt=record.attempt))
        self.display.say(f"Attempt {record.attempt} in {self.folder.path}")

    def _containers(self, stage: Stage) -> list[Container]:
        teachers = teacher_containers(stage.teachers, evaluate=stage.evaluate_teacher)
        students = (
            student_containers(self.work, teachers=stage.teachers, master_address="127.0.0.1", master_port=free_port())
            if stage.students
            else []
        )
        return [*teachers, *students, *([evaluate_container()] if stage.evaluate else [])]

    def _side_by_side(self, containers: Sequence[Container], interrupts: Interrupts) -> list[Ended]:
        """Runs one stage to its end; raises for the container that ended it badly."""
        own = shares(containers, self.work, self.machine, self.environ)
        ended = run_together(
            [self._launch(container, own[container.name]) for container in containers],
            interrupts,
            grace=self.grace,
            show=lambda launch, progress: self.display.progress(launch.name, progress),
            told=lambda one: self.display.ended(one.launch.name, one.outcome),
            keep_open=[self._lock],
        )
        if interrupts.count:
            raise _Interrupted
        cause = cause_of_failure(ended)
        if cause is not None:
            raise _Failed(cause)
        return ended

    def _launch(self, container: Container, own: dict[str, str]) -> Launch:
        state = self.folder.fresh_state(container.name)
        place = {
            environment.RUN_CONFIG: str(self.folder.config),
            environment.STATE_DIR: str(state),
            environment.CACHE_DIR: self.environ.get(environment.CACHE_DIR) or str(cache_folder(self.environ)),
            environment.LOG_FORMAT: self.environ.get(environment.LOG_FORMAT, "text"),
            environment.GRACE_SECONDS: f"{self.grace:g}",
            environment.PARENT: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        return Launch(
            role=container.role,
            name=container.name,
            command=self.command_of(container),
            environment={**self.environ, **own, **place, **container.environment},
            log=self.folder.log(container.name),
            state=state,
        )

    def _tell_failure(self, ended: Ended) -> int:
        outcome, launch = ended.outcome, ended.launch
        self._print(f"{launch.name} failed ({outcome.reason}): {outcome.message}", style="bold red")
        if outcome.reason in UNEXPLAINED:
            self._print(f"The last lines of {launch.log}:")
            for line in last_lines(launch.log, ended.log_start, LINES_OF_A_LOG):
                self._print(f"  {line}", style="dim")
        else:
            self._print(f"Log: {launch.log}")
        if outcome.reason == FENCED:
            self._print(
                "Another run folder trained this last. If that run has ended, give a higher number: --attempt N."
            )
        elif outcome.code is ExitCode.USER_ERROR:
            self._print("Everything was ended. What is finished is kept: correct it and run again.")
        else:
            self._print("Everything was ended. Run again to continue from what is finished.")
        return int(outcome.code)

    def _tell_interrupt(self, interrupts: Interrupts) -> int:
        self._print("Interrupted: everything was ended. Run again to continue.", style="bold")
        return INTERRUPTED if interrupts.first == signal.SIGINT else int(ExitCode.CHECKPOINTED)

    def _tell_results(self) -> int:
        facts = self._first_facts
        assert facts is not None, "an attempt ended well, so its prepare has spoken"
        kept = self.folder.keep_reports("evaluate")
        report_path = self.folder.path / "report.json"
        if report_path not in kept:
            raise Refusal(ExitCode.RETRY, f"the evaluation left no report in {self.folder.state('evaluate')}")
        report = Report.model_validate_json(report_path.read_bytes())
        self.console.print(score_table(report))
        self._print(self._teacher_line(facts))
        if facts.training_finished:
            self._print(f"Student: not started, its training of {facts.total_steps} steps was finished already.")
        self._print(f"Model:   {report.model}")
        for path in kept:
            self._print(f"Report:  {path}")
        return int(ExitCode.FINISHED)

    def _teacher_line(self, facts: PrepareFacts) -> str:
        if self._teachers_started:
            there = max(0, facts.signal_shards - facts.signal_shards_missing)  # The head counts as one missing.
            return f"Teacher: started; {there} of {facts.signal_shards} signal shards were there already."
        if facts.signal_shards_missing == 0:
            return f"Teacher: not started, all {facts.signal_shards} signal shards were there already."
        return "Teacher: not started, nothing was wanted of it."

    def _print(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def cause_of_failure(ended: Sequence[Ended]) -> Ended | None:
    """The container that a stage failed for: one with a user's error, whenever it ended; else the first that ended
    badly by itself, with one that knows what is missing before others."""
    bad = [one for one in ended if one.outcome.code is not ExitCode.FINISHED]
    by_users = [one for one in bad if one.outcome.code is ExitCode.USER_ERROR]
    alone = [one for one in bad if one.before_all_were_asked]
    knowing = [one for one in alone if one.outcome.needs is not None]
    return next(iter([*by_users, *knowing, *alone, *bad]), None)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where this user keeps what may be lost: `~/.cache/distill-operator/runtime`."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "distill-operator" / "runtime"
