"""`python -m distill_runtime.prepare` on real files and models: how it ends, and what it leaves."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract import environment
from distill_runtime.contract.plan import PLAN_FILE, JobPlan
from distill_runtime.contract.sections import Storage
from distill_runtime.errors import UserError
from tests.fixtures.families import save_family
from tests.fixtures.models import save_tiny_model, tiny_tokenizer
from tests.fixtures.s3 import S3Server, free_ports
from tests.runtime.prepare.preparing import Job
from tests.unit.data.files import write_json_lines


def test_a_job_is_prepared_and_a_second_run_finds_it_so(job: Job) -> None:
    first = job.run()
    assert first.code == 0, first.log
    progress = json.loads((job.folder / "state" / "progress.json").read_text())
    assert (progress["role"], progress["stage"]) == ("prepare", "done")
    facts = first.facts
    assert facts["rows"] == facts["sequences"] == 20
    assert facts["evaluationSequences"] == 6
    assert facts["badRows"] == facts["droppedRows"] == facts["truncatedRows"] == 0
    assert facts["totalSteps"] == 3
    # 5 shards of training data, 2 of held-out data, 2 of the task's 3 examples x 2 labels.
    assert facts["signalShards"] == 9
    assert facts["signalShardsMissing"] >= 9
    assert facts["teacherEvaluationsMissing"] == 1
    assert facts["trainingFinished"] is False
    assert facts["reusedPlan"] is False
    prepared = job.prepared
    assert prepared.vocabulary == 396
    assert (prepared.teacher_dtype, prepared.training_precision) == ("float32", "float32")
    assert len(prepared.teacher_canary) == 32
    targets = prepared.train.targets + (prepared.evaluation.targets if prepared.evaluation else 0)
    targets += sum(task.plan.targets for task in prepared.tasks if task.plan)
    assert facts["signalBytes"] == targets * 64 * 2
    objects = job.objects

    second = job.run()
    assert second.code == 0, second.log
    assert second.facts == {**facts, "reusedPlan": True}
    assert job.prepared == prepared
    assert job.objects == objects
    assert "nothing has changed" in second.log


def test_auto_chooses_the_signal_once_and_says_why(job: Job) -> None:
    fast = job.changed({"signal": {"kind": "auto", "bandwidth": 1e15}}).run()
    assert fast.code == 0, fast.log
    assert fast.facts["signalKind"] == "hidden"
    assert fast.facts["signalChoice"].startswith("the most exact kind that moves in a quarter")
    assert job.prepared.train_signal.row.kind == "hidden"
    slow = job.changed({"signal": {"kind": "auto", "bandwidth": 1, "samples": 2, "k": 4}})
    chosen = slow.run()
    assert chosen.code == 0, chosen.log
    assert chosen.facts["signalKind"] == "sampled"
    assert chosen.facts["signalChoice"].startswith("the smallest kind")
    assert chosen.facts["signalBytes"] < fast.facts["signalBytes"]
    bound = slow.changed({"objective": {"divergences": [{"kind": "reverseKL"}]}}).run()
    assert bound.facts["signalKind"] == "topk", "draws don't define the reverse KL"


def test_a_plan_of_what_the_job_needs_is_left_where_it_is_asked_for(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = job.folder / "state" / PLAN_FILE
    assert job.run().code == 0
    assert not plan.exists()
    monkeypatch.setenv(environment.PLAN, "yes")
    measured = job.run()
    assert measured.code == 0, measured.log
    found = JobPlan.model_validate_json(plan.read_bytes())
    assert found.signal.bandwidth_measured
    assert found.signal.kind == "hidden"
    assert [kind.kind for kind in found.signal.kinds] == ["hidden", "topk", "sampled"]
    hidden = found.signal.kinds[0]
    assert hidden.total_bytes == job.prepared.train.targets * 64 * 2
    assert [role.role for role in found.memory] == ["teacher", "student"]
    assert all(role.total > role.parameters for role in found.memory)


WITHOUT_ENGINES = """
import sys
from distill_runtime import process
from distill_runtime.prepare.role import prepare
def checked(config):
    facts = prepare(config)
    loaded = [name for name in ("torch", "transformers", "vllm") if name in sys.modules]
    assert not loaded, loaded
    return facts
