"""What an S3 store or its client complains of, in sentences of ours.

Theirs are not passed on: they may hold an endpoint's URL with its password, a key id or a token.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from batch_pipelines.engine.errors import DeliveryError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSFER_ERRORS: Final = (
    aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError,
)  # fmt: skip
"""What ends a transfer that may be gone on with."""

_UNKNOWN_KEY = (
    "the store does not take the credentials. Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "the profile that AWS_PROFILE names."
)
_EXPIRED = "the credentials have expired. Renew them, and run again."
_NOT_RENEWED = (
    "the credentials are not complete, or cannot be renewed. Check AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or log in to the profile again."
)
_DENIED = (
    "the store denies access. Let the credentials' owner list the bucket (s3:ListBucket) and read its "
    "objects (s3:GetObject); in an archive also write and delete them (s3:PutObject, "
    "s3:DeleteObject). Or use others."
)
_NO_BUCKET = (
    "there is no such bucket. Correct `source.path` in the feed (of an archive: `archive: to`, or "
    "BATCH_PIPELINES_ARCHIVE), or AWS_ENDPOINT_URL."
)
_ELSEWHERE = "the bucket is in another region. Set AWS_DEFAULT_REGION to it."
_UNREACHABLE = "the store cannot be reached. Check AWS_ENDPOINT_URL and the network, and run again."
_BY_CODE: Final = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _UNKNOWN_KEY,
    "InvalidToken": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": "this machine's clock is wrong, and the store refuses. Set it.",
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "InvalidObjectState": "it is in an archive tier. Have it restored there, and run again.",
}
# What is answered with 400 or 403 by a store that is only slow.
_BUSY: Final = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
_TOO_MANY, _SERVER_ERROR = 429, 500
_BY_STATUS: Final = {401: _DENIED, 403: _DENIED, 404: _NO_BUCKET, 301: _ELSEWHERE}
_BY_CLASS: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    (
        (aws.NoCredentialsError,),
        "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
    ),
    (
        (aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.TokenRetrievalError,
         aws.NoAuthTokenError, aws.UnauthorizedSSOTokenError, aws.SSOError),
        _NOT_RENEWED,
    ),
    ((aws.ProfileNotFound,), "there is no profile of the name in AWS_PROFILE. Correct it."),
    (
        (aws.SSLError,),
        "the store's certificate is not trusted. Check AWS_ENDPOINT_URL, or set AWS_CA_BUNDLE.",
    ),
    (TRANSFER_ERRORS, _UNREACHABLE),
    (
        (ResponseParserError,),
        "what answers is no S3 store. Correct AWS_ENDPOINT_URL.",
    ),
    ((ValueError,), "AWS_ENDPOINT_URL or AWS_DEFAULT_REGION cannot be used. Correct it."),
)  # fmt: skip


@contextmanager
def understood(what: object) -> Iterator[None]:
    """Turn what the store and its client raise into sentences.

    Args:
        what: Bucket or object that a block is about.

    Yields:
        Nothing.

    Raises:
        DeliveryError: Anything went wrong.
        UnreachableError: It may go well the next time: the store is down, busy or far away.
    """
    try:
        yield
    except aws.ClientError as error:
        kind = UnreachableError if _is_passing(error) else DeliveryError
        raise kind(f"{what}: {_of_answer(error)}") from None
    except (aws.BotoCoreError, ResponseParserError, ValueError) as error:
        lost = isinstance(error, TRANSFER_ERRORS) and not isinstance(error, aws.SSLError)
        kind = UnreachableError if lost else DeliveryError
        raise kind(f"{what}: {_of_client(error)}") from None


def code_of(error: aws.ClientError) -> str:
    """Give the code of a store's answer."""
    return error.response.get("Error", {}).get("Code", "")


def _is_passing(error: aws.ClientError) -> bool:
    """Say whether a store's answer is about itself, and not about what it was asked."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code_of(error) in _BUSY or status == _TOO_MANY or status >= _SERVER_ERROR


def _of_answer(error: aws.ClientError) -> str:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    known = _BY_CODE.get(code_of(error)) or _BY_STATUS.get(status)
    return known or f"the store refuses, or has failed (HTTP status {status}). Run again later."


def _of_client(error: Exception) -> str:
    for classes, sentence in _BY_CLASS:
        if isinstance(error, classes):
            return sentence
    return (
        f"the S3 client cannot be used ({type(error).__name__}). Check the AWS_ variables and the "
        "profile."
    )
