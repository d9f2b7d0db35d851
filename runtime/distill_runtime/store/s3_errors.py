"""What goes wrong with an S3 server, in the store's own errors. Messages never hold secrets or a server's own text."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from botocore import exceptions as aws
from s3transfer.exceptions import RetriesExceededError

from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing

MISSING = {"NoSuchKey", "404", "NotFound"}
CHANGED = {"PreconditionFailed", "412"}
CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
BEYOND_THE_END = {"InvalidRange", "416"}
_WRONG_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_FORBIDDEN = {"403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "Forbidden"}
_TRANSIENT = {
    "429",
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.NoAuthTokenError,
    aws.TokenRetrievalError,
    aws.MetadataRetrievalError,
    aws.ProfileNotFound,
    aws.SSOError,
)
_UNREACHABLE = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, RetriesExceededError)
KEYS_ADVICE = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a cluster in the Secret that storage.secretName names"
)


class ChecksumRefused(ObjectCorrupt):
    """The client compared the bytes with the checksum that the server keeps, and they differ."""

    def __init__(self, key: str) -> None:
        Exception.__init__(self, f"object {key} is corrupt: its bytes differ from the checksum that the server keeps")
        self.key = key


def code_of(error: aws.ClientError) -> str:
    """The server's word for what went wrong: `NoSuchKey`, or an HTTP status where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", "")) or str(status_of(error))


def status_of(error: aws.ClientError) -> int:
    """The HTTP status of an answer; 0 where there is none."""
    return int(_metadata(error).get("HTTPStatusCode", 0))


def was_retried(error: aws.ClientError) -> bool:
    """Did the client send the request more than once? Then an earlier one may have done its work unseen."""
    return int(_metadata(error).get("RetryAttempts", 0)) > 0


def _metadata(error: aws.ClientError) -> dict[str, Any]:
    return dict(error.response.get("ResponseMetadata", {}))


@contextmanager
def store_errors(where: str, key: str) -> Iterator[None]:
    """Turns what boto3 raises into ObjectMissing, UserError or RetryError. `where` names bucket and endpoint."""
    try:
        yield
    except aws.ClientError as error:
        if code_of(error) in MISSING:
            raise ObjectMissing(key) from error
        raise error_of_answer(error, where, key) from error
    except aws.FlexibleChecksumError as error:
        raise ChecksumRefused(key) from error
    except _NO_CREDENTIALS as error:
        raise UserError(
            f"{where}: no credentials were found ({type(error).__name__}): {KEYS_ADVICE}.", reason="StoreCredentials"
        ) from error
    except _UNREACHABLE as error:
        raise RetryError(
            f"{where} doesn't answer ({type(error).__name__}): check storage.endpoint, the network and the server.",
            reason="StoreUnreachable",
        ) from error
    except (aws.BotoCoreError, ValueError) as error:
        # Only names and kinds: the texts of these errors may repeat what the request held.
        raise UserError(
            f"{where} can't be asked ({type(error).__name__}): check the URI, storage.endpoint and storage.region.",
            reason="StoreMisconfigured",
        ) from error


def error_of_answer(error: aws.ClientError, where: str, key: str) -> RunError:
    """The error for an answer of the server that isn't about a missing object."""
    code, status = code_of(error), status_of(error)
    doing = f"{error.operation_name} of {key!r}" if key else error.operation_name
    if code in _WRONG_CREDENTIALS:
        return UserError(f"{where} doesn't accept the credentials ({code}): {KEYS_ADVICE}.", reason="StoreCredentials")
    if code == "NoSuchBucket":
        return UserError(f"{where} doesn't exist: create it, or correct the URI that names it.", reason="BucketMissing")
    if code in _FORBIDDEN or status == HTTPStatus.FORBIDDEN:
        return UserError(
            f"{where}: {doing} is forbidden ({code}): give these credentials leave to list the bucket and to read, "
            "write and delete its objects, or use others.",
            reason="StoreForbidden",
        )
    if code in CONFLICT or code in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        if status == HTTPStatus.NOT_IMPLEMENTED:
            return UserError(
                f"{where} doesn't support what {doing} asks for ({code}): use a server with conditional writes, or try "
                "storage.checksums: whenRequired.",
                reason="StoreUnsuitable",
            )
        return RetryError(f"{where}: {doing} failed after retries ({code}).", reason="StoreUnreachable")
    return UserError(
        f"{where}: {doing} was refused ({code}, HTTP {status}): check the URI, storage.endpoint, storage.region "
        "and storage.checksums.",
        reason="StoreMisconfigured",
    )
