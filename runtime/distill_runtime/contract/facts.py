"""What each role says in the facts of its outcome when it has finished: one model a role, for both sides.

A role that failed says none. On the wire facts are flat, few and small, since they travel in a termination message; a
reader takes what it knows and leaves the rest, since the other side may be of another version.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import ConfigDict, Field

from distill_runtime.contract.outcome import Fact
from distill_runtime.contract.sections import Section

MOST_FACTS = 62
"""Facts of an evaluation: an outcome takes two more."""
FACTS_BYTES = 3500
"""Size of an evaluation's facts as JSON: with the rest of the outcome they fit into a termination message."""


class RoleFacts(Section):
    """Facts of one role."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def read(cls, facts: Mapping[str, Fact]) -> Self:
        """The facts of an outcome.

        Raises
        ------
        pydantic.ValidationError
            One that can't be done without is missing, or is something else: another version of the runtime.
        """
        return cls.model_validate(facts, by_alias=True, by_name=False)

    def flat(self) -> dict[str, Fact]:
        """As an outcome has them: those that were given. A reader has the others' defaults."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class PrepareFacts(RoleFacts):
    """What `prepare` found."""

    signal_shards: int
    """Shards of signals that the job needs in all."""
    signal_shards_missing: int
    """Those of them that are not in the store; the teacher's output head counts as one."""
    teacher_evaluations_missing: int
    """Scores of the teacher that are not in the store."""
    training_finished: bool
    """The trained model is in the store."""
    total_steps: int
    """Optimizer steps of the whole job."""
    rows: int = 0
    """Rows of the training data."""
    sequences: int = 0
    """Sequences to learn from."""
    tokens: int = 0
    """Tokens of these sequences."""
    targets: int = 0
    """Tokens to learn."""
    bad_rows: int = 0
    """Rows that couldn't be used, with those of the held-out data."""
    dropped_rows: int = 0
    """Rows that were too long, with those of the held-out data."""
    truncated_rows: int = 0
    """Rows that were cut, with those of the held-out data."""
    evaluation_sequences: int = 0
    """Held-out sequences."""
    signal_bytes: int = 0
    """Size of all signals."""
    training_digest: str = ""
    """Digest of all that determines the weights."""
    signal_digest: str = ""
    """Digest of all that determines the training data's signals."""
    reused_plan: bool = False
    """The data had been tokenised by an earlier job."""


class TeacherFacts(RoleFacts):
    """What one teacher replica did. One that finished found all of the teacher's work done: signals and scores."""

    shards: int = 0
    """Shards that the job wants, by its last look at the store; in streaming mode those of the moving window."""
    shards_done: int = 0
    """Those of them that are there, or can't be made."""
    shards_reused: int = 0
    """Those that were there before this replica took work: made by earlier jobs and attempts, or by its fellows."""
    shards_written: int = 0
    """Shards that this replica wrote and whose signals count."""
    shards_failed: int = 0
    """Shards whose place this replica gave an error marker."""
    sequences: int = 0
    """Sequences that it scored."""
    tokens: int = 0
    """Tokens that it read."""
    seconds: float = 0.0
    """Wall time of scoring and writing, without loading."""
    answers_made: int = 0
    """Scores of the teacher itself that it made."""
    answers_reused: int = 0
    """Those that were there, or that another replica made."""


class StudentFacts(RoleFacts):
    """What the training came to; rank 0 says it."""

    steps: int
    """Optimizer steps that were made."""
    exported_step: int
    """The step whose weights were exported."""
    final_loss: float | None = None
    """The training loss of the last step."""
    held_out_loss: float | None = None
    """Held-out loss of the exported weights."""
    wait_fraction: float = 0.0
    """Part of the time that the student waited for signals."""
    packing_efficiency: float | None = None
    """Part of the tokens of the student's rows that was no padding."""
    tokens_per_second: float = 0.0
    """Tokens a second over the whole training."""


