"""A job with everything in it: vLLM, S3, two teachers, two workers, tasks, and a model that others can load."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from distill_runtime.contract.sections import Storage
from tests.fixtures.s3 import S3Server
from tests.runtime.end_to_end.local_job import LocalJob, rows, write_rows

TOLERANCE = 5e-4
"""Relative: vLLM's states and those of transformers differ by up to 5e-5, and SGD carries that on for eight steps."""


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, object]:
    labels = [
        {"prompt": row["prompt"], "label": "money" if "charge" in row["completion"] else "other"} for row in rows(9)
    ]
    return {
        "tasks": [
            {
                "kind": "classification",
                "name": "topic",
                "data": f"file://{write_rows(tmp_path / 'topic.jsonl', labels)}",
            },
            {
                "kind": "questionAnswering",
                "name": "answers",
                "data": f"file://{write_rows(tmp_path / 'answers.jsonl', rows(3))}",
                "maxNewTokens": 8,
            },
        ]
    }


def test_vllm_s3_two_teachers_two_workers_and_tasks(
    job: LocalJob, finished_job: LocalJob, tasks: dict[str, object], s3_server: S3Server, s3_storage: Storage
) -> None:
    storage = s3_storage.model_dump(by_alias=True, exclude_none=True)
    whole = job.changed(
        {
            "storage": storage,
            "teacher": {"engine": "vllm", "replicas": 2},
            "student": {"workers": 2},
            "training": {"zeroStage": 2, "packing": True},
            "evaluation": tasks,
            "output": {"uri": f"file://{job.folder}/distilled", "select": "best"},
        },
        name="whole",
    )
    whole.environment = s3_server.environment()
    ended = whole.run().expect(0)
    assert whole.losses() == pytest.approx(finished_job.losses(), rel=TOLERANCE)
    for column in ("teacher", "before", "after"):
        assert column in ended.output.lower()

    report = whole.report()
    assert report.teacher.kl_to_teacher == pytest.approx(0, abs=1e-6)
    for scores in (report.teacher, report.student_before, report.student_after):
        assert scores.tasks["topic"].examples == 9
        assert scores.tasks["topic"].accuracy is not None
        assert scores.tasks["answers"].examples == 3
        assert scores.tasks["answers"].token_f1 is not None
        assert scores.perplexity is not None
    assert (report.student_after.parameters or 0) < (report.teacher.parameters or 0)
    page = (whole.run_folder / "report.html").read_text()
    assert report.training_digest[:12] in page

    again = whole.run().expect(0)
    assert "not started" in again.output
    assert_loads_and_serves(job.folder / "distilled")


def assert_loads_and_serves(folder: Path) -> None:
    """The exported folder loads in transformers and generates; vLLM gives the same greedy tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config.num_hidden_layers == 2
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    generate: Callable[..., torch.Tensor] = getattr(model, "generate")  # noqa: B009 - the type checker doesn't see it
    generated = generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None)
    wanted = generated[0, len(ids) :].tolist()
    assert "Teacher" in (folder / "README.md").read_text() or "teacher" in (folder / "README.md").read_text()

    assert served_tokens(folder, ids) == wanted


SERVE = """
import json, sys
from vllm import LLM, SamplingParams
engine = LLM(model=sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=256, disable_log_stats=True)
parameters = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
answer = engine.generate([{"prompt_token_ids": json.loads(sys.argv[2])}], parameters, use_tqdm=False)[0]
print("tokens", json.dumps(list(answer.outputs[0].token_ids)))
"""


def served_tokens(folder: Path, ids: list[int]) -> list[int]:
    """vLLM's greedy answer. In a process of its own: the engine binds its process to cores for good."""
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder), json.dumps(ids)],
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("tokens "))
    return json.loads(line.removeprefix("tokens "))


@pytest.mark.parametrize("mode", ["offline", "streaming"])
def test_offline_and_streaming_give_the_same_losses(job: LocalJob, finished_job: LocalJob, mode: str) -> None:
    other = job.changed(
        {
            "storage": {"uri": f"file://{job.folder}/{mode}"},
            "signal": {"mode": mode, "watermarkBytes": 30_000},
            "training": {"checkpointEverySteps": 2},
        },
        name=mode,
    )
    other.run().expect(0)
    assert other.losses() == pytest.approx(finished_job.losses(), rel=1e-5)
    kept = list((job.folder / mode).glob("trainings/*/signals/**/*.safetensors"))
    if mode == "streaming":
        shards = list((job.folder / mode).glob("trainings/*/signals/*/*"))
        assert len(kept) < 7 or not shards, "signals behind the last checkpoint are still there"
    else:
        teacher, student = other.logs("teacher"), other.logs("student")
        assert teacher
        assert student


def test_a_question_of_wrong_input_ends_with_one_sentence_and_65(job: LocalJob) -> None:
    broken = job.folder / "train.jsonl"
    broken.write_text(broken.read_text() + '{"prompt": "cut off\n')
    ended = job.run().expect(65)
    assert "train.jsonl:27" in ended.output
    assert "Traceback" not in ended.output

    typo = job.changed({"training": {"globalBatch": 0, "gradientChekpointing": True}}, name="typo")
    ended = typo.run().expect(65)
    assert "spec.training.globalBatch" in ended.output
    assert "spec.training.gradientChekpointing" in ended.output
    assert "Traceback" not in ended.output
