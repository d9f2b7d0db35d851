"""Answers of the real engines, each in a process of its own, on a tiny model in float32."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation import generation
from distill_runtime.evaluation.generate_answers import answer_text
from distill_runtime.evaluation.generation import GenerationRequest, generate_answers
from tests.fixtures.models import tiny_tokenizer
from tests.runtime.evaluation.tiny_job import END, QUESTIONS, TinyJob, prompt_ids


def request(job: TinyJob, **changes: Any) -> GenerationRequest:
    base = GenerationRequest(
        model=str(job.teacher),
        field="evaluation.tasks[capitals]",
        engine="transformers",
        dtype="float32",
        gpus=0,
        trust_remote_code=False,
        prompts=[prompt_ids(question) for question in QUESTIONS],
        stop_token_ids=[END],
        max_new_tokens=12,
        batch_tokens=8192,
    )
    return base.model_copy(update=changes)


def greedy(model: Path, prompt: list[int], length: int, stops: set[int]) -> list[int]:
    """Greedy ids by the definition: the whole text is read anew for each next token."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(loaded(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def by_hand(job: TinyJob) -> list[list[int]]:
    return [greedy(job.teacher, prompt_ids(question), 12, set()) for question in QUESTIONS]


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_both_engines_give_the_greedy_answers_and_end_at_the_stop_ids(
    job: TinyJob, by_hand: list[list[int]], engine: str
):
    # A stop id that really comes, after other ids.
    stopped, cut = next((n, i) for n, ids in enumerate(by_hand) for i in range(1, 12) if ids[i] not in ids[:i])
    stops = [by_hand[stopped][cut]]
    told: list[int] = []
    found = generate_answers(request(job, engine=engine, stop_token_ids=stops), progress=told.append)
    assert found == [answer_text(tiny_tokenizer(), ids, stops) for ids in by_hand]
    assert found[stopped] == answer_text(tiny_tokenizer(), by_hand[stopped][:cut], [])
    assert len(set(found)) > 1
    assert told == sorted(told)


def test_small_batches_and_the_checkpoints_sampling_settings_change_no_answer(
    tmp_path: Path, job: TinyJob, by_hand: list[list[int]]
):
    model = tmp_path / "penalised"
    model.mkdir()
    for file in job.teacher.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 9.0, "eos_token_id": 7}'
    )
    found = generate_answers(request(job, model=str(model), batch_tokens=1, stop_token_ids=[]))
    assert found == [answer_text(tiny_tokenizer(), ids, []) for ids in by_hand]


def test_an_answer_has_no_stop_id_special_token_or_space_around_it():
    tokenizer = tiny_tokenizer()
    text = tokenizer.encode(" the answer\n", add_special_tokens=False)
    assert answer_text(tokenizer, [1, *text, END, *text], [END]) == "the answer"
    assert answer_text(tokenizer, [END, *text], [END]) == ""


def test_no_questions_need_no_engine(job: TinyJob):
    assert generate_answers(request(job, model="/nowhere", prompts=[])) == []


def test_a_prompt_that_is_too_long_for_the_model_is_named(job: TinyJob):
    prompts = [[5] * 10, [5] * 505]
    with pytest.raises(UserError, match=r"tasks\[capitals\]: the prompt of example 1 has 505 tokens"):
        generate_answers(request(job, prompts=prompts))


def test_an_engine_that_dies_leaves_one_sentence(tmp_path: Path, job: TinyJob, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(generation, "CHILD", "dying")
    with pytest.raises(RetryError, match=r"answers the questions of evaluation.tasks\[capitals\] ended with code -9"):
        generate_answers(request(job))


def test_missing_answers_are_never_taken_for_empty_ones(tmp_path: Path, job: TinyJob, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lazy.py").write_text(
        'import sys\nopen(sys.argv[2], \'w\').write(\'{"example": 0, "text": "paris"}\\n\')\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(generation, "CHILD", "lazy")
    with pytest.raises(RetryError, match=r"gave 1 answers to the 4 questions of evaluation.tasks\[capitals\]"):
        generate_answers(request(job))


def test_an_engine_does_not_outlive_the_process_that_asked(tmp_path: Path):
    (tmp_path / "waiting.py").write_text(
        "import time\n"
        "from distill_runtime.evaluation.generation import end_with_parent\n"
        "end_with_parent()\n"
        "print('waiting', flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'waiting'], stdin=subprocess.PIPE)\n"
        "time.sleep(300)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = time.monotonic()
    # The pipe ends when the child, its last writer, does.
    assert process.stdout.read() == ""
    assert time.monotonic() - killed < 60
    process.stdout.close()