process.run_role("prepare", checked)
"""


def test_a_job_that_is_prepared_is_found_so_without_torch(job: Job) -> None:
    assert job.run().code == 0
    again = job.run(["-c", WITHOUT_ENGINES])
    assert again.code == 0, again.message
    assert again.facts["reusedPlan"] is True


def _missing_file(job: Job, models: Path) -> Job:
    return job.changed({"data": {"train": f"file://{job.folder}/nowhere.jsonl"}})


def _no_match(job: Job, models: Path) -> Job:
    return job.changed({"data": {"train": f"file://{job.folder}/*.parquet"}})


def _empty_file(job: Job, models: Path) -> Job:
    (job.folder / "train.jsonl").write_text("")
    return job


def _blank_file(job: Job, models: Path) -> Job:
    (job.folder / "train.jsonl").write_text("\n\n")
    return job


def _broken_json(job: Job, models: Path) -> Job:
    write_json_lines(job.folder / "train.jsonl", [{"prompt": "a", "completion": "b"}] * 6 + ["{broken"])
    return job


def _no_assistant(job: Job, models: Path) -> Job:
    write_json_lines(job.folder / "train.jsonl", [{"messages": [{"role": "user", "content": "hi"}]}])
    return job


def _too_long(job: Job, models: Path) -> Job:
    return job.changed({"data": {"maxLength": 16, "evaluation": None}, "evaluation": None})


def _unknown_format(job: Job, models: Path) -> Job:
    (job.folder / "train.txt").write_text("hello")
    return job.changed({"data": {"train": f"file://{job.folder}/train.txt"}})


def _no_tokenizer(job: Job, models: Path) -> Job:
    shutil.copytree(models / "teacher", job.folder / "teacher", ignore=shutil.ignore_patterns("tokenizer*"))
    return job.changed({"teacher": {"model": f"file://{job.folder}/teacher"}})


def _no_model(job: Job, models: Path) -> Job:
    return job.changed({"student": {"model": f"file://{job.folder}/student"}})


def _other_vocabulary(job: Job, models: Path) -> Job:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    save_tiny_model(job.folder / "other", layers=2, tokenizer=tokenizer)
    return job.changed({"student": {"model": f"file://{job.folder}/other"}})


def _unknown_head(job: Job, models: Path) -> Job:
    save_tiny_model(job.folder / "odd", layers=2)
    config = json.loads((job.folder / "odd/config.json").read_text())
    config["architectures"] = ["OddForCausalLM"]
    (job.folder / "odd/config.json").write_text(json.dumps(config))
    return job.changed({"teacher": {"model": f"file://{job.folder}/odd"}})


def _short_context(job: Job, models: Path) -> Job:
    save_tiny_model(job.folder / "short", layers=2, max_position_embeddings=24)
    return job.changed({"student": {"model": f"file://{job.folder}/short"}})


def _bad_label(job: Job, models: Path) -> Job:
    (task, _) = job.work["evaluation"]["tasks"]
    return job.changed({"evaluation": {"tasks": [{**task, "labels": ["yes", "no"]}]}})


def _no_template(job: Job, models: Path) -> Job:
    save_tiny_model(job.folder / "base", layers=2, tokenizer=tiny_tokenizer(None))
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    write_json_lines(job.folder / "train.jsonl", [{"messages": chat}])
    return job.changed({"teacher": {"model": f"file://{job.folder}/base"}})


def _experts(job: Job) -> str:
    return f"file://{save_family(job.folder / 'experts', 'MixtralForCausalLM')}"


def _expert_student(job: Job, models: Path) -> Job:
    return job.changed({"student": {"model": _experts(job)}})


def _student_of_an_expert_teacher(job: Job, models: Path) -> Job:
    layers = {"initialise": {"fromTeacher": {"every": 2}}}
    return job.changed({"teacher": {"model": _experts(job)}, "student": {"model": None, **layers}})


def _crossing_student(job: Job, models: Path) -> Job:
    folder = save_family(job.folder / "recurrent", "Qwen3_5ForCausalLM")
    return job.changed({"student": {"model": f"file://{folder}"}})


def _random_experts(job: Job, models: Path) -> Job:
    weights = {"initialise": {"fromConfig": {"config": f"{_experts(job)}/config.json"}}}
    return job.changed({"student": {"model": None, **weights}})


IN_A_PROCESS = [
    (_missing_file, "nowhere.jsonl: there is no such file"),
    (_empty_file, "train.jsonl is empty"),
    (_broken_json, "train.jsonl:7: broken JSON"),
    (_no_assistant, "train.jsonl:1: the chat has no assistant turn"),
    (_too_long, "all 20 rows of"),
    (_no_tokenizer, "has no tokenizer"),
    (_other_vocabulary, "token 396 is nothing for the teacher and '<extra>' for the student"),
]
ALSO = [
    (_no_match, "*.parquet: no file matches it"),
    (_blank_file, "train.jsonl has no rows"),
    (_unknown_format, "train.txt: unknown format .txt"),
    (_no_model, "there is no folder"),
    (_unknown_head, "OddForCausalLM"),
    (_short_context, "reads at most 24"),
    (_bad_label, "the label 'card' is not among labels (yes, no)"),
    (_no_template, "data.chatTemplate"),
    (_expert_student, "student: MixtralForCausalLM is a mixture of experts"),
    (_student_of_an_expert_teacher, "student: MixtralForCausalLM is a mixture of experts"),
    (_crossing_student, "training.packing: Qwen3_5ForCausalLM reads across packed sequences"),
    (_random_experts, "student: MixtralForCausalLM is a mixture of experts"),
]


@pytest.mark.parametrize(("spoil", "sentence"), IN_A_PROCESS)
def test_bad_input_ends_in_one_sentence_and_no_traceback(
    job: Job, models: Path, spoil: Callable[[Job, Path], Job], sentence: str
) -> None:
    ended = spoil(job, models).run()
    assert ended.code == 65, ended.log
    assert ended.outcome["code"] == 65
    assert sentence in ended.message
    assert "\n" not in ended.message
    assert ended.message.endswith((".", ")"))
    assert "Traceback" not in ended.log
    assert ended.message in ended.log
    assert not any(key.startswith("jobs/") for key in job.objects)


@pytest.mark.parametrize(("spoil", "sentence"), ALSO)
def test_other_bad_input_is_a_user_error_of_one_sentence(
    job: Job, models: Path, spoil: Callable[[Job, Path], Job], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        spoil(job, models).prepare_here()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(key.startswith("jobs/") for key in job.objects)


def test_a_job_is_prepared_in_an_s3_bucket(job: Job, s3_storage: Storage) -> None:
    stored = job.changed({"storage": s3_storage.model_dump(mode="json", by_alias=True, exclude_none=True)})
    ended = stored.run()
    assert ended.code == 0, ended.log
    assert stored.prepared.train.sequences == 20


def test_wrong_credentials_end_in_one_sentence(job: Job, s3_storage: Storage, s3_server: S3Server) -> None:
    stored = job.changed({"storage": s3_storage.model_dump(mode="json", by_alias=True, exclude_none=True)})
    stored.environment = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": "wrong"}
    ended = stored.run()
    assert ended.code == 65, ended.log
    assert "Traceback" not in ended.log


def test_an_unreachable_store_ends_in_one_sentence_within_a_bound(job: Job, s3_storage: Storage) -> None:
    storage: dict[str, Any] = s3_storage.model_dump(mode="json", by_alias=True, exclude_none=True)
    stored = job.changed({"storage": {**storage, "endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}})
    before = time.monotonic()
    ended = stored.run()
    assert ended.code in (65, 75), ended.log
    assert "127.0.0.1" in ended.message
    assert "Traceback" not in ended.log
    assert time.monotonic() - before < 200
