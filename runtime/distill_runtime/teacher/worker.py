"""The teacher's role: takes missing shards, scores them, writes what it says about each target."""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from distill_runtime.contract.facts import TeacherFacts
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.plan import Plan
from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import Checkpointed
from distill_runtime.models import resolve_pin
from distill_runtime.prepared import Prepared, read_prepared
from distill_runtime.process import Facts, replica_name
from distill_runtime.progress import ProgressReporter, cache_folder
from distill_runtime.signals.addresses import plan_references, signal_of
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_manifest import read_description
from distill_runtime.signals.head_source import read_head
from distill_runtime.store.base import ObjectStore
from distill_runtime.store.open import open_store
from distill_runtime.teacher.architectures import check_engine
from distill_runtime.teacher.canary import check_canary
from distill_runtime.teacher.encoder import Encode, RowEncoder
from distill_runtime.teacher.engine import TeacherEngine
from distill_runtime.transport.interface import ShardWork, SignalSink
from distill_runtime.transport.objectstore_sink import ObjectStoreSink
from distill_runtime.transport.patience import Pace, patient

SHARDS_IN_FLIGHT = 2
"""Scored shards that wait to be written while the engine works on."""
STEPS_PER_CALL = 4
"""Steps' worth of tokens that the engine is given at once: enough to fill its batches, and bounds the memory that
states of positions take which are no targets."""

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What a replica has done."""

    shards_written: int = 0
    """Shards whose signals count; not those that another replica wrote first."""
    shards_failed: int = 0
    """Shards that hold an error marker."""
    sequences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Wall time of scoring and writing, without loading."""

    def facts(self, *, shards: int, done: int, reused: int) -> Facts:
        """For the termination message. `shards` are all that the job wants, `done` and `reused` those of them that are
        there and that were there before."""
        facts = TeacherFacts(
            shards=shards,
            shards_done=done,
            shards_reused=reused,
            shards_written=self.shards_written,
            shards_failed=self.shards_failed,
            sequences=self.sequences,
            tokens=self.tokens,
            seconds=round(self.seconds, 3),
        )
        return facts.flat()


class SignalWorker:
    """Takes shards from a sink until nothing is left.

    While the engine scores a shard the one before it is encoded and written by a thread. `encode` makes of states what
    the shard wants stored. `done_and_total` says how many shards there are, for the progress.
    """

    def __init__(
        self,
        engine: TeacherEngine,
        sink: SignalSink,
        progress: ProgressReporter,
        *,
        encode: Encode,
        max_batch_tokens: int,
        done_and_total: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._progress = progress
        self._encode = encode
        self._tokens_per_call = STEPS_PER_CALL * max_batch_tokens
        self._done_and_total = done_and_total
        self._writing: deque[Future[bool]] = deque()
        self.tally = Tally()

    def run(self, first: ShardWork | None) -> Tally:
        """Scores `first` and all that can be taken after it.

        Raises
        ------
        RetryError, UserError
            What engine or sink raise, also while writing in the background.
        """
        began = time.monotonic()
        work = first
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="signals") as writer:
            while work is not None:
                started = time.monotonic()
                self._score(work, writer)
                self._report(work, time.monotonic() - started)
                self._collect(most=SHARDS_IN_FLIGHT)
                work = self._sink.take()
            self._collect(most=0)
        self.tally.seconds = time.monotonic() - began
        return self.tally

    def _score(self, work: ShardWork, writer: ThreadPoolExecutor) -> None:
        rows = score_sequences(self._engine, work.sequences, self._tokens_per_call)
        bad = recompute_bad_rows(self._engine, work.sequences, rows)
        if bad is None:
            future = writer.submit(self._write, work, rows)
            # A write that failed would keep its claim, and `take` would wait for it: closing wakes `take` up.
            future.add_done_callback(lambda done: self._sink.close() if done.exception() is not None else None)
            self._writing.append(future)
            return
        message = (
            f"the teacher's states of row {bad.sequence} in shard {work.shard} of plan {work.plan} (sequence "
            f"{work.sequences[bad.sequence].digest[:12]}) are not finite, also when it is scored alone; the first at "
            f"position {bad.position}: remove that row from the data, or use another teacher.dtype."
        )
        log.error("%s", message)
        self._sink.fail(work, message)
        self.tally.shards_failed += 1

    def _write(self, work: ShardWork, states: list[torch.Tensor]) -> bool:
        return self._sink.put(work, self._encode(work, states))

    def _report(self, work: ShardWork, seconds: float) -> None:
        tokens = sum(sequence.length for sequence in work.sequences)
        self.tally.sequences += len(work.sequences)
        self.tally.tokens += tokens
        done, total = self._done_and_total() if self._done_and_total is not None else (self.tally.shards_written, None)
        self._progress.update(
            stage="signals", unit="shards", done=done, total=total, tokens_per_second=tokens / max(seconds, 1e-9)
        )

    def _collect(self, *, most: int) -> None:
        """Waits until at most `most` writes are in flight; raises what a write raised."""
        while self._writing and (len(self._writing) > most or self._writing[0].done()):
            self.tally.shards_written += self._writing.popleft().result()