class SubjectFacts(Section):
    """Scores of one model."""

    parameters: int | None = None
    """Number of weights."""
    perplexity: float | None = None
    """Perplexity on the held-out targets."""
    kl: float | None = None
    """Mean KL(teacher || model) over the held-out targets, in nats. None for the teacher."""
    top1: float | None = None
    """Part of the held-out targets where its most likely token is the teacher's. None for the teacher."""
    ece: float | None = None
    """Expected calibration error on the held-out targets."""
    tasks: dict[str, dict[str, float]] = Field(default={})
    """Scores by task: `accuracy` and `macroF1`, or `exactMatch` and `tokenF1`."""


SUBJECTS = ("teacher", "studentBefore", "studentAfter")
"""Whose scores an evaluation tells, as the names of its facts begin."""
METRICS = ("accuracy", "macroF1", "exactMatch", "tokenF1")
"""Scores of tasks, as the names of their facts end."""
_SCALARS = ("parameters", "perplexity", "kl", "top1", "ece")


class EvaluateFacts(RoleFacts):
    """Scores of the three models, and where the results are.

    Flat: `studentAfterKl`, `teacherPerplexity`; of each task `desks.studentAfter.accuracy`. Of very many tasks the last
    ones are left out, and only in the report.
    """

    model: str = ""
    """URI of the distilled model."""
    report: str = ""
    """URI of the report as a page; `report.json` lies beside it."""
    steps: int = 0
    """Optimizer steps of the training."""
    exported_step: int = 0
    """The step whose weights were exported."""
    teacher: SubjectFacts = SubjectFacts()
    """The teacher."""
    student_before: SubjectFacts = SubjectFacts()
    """The student before training."""
    student_after: SubjectFacts = SubjectFacts()
    """The student after training."""
    tasks_left_out: int = 0
    """Tasks for whose scores there was no room."""

    @classmethod
    def read(cls, facts: Mapping[str, Fact]) -> Self:
        """The facts of an outcome. See `RoleFacts.read`."""
        nested: dict[str, object] = {name: value for name, value in facts.items() if "." not in name}
        for subject in SUBJECTS:
            scalars = {name: facts.get(f"{subject}{name.capitalize()}") for name in _SCALARS}
            nested[subject] = {**scalars, "tasks": _tasks_of(subject, facts)}
        return cls.model_validate(nested, by_alias=True, by_name=False)

    def flat(self) -> dict[str, Fact]:
        """As an outcome has them: the scores of as many tasks as there is room for."""
        subjects = dict(zip(SUBJECTS, (self.teacher, self.student_before, self.student_after), strict=True))
        facts: dict[str, Fact] = {
            "model": self.model,
            "report": self.report,
            "steps": self.steps,
            "exportedStep": self.exported_step,
        }
        for subject, scores in subjects.items():
            known = {name: getattr(scores, name) for name in _SCALARS}
            facts |= {f"{subject}{name.capitalize()}": value for name, value in known.items() if value is not None}
        tasks = list(dict.fromkeys(task for scores in subjects.values() for task in scores.tasks))
        for number, task in enumerate(tasks):
            rows: dict[str, Fact] = {
                f"{task}.{subject}.{metric}": value
                for subject, scores in subjects.items()
                for metric, value in scores.tasks.get(task, {}).items()
            }
            left_out: dict[str, Fact] = {"tasksLeftOut": len(tasks) - number}
            if not _fits(facts | rows | left_out):
                return facts | left_out
            facts |= rows
        return facts


def _tasks_of(subject: str, facts: Mapping[str, Fact]) -> dict[str, dict[str, float]]:
    tasks: dict[str, dict[str, float]] = {}
    for name, value in facts.items():
        task, _, rest = name.partition(".")
        whose, _, metric = rest.partition(".")
        if whose == subject and metric in METRICS and isinstance(value, int | float):
            tasks.setdefault(task, {})[metric] = value
    return tasks


def _fits(facts: Mapping[str, Fact]) -> bool:
    size = sum(len(f'"{name}":"{value}",'.encode()) for name, value in facts.items())
    return len(facts) <= MOST_FACTS and size <= FACTS_BYTES
