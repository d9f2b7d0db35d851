"""What the S3 store promises beyond the common suite: large objects, faults of servers and credentials, odd servers."""

import hashlib
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract.sections import Storage
from distill_runtime.errors import RetryError, UserError
from distill_runtime.store.base import ObjectCorrupt
from distill_runtime.store.open import open_store
from distill_runtime.store.s3 import S3Store
from distill_runtime.store.s3_client import addressing_style, public_address
from tests.fixtures.s3 import S3Server, free_ports

MIB = 2**20


def store_of(storage: Storage, **options: Any) -> S3Store:
    bucket, _, prefix = storage.uri.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix, storage, **options)


def refusal(storage: Storage, **options: Any) -> UserError:
    """What the probe says, checked for what holds of every refusal."""
    with pytest.raises(UserError) as raised:
        store_of(storage, **options).probe()
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert storage.uri.removeprefix("s3://").partition("/")[0] in message
    return raised.value


def test_large_objects_travel_in_parts_and_come_back_whole(s3_storage: Storage, tmp_path: Path) -> None:
    store = store_of(s3_storage, multipart_bytes=5 * MIB)
    data = hashlib.shake_256(b"large").digest(13 * MIB)
    tag = store.put("put", data)
    assert "-3" in tag, "the tag of an object in parts says how many"
    assert store.get_tagged("put") == (data, tag)
    (tmp_path / "file").write_bytes(data)
    store.upload("uploaded", tmp_path / "file")
    store.download("uploaded", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert store.get("uploaded", start=6 * MIB, length=100) == data[6 * MIB : 6 * MIB + 100]
    assert store.put_if_match("put", b"small", tag) is not None
    assert store.put_if_match("put", data, tag) is None


def test_both_ways_of_checksums_keep_objects(s3_storage: Storage) -> None:
    for checksums in ("whenSupported", "whenRequired"):
        store = store_of(s3_storage.model_copy(update={"checksums": checksums}), multipart_bytes=5 * MIB)
        store.probe()
        store.put("large", bytes(6 * MIB))
        assert store.get("large") == bytes(6 * MIB)


def test_the_section_s_endpoint_counts_more_than_the_environment_s(
    s3_storage: Storage, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    open_store(s3_storage.model_copy(update={"endpoint": s3_server.endpoint})).probe()


def test_two_stores_of_one_bucket_are_apart_by_their_prefix(s3_storage: Storage) -> None:
    one, other = open_store(s3_storage), open_store(s3_storage.model_copy(update={"uri": s3_storage.uri + "-other/"}))
    one.put("key", b"one")
    other.put("key", b"other")
    assert [info.key for info in one.list("")] == ["key"]
    assert one.get("key") == b"one"
    assert other.uri.endswith("prefix-other")


@pytest.mark.parametrize(
    ("path_style", "endpoint", "style"),
    [
        (None, None, "auto"),
        (None, "http://minio:9000", "path"),
        (None, "https://s3.eu-central-1.amazonaws.com", "auto"),
        (True, "https://s3.eu-central-1.amazonaws.com", "path"),
        (False, "http://minio:9000", "virtual"),
    ],
)
def test_the_bucket_is_in_the_path_where_the_server_isn_t_aws(
    path_style: bool | None, endpoint: str | None, style: str
) -> None:
    assert addressing_style(Storage(uri="s3://bucket", path_style=path_style), endpoint) == style


def test_wrong_keys_are_a_sentence_without_a_secret(s3_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "thisisnotthesecret")
    error = refusal(s3_storage)
    assert error.reason == "StoreCredentials"
    assert "thisisnotthesecret" not in str(error)
    assert "AWS_SECRET_ACCESS_KEY" in str(error)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    assert refusal(s3_storage).reason == "StoreCredentials"


def test_no_keys_at_all_are_a_sentence(s3_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refusal(s3_storage).reason == "StoreCredentials"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half of a pair")
    with pytest.raises(UserError) as raised:
        store_of(s3_storage)
    assert raised.value.reason == "StoreCredentials"
    assert "half of a pair" not in str(raised.value)


def test_keys_that_may_only_read_are_refused_by_the_probe(
    s3_storage: Storage, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.reader_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.reader_secret_key)
    error = refusal(s3_storage)
    assert error.reason == "StoreForbidden"
    assert s3_server.reader_secret_key not in str(error)


def test_a_missing_bucket_is_a_sentence(s3_storage: Storage) -> None:
    storage = s3_storage.model_copy(update={"uri": "s3://no-such-bucket-at-all/prefix"})
    assert refusal(storage).reason == "BucketMissing"
    with pytest.raises(UserError, match="no-such-bucket-at-all"):
        list(store_of(storage).list(""))


def test_a_name_that_no_bucket_can_have_is_a_sentence(s3_storage: Storage) -> None:
    assert refusal(s3_storage.model_copy(update={"uri": "s3://no/bucket"})).reason in (
        "BucketMissing",
        "StoreMisconfigured",
    )
    assert refusal(s3_storage.model_copy(update={"uri": "s3://a_b?c=d/x"})).reason == "StoreMisconfigured"


def test_a_server_that_isn_t_there_is_a_sentence_and_secrets_in_its_address_stay_secret(s3_storage: Storage) -> None:
    (port,) = free_ports(1)
    storage = s3_storage.model_copy(update={"endpoint": f"http://user:hunter2@127.0.0.1:{port}/"})
    error = refusal(storage, attempts=2)
    assert error.reason == "StoreUnreachable"
    assert f"127.0.0.1:{port}" in str(error)
    assert "hunter2" not in str(error)
    assert "hunter2" not in public_address(storage.endpoint)
    with pytest.raises(RetryError, match="doesn't answer"):
        store_of(storage, attempts=1).get("key")


def test_an_address_that_is_none_is_a_sentence(s3_storage: Storage) -> None:
    with pytest.raises(UserError, match="endpoint"):
        open_store(s3_storage.model_copy(update={"endpoint": "http://not a host:port"}))


def test_a_relative_folder_is_a_sentence() -> None:
    with pytest.raises(UserError, match="three slashes"):
        open_store(Storage(uri="file://data/runs"))


class IgnoresConditions(S3Store):
    """Sends conditional writes without their condition, as some servers take them."""

    def _put_once(self, key: str, data: bytes, **condition: str) -> str | None:
        return super()._put_once(key, data)


class IgnoresTags(S3Store):
    """Refuses a second first write, but replaces whatever is there."""

    def put_if_match(self, key: str, data: bytes, tag: str) -> str | None:
        return self.put(key, data)


class ForgetsWrites(S3Store):
    """Reads old bytes after a write."""

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return b"old"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [(IgnoresConditions, "created an object"), (IgnoresTags, "replaced an object"), (ForgetsWrites, "other bytes")],
)
def test_a_server_that_doesn_t_keep_the_conditions_is_refused(
    s3_storage: Storage, kind: type[S3Store], fault: str
) -> None:
    bucket, _, prefix = s3_storage.uri.removeprefix("s3://").partition("/")
    with pytest.raises(UserError, match=fault) as raised:
        kind(bucket, prefix, s3_storage).probe()
    assert raised.value.reason == "StoreUnsuitable"
    assert bucket in str(raised.value)
    assert list(open_store(s3_storage).list("")) == [], "the probe cleans up after a refusal too"


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def server_that_answers(answers: dict[str, list[Answer]]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server with these answers by method, the last one for ever. Yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(self.command)
            remaining = answers[self.command]
            status, headers, body = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def fault(status: int, code: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return status, {"Content-Type": "application/xml"}, body


NO_OBJECTS: Answer = (200, {"Content-Type": "application/xml"}, b"<ListBucketResult></ListBucketResult>")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def odd_store(endpoint: str, **options: Any) -> S3Store:
    return S3Store("bucket", "", Storage(uri="s3://bucket", endpoint=endpoint), **options)


@pytest.mark.usefixtures("keys")
def test_a_conflict_of_conditional_writes_is_tried_again() -> None:
    written = (200, {"ETag": '"new"'}, b"")
    with server_that_answers({"PUT": [fault(409, "ConditionalRequestConflict")] * 2 + [written]}) as (address, asked):
        assert odd_store(address).put_if_absent("key", b"x")
    assert asked == ["PUT"] * 3
    with server_that_answers({"PUT": [fault(409, "ConditionalRequestConflict"), fault(412, "PreconditionFailed")]}) as (
        address,
        _,
    ):
        assert not odd_store(address).put_if_absent("key", b"x")


@pytest.mark.usefixtures("keys")
def test_a_write_whose_answer_was_lost_is_known_as_our_own() -> None:
    """The first request wrote the object and its answer broke off; the second one meets the object."""
    answers = {"PUT": [fault(500, "InternalError"), fault(412, "PreconditionFailed")]}
    for writer, won in (("somebody", False), (None, True)):
        store: list[S3Store] = []
        head: Answer = (200, {"ETag": '"theirs"', "Content-Length": "1"}, b"")
        with server_that_answers({**{k: list(v) for k, v in answers.items()}, "HEAD": [head]}) as (address, asked):
            store.append(odd_store(address))

            def remember(params: dict[str, Any], head: Answer = head, writer: str | None = writer, **_: Any) -> None:
                head[1]["x-amz-meta-distill-writer"] = writer or params["headers"]["x-amz-meta-distill-writer"]

            store[0]._client.meta.events.register("before-call.s3.PutObject", remember)
            assert store[0].put_if_absent("key", b"x") is won
        assert asked == ["PUT", "PUT", "HEAD"]


@pytest.mark.usefixtures("keys")
def test_a_server_that_fails_for_ever_is_asked_a_bounded_number_of_times() -> None:
    with server_that_answers({"GET": [fault(503, "SlowDown")]}) as (address, asked):
        with pytest.raises(RetryError, match="SlowDown") as raised:
            odd_store(address, attempts=3).get("key")
        assert raised.value.reason == "StoreUnreachable"
    assert asked == ["GET"] * 3


@pytest.mark.usefixtures("keys")
def test_a_body_that_breaks_off_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    whole: Answer = (200, {"ETag": '"t"'}, b"0123456789")
    cut: Answer = (200, {"ETag": '"t"', "Content-Length": "10"}, b"0123")
    with caplog.at_level(logging.WARNING), server_that_answers({"GET": [cut, cut, whole]}) as (address, asked):
        assert odd_store(address).get("key") == b"0123456789"
    assert asked == ["GET"] * 3
    assert "broke off" in caplog.text
    with server_that_answers({"GET": [cut]}) as (address, _), pytest.raises(RetryError, match="doesn't answer"):
        odd_store(address).get("key")


@pytest.mark.usefixtures("keys")
def test_bytes_that_differ_from_the_server_s_checksum_are_a_corrupt_object() -> None:
    wrong: Answer = (200, {"ETag": '"t"', "x-amz-checksum-crc32": "AAAAAA=="}, b"0123456789")
    with (
        server_that_answers({"GET": [wrong]}) as (address, _),
        pytest.raises(ObjectCorrupt, match="some/key") as raised,
    ):
        odd_store(address).get("some/key")
    assert raised.value.key == "some/key"


@pytest.mark.usefixtures("keys")
def test_a_server_without_conditional_writes_is_a_sentence() -> None:
    with (
        server_that_answers(
            {"GET": [NO_OBJECTS], "PUT": [fault(501, "NotImplemented")], "DELETE": [(204, {}, b"")]}
        ) as (address, _),
        pytest.raises(UserError, match="conditional writes") as raised,
    ):
        odd_store(address, attempts=2).probe()
    assert raised.value.reason == "StoreUnsuitable"


@pytest.mark.usefixtures("keys")
def test_a_server_that_takes_connections_and_says_nothing_ends_in_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_runtime.store.s3_client.READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = odd_store(f"http://127.0.0.1:{silent.getsockname()[1]}", attempts=2)
        with pytest.raises(UserError, match="doesn't answer"):
            store.probe()


def test_objects_outlive_a_restart_of_the_server(s3_storage: Storage, s3_server: S3Server) -> None:
    store = open_store(s3_storage)
    store.put("key", b"before")
    s3_server.stop()
    try:
        with pytest.raises(RetryError):
            store_of(s3_storage, attempts=1).get("key")
    finally:
        s3_server.start()
    assert store.get("key") == b"before"