def score_sequences(engine: TeacherEngine, sequences: list[Sequence], tokens_per_call: int) -> list[torch.Tensor]:
    """The states [targets, hidden_size] at the signal positions of each sequence."""
    rows: list[torch.Tensor] = []
    for group in groups_by_tokens(sequences, tokens_per_call):
        states = engine.hidden_states([sequence.ids.tolist() for sequence in group])
        rows.extend(_at_targets(sequence, all_rows) for sequence, all_rows in zip(group, states, strict=True))
    return rows


def groups_by_tokens(sequences: list[Sequence], most: int) -> list[list[Sequence]]:
    """Neighbours, in order, with at most `most` tokens together; one sequence alone may have more."""
    groups: list[list[Sequence]] = []
    tokens = 0
    for sequence in sequences:
        if groups and tokens + sequence.length <= most:
            groups[-1].append(sequence)
            tokens += sequence.length
        else:
            groups.append([sequence])
            tokens = sequence.length
    return groups


@dataclass(frozen=True)
class BadRow:
    """A sequence whose states are not finite."""

    sequence: int
    """Its place in the shard."""
    position: int
    """The first signal position that is not finite."""


def recompute_bad_rows(engine: TeacherEngine, sequences: list[Sequence], rows: list[torch.Tensor]) -> BadRow | None:
    """Scores each sequence with states that are not finite once more, alone; replaces its entry in `rows`.

    Returns the first sequence for which that didn't help.
    """
    for number, sequence in enumerate(sequences):
        if bool(torch.isfinite(rows[number]).all()):
            continue
        log.warning("states of sequence %s are not finite: it is scored again, alone", sequence.digest[:12])
        again = _at_targets(sequence, engine.hidden_states([sequence.ids.tolist()])[0])
        finite = torch.isfinite(again).all(-1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            return BadRow(sequence=number, position=int(sequence.signal_positions[first]))
        rows[number] = again
    return None


def _at_targets(sequence: Sequence, states: torch.Tensor) -> torch.Tensor:
    """[length, hidden_size] -> [targets, hidden_size]"""
    return states[torch.from_numpy(sequence.signal_positions)]


def run_teacher(config: RunConfig) -> Facts:
    """Runs the teacher's role until no signal is missing.

    Raises
    ------
    Checkpointed
        SIGTERM: nothing is finished, the claims lapse, another replica takes what was in work.
    RetryError, UserError
        See the parts.
    """
    stop = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        stop.set()

    # The work runs in a thread, since a handler can't interrupt an engine that computes: the main thread waits for
    # either, and the end of the process takes the thread along.
    previous = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        replica = Replica(config)
        result: Future[Facts] = Future()
        threading.Thread(target=_into, args=(result, replica.run), name="teacher", daemon=True).start()
        result.add_done_callback(lambda done: stop.set())
        stop.wait()
        if not result.done():
            replica.close()
            raise Checkpointed("the teacher was told to end; what it had in work goes to another replica.")
        return result.result()
    finally:
        signal.signal(signal.SIGTERM, previous)


def _into(result: Future[Facts], work: Callable[[], Facts]) -> None:
    try:
        facts = work()
    except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
        result.set_exception(error)
    else:
        result.set_result(facts)


class Replica:
    """One teacher replica: its store, its sink, and its engine once there is something to do."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._name = replica_name()
        self._has_work = False
        self._progress = ProgressReporter("teacher")
        # The sink's heartbeat beats again rather than wait: it gets the store without patience.
        store = open_store(config.work.storage)
        self._store = patient(store)
        self._prepared = read_prepared(self._store, config)
        self._sink = ObjectStoreSink(store, config, self._prepared, replica=self._name, pace=Pace(sleep=self._pause))

    def run(self) -> Facts:
        """Publishes the head where it is missing, then scores what is missing.

        Where nothing is, no engine is loaded or even imported.
        """
        try:
            return self._run()
        finally:
            self._sink.close()

    def close(self) -> None:
        """Says that this replica has ended. Called from another thread than `run`'s."""
        self._sink.close()

    def _run(self) -> Facts:
        self._progress.update(stage="load", unit="shards")
        folder: Path | None = None
        head: OutputHead | None = None
        # Readers wait for the head: it comes before the first shard.
        if read_description(self._store, self._prepared) is None:
            folder = self._resolve()
            head = self._publish_head(folder)
        first = self._sink.take()
        reused, _ = self._sink.progress()
        if first is None:
            log.info("no signal is missing: nothing to do")
            return self._facts(Tally(), reused)
        self._has_work = True
        self._progress.update(stage="load")
        folder = folder or self._resolve()
        head = head or self._publish_head(folder)
        longest = longest_sequence(self._store, self._prepared)
        encoder = RowEncoder(head, gpu=self._config.work.teacher.gpus > 0)
        rows = [signal_of(self._prepared, plan).row for plan in plan_references(self._prepared)]
        engine = self._start_engine(folder, longest, beside_bytes=encoder.gpu_bytes(rows))
        try:
            self._progress.update(stage="canary")
            figures = check_canary(engine, head, self._prepared, self._store, replica=self._name, longest=longest)
            log.info("the canary agrees: %s", figures)
            worker = SignalWorker(
                engine,
                self._sink,
                self._progress,
                encode=encoder,
                max_batch_tokens=self._config.work.teacher.max_batch_tokens,
                done_and_total=self._sink.progress,
            )
            return self._facts(worker.run(first), reused)
        finally:
            engine.close()

    def _facts(self, tally: Tally, reused: int) -> Facts:
        done, shards = self._sink.progress()
        return tally.facts(shards=shards, done=done, reused=reused)

    def _pause(self, seconds: float) -> None:
        """A pause of the sink. Before the engine is loaded it says so: a replica that others leave nothing to do is up,
        however long that takes."""
        if not self._has_work:
            self._progress.update(stage="wait")
        time.sleep(seconds)

    def _resolve(self) -> Path:
        cache = cache_folder()
        return resolve_pin(self._prepared.teacher, self._config.work.storage, cache=cache, store=self._store)

    def _publish_head(self, folder: Path) -> OutputHead:
        # In the checkpoint's own precision: rounding it would change the teacher's distribution.
        head = read_head(folder, self._prepared.vocabulary)
        self._sink.publish_head(head)
        return head

    def _start_engine(self, folder: Path, longest: int, *, beside_bytes: int) -> TeacherEngine:
        teacher = self._config.work.teacher
        check_engine(teacher.engine, folder)
        log.info("loading the teacher from %s on %s", folder, teacher.engine)
        began = time.monotonic()
        if teacher.engine == "vllm":
            # Imported here alone: it takes seconds, and a replica that has nothing to do should not pay for it.
            from distill_runtime.teacher.vllm_engine import VllmEngine

            engine: TeacherEngine = VllmEngine(
                folder,
                dtype=self._prepared.teacher_dtype,
                gpus=teacher.gpus,
                max_batch_tokens=teacher.max_batch_tokens,
                longest=longest,
                beside_bytes=beside_bytes,
                trust_remote_code=teacher.trust_remote_code,
            )
        else:
            from distill_runtime.teacher.transformers_engine import TransformersEngine

            engine = TransformersEngine(
                folder,
                dtype=self._prepared.teacher_dtype,
                gpus=teacher.gpus,
                max_batch_tokens=teacher.max_batch_tokens,
                trust_remote_code=teacher.trust_remote_code,
            )
        log.info("the teacher is up after %.1f s", time.monotonic() - began)
        return engine


def longest_sequence(store: ObjectStore, prepared: Prepared) -> int:
    """Tokens of the longest sequence of the job's plans, as the teacher reads it, and of the canary."""
    references = [prepared.train, prepared.evaluation, *(task.plan for task in prepared.tasks)]
    lengths = [Plan(store, reference).longest_for_teacher for reference in references if reference is not None]
    return max([len(prepared.teacher_canary), *lengths])
