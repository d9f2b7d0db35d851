"""A student process from its start to its end: builds what the trainer needs, resumes, trains, exports."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from distill_runtime.contract import environment
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.order import training_order
from distill_runtime.data.plan import Plan
from distill_runtime.errors import Checkpointed
from distill_runtime.models import resolve_model
from distill_runtime.prepared import PlanReference, Prepared, read_prepared
from distill_runtime.process import Facts
from distill_runtime.progress import ProgressReporter, cache_folder
from distill_runtime.signals.addresses import EVALUATION, TRAIN, signal_of, student_reads_states
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_source import describe_head
from distill_runtime.store.base import ObjectStore
from distill_runtime.store.open import open_store
from distill_runtime.student.checkpoints import Checkpointer, CheckpointManifest, Position, newest_whole, restore
from distill_runtime.student.distributed import (
    Ranks,
    StopRequest,
    agree,
    deepspeed_settings,
    first_rank_does,
    start_processes,
    wait_together,
)
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.fence import Fence
from distill_runtime.student.finish import finish, read_finished
from distill_runtime.student.grouping import Limits
from distill_runtime.student.held_out import HeldOut
from distill_runtime.student.model import DTYPES, assert_head_fits, build_model, read_config
from distill_runtime.student.module import DistilledStudent
from distill_runtime.student.reader import Reader, TeacherSide
from distill_runtime.student.self_checks import assert_resumed, check_packing, probe_loss
from distill_runtime.student.trained import choose_trained
from distill_runtime.student.trainer import Trainer
from distill_runtime.transport.interface import SignalSource
from distill_runtime.transport.objectstore_source import ObjectStoreSource
from distill_runtime.transport.patience import patient

log = logging.getLogger(__name__)

OpenSource = Callable[[ObjectStore, RunConfig, Prepared, Path, Ranks], SignalSource]
"""Makes the student's end of the transport."""


def objectstore_source(
    store: ObjectStore, config: RunConfig, prepared: Prepared, cache: Path, ranks: Ranks
) -> SignalSource:
    """Signals as objects; rank 0 tells the teachers where the student is."""
    teachers = int(os.environ.get(environment.TEACHERS, config.work.teacher.replicas))
    return ObjectStoreSource(store, config, prepared, cache=cache, teachers=teachers, publishes=ranks.first)


@dataclass(frozen=True)
class Site:
    """Where a process works."""

    config: RunConfig
    prepared: Prepared
    store: ObjectStore
    ranks: Ranks
    cache: Path
    """May be lost, may be shared by the processes of a node."""
    student_folder: Path

    @property
    def scratch(self) -> Path:
        """For this attempt alone."""
        return self.cache / "student" / f"{self.config.uid}-{self.config.attempt}"


def train(config: RunConfig, open_source: OpenSource = objectstore_source) -> Facts:
    """The student's role: trains, exports, and says what came of it. A finished training is not repeated.

    Raises
    ------
    RunError
        UserError, RetryError or Checkpointed, the same on all ranks where they can still speak to each other.
    """
    transformers.utils.logging.disable_progress_bar()
    ranks = start_processes(config.work.student.gpus_per_worker)
    # From here on SIGTERM waits for the end of a step.
    stop = StopRequest()
    progress = ProgressReporter("student") if ranks.first else None
    if progress is not None:
        progress.update(stage="load")
    store = patient(open_store(config.work.storage))
    prepared = agree(lambda: read_prepared(store, config), ranks)
    finished = agree(lambda: read_finished(store, prepared.training_digest), ranks)
    if finished is not None:
        log.info("the training is finished already: %d steps, step %d exported", finished.steps, finished.exported_step)
        return finished.facts
    cache = cache_folder()

    def take_fence() -> Fence:
        return Fence.take(store, prepared.training_digest, uid=config.uid, attempt=config.attempt)

    fence = agree(lambda: take_fence() if ranks.first else None, ranks)
    site = Site(config, prepared, store, ranks, cache, _student_folder(config, prepared, store, ranks, cache))
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        shutil.rmtree(site.scratch, ignore_errors=True)
    source = open_source(store, config, prepared, cache, ranks) if config.work.learns_from_teacher else None
    try:
        trainer = _make_trainer(site, source, fence, stop, progress)
        position = trainer.run()
        if stop.asked:
            raise Checkpointed("stopped by SIGTERM before the export; all steps are saved.")
        return _end(site, fence, position, progress)
    finally:
        if source is not None:
            source.close()


def _end(site: Site, fence: Fence | None, position: Position, progress: ProgressReporter | None) -> Facts:
    if progress is not None:
        progress.update(stage="export", done=0, total=None)

    def export() -> Facts:
        assert fence is not None
        done = finish(
            site.store,
            site.config,
            site.prepared,
            fence,
            position,
            student_folder=site.student_folder,
            scratch=site.scratch,
        )
        return done.facts

    facts = first_rank_does(export, site.ranks)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        shutil.rmtree(site.scratch, ignore_errors=True)
    return facts


