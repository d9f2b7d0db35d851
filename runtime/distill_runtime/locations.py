"""What the URIs of models and data mean: where a file is on this machine, in which bucket or repository."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from huggingface_hub import errors as hub

from distill_runtime.contract import environment
from distill_runtime.errors import RetryError, UserError
from distill_runtime.store.keys import check_prefix

CLAIMS_FOLDER = Path(environment.CLAIMS_FOLDER)
"""Where the volume of each persistent volume claim is mounted, under the claim's name."""
_HUB = re.compile(
    r"(?P<datasets>datasets/)?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>[^@]*))?"
)


@dataclass(frozen=True)
class HubLocation:
    """A place in a repository of the Hugging Face Hub."""

    kind: Literal["model", "dataset"]
    repository: str
    """`organisation/name`."""
    revision: str | None
    """Branch, tag or commit; None for the main branch."""
    path: str
    """Path in the repository, without slashes at its ends; empty for all of it."""

    def at(self, commit: str) -> str:
        """The URI with its revision pinned."""
        kind = "datasets/" if self.kind == "dataset" else ""
        return f"hf://{kind}{self.repository}@{commit}" + (f"/{self.path}" if self.path else "")


def scheme_of(uri: str) -> str:
    """What stands before `://`."""
    return uri.partition("://")[0]


def local_path(uri: str) -> Path:
    """The path on this machine that a `file://` or `pvc://` URI names. Nothing need be there.

    Raises
    ------
    UserError
        It isn't absolute, or leads out of its claim.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        if not rest.startswith("/"):
            raise UserError(
                f"{uri} is not an absolute path: write it with three slashes, as in file:///data/train.jsonl."
            )
        return Path(rest)
    claim, _, path = rest.partition("/")
    if claim in ("", ".", "..") or ".." in PurePosixPath(path).parts:
        raise UserError(f"{uri} leads out of its claim: write it as pvc://claim/path, without '..'.")
    return CLAIMS_FOLDER / claim / path


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key, or beginning of keys, that an `s3://` URI names.

    Raises
    ------
    UserError
        There can't be such an object.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        check_prefix(key)
    except ValueError as error:
        raise UserError(f"{uri} can't be used: {error}.") from error
    return bucket, key


def hub_location(uri: str) -> HubLocation:
    """The place that an `hf://` URI names.

    Raises
    ------
    UserError
        It isn't written as `hf://[datasets/]organisation/name[@revision][/path]`.
    """
    match = _HUB.fullmatch(uri.removeprefix("hf://"))
    if match is None:
        raise UserError(f"{uri} can't be read: write it as hf://[datasets/]organisation/name[@revision][/path].")
    revision = match["revision"]
    return HubLocation(
        kind="dataset" if match["datasets"] else "model",
        repository=match["repository"],
        revision=unquote(revision) if revision else None,
        path=(match["path"] or "").strip("/"),
    )


def hub_endpoint() -> str | None:
    """Address of the Hub from the environment; None for the library's own."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def hub_errors(uri: str) -> Iterator[None]:
    """Turns what the Hub's client raises into UserError or RetryError."""
    try:
        yield
    except hub.GatedRepoError as error:
        raise UserError(
            f"{uri} is gated: accept its terms on the Hub and set HF_TOKEN to a token that may read it.",
            reason="ModelForbidden",
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise UserError(
            f"{uri}: there is no such repository, or HF_TOKEN may not read it (data sets are written "
            "hf://datasets/organisation/name/path).",
            reason="RepositoryMissing",
        ) from error
    except hub.RevisionNotFoundError as error:
        raise UserError(f"{uri}: the repository has no such revision.", reason="RevisionMissing") from error
    except hub.HFValidationError as error:
        raise UserError(f"{uri}: that is no name of a repository.", reason="RepositoryMissing") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise UserError(
            f"{uri} is not in the local cache and the Hub can't be reached: check the network and HF_HUB_OFFLINE, or "
            "use a file://, pvc:// or s3:// copy.",
            reason="HubUnreachable",
        ) from error
    except hub.EntryNotFoundError as error:
        raise UserError(f"{uri}: the repository has no such file.", reason="FileMissing") from error
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"{uri} may not be read (HTTP {status}): set HF_TOKEN to a token that may.", reason="ModelForbidden"
            ) from error
        raise RetryError(f"{uri}: the Hub answers HTTP {status}.", reason="HubUnreachable") from error
    except hub.HTTPError as error:  # pyright: ignore[reportPrivateImportUsage] - whichever HTTP client the Hub's is
        raise RetryError(
            f"{uri}: the Hub doesn't answer ({type(error).__name__}): check the network.", reason="HubUnreachable"
        ) from error
