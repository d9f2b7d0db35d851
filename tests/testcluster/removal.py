"""Removing folders that a dying mount namespace may still hold."""

import shutil
import time
from pathlib import Path

from tests.testcluster.state import STATE_FILE

REMOVAL_SECONDS = 20.0
RETRY_SECONDS = 0.1


def empty_root(root: Path) -> None:
    """Removes all that is in a cluster's root folder; the state goes last, so that a removal can be taken up again."""
    for entry in sorted(root.iterdir(), key=lambda entry: entry.name == STATE_FILE):
        _remove(entry)


def _remove(path: Path) -> None:
    """Removes a file or folder. The kernel lets go of a dead namespace's mounts by and by: it is tried for a while."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return
