"""Claims between replicas that share nothing but the store."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from distill_runtime.signals.generations import read_state
from distill_runtime.transport.claims import Claimant, Claims
from tests.fixtures.memory_store import MemoryStore

FOLDER = "signals/x/shard"
LEASE = 60.0


class Now:
    """A clock that only moves when told; each replica has its own offset."""

    def __init__(self) -> None:
        self.time = 0.0

    def of(self, offset: float):
        return lambda: self.time + offset


def claims_of(
    store: MemoryStore,
    now: Now,
    replica: str,
    *,
    attempt: int = 1,
    uid: str = "job",
    nonce: str = "",
    offset: float = 0,
) -> Claims:
    claimant = Claimant(uid=uid, attempt=attempt, replica=replica, nonce=nonce or replica)
    return Claims(store, claimant, lease_seconds=LEASE, clock=now.of(offset))


def take(store: MemoryStore, claims: Claims) -> str | None:
    return claims.take(FOLDER, read_state(store, FOLDER))


def test_a_live_claim_is_not_taken_over() -> None:
    store, now = MemoryStore(), Now()
    holder, other = claims_of(store, now, "a"), claims_of(store, now, "b", offset=-77)
    assert take(store, holder) == f"{FOLDER}/claims/0-0.json"
    for _ in range(10):
        assert take(store, other) is None
        now.time += LEASE * 0.8
        holder.renew()


def test_a_claim_that_is_not_renewed_for_the_lease_is_taken_over_by_one_replica() -> None:
    store, now = MemoryStore(), Now()
    assert take(store, claims_of(store, now, "a"))
    others = [claims_of(store, now, name) for name in "bc"]
    assert [take(store, other) for other in others] == [None, None]
    now.time += LEASE - 1
    assert [take(store, other) for other in others] == [None, None]
    now.time += 1
    state = read_state(store, FOLDER)
    assert [other.take(FOLDER, state) for other in others] == [f"{FOLDER}/claims/0-1.json", None]


def test_a_claim_of_an_older_attempt_is_void_at_once() -> None:
    store, now = MemoryStore(), Now()
    assert take(store, claims_of(store, now, "a", attempt=1))
    assert take(store, claims_of(store, now, "b", attempt=2)) == f"{FOLDER}/claims/0-1.json"


def test_a_claim_of_an_earlier_life_of_the_same_replica_is_void_at_once() -> None:
    store, now = MemoryStore(), Now()
    assert take(store, claims_of(store, now, "a", nonce="first"))
    assert take(store, claims_of(store, now, "a", nonce="second")) == f"{FOLDER}/claims/0-1.json"


def test_claims_of_a_newer_attempt_or_another_job_are_respected() -> None:
    for uid, attempt in (("job", 3), ("other", 1)):
        store, now = MemoryStore(), Now()
        assert take(store, claims_of(store, now, "a", uid=uid, attempt=attempt))
        assert take(store, claims_of(store, now, "b", attempt=2)) is None


def test_a_released_claim_is_free() -> None:
    store, now = MemoryStore(), Now()
    holder = claims_of(store, now, "a")
    key = take(store, holder)
    assert key is not None
    holder.release(key)
    assert take(store, claims_of(store, now, "b")) == key


def test_renewing_does_not_bring_a_deleted_claim_back() -> None:
    store, now = MemoryStore(), Now()
    holder = claims_of(store, now, "a")
    key = take(store, holder)
    assert key is not None
    store.delete(key)
    holder.renew()
    assert not store.exists(key)


def test_a_claim_whose_answer_was_lost_finds_itself() -> None:
    store, now = MemoryStore(), Now()
    holder = claims_of(store, now, "a")
    state = read_state(store, FOLDER)
    assert holder.take(FOLDER, state) == holder.take(FOLDER, state)


def test_a_damaged_claim_ends_by_the_lease() -> None:
    store, now = MemoryStore(), Now()
    store.put(f"{FOLDER}/claims/0-0.json", b"{")
    other = claims_of(store, now, "b")
    assert take(store, other) is None
    now.time += LEASE
    assert take(store, other) == f"{FOLDER}/claims/0-1.json"


@dataclass
class Replica:
    claims: Claims
    held: str | None = None
    renewed: float = 0.0


class ClaimsMachine(RuleBasedStateMachine):
    """Replicas take, renew, give up and die in any order while time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.overdue: set[str] = set()
        """Claims that weren't renewed for the lease at some time: their holders may be two."""
        self.store, self.now = MemoryStore(), Now()
        self.lives = 0
        self.replicas = [self._new(name) for name in "abc"]

    def _new(self, name: str) -> Replica:
        self.lives += 1
        return Replica(claims_of(self.store, self.now, name, nonce=str(self.lives), offset=100.0 * self.lives))

    @rule(index=st.integers(0, 2))
    def take(self, index: int) -> None:
        replica = self.replicas[index]
        if replica.held is not None:
            return
        replica.held = take(self.store, replica.claims)
        replica.renewed = self.now.time

    @rule(index=st.integers(0, 2))
    def renew(self, index: int) -> None:
        replica = self.replicas[index]
        replica.claims.renew()
        replica.renewed = self.now.time

    @rule(index=st.integers(0, 2))
    def release(self, index: int) -> None:
        replica = self.replicas[index]
        if replica.held is not None:
            replica.claims.release(replica.held)
            replica.held = None

    @rule(index=st.integers(0, 2))
    def die_and_start_again(self, index: int) -> None:
        self.replicas[index] = self._new("abc"[index])

    @rule(seconds=st.floats(0.1, LEASE * 1.2))
    def wait(self, seconds: float) -> None:
        self.now.time += seconds

    @invariant()
    def two_hold_it_only_where_one_has_not_renewed_for_the_lease(self) -> None:
        held = {replica.held: replica for replica in self.replicas if replica.held is not None}
        self.overdue |= {key for key, replica in held.items() if self.now.time - replica.renewed >= LEASE}
        assert len({key for key in held if self.store.exists(key)} - self.overdue) <= 1

    def teardown(self) -> None:
        """Whatever happened: after everybody died, a lease later one gets it."""
        survivor = claims_of(self.store, self.now, "z")
        if take(self.store, survivor) is None:
            self.now.time += LEASE + 1
            assert take(self.store, survivor) is not None


TestClaimsMachine = ClaimsMachine.TestCase
TestClaimsMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
