"""Objects in a bucket of an S3 server, through boto3."""

import io
import logging
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError

from distill_runtime.contract.sections import Storage
from distill_runtime.errors import RetryError, UserError
from distill_runtime.store import s3_errors
from distill_runtime.store.base import ObjectInfo, ObjectMissing, ObjectStore
from distill_runtime.store.keys import check_key, check_prefix
from distill_runtime.store.probe import probe_store
from distill_runtime.store.s3_client import (
    ATTEMPTS,
    MULTIPART_BYTES,
    endpoint_of,
    make_client,
    public_address,
    transfer_config,
)
from distill_runtime.store.s3_errors import code_of, store_errors

CONFLICT_ATTEMPTS = 8
"""Tries of a conditional write that the server refuses because another one is on its way."""
BODY_ATTEMPTS = 4
"""Tries of a read whose body breaks off; boto3 retries only up to the first byte."""
WRITER = "distill-writer"
"""Metadata that tells whose write an object is."""

log = logging.getLogger(__name__)


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket. `storage` gives endpoint, region, path style and checksums."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        storage: Storage,
        *,
        multipart_bytes: int = MULTIPART_BYTES,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._multipart_bytes = multipart_bytes
        self._transfer = transfer_config(multipart_bytes)
        self._client = make_client(storage, attempts=attempts)
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._where = f"bucket {bucket} at {public_address(endpoint_of(storage))}"

    def __repr__(self) -> str:
        return f"S3Store({self.uri})"

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or `length` of them from `start`. Raises ObjectMissing."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start {start} and length {length} must not be negative")
        if start == 0 and length is None:
            return self._read(key)[0]
        if length == 0:
            self._head(key)
            return b""
        last = "" if length is None else start + length - 1
        try:
            return self._read(key, Range=f"bytes={start}-{last}")[0]
        except _BeyondTheEnd:
            return b""

    def get_if_match(self, key: str, tag: str, *, start: int, length: int) -> bytes | None:
        """At most `length` bytes from `start` of the object with this tag; None if it has changed or is gone."""
        try:
            return self._read(key, Range=f"bytes={start}-{start + length - 1}", IfMatch=tag)[0]
        except _BeyondTheEnd:
            return b""
        except (ObjectMissing, _Changed):
            return None

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and the tag to give `put_if_match`. Raises ObjectMissing."""
        return self._read(key)

    def _read(self, key: str, **options: str) -> tuple[bytes, str]:
        name = self._name(key)
        for attempt in range(1, BODY_ATTEMPTS + 1):
            with store_errors(self._where, key):
                try:
                    answer = self._client.get_object(**name, **options)
                except ClientError as error:
                    if code_of(error) in s3_errors.BEYOND_THE_END:
                        raise _BeyondTheEnd from error
                    if code_of(error) in s3_errors.CHANGED:
                        raise _Changed from error
                    raise
                try:
                    return answer["Body"].read(), answer["ETag"]
                except (HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
                    if attempt == BODY_ATTEMPTS:
                        raise
                    log.warning("reading %s/%s broke off (%s): once more", self.uri, key, type(error).__name__)
            _back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _head(self, key: str) -> dict[str, Any]:
        with store_errors(self._where, key):
            return self._client.head_object(**self._name(key))

    def put(self, key: str, data: bytes) -> str:
        """Writes the object, whatever was there. Returns its tag."""
        if len(data) >= self._multipart_bytes:
            return self._put_in_parts(key, data)
        tag = self._put_once(key, data)
        assert tag is not None
        return tag

    def _put_in_parts(self, key: str, data: bytes) -> str:
        writer = uuid.uuid4().hex
        with store_errors(self._where, key):
            self._client.upload_fileobj(
                io.BytesIO(data),
                self._bucket,
                self._name(key)["Key"],
                ExtraArgs={"Metadata": {WRITER: writer}},
                Config=self._transfer,
            )
        # An object that another writer has replaced since gets a tag that fits none.
        return self._tag_if_written_by(key, writer) or f'"{writer}"'

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless there is one; of several writers one alone gets True."""
        return self._put_once(key, data, IfNoneMatch="*") is not None

    def put_if_match(self, key: str, data: bytes, tag: str) -> str | None:
        """Writes the object if it is still the one with this tag. Returns the new tag, or None if it has changed."""
        try:
            return self._put_once(key, data, IfMatch=tag)
        except ObjectMissing:
            return None

    def _put_once(self, key: str, data: bytes, **condition: str) -> str | None:
        """The new tag; None where the condition doesn't hold."""
        writer = uuid.uuid4().hex
        request = {**self._name(key), "Body": data, "Metadata": {WRITER: writer}, **condition}
        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            with store_errors(self._where, key):
                try:
                    return self._client.put_object(**request)["ETag"]
                except ClientError as error:
                    if condition and code_of(error) in s3_errors.CHANGED:
                        # A request whose answer was lost is sent again, and then meets its own object.
                        return self._tag_if_written_by(key, writer) if s3_errors.was_retried(error) else None
                    if code_of(error) not in s3_errors.CONFLICT:
                        raise
            _back_off(attempt)
        raise RetryError(
            f"{self._where}: too many writers of {key!r} at once ({CONFLICT_ATTEMPTS} conflicts).",
            reason="StoreUnreachable",
        )

    def tag_of(self, key: str) -> str:
        """The object's tag now. Raises ObjectMissing."""
        return self._head(key)["ETag"]

    def _tag_if_written_by(self, key: str, writer: str) -> str | None:
        try:
            found = self._head(key)
        except ObjectMissing:
            return None
        return found["ETag"] if found.get("Metadata", {}).get(WRITER) == writer else None

    def exists(self, key: str) -> bool:
        """Is there such an object?"""
        try:
            self._head(key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, by key."""
        # Not every server keeps the order of S3's own listings; SeaweedFS sorts folder by folder.
        yield from sorted(self._listed(check_prefix(prefix)), key=lambda info: info.key.encode())

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        token: dict[str, str] = {}
        while True:
            with store_errors(self._where, prefix):
                page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, **token)
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # A folder that some console made, not an object.
                    yield ObjectInfo(item["Key"].removeprefix(self._prefix), item["Size"], item["ETag"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Removes the object; nothing happens where there is none."""
        try:
            with store_errors(self._where, key):
                self._client.delete_object(**self._name(key))
        except ObjectMissing:
            return

    def upload(self, key: str, path: Path) -> None:
        """Writes a file as an object, in parts where it is large."""
        name = self._name(key)["Key"]
        with path.open("rb") as file, store_errors(self._where, key):
            self._client.upload_fileobj(file, self._bucket, name, Config=self._transfer)

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file, atomically. Raises ObjectMissing."""
        name = self._name(key)["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
        try:
            for attempt in range(1, BODY_ATTEMPTS + 1):
                with store_errors(self._where, key):
                    try:
                        self._client.download_file(self._bucket, name, str(temporary), Config=self._transfer)
                        break
                    except ClientError as error:
                        # Parts are read if the object is still the same: it was replaced on the way.
                        if code_of(error) not in s3_errors.CHANGED or attempt == BODY_ATTEMPTS:
                            raise
                _back_off(attempt)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def probe(self) -> None:
        """Checks that the bucket can be read and written and really refuses a second conditional put.

        Raises
        ------
        UserError
            It can't; the sentence names bucket and endpoint, and says what to mend.
        """
        try:
            # A list first: some servers make a missing bucket at the first write.
            with store_errors(self._where, ""):
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        except RetryError as error:
            raise UserError(str(error), reason=error.reason) from error
        probe_store(self, self._where)


class _BeyondTheEnd(Exception):
    """The range begins behind the object's end."""


class _Changed(Exception):
    """The object isn't the one with the tag that was asked for."""


def _back_off(attempt: int) -> None:
    """Waits up to 0.1, 0.2, 0.4, … s, so that writers in conflict don't meet again."""
    time.sleep(random.uniform(0.0, 0.1 * 2 ** (attempt - 1)))
