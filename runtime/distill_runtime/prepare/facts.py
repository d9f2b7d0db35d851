"""What `prepare` reports: counts for the status, and what is left to do."""

from distill_runtime import layout
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.run import RunConfig
from distill_runtime.prepare.plans import MadePlan
from distill_runtime.prepared import Prepared
from distill_runtime.process import Facts
from distill_runtime.signals.addresses import plan_references, signal_bytes
from distill_runtime.store.base import ObjectStore

COUNTED = ("badRows", "droppedRows", "truncatedRows")


def data_report(train: MadePlan, evaluation: MadePlan | None) -> dict[str, int | float | str]:
    """Counts of the data for the job's report. Bad, dropped and truncated rows are told apart: `evaluation…` are those
    of the held-out data."""
    report: dict[str, int | float | str] = {
        "rows": train.manifest.report["rows"],
        "sequences": train.reference.sequences,
        "tokens": train.reference.tokens,
        "targets": train.reference.targets,
        **{name: train.manifest.report[name] for name in COUNTED},
    }
    if evaluation is not None:
        report |= {
            "evaluationRows": evaluation.manifest.report["rows"],
            "evaluationSequences": evaluation.reference.sequences,
            "evaluationTokens": evaluation.reference.tokens,
            "evaluationTargets": evaluation.reference.targets,
            **{f"evaluation{name[0].upper()}{name[1:]}": evaluation.manifest.report[name] for name in COUNTED},
        }
    return report


def facts_of(store: ObjectStore, config: RunConfig, prepared: Prepared, *, reused: bool) -> Facts:
    """The facts of a finished `prepare`: the data's counts, sizes, and what teachers and students have left to do."""
    from distill_runtime.evaluation.results import teacher_evaluations_missing
    from distill_runtime.transport.demand import missing_shards

    report = dict(prepared.report)
    model = f"{layout.training_key(prepared.training_digest)}/model/manifest.json"
    lost = {name: int(report[name]) + int(report.get(f"evaluation{name[0].upper()}{name[1:]}", 0)) for name in COUNTED}
    facts = PrepareFacts(
        rows=int(report["rows"]),
        sequences=int(report["sequences"]),
        tokens=int(report["tokens"]),
        targets=int(report["targets"]),
        bad_rows=lost["badRows"],
        dropped_rows=lost["droppedRows"],
        truncated_rows=lost["truncatedRows"],
        evaluation_sequences=prepared.evaluation.sequences if prepared.evaluation else 0,
        signal_shards=sum(plan.shards for plan in plan_references(prepared).values()),
        signal_shards_missing=missing_shards(store, config, prepared),
        signal_bytes=signal_bytes(prepared),
        teacher_evaluations_missing=teacher_evaluations_missing(store, config, prepared),
        training_finished=store.exists(model),
        total_steps=prepared.total_steps,
        training_digest=prepared.training_digest,
        signal_digest=prepared.train_signal.digest,
        reused_plan=reused,
    )
    return facts.flat()
