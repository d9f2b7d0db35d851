"""What a job needs signals for, in which order, and what is missing of it."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.order import training_order
from distill_runtime.data.plan import Plan
from distill_runtime.prepared import Prepared, Record
from distill_runtime.signals.addresses import TRAIN, plan_references, signal_of, signal_root
from distill_runtime.signals.head_manifest import is_published
from distill_runtime.signals.shards import Shard, list_states, shard_of_plan
from distill_runtime.store.base import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)


class Consumption(Record):
    """How far the student is; published by its rank 0 under the training."""

    uid: str
    attempt: int
    checkpoint: int
    """Everything before this step is durable."""
    step: int
    """The step that reads now."""
    finished: bool = False
    """No training step will read any more."""


NOTHING_READ = Consumption(uid="", attempt=1, checkpoint=0, step=0)


def consumption_key(prepared: Prepared) -> str:
    """Where a training's student says how far it is."""
    return f"{layout.training_key(prepared.training_digest)}/consumed.json"


def read_consumption(store: ObjectStore, prepared: Prepared) -> Consumption:
    """How far the student is; at the beginning where it hasn't said."""
    key = consumption_key(prepared)
    try:
        return Consumption.model_validate_json(store.get(key))
    except ObjectMissing:
        return NOTHING_READ
    except ValidationError:
        # The student writes it again in seconds; to begin with the first step is never wrong, only slower.
        log.warning("%s/%s can't be read: taken for a training that hasn't begun", store.uri, key)
        return NOTHING_READ


@dataclass(frozen=True)
class Wanted:
    """A shard of one of the job's plans."""

    plan: str
    index: int
    """Number of the shard in the plan."""
    shard: Shard


class Demand:
    """The job's shards in the order in which the student needs them: held-out data, training data by first use, tasks.

    Shards with the same sequences share their signals and are wanted once.
    """

    def __init__(self, store: ObjectStore, config: RunConfig, prepared: Prepared) -> None:
        asked = plan_references(prepared)
        self._asked = frozenset(asked)
        self.plans = {name: Plan(store, reference) for name, reference in {**asked, TRAIN: prepared.train}.items()}
        self.signals = {name: signal_of(prepared, name) for name in self.plans}
        """What is stored about the targets of each plan."""
        self._roots = {name: signal_root(config, prepared, name) for name in self.plans}
        self.streaming = config.work.signal.mode == "streaming"
        shares = [source.share for source in prepared.sources]
        self.order = training_order(self.plans[TRAIN].shard_sizes, config.work.training, shares)

    @property
    def roots(self) -> list[str]:
        """Where the job's signals are, each once."""
        return list(dict.fromkeys(root for name, root in self._roots.items() if name in self._asked))

    @property
    def train_root(self) -> str:
        """Where the training data's signals are."""
        return self._roots[TRAIN]

    def wanted(self, plan: str, index: int) -> Wanted:
        """One shard of a plan."""
        described = self.plans[plan].manifest.shards[index]
        return Wanted(plan, index, shard_of_plan(self._roots[plan], self.signals[plan], described))

    def before_training(self) -> list[Wanted]:
        """Shards of the held-out data: read before the first step."""
        return self._whole([name for name in self.plans if name != TRAIN and not name.startswith("task-")])

    def after_training(self) -> list[Wanted]:
        """Shards of the tasks: read when the student is scored."""
        return self._whole([name for name in self.plans if name.startswith("task-")])

    def _whole(self, plans: list[str]) -> list[Wanted]:
        return _once(self.wanted(name, index) for name in plans for index in range(len(self.plans[name].shard_sizes)))

    def training(self, first_step: int = 0) -> list[Wanted]:
        """Shards that the steps from `first_step` on read, in the order of their first use."""
        if TRAIN not in self._asked:
            return []
        return _once(self.wanted(TRAIN, index) for index in self.order.shards_by_first_use(first_step))

    def all(self, consumption: Consumption = NOTHING_READ) -> list[Wanted]:
        """All shards that the job still needs. In streaming mode: those of steps that aren't durable."""
        training: list[Wanted] = []
        if not self.streaming:
            training = self.training()
        elif not consumption.finished:
            training = self.training(consumption.checkpoint)
        return _once([*self.before_training(), *training, *self.after_training()])

    def window(self, consumption: Consumption, *, watermark_bytes: int) -> list[Wanted]:
        """Streaming: the shards that should exist now, in the order of their first use.

        These are the ones that steps [checkpoint, step] read, and those read first after `step`, as long as the ones
        before are at most `watermark_bytes`; so one shard ahead always is among them.
        """
        if consumption.finished or TRAIN not in self._asked:
            return []
        position = max(consumption.step, consumption.checkpoint)
        found: dict[str, Wanted] = {}
        ahead = 0
        for step, item in self._uses(consumption.checkpoint):
            if item.shard.folder in found:
                continue
            if step > position:
                if ahead > watermark_bytes:
                    break
                ahead += sum(item.shard.targets) * item.shard.signal.row.row_bytes
            found[item.shard.folder] = item
        return list(found.values())

    def _uses(self, first_step: int) -> Iterator[tuple[int, Wanted]]:
        seen: set[int] = set()
        for step in range(first_step, self.order.total_steps):
            for index in self.order.shards_of_step(step):
                if index not in seen:
                    seen.add(index)
                    yield step, self.wanted(TRAIN, index)
            if len(seen) == len(self.plans[TRAIN].shard_sizes):
                return


def _once(wanted: Iterable[Wanted]) -> list[Wanted]:
    found: dict[str, Wanted] = {}
    for item in wanted:
        found.setdefault(item.shard.folder, item)
    return list(found.values())


def missing_shards(store: ObjectStore, config: RunConfig, prepared: Prepared) -> int:
    """Shards without signals that the job needs, the output head counted as one; 0: no teacher is needed.

    A shard that a teacher couldn't score isn't missing: its error marker ends whoever reads it. One listing per root.
    """
    demand = Demand(store, config, prepared)
    consumption = read_consumption(store, prepared) if demand.streaming else NOTHING_READ
    states = {folder: state for root in demand.roots for folder, state in list_states(store, root).items()}
    wanted = demand.all(consumption)
    missing = sum(
        item.shard.folder not in states or states[item.shard.folder].status in ("missing", "broken") for item in wanted
    )
    # Whoever reads any signal reads the head too.
    return missing + (bool(plan_references(prepared)) and not is_published(store, prepared))
