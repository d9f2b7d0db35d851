"""What every object store promises, on each of them."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from distill_runtime.digests import digest_of_bytes
from distill_runtime.store.base import ObjectCorrupt, ObjectInfo, ObjectMissing, ObjectStore

WRITERS = 8
ROUNDS = 4
LANES = 6
"""Races that are run side by side: a server may take a second to settle one."""
Result = TypeVar("Result")


def at_once(work: Callable[[int], Result], count: int = WRITERS) -> list[Result]:
    """`work` of 0, 1, … in threads that all begin at the same moment."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Result:
        barrier.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 300], ids=["empty", "one byte", "75 KiB"])
def test_what_is_read_is_what_was_written(any_store: ObjectStore, data: bytes) -> None:
    tag = any_store.put("a/b/c.bin", data)
    assert any_store.get("a/b/c.bin") == data
    assert any_store.get_tagged("a/b/c.bin") == (data, tag)
    assert any_store.exists("a/b/c.bin")


@pytest.mark.parametrize("key", ["ümläut/日本.txt", "a b+c&d=e%20f?g#h/[x]*~'\"", "a/.hidden", "…"])
def test_keys_of_all_kinds_keep_their_objects(any_store: ObjectStore, key: str) -> None:
    any_store.put(key, b"content")
    assert any_store.get(key) == b"content"
    assert [info.key for info in any_store.list("")] == [key]
    any_store.delete(key)
    assert not any_store.exists(key)


def test_ranges_are_cut_as_slices_are(any_store: ObjectStore) -> None:
    data = bytes(range(100))
    any_store.put("key", data)
    for start, length in [(0, 10), (10, 1), (99, 1), (90, 50), (0, 100), (50, None), (0, 0), (100, 5), (200, None)]:
        end = None if length is None else start + length
        assert any_store.get("key", start=start, length=length) == data[start:end], (start, length)
    with pytest.raises(ValueError, match="negative"):
        any_store.get("key", start=-1)


def test_a_missing_object_is_named_by_every_read(any_store: ObjectStore, tmp_path: Path) -> None:
    any_store.put("folder/object", b"x")
    for key in ("nothing", "folder", "folder/object/below", "folder/nothing"):
        for read in (
            any_store.get,
            any_store.get_tagged,
            lambda key: any_store.get(key, start=1, length=0),
            lambda key: any_store.get(key, start=1, length=1),
            lambda key: any_store.download(key, tmp_path / "target"),
            lambda key: any_store.get_verified(key, "0" * 64),
        ):
            with pytest.raises(ObjectMissing, match=key):
                read(key)
        assert not any_store.exists(key)
    assert not (tmp_path / "target").exists()


def test_bad_keys_are_refused_before_anything_is_written(any_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for write in (
        lambda: any_store.put("../outside", b"x"),
        lambda: any_store.put_if_absent("a//b", b"x"),
        lambda: any_store.put_if_match("/a", b"x", "tag"),
        lambda: any_store.upload("a/", tmp_path / "file"),
    ):
        with pytest.raises(ValueError, match="key"):
            write()
    assert list(any_store.list("")) == []


def test_listings_are_by_prefix_and_in_the_order_of_keys(any_store: ObjectStore) -> None:
    keys = ["a/b", "a-b", "a.b", "a0", "a/c/d", "ab/x", "b", "é"]
    for key in keys:
        any_store.put(key, key.encode())
    for prefix in ("", "a", "a/", "a/c", "ab", "b", "c", "é", "a/b/"):
        listed = list(any_store.list(prefix))
        wanted = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
        assert [info.key for info in listed] == wanted, prefix
        assert all(info.size == len(info.key.encode()) for info in listed)


def test_a_listing_of_more_than_a_page_is_whole(any_store: ObjectStore) -> None:
    keys = [f"shard/{number:05d}" for number in range(1030)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda key: any_store.put_if_absent(key, b""), keys))
    assert [info.key for info in any_store.list("shard/")] == keys


def test_the_tag_of_a_listing_changes_with_the_object(any_store: ObjectStore) -> None:
    def tag() -> str:
        (info,) = any_store.list("key")
        assert isinstance(info, ObjectInfo)
        return info.tag

    tags: list[str] = []
    for number in range(20):
        any_store.put("key", b"%04d" % number)
        tags.append(tag())
        assert tag() == tags[-1]
    assert len(set(tags)) == 20


def test_deleting_twice_is_deleting(any_store: ObjectStore) -> None:
    any_store.put("a/b/c", b"x")
    any_store.put("a/d", b"y")
    any_store.delete("a/b/c")
    any_store.delete("a/b/c")
    any_store.delete("never/there")
    assert [info.key for info in any_store.list("")] == ["a/d"]


def test_put_if_absent_keeps_the_first_object(any_store: ObjectStore) -> None:
    assert any_store.put_if_absent("claim", b"first")
    assert not any_store.put_if_absent("claim", b"second")
    assert any_store.get("claim") == b"first"
    any_store.delete("claim")
    assert any_store.put_if_absent("claim", b"third")


