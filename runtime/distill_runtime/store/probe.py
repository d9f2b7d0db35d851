"""The check of a store before anything depends on it."""

import contextlib
import uuid

from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore


def probe_store(store: ObjectStore, where: str) -> None:
    """Writes, reads, lists and deletes objects of its own and checks that conditional writes are refused.

    Several processes may do it at once. `where` names the store in the sentence.

    Raises
    ------
    UserError
        The store can't be used. Prepare asks this before a GPU is taken, so a store that doesn't answer after all
        retries counts too.
    """
    folder = f"probes/{uuid.uuid4().hex}"
    try:
        try:
            _check(store, folder, where)
        finally:
            _clean(store, folder)
    except RetryError as error:
        raise UserError(str(error), reason=error.reason) from error
    except (ObjectMissing, ObjectCorrupt) as error:
        raise _unsuitable(where, f"lost what was just written to it ({error})") from error


def _check(store: ObjectStore, folder: str, where: str) -> None:
    key, first, second = f"{folder}/object", b"first " + folder.encode(), b"second " + folder.encode()
    if not store.put_if_absent(key, first):
        raise _unsuitable(where, "refused to create an object that wasn't there")
    if store.put_if_absent(key, second):
        raise _unsuitable(where, "created an object that was there already")
    data, tag = store.get_tagged(key)
    if data != first:
        raise _unsuitable(where, "returned other bytes than were written")
    newer = store.put_if_match(key, second, tag)
    if newer is None:
        raise _unsuitable(where, "refused to replace an object that had not changed")
    if store.put_if_match(key, first, tag) is not None:
        raise _unsuitable(where, "replaced an object that had changed")
    if store.get(key, start=1, length=3) != second[1:4]:
        raise _unsuitable(where, "returned other bytes than were written")
    if [info.key for info in store.list(f"{folder}/")] != [key]:
        raise _unsuitable(where, "doesn't list an object that was just written")
    store.delete(key)
    if store.exists(key):
        raise _unsuitable(where, "still has an object that was deleted")


def _unsuitable(where: str, fault: str) -> UserError:
    return UserError(
        f"{where} {fault}: use a store with conditional writes (If-Match, If-None-Match) and consistent reads.",
        reason="StoreUnsuitable",
    )


def _clean(store: ObjectStore, folder: str) -> None:
    """Leaves nothing behind where the store lets us; what the check found is what counts."""
    with contextlib.suppress(RunError):
        store.delete(f"{folder}/object")
