"""The report put together: scores, curves and what a reader would ask for of data, signals and training."""

from pydantic.alias_generators import to_snake

from distill_runtime.contract.facts import METRICS, EvaluateFacts, SubjectFacts
from distill_runtime.contract.report import CurvePoint, Report, Sample, Scores, SourceReport, TaskScores
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import Divergence, DivergenceKind, Objective, Optimizer, Student
from distill_runtime.prepared import Prepared
from distill_runtime.process import Facts
from distill_runtime.signals.addresses import plan_references, signal_bytes
from distill_runtime.signals.row_format import RowFormat

Value = int | float | str
DIVERGENCES: dict[DivergenceKind, str] = {
    "forwardKL": "KL(teacher || student)",
    "reverseKL": "KL(student || teacher)",
    "jensenShannon": "Jensen–Shannon divergence (β = {beta:g})",
    "skewedForwardKL": "skewed KL(teacher || student) (α = {alpha:g})",
    "skewedReverseKL": "skewed KL(student || teacher) (α = {alpha:g})",
    "adaptiveKL": "adaptive KL (head of {head_mass:g})",
    "totalVariation": "total variation",
    "teacherTop1": "cross entropy on the teacher's top-1",
}
ADAPTERS = {"lora": "LoRA", "dora": "DoRA"}


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
    packing_efficiency: float | None = None,
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
        data=prepared.report,
        sources=[SourceReport(**source.model_dump()) for source in prepared.sources],
        signal=_signal(config, prepared),
        training=_training(config, prepared, packing_efficiency),
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
        factor = "" if objective.temperature_factor == "squared" else ", without T²"
        at = "" if objective.temperature == 1 else f" at temperature {objective.temperature:g}{factor}"
        parts += [
            f"{_weight(objective.distillation_weight * term.weight)}{_in_words(term)}{at}"
            for term in objective.divergences
        ]
    if objective.cross_entropy_weight > 0:
        parts.append(f"{_weight(objective.cross_entropy_weight)}cross entropy on the data")
    return " + ".join(parts)


def _in_words(term: Divergence) -> str:
    return DIVERGENCES[term.kind].format(beta=term.beta, alpha=term.alpha, head_mass=term.head_mass)


def trained_in_words(student: Student) -> str:
    """Which of the student's weights are trained: `all weights`, `all but embeddings`, `a LoRA adapter of rank 16,
    alpha 32`."""
    adapter = student.adapter
    if adapter is None:
        return f"all but {', '.join(student.freeze)}" if student.freeze else "all weights"
    stabilised = ", rank-stabilised" if adapter.rank_stabilised else ""
    where = f" in {', '.join(adapter.target_modules)}" if adapter.target_modules else ""
    return f"a {ADAPTERS[adapter.kind]} adapter of rank {adapter.rank}, alpha {adapter.alpha}{stabilised}{where}"


def optimizer_in_words(optimizer: Optimizer) -> str:
    """The optimizer: `adamw`, or `RMSprop (momentum 0.9)`."""
    if optimizer.torch is None:
        return optimizer.kind
    given = optimizer.torch.arguments.model_dump(exclude_none=True)
    arguments = ", ".join(f"{name} {value}" for name, value in given.items())
    return f"{optimizer.torch.name} ({arguments})" if arguments else optimizer.torch.name


def _weight(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} × "


def _signal(config: RunConfig, prepared: Prepared) -> dict[str, Value]:
    plans = plan_references(prepared).values()
    row = prepared.train_signal.row
    facts: dict[str, Value] = {
        **_row(row),
        "mode": config.work.signal.mode,
        "engine": config.work.teacher.engine,
        "teacherPrecision": prepared.teacher_dtype,
        "targets": sum(plan.targets for plan in plans),
        "shards": sum(plan.shards for plan in plans),
        "bytesPerTarget": row.row_bytes,
        "bytes": signal_bytes(prepared),
    }
    held_out = prepared.held_out_signal.row
    if held_out != row:
        facts |= {"heldOutKind": held_out.kind, "heldOutBytesPerTarget": held_out.row_bytes}
    return facts


def _row(row: RowFormat) -> dict[str, Value]:
    """What a row is, by the names of the spec where it has them."""
    match row.kind:
        case "hidden":
            return {"kind": row.kind, "storedAs": row.dtype or "", "width": row.width}
        case "topk":
            return {"kind": row.kind, "k": row.width, "storedAs": row.dtype or ""}
        case "sampled":
            return {"kind": row.kind, "samples": row.width}


def _training(config: RunConfig, prepared: Prepared, packing_efficiency: float | None) -> dict[str, Value]:
    training, student = config.work.training, config.work.student
    optimizer, schedule = training.optimizer, training.schedule
    warmup = f", {schedule.warmup_steps} steps of warm-up" if schedule.warmup_steps else ""
    clipping = f"{optimizer.max_gradient_norm:g}" if optimizer.max_gradient_norm else "none"
    length: dict[str, Value] = {} if training.steps is not None else {"epochs": training.epochs or 1.0}
    return {
        "trained": trained_in_words(student),
        "optimizer": optimizer_in_words(optimizer),
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
        **(
            {"microBatch": training.micro_batch}
            if training.micro_batch_tokens is None
            else {"microBatchTokens": training.micro_batch_tokens}
        ),
        "packing": "yes" if training.packing else "no",
        **({} if packing_efficiency is None else {"packingEfficiency": round(packing_efficiency, 4)}),
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
    )


def _metrics(task: TaskScores) -> dict[str, float]:
    """The task's scores by their names, those that it has."""
    scores = task.model_dump(by_alias=True, include={to_snake(name) for name in METRICS}, exclude_none=True)
    return {name: float(f"{value:.5g}") for name, value in scores.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
