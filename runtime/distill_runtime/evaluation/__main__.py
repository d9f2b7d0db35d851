"""The evaluation's entry: `python -m distill_runtime.evaluation --subject teacher|students`.

- `teacher` runs where the teacher runs, and makes what only the teacher itself can: generated answers.
- `students` scores the student before and after training, takes the teacher's other scores from its signals, and writes
  the report.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from distill_runtime.contract.run import Role, RunConfig
from distill_runtime.process import Facts, run_role
from distill_runtime.progress import cache_folder

if TYPE_CHECKING:
    from distill_runtime.evaluation.job import EvaluationJob


def evaluate_teacher(config: RunConfig) -> Facts:
    """Makes the teacher's answers that are not stored yet; see `EvaluationJob.teacher`."""
    return _job(config, "teacher").teacher()


def evaluate_students(config: RunConfig) -> Facts:
    """Scores the students and writes the report; see `EvaluationJob.students`."""
    return _job(config, "evaluate").students()


def _job(config: RunConfig, role: Role) -> "EvaluationJob":
    # Imported here, so that a run configuration that can't be read is told at once.
    from distill_runtime.evaluation.job import EvaluationJob

    return EvaluationJob(config, cache=cache_folder(), role=role)


SUBJECTS: dict[str, tuple[Role, Callable[[RunConfig], Facts]]] = {
    "teacher": ("teacher", evaluate_teacher),
    "students": ("evaluate", evaluate_students),
}
"""The container's role, and what it does, for each subject."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m distill_runtime.evaluation", description=__doc__)
    parser.add_argument("--subject", required=True, choices=sorted(SUBJECTS), help="whose results are made")
    run_role(*SUBJECTS[parser.parse_args().subject])
