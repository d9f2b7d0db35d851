"""From the storage section to the store that it names."""

from pathlib import Path

from distill_runtime.contract.sections import Storage
from distill_runtime.errors import UserError
from distill_runtime.store.base import ObjectStore
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.store.s3 import S3Store


def open_store(storage: Storage) -> ObjectStore:
    """The store of a storage section. Nothing is read or written yet: `probe` says whether it can be used.

    Raises
    ------
    UserError
        The address, the endpoint or the credentials' form is wrong; the sentence names the field.
    """
    scheme, _, rest = storage.uri.partition("://")
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Store(bucket, prefix, storage)
    path = Path(rest)
    if not path.is_absolute():
        raise UserError(
            f"storage.uri: {storage.uri} is not an absolute path: write it with three slashes, as in file:///data/runs.",
            reason="BadStorage",
        )
    return DirectoryStore(path)
