"""What a folder as a store promises beyond the common suite: modes, several processes, nothing left behind."""

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.store import directory
from distill_runtime.store.base import ObjectMissing, ObjectStore
from distill_runtime.store.directory import DirectoryStore
from tests.runtime.store.test_object_store import at_once

PROCESSES = 4
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def in_processes(work: Callable[[int], Any], count: int = PROCESSES) -> list[Any]:
    """`work(number)` in processes that begin at the same moment; their results in order."""
    barrier, results = FORK.Barrier(count), FORK.Queue()

    def begin(number: int) -> None:
        barrier.wait(30)
        results.put((number, work(number)))

    processes = [FORK.Process(target=begin, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=60) for _ in processes)
    finally:
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
    assert all(process.exitcode == 0 for process in processes)
    return [found[number] for number in range(count)]


def test_of_several_processes_one_alone_wins_each_claim(store: DirectoryStore) -> None:
    def claim_all(number: int) -> list[bool]:
        mine = DirectoryStore(store._root)
        return [mine.put_if_absent(f"claims/{claim}", b"%d" % number) for claim in range(200)]

    won = in_processes(claim_all)
    for claim in range(200):
        winners = [number for number in range(PROCESSES) if won[number][claim]]
        assert len(winners) == 1
        assert store.get(f"claims/{claim}") == b"%d" % winners[0]


def test_a_counter_that_several_processes_raise_loses_no_step(store: DirectoryStore) -> None:
    store.put("counter", b"0")

    def raise_it(_: int) -> int:
        mine, done = DirectoryStore(store._root), 0
        while done < 50:
            data, tag = mine.get_tagged("counter")
            done += mine.put_if_match("counter", b"%d" % (int(data) + 1), tag) is not None
        return done

    assert in_processes(raise_it) == [50] * PROCESSES
    assert store.get("counter") == b"%d" % (50 * PROCESSES)


def test_processes_read_whole_objects_while_others_write_and_delete_them(store: DirectoryStore) -> None:
    size = 200_000

    def work(number: int) -> int:
        mine, reads = DirectoryStore(store._root), 0
        for turn in range(60):
            if number % 2:
                mine.put("folder/key", bytes([65 + (number + turn) % 26]) * size)
                if turn % 5 == 0:
                    mine.delete("folder/key")
            elif mine.exists("folder/key"):
                try:
                    data = mine.get("folder/key")
                except ObjectMissing:
                    continue
                assert len(data) == size
                assert len(set(data)) == 1
                reads += 1
        return reads

    in_processes(work)


def test_files_and_folders_can_be_read_by_other_users_whatever_the_umask(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    before = os.umask(0o077)
    try:
        store.put("a/put", b"x")
        store.put_if_absent("b/absent", b"x")
        store.put_if_match("a/put", b"y", store.get_tagged("a/put")[1])
        store.upload("c/d/upload", tmp_path / "source")
    finally:
        os.umask(before)
    for key in ("a/put", "b/absent", "c/d/upload"):
        assert (store._root / key).stat().st_mode & 0o777 == 0o644
    for folder in ("", "a", "b", "c", "c/d"):
        assert (store._root / folder).stat().st_mode & 0o777 == 0o755


def test_nothing_but_objects_is_listed_and_nothing_else_is_left(store: DirectoryStore) -> None:
    tag = store.put("a/b/c", b"x")
    store.put_if_absent("a/b/c", b"y")
    store.put_if_match("a/b/c", b"z", "stale")
    store.put_if_match("a/b/c", b"z", tag)
    with pytest.raises(FileNotFoundError, match="no-such-source"):
        store.upload("a/b/d", Path("/no-such-source"))
    assert [info.key for info in store.list("")] == ["a/b/c"]
    assert list((store._root / ".distill" / "tmp").iterdir()) == []
    store.delete("a/b/c")
    assert [path.name for path in store._root.iterdir()] == [".distill"]


def test_what_a_killed_writer_left_is_no_object_and_goes_after_a_day(store: DirectoryStore) -> None:
    store.put("key", b"x")
    old, young = (store._root / ".distill" / "tmp" / name for name in ("old", "young"))
    old.write_bytes(b"half an obj")
    young.write_bytes(b"half an obj")
    long_ago = time.time() - directory.LEFTOVER_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    assert [info.key for info in store.list("")] == ["key"]
    store.probe()
    assert not old.exists()
    assert young.exists()


def test_a_file_system_without_hard_links_still_has_one_first_writer(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for number in range(20):
        key = f"race/{number}"
        won = at_once(lambda writer, key=key: store.put_if_absent(key, b"%d" % writer))
        assert won.count(True) == 1
        assert store.get(key) == b"%d" % won.index(True)


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.EROFS, UserError, "StoreForbidden"),
        (errno.ENOSPC, RetryError, "StoreFull"),
        (errno.EIO, RetryError, "StoreUnreachable"),
        (errno.ENOLCK, UserError, "StoreUnsuitable"),
    ],
)
def test_a_fault_of_the_file_system_is_one_sentence(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[RunError], reason: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(kind, match=str(store._root)) as raised:
        store.put("key", b"x")
    assert raised.value.reason == reason
    with pytest.raises(UserError, match=os.strerror(number)) as refused:
        store.probe()
    assert str(refused.value).count("\n") == 0


def test_a_folder_that_may_not_be_written_is_refused_by_the_probe(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file"):
        DirectoryStore(tmp_path / "file" / "store").probe()


def test_an_object_where_a_folder_is_needed_is_refused_not_lost(store: ObjectStore) -> None:
    store.put("a", b"x")
    with pytest.raises(UserError, match="a/b"):
        store.put("a/b", b"y")
    store.put("c/d", b"x")
    with pytest.raises(UserError, match="c"):
        store.put("c", b"y")
    assert [info.key for info in store.list("")] == ["a", "c/d"]