def test_put_if_match_replaces_only_the_object_that_was_read(any_store: ObjectStore) -> None:
    assert any_store.put_if_match("key", b"x", "sometag") is None
    first = any_store.put("key", b"first")
    second = any_store.put_if_match("key", b"second", first)
    assert second is not None
    assert any_store.get_tagged("key") == (b"second", second)
    assert any_store.put_if_match("key", b"third", first) is None
    assert any_store.get("key") == b"second"
    any_store.delete("key")
    assert any_store.put_if_match("key", b"fourth", second) is None
    assert not any_store.exists("key")


def test_of_several_first_writers_one_alone_wins(any_store: ObjectStore) -> None:
    for number in range(ROUNDS):

        def claim(place: int, number: int = number) -> bool:
            lane, writer = divmod(place, WRITERS)
            return any_store.put_if_absent(f"race/{number}/{lane}", b"writer %d" % writer)

        won = at_once(claim, LANES * WRITERS)
        for lane in range(LANES):
            of_lane = won[lane * WRITERS : (lane + 1) * WRITERS]
            assert of_lane.count(True) == 1
            assert any_store.get(f"race/{number}/{lane}") == b"writer %d" % of_lane.index(True)


def test_of_several_replacing_writers_one_alone_wins(any_store: ObjectStore) -> None:
    tags = [any_store.put(f"key/{lane}", b"start") for lane in range(LANES)]
    for number in range(ROUNDS):

        def replace(place: int, number: int = number) -> str | None:
            lane, writer = divmod(place, WRITERS)
            return any_store.put_if_match(f"key/{lane}", b"%d by %d" % (number, writer), tags[lane])

        new = at_once(replace, LANES * WRITERS)
        for lane in range(LANES):
            of_lane = new[lane * WRITERS : (lane + 1) * WRITERS]
            winners = [writer for writer, tag in enumerate(of_lane) if tag is not None]
            assert len(winners) == 1
            data, tags[lane] = any_store.get_tagged(f"key/{lane}")
            assert data == b"%d by %d" % (number, winners[0])
            assert tags[lane] == of_lane[winners[0]]


def test_a_counter_raised_by_put_if_match_loses_no_step(any_store: ObjectStore) -> None:
    any_store.put("counter", b"0")

    def raise_it(_: int) -> int:
        done = 0
        for _ in range(2000):
            data, tag = any_store.get_tagged("counter")
            if any_store.put_if_match("counter", b"%d" % (int(data) + 1), tag) is not None:
                done += 1
                if done == 5:
                    break
        return done

    done = at_once(raise_it, 4)
    assert done == [5] * 4
    assert any_store.get("counter") == b"20"


def test_readers_see_whole_objects_while_writers_replace_them(any_store: ObjectStore) -> None:
    size = 300_000
    any_store.put("key", b"0" * size)
    stop = threading.Event()

    def write(number: int) -> None:
        for turn in range(15):
            any_store.put("key", bytes([65 + (number * 15 + turn) % 26]) * size)

    def read() -> int:
        reads = 0
        while not stop.is_set():
            data = any_store.get("key")
            assert len(data) == size, "an object was cut"
            assert len(set(data)) == 1, "an object was mixed from two"
            reads += 1
        return reads

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(write, number) for number in range(2)]
        try:
            for writer in writers:
                writer.result(timeout=120)
        finally:
            stop.set()
        assert all(reader.result(timeout=30) > 0 for reader in readers)


def test_writers_and_deleters_of_one_folder_lose_nothing(any_store: ObjectStore) -> None:
    """Empty folders are removed: a writer must not fall into the gap."""

    def churn(number: int) -> None:
        for turn in range(20):
            key = f"deep/er/{number}-{turn}"
            any_store.put(key, b"x") if turn % 2 else any_store.put_if_absent(key, b"x")
            assert any_store.get(key) == b"x"
            any_store.delete(key)

    at_once(churn)
    assert list(any_store.list("deep")) == []


def test_files_go_up_and_come_down_unchanged(any_store: ObjectStore, tmp_path: Path) -> None:
    data = hashlib.shake_256(b"seed").digest(3_000_000)
    (tmp_path / "source").write_bytes(data)
    (tmp_path / "source").chmod(0o600)
    any_store.upload("models/x/file", tmp_path / "source")
    assert any_store.get("models/x/file") == data
    target = tmp_path / "new" / "folder" / "target"
    any_store.download("models/x/file", target)
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_download_replaces_an_older_file_as_a_whole(any_store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"older and longer")
    any_store.put("key", b"new")
    any_store.download("key", target)
    assert target.read_bytes() == b"new"


def test_a_flipped_byte_is_found_and_its_object_named(any_store: ObjectStore) -> None:
    data = b"signals of a shard"
    any_store.put("signals/part", data)
    assert any_store.get_verified("signals/part", digest_of_bytes(data)) == data
    any_store.put("signals/part", b"s1gnals of a shard")
    with pytest.raises(ObjectCorrupt, match="signals/part"):
        any_store.get_verified("signals/part", digest_of_bytes(data))


def test_a_good_store_passes_the_probe_and_keeps_nothing_of_it(any_store: ObjectStore) -> None:
    at_once(lambda _: any_store.probe(), 4)
    assert list(any_store.list("")) == []
