"""A job of tiny random models that is trained already: plans, tasks, signals and models are in a store."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM

from distill_runtime import layout
from distill_runtime.artifacts import store_folder
from distill_runtime.contract.report import CurvePoint
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import write_plan
from distill_runtime.data.sequence import Sequence
from distill_runtime.models import resolve_model
from distill_runtime.prepared import PlanReference, Prepared, TaskReference
from distill_runtime.signals.head_source import read_head
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.student.curves import write_segment
from distill_runtime.student.finish import Finished, finished_key
from distill_runtime.transport.objectstore_sink import ObjectStoreSink
from tests.fixtures.evaluations import evaluation_config, evaluation_prepared
from tests.fixtures.models import save_tiny_model, tiny_tokenizer

LABELS = ["loans", "cards", "transfers abroad"]
QUESTIONS = [
    "what is the capital of france?",
    "how long does a transfer take",
    "why was i charged twice",
    "two and two",
]
ANSWERS = [["paris", "Paris, France"], ["two days"], ["we reserve the sum first"], ["four"]]
END = 2


def prompt_ids(text: str) -> list[int]:
    ids = tiny_tokenizer().encode(text, add_special_tokens=False)
    return [1, *ids, END]


def held_out_sequences(vocabulary: int) -> list[Sequence]:
    """Eleven sequences of unequal lengths, with gaps among their targets."""
    random = np.random.default_rng(5)
    sequences: list[Sequence] = []
    for _ in range(11):
        length = int(random.integers(4, 30))
        mask = random.random(length) < 0.6
        mask[0], mask[-1] = False, True
        sequences.append(Sequence(random.integers(0, vocabulary, length).astype(np.int32), mask))
    return sequences


def label_sequences() -> list[Sequence]:
    sequences: list[Sequence] = []
    for question in QUESTIONS:
        prompt = prompt_ids(question)
        for label in LABELS:
            ids = [*prompt, *tiny_tokenizer().encode(label, add_special_tokens=False), END]
            mask = np.arange(len(ids)) >= len(prompt)
            sequences.append(Sequence(np.array(ids, dtype=np.int32), mask))
    return sequences


@dataclass
class TinyJob:
    folder: Path
    store: DirectoryStore
    config: RunConfig
    prepared: Prepared
    teacher: Path
    before: Path
    trained: Path
    held_out: list[Sequence]
    labels: list[Sequence]

    @classmethod
    def made_in(cls, folder: Path) -> "TinyJob":
        vocabulary = len(tiny_tokenizer())
        # The teacher's head is padded, the student's is not; head_dim 32 is the smallest that vLLM runs on processors.
        teacher = save_tiny_model(
            folder / "teacher", seed=1, layers=2, head_dim=32, vocabulary=vocabulary + 24, tie_word_embeddings=True
        )
        before = save_tiny_model(folder / "before", seed=2, layers=1, head_dim=32)
        trained = save_tiny_model(folder / "trained", seed=3, layers=1, head_dim=32)
        store = DirectoryStore(folder / "store")
        storage = f"file://{folder}/store"
        config = evaluation_config(storage)
        held_out, labels = held_out_sequences(vocabulary), label_sequences()
        train = cls._plan(store, "plans/train", held_out[:3])
        heldout = cls._plan(store, "plans/heldout", held_out)
        desks = cls._plan(store, "plans/desks", labels)
        model = layout.training_key("training-digest") + "/model"
        digest = store_folder(store, model, trained)
        prepared = evaluation_prepared(
            train=train,
            evaluation=heldout,
            tasks=cls._tasks(store, desks),
            teacher=resolve_model(f"file://{teacher}", config.work.storage, cache=folder / "cache").pin,
            student=resolve_model(f"file://{before}", config.work.storage, cache=folder / "cache").pin,
            vocabulary=vocabulary,
            report={"rows": 3, "targets": train.targets},
        )
        store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
        finished = Finished(
            steps=8,
            exported_step=6,
            final_loss=1.5,
            held_out_loss=1.25,
            wait_fraction=0.1,
            tokens_per_second=100.0,
            model=model,
            model_digest=digest,
        )
        store.put(finished_key("training-digest"), finished.model_dump_json().encode())
        write_segment(store, "training-digest", [CurvePoint(step=n, loss=3 / n, seconds=1.0) for n in range(1, 9)], 1)
        job = cls(folder, store, config, prepared, teacher, before, trained, held_out, labels)
        job._write_signals()
        return job

    @staticmethod
    def _plan(store: DirectoryStore, key: str, sequences: list[Sequence]) -> PlanReference:
        return write_plan(store, key, enumerate(sequences), shard_sequences=4)

    @staticmethod
    def _tasks(store: DirectoryStore, desks: PlanReference) -> list[TaskReference]:
        right = {"desks": [["loans"], ["transfers abroad"], ["cards"], ["loans"]], "capitals": ANSWERS}
        tasks: list[TaskReference] = []
        for name, answers in right.items():
            classified = name == "desks"
            kind = "classification" if classified else "questionAnswering"
            examples = TaskExamples(
                name=name,
                kind=kind,
                labels=LABELS if classified else [],
                prompts=QUESTIONS,
                prompt_ids=[prompt_ids(question) for question in QUESTIONS],
                answers=answers,
                stop_token_ids=[END],
                max_new_tokens=0 if classified else 8,
            )
            key = f"plans/{name}-examples.json"
            store.put(key, examples.model_dump_json().encode())
            plan = desks if classified else None
            tasks.append(TaskReference(name=name, kind=kind, digest=f"{name}-1", examples_key=key, plan=plan))
        return tasks

    def _write_signals(self) -> None:
        sink = ObjectStoreSink(self.store, self.config, self.prepared, replica="t0")
        sink.publish_head(read_head(self.teacher, self.prepared.vocabulary))
        body = AutoModel.from_pretrained(self.teacher, dtype=torch.float32).eval()
        while (work := sink.take()) is not None:
            rows: list[torch.Tensor] = []
            for sequence in work.sequences:
                ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
                with torch.no_grad():
                    states = body(input_ids=ids).last_hidden_state[0]
                rows.append(states[torch.from_numpy(sequence.signal_positions)])
            sink.put(work, rows)
        sink.close()

    def log_probabilities(self, model: Path, sequences: list[Sequence]) -> list[torch.Tensor]:
        """Of each sequence the log-softmax of the model's own logits before its targets, over the real vocabulary:
        computed by transformers, one sequence at a time."""
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        rows: list[torch.Tensor] = []
        for sequence in sequences:
            with torch.no_grad():
                logits = loaded(torch.from_numpy(sequence.ids.astype(np.int64))[None]).logits[0]
            logits = logits[torch.from_numpy(sequence.signal_positions), : self.prepared.vocabulary]
            rows.append(torch.log_softmax(logits.double(), -1))
        return rows


def target_log_probabilities(rows: list[torch.Tensor], sequences: list[Sequence]) -> list[torch.Tensor]:
    """The log-probability of each target of each sequence."""
    return [
        log_p[torch.arange(len(log_p)), torch.from_numpy(sequence.ids[sequence.targets].astype(np.int64))]
        for log_p, sequence in zip(rows, sequences, strict=True)
    ]
