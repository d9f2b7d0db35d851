"""A job that trains a part of its student, from `distillctl run` to the report."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.runtime.end_to_end.local_job import LocalJob


def test_an_adapter_on_the_most_influential_layers_with_another_optimizer(
    finished_job: LocalJob, tmp_path: Path
) -> None:
    target = tmp_path / "copied"
    job = finished_job.changed(
        {
            "student": {
                "initialise": {
                    "fromTeacher": {
                        "every": None,
                        "byInfluence": {"keep": 3, "sequences": 8},
                        "neurons": {"keep": 96, "sequences": 8},
                    }
                },
                "adapter": {"kind": "dora", "rank": 4, "alpha": 8},
                "workers": 2,
            },
            "training": {
                "zeroStage": 3,
                "optimizer": {
                    "kind": "torch",
                    "torch": {"name": "NAdam", "arguments": {"betas": [0.8, 0.9]}},
                    "learningRate": 0.01,
                },
                "deepspeed": {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            },
            "output": {"uri": f"file://{target}"},
        },
        name="adapted",
    )
    job.run().expect(0)
    assert "influence of the teacher's layers over 8 sequences" in job.logs("prepare")
    assert "that 96 of 128 neurons keep, over 8 sequences" in job.logs("prepare")
    report = job.report()
    assert report.training["trained"] == "a DoRA adapter of rank 4, alpha 8"
    assert report.training["optimizer"] == "NAdam (betas (0.8, 0.9))"
    assert job.losses()[-1] < job.losses()[0] - 0.05
    before, after = report.student_before.perplexity, report.student_after.perplexity
    assert before is not None
    assert after is not None
    assert after < before
    assert report.student_after.parameters == report.student_before.parameters, "the adapter is merged"
    # The adapter on the initial student, which the store has, is the model that was scored.
    (initial,) = [path.parent for path in job.store.glob("models/*/config.json") if layers(path.parent) == 3]
    base: Any = AutoModelForCausalLM.from_pretrained(initial, dtype=torch.float32)
    merged: Any = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        wanted = merged(ids).logits
        torch.testing.assert_close(PeftModel.from_pretrained(base, str(target / "adapter"))(ids).logits, wanted)


def layers(folder: Path) -> int:
    return AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers


def test_frozen_embeddings_are_exported_as_they_were(finished_job: LocalJob) -> None:
    job = finished_job.changed({"student": {"freeze": ["embeddings", "outputHead"]}}, name="frozen")
    job.run().expect(0)
    assert job.report().training["trained"] == "all but embeddings, outputHead"
    assert job.losses() != finished_job.losses()
    assert job.losses()[0] == finished_job.losses()[0], "the first loss is the untrained student's"
