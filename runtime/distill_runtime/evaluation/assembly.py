"""The report put together: scores, curves and what a reader would ask for of data, signals and training."""

from pydantic.alias_generators import to_snake

from distill_runtime.contract.facts import METRICS, EvaluateFacts, SubjectFacts
from distill_runtime.contract.report import CurvePoint, HarnessScores, Report, Sample, Scores, TaskScores
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import Objective
from distill_runtime.prepared import Prepared
from distill_runtime.process import Facts
from distill_runtime.signals.spans import row_bytes

Value = int | float | str
HIDDEN_SIZE = "hiddenSize"
"""Name under which `prepare` reports the width of a signal's row."""
DIVERGENCES = {"forwardKL": "KL(teacher || student)"}


def assemble(
    config: RunConfig,
    prepared: Prepared,
    *,
    teacher: Scores,
    before: Scores,
    after: Scores,
    samples: list[Sample],
    curves: list[CurvePoint],
    steps: int,
    exported_step: int,
    model: str,
) -> Report:
    """The report of a job."""
    return Report(
        namespace=config.namespace,
        name=config.name,
        teacher=teacher,
        student_before=before,
        student_after=after,
        data_digest=prepared.train.data_digest,
        training_digest=prepared.training_digest,
        objective=objective_in_words(config.work.objective),
        steps=steps,
        exported_step=exported_step,
        data={name: value for name, value in prepared.report.items() if name != HIDDEN_SIZE},
        signal=_signal(config, prepared),
        training=_training(config, prepared),
        curves=curves,
        samples=samples,
        model=model,
    )


def main_metric(scores: TaskScores | None) -> float | None:
    """What a task is judged by in one number: accuracy, or token F1 of answers."""
    if scores is None:
        return None
    return scores.accuracy if scores.kind == "classification" else scores.token_f1


def objective_in_words(objective: Objective) -> str:
    """The objective as a formula: `0.9 × KL(teacher || student) + 0.1 × cross entropy on the data`."""
    parts: list[str] = []
    if objective.distillation_weight > 0:
        at = "" if objective.temperature == 1 else f" at temperature {objective.temperature:g}"
        parts.append(f"{_weight(objective.distillation_weight)}{DIVERGENCES[objective.divergence]}{at}")
    if objective.cross_entropy_weight > 0:
        parts.append(f"{_weight(objective.cross_entropy_weight)}cross entropy on the data")
    return " + ".join(parts)


def _weight(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} × "


def _signal(config: RunConfig, prepared: Prepared) -> dict[str, Value]:
    plans = [prepared.train, prepared.evaluation, *(task.plan for task in prepared.tasks)]
    targets = sum(plan.targets for plan in plans if plan is not None)
    signal = config.work.signal
    facts: dict[str, Value] = {
        "kind": signal.kind,
        "storedAs": signal.dtype,
        "mode": signal.mode,
        "engine": config.work.teacher.engine,
        "teacherPrecision": prepared.teacher_dtype,
        "targets": targets,
        "shards": sum(plan.shards for plan in plans if plan is not None),
    }
    width = prepared.report.get(HIDDEN_SIZE)
    if isinstance(width, int):
        facts |= {"width": width, "bytes": targets * row_bytes(width, signal.dtype)}
    return facts


def _training(config: RunConfig, prepared: Prepared) -> dict[str, Value]:
    training, student = config.work.training, config.work.student
    optimizer, schedule = training.optimizer, training.schedule
    warmup = f", {schedule.warmup_steps} steps of warm-up" if schedule.warmup_steps else ""
    clipping = f"{optimizer.max_gradient_norm:g}" if optimizer.max_gradient_norm else "none"
    length: dict[str, Value] = {} if training.steps is not None else {"epochs": training.epochs or 1.0}
    return {
        "optimizer": optimizer.kind,
        "learningRate": optimizer.learning_rate,
        "schedule": f"{schedule.kind}{warmup}",
        "weightDecay": optimizer.weight_decay,
        "gradientClipping": clipping,
        "globalBatch": training.global_batch,
        **length,
        "plannedSteps": prepared.total_steps,
        "precision": prepared.training_precision,
        "workers": student.workers,
        "gpusPerWorker": student.gpus_per_worker,
        "microBatch": training.micro_batch,
        "packing": "yes" if training.packing else "no",
        "zeroStage": training.zero_stage,
        "seed": training.seed,
        "exportedWeights": config.work.output.select,
    }


def facts_of(report: Report, *, page: str) -> Facts:
    """The scores for the status. `page` is the URI of the report."""
    facts = EvaluateFacts(
        model=report.model,
        report=page,
        steps=report.steps,
        exported_step=report.exported_step,
        teacher=_subject(report.teacher, compared=False),
        student_before=_subject(report.student_before),
        student_after=_subject(report.student_after),
    )
    return facts.flat()


def _subject(scores: Scores, *, compared: bool = True) -> SubjectFacts:
    return SubjectFacts(
        parameters=scores.parameters,
        perplexity=_rounded(scores.perplexity),
        kl=_rounded(scores.kl_to_teacher) if compared else None,
        top1=_rounded(scores.top1_agreement) if compared else None,
        ece=_rounded(scores.expected_calibration_error),
        tasks={name: _metrics(task) for name, task in scores.tasks.items()},
        harness={name: _harness(task) for name, task in scores.harness.items() if task.part_of is None},
    )


def _harness(task: HarnessScores) -> dict[str, float]:
    """The metrics of what was asked for; a name with a dot, which facts have no place for, is only in the report."""
    return {name: float(f"{value:.5g}") for name, value in task.metrics.items() if "." not in name}


def _metrics(task: TaskScores) -> dict[str, float]:
    """The task's scores by their names, those that it has."""
    scores = task.model_dump(by_alias=True, include={to_snake(name) for name in METRICS}, exclude_none=True)
    return {name: float(f"{value:.5g}") for name, value in scores.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
