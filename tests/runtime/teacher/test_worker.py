"""The teacher's loop: takes shards, scores them, keeps writing behind the engine, marks what can't be scored."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError
from distill_runtime.progress import ProgressReporter
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import decode_rows
from distill_runtime.signals.teacher_rows import SampledRows, TopKRows
from distill_runtime.teacher.encoder import BUFFER_BYTES, RowEncoder
from distill_runtime.teacher.engine import TeacherEngine
from distill_runtime.teacher.transformers_engine import TransformersEngine, token_batches
from distill_runtime.teacher.vllm_engine import memory_share
from distill_runtime.teacher.worker import SignalWorker, groups_by_tokens, score_sequences
from distill_runtime.transport.interface import ShardWork, SignalSink
from tests.fixtures.families import some_sequences
from tests.fixtures.models import save_tiny_model

HIDDEN = RowFormat(kind="hidden", dtype="float32", width=64)


class _ListSink(SignalSink):
    """A sink over a list of shards. As the real one: `take` waits for shards in flight, and `close` wakes it up."""

    def __init__(self, shards: list[ShardWork]) -> None:
        self.waiting = list(shards)
        self.stored: dict[int, list[torch.Tensor]] = {}
        self.failed: dict[int, str] = {}
        self.error: Exception | None = None
        self.closed = threading.Event()
        self._settled = threading.Event()
        self._wanted = len(shards)

    def publish_head(self, head: OutputHead) -> None:
        raise AssertionError("the loop publishes no head")

    def take(self) -> ShardWork | None:
        if self.closed.is_set():
            return None
        if self.waiting:
            return self.waiting.pop(0)
        while len(self.stored) + len(self.failed) < self._wanted:
            assert self._settled.wait(timeout=30), "take waits for ever"
            if self.closed.is_set():
                return None
        return None

    def put(self, work: ShardWork, rows: list[torch.Tensor]) -> bool:
        if self.error is not None:
            raise self.error
        self.stored[work.shard] = rows
        if len(self.stored) + len(self.failed) == self._wanted:
            self._settled.set()
        return work.shard != 1  # As if another replica had been first there.

    def fail(self, work: ShardWork, message: str) -> None:
        self.failed[work.shard] = message

    def close(self) -> None:
        self.closed.set()
        self._settled.set()


class _NanEngine(TeacherEngine):
    """Answers one sequence with a state that is not finite: always, or only when others are beside it."""

    def __init__(self, engine: TeacherEngine, ids: list[int], position: int, *, alone: bool) -> None:
        self._engine, self._ids, self._position, self._alone = engine, ids, position, alone

    def hidden_states(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        states = self._engine.hidden_states(sequences)
        for ids, rows in zip(sequences, states, strict=True):
            if ids == self._ids and (self._alone or len(sequences) > 1):
                rows[self._position, 3] = float("inf")
        return states

    def close(self) -> None:
        self._engine.close()


def _sequence(ids: list[int], first_target: int) -> Sequence:
    mask = np.zeros(len(ids), dtype=np.bool_)
    mask[first_target:] = True
    return Sequence(ids=np.array(ids, dtype=np.int32), target_mask=mask)


def _shards(count: int, row: RowFormat = HIDDEN) -> list[ShardWork]:
    return [
        ShardWork("train", n, [_sequence(ids, 1 + i % 2) for i, ids in enumerate(some_sequences(n))], row, f"claim-{n}")
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    folder = save_tiny_model(tmp_path_factory.mktemp("teacher"), layers=2)
    return TransformersEngine(folder, dtype="float32", gpus=0, max_batch_tokens=64)


@pytest.fixture(scope="module")
def head() -> OutputHead:
    description = HeadDescription(hidden_size=64, padded_vocabulary=90, vocabulary=90)
    return OutputHead(description=description, weight=torch.randn(90, 64, generator=torch.Generator().manual_seed(3)))


def _worker(engine: TeacherEngine, sink: SignalSink, folder: Path, head: OutputHead | None = None) -> SignalWorker:
    nothing = OutputHead(HeadDescription(hidden_size=0, padded_vocabulary=0, vocabulary=0), torch.empty(0, 0))
    encode = RowEncoder(head or nothing, gpu=False)
    return SignalWorker(engine, sink, ProgressReporter("teacher", folder), encode=encode, max_batch_tokens=64)


def test_every_shard_is_stored_with_the_states_before_its_targets(engine: TransformersEngine, tmp_path: Path) -> None:
    shards = _shards(4)
    sink = _ListSink(shards)
    tally = _worker(engine, sink, tmp_path).run(sink.take())
    assert sorted(sink.stored) == [0, 1, 2, 3]
    assert (tally.shards_written, tally.shards_failed, tally.sequences) == (3, 0, 24)
    assert tally.tokens == sum(sequence.length for shard in shards for sequence in shard.sequences)
    for shard in shards:
        for sequence, rows in zip(shard.sequences, sink.stored[shard.shard], strict=True):
            alone = engine.hidden_states([sequence.ids.tolist()])[0]
            wanted = torch.stack([alone[target - 1] for target in range(1, len(alone)) if sequence.target_mask[target]])
            torch.testing.assert_close(rows, wanted, atol=5e-5, rtol=0)
    assert '"unit":"shards"' in (tmp_path / "progress.json").read_text()


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_of_a_compact_kind_the_distribution_under_the_head_is_stored(
    engine: TransformersEngine, head: OutputHead, tmp_path: Path, kind: str
) -> None:
    dtype = {"topk": "float32", "sampled": None}[kind]
    row = RowFormat.model_validate({"kind": kind, "dtype": dtype, "width": 40, "vocabulary": 90, "temperature": 2.0})
    shards = _shards(2, row)
    sink = _ListSink(shards)
    _worker(engine, sink, tmp_path, head).run(sink.take())
    for shard in shards:
        for sequence, stored in zip(shard.sequences, sink.stored[shard.shard], strict=True):
            states = engine.hidden_states([sequence.ids.tolist()])[0][torch.from_numpy(sequence.signal_positions)]
            wanted = torch.softmax(head.logits(states) / 2, -1)
            assert stored.nbytes == len(sequence.targets) * row.row_bytes
            rows = decode_rows(stored, row, None)
            if isinstance(rows, TopKRows):
                kept = wanted.gather(1, rows.ids)
                torch.testing.assert_close(rows.log_probabilities.exp(), kept, atol=1e-4, rtol=0)
                torch.testing.assert_close(rows.log_tail.exp(), 1 - kept.sum(-1), atol=1e-4, rtol=0)
            else:
                assert isinstance(rows, SampledRows)
                drawn = wanted.gather(1, rows.ids)
                # What was drawn at all holds most of the mass, and what was drawn often is likely.
                assert float((drawn * (rows.weights > 0)).sum(-1).min()) > 0.3
                assert float(rows.weights.sum(-1).min()) == pytest.approx(1)


def test_memory_of_a_gpu_is_kept_free_for_the_head_only_where_rows_need_it(head: OutputHead) -> None:
    compact = RowFormat(kind="sampled", dtype=None, width=4, vocabulary=90, temperature=1.0)
    on_gpu = RowEncoder(head, gpu=True)
    assert on_gpu.gpu_bytes([HIDDEN, HIDDEN]) == 0
    assert on_gpu.gpu_bytes([HIDDEN, compact]) == head.weight.nbytes + BUFFER_BYTES
    assert RowEncoder(head, gpu=False).gpu_bytes([compact]) == 0
    assert memory_share(0.9, total=24 * 2**30, beside=3 * 2**30) == pytest.approx(0.775)


def test_a_state_that_stays_not_finite_leaves_an_error_marker_that_names_the_row(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    shards = _shards(3)
    bad = shards[1].sequences[4]
    sink = _ListSink(shards)
    broken = _NanEngine(engine, bad.ids.tolist(), int(bad.signal_positions[7]), alone=True)
    tally = _worker(broken, sink, tmp_path).run(sink.take())
    assert sorted(sink.stored) == [0, 2]
    assert list(sink.failed) == [1]
    assert "row 4 in shard 1 of plan train" in sink.failed[1]
    assert f"position {bad.signal_positions[7]}" in sink.failed[1]
    assert bad.digest[:12] in sink.failed[1]
    assert tally.shards_failed == 1


def test_a_state_that_is_not_finite_only_in_a_batch_is_computed_again(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    shards = _shards(1)
    bad = shards[0].sequences[2]
    sink = _ListSink(shards)
    broken = _NanEngine(engine, bad.ids.tolist(), int(bad.signal_positions[0]), alone=False)
    _worker(broken, sink, tmp_path).run(sink.take())
    assert not sink.failed
    torch.testing.assert_close(
        sink.stored[0][2], engine.hidden_states([bad.ids.tolist()])[0][torch.from_numpy(bad.signal_positions)]
    )


def test_a_state_that_is_no_target_may_be_anything(engine: TransformersEngine, tmp_path: Path) -> None:
    shards = _shards(1)
    sequence = shards[0].sequences[2]
    sink = _ListSink(shards)
    _worker(_NanEngine(engine, sequence.ids.tolist(), sequence.length - 1, alone=True), sink, tmp_path).run(sink.take())
    assert list(sink.stored) == [0]


def test_an_error_while_writing_ends_the_loop_even_when_take_would_wait(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    sink = _ListSink(_shards(1))
    sink.error = RetryError("the store is gone", reason="StoreUnreachable")
    with pytest.raises(RetryError, match="the store is gone"):
        _worker(engine, sink, tmp_path).run(sink.take())
    assert sink.closed.is_set()


@pytest.mark.parametrize("most", [1, 40, 64, 10_000])
def test_scores_do_not_depend_on_how_a_shard_is_cut(engine: TransformersEngine, most: int) -> None:
    sequences = _shards(1)[0].sequences
    groups = groups_by_tokens(sequences, most)
    assert [sequence for group in groups for sequence in group] == sequences
    assert all(len(group) == 1 or sum(s.length for s in group) <= most for group in groups)
    for rows, wanted in zip(
        score_sequences(engine, sequences, most), score_sequences(engine, sequences, 1), strict=True
    ):
        torch.testing.assert_close(rows, wanted, atol=5e-5, rtol=0)


def test_batches_hold_every_sequence_once_and_keep_to_their_tokens() -> None:
    lengths = [5, 17, 40, 3, 64, 31, 200, 1, 1]
    batches = token_batches(lengths, 64)
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= 64 for batch in batches)


def test_the_role_says_what_is_missing_when_it_is_started_without_a_configuration(tmp_path: Path) -> None:
    environment = {**os.environ, "DISTILL_STATE_DIR": str(tmp_path)}
    environment.pop("DISTILL_RUN_CONFIG", None)
    ended = subprocess.run(
        [sys.executable, "-m", "distill_runtime.teacher"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 65
    assert "DISTILL_RUN_CONFIG is not set" in (tmp_path / "outcome.json").read_text()