def _student_folder(config: RunConfig, prepared: Prepared, store: ObjectStore, ranks: Ranks, cache: Path) -> Path:
    """The initial student's folder: fetched by one process of each node, then found by the others."""
    local_first = int(os.environ.get("LOCAL_RANK", "0")) == 0

    def fetch() -> Path:
        return resolve_model(prepared.student.uri, config.work.storage, cache=cache, store=store).folder

    agree(lambda: fetch() if local_first else None, ranks)
    return agree(fetch, ranks)


def _make_trainer(
    site: Site,
    source: SignalSource | None,
    fence: Fence | None,
    stop: StopRequest,
    progress: ProgressReporter | None,
) -> Trainer:
    config, prepared, ranks = site.config, site.prepared, site.ranks
    training = config.work.training
    plan = agree(lambda: Plan(site.store, prepared.train), ranks)
    teacher_head = _teacher_head(site, source, stop)
    engine = _make_engine(site)
    head = describe_head(site.student_folder, prepared.vocabulary)
    varlen = training.packing and training.attention == "flash_attention_2"
    samples = [plan.sequence(number) for number in range(min(3, len(plan)))]
    precision = prepared.training_precision

    limits = Limits(rows=training.micro_batch)
    if training.micro_batch_tokens is not None:
        limits = Limits(rows=None, tokens=training.micro_batch_tokens)

    def reader(name: str, of: Plan) -> Reader:
        row = signal_of(prepared, name).row
        return Reader(
            name,
            of,
            None if source is None else TeacherSide(source, row, teacher_head),
            ranks,
            limits=limits,
            row_tokens=config.work.data.max_length if training.packing else None,
            varlen=varlen,
        )

    train_reader = reader(TRAIN, plan)

    def probe() -> float:
        return probe_loss(engine, train_reader, samples[0], head, ranks, precision)

    probe()
    if training.packing:
        check_packing(engine, samples, ranks, precision, varlen=varlen)
    checkpointer = Checkpointer(
        site.store,
        prepared.training_digest,
        ranks,
        fence=fence,
        attempt=config.attempt,
        scratch=site.scratch,
        keep=training.keep_checkpoints,
    )
    trainer = Trainer(
        work=config.work,
        plan=plan,
        order=training_order(plan.shard_sizes, training, [source.share for source in prepared.sources]),
        total_steps=prepared.total_steps,
        engine=engine,
        reader=train_reader,
        held_out=_held_out(site, prepared.evaluation, reader),
        source=source,
        checkpointer=checkpointer,
        ranks=ranks,
        stop=stop,
        progress=progress,
        probe=probe,
    )
    return _resumed(trainer, site, fence)


def _teacher_head(site: Site, source: SignalSource | None, stop: StopRequest) -> OutputHead | None:
    """The teacher's head on this process's device, where the training reads hidden states or held-out data does."""
    if source is None or not student_reads_states(site.prepared):
        return None
    found = wait_together(source.head, site.ranks, stop)
    if found is None:
        raise Checkpointed("stopped by SIGTERM while waiting for the teacher; nothing is lost.")
    return found.on(site.ranks.device)


def _make_engine(site: Site) -> StudentEngine:
    config, prepared, ranks = site.config, site.prepared, site.ranks
    training, trusted = config.work.training, config.work.student.trust_remote_code
    head = describe_head(site.student_folder, prepared.vocabulary)
    settings: dict[str, Any] = deepspeed_settings(training, prepared.training_precision, ranks.world)
    model = build_model(
        site.student_folder,
        read_config(site.student_folder, tied=head.tied, trust_remote_code=trusted),
        training,
        dtype=DTYPES[prepared.training_precision],
        settings=settings,
        trust_remote_code=trusted,
    )
    assert_head_fits(model, head)
    choose_trained(model, config.work.student, zero3=settings if training.zero_stage == 3 else None)
    module = DistilledStudent(model, head=head, objective=config.work.objective)
    return StudentEngine(module, training.optimizer, settings)


def _held_out(site: Site, reference: PlanReference | None, reader: Callable[[str, Plan], Reader]) -> HeldOut | None:
    if reference is None:
        return None
    plan = agree(lambda: Plan(site.store, reference), site.ranks)
    size = site.config.work.training.global_batch
    return HeldOut(plan, reader(EVALUATION, plan), site.ranks, set_size=size)


def _resumed(trainer: Trainer, site: Site, fence: Fence | None) -> Trainer:
    """The trainer, where the newest whole checkpoint left off."""

    def find() -> CheckpointManifest | None:
        if fence is None:
            return None
        manifest, damaged = newest_whole(site.store, fence.state.checkpoints, fence.state.best)
        if damaged:
            trainer.checkpointer.forget(damaged)
        return manifest

    manifest = first_rank_does(find, site.ranks)
    if manifest is None:
        return trainer
    restore(trainer.engine, site.store, manifest)
    position = manifest.position
    assert_resumed(manifest.probe_loss, trainer.probe(), position.step, site.prepared.training_precision)
    trainer.position = position
    trainer.checkpointer.saved_step = position.step
    if site.ranks.first:
        log.info("resumed behind step %d of %d", position.step, site.prepared.total_steps)
    return trainer
