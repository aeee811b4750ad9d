"""What a fault of an object store means: nothing there, something there already, worth another try, or final.

Knows the exceptions of S3's and Google's client libraries by name and by what they carry, as neither has to be
installed. What it does not know is taken for a bug and left alone.
"""

import errno
import re
from enum import Enum

from epalm.errors import CacheError


class Verdict(Enum):
    """What to do about a fault."""

    MISSING = "there is no such object"
    EXISTS = "an object of that name is there"
    AGAIN = "may go well in a moment"
    FINAL = "will not go well however often it is tried"


_AGAIN_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("408", "409", "429", "500", "502", "503", "504"),
}
# By name of class or base class; botocore's and requests' ConnectionError are not Python's.
_AGAIN_CLASSES = {
    *("ConnectionError", "HTTPClientError", "IncompleteReadError", "ResponseStreamingError", "ResponseParserError"),
    *("IncompleteRead", "FlexibleChecksumError", "ChecksumError", "ClientError", "RequestException", "TransportError"),
}
_FINAL_CLASSES = {"BotoCoreError", "GoogleAuthError", "HttpError"}
_FINAL_TYPES = (PermissionError, NotADirectoryError, IsADirectoryError, NotImplementedError, ValueError)
_FINAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSYS}

_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName", "NoBucketError"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "GoogleAuthError"),
    *("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401"),
}
_HOW_TO_SIGN_IN = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_HOW_TO_SIGN_IN |= {"s3a": _HOW_TO_SIGN_IN["s3"], "gcs": _HOW_TO_SIGN_IN["gs"]}


class NoBucketError(FileNotFoundError):
    """A put found nothing to put into: gcsfs says of a bucket no more than of an object."""


def judge(error: Exception) -> Verdict | None:  # noqa: PLR0911 (one question after another)
    """What a fault means; None where it is no fault of a store."""
    codes, classes = _codes(error), _classes(error)
    if isinstance(error, FileNotFoundError):
        return Verdict.FINAL if (codes | classes) & _NO_BUCKET else Verdict.MISSING
    if isinstance(error, FileExistsError) or codes & {"PreconditionFailed", "412"}:
        return Verdict.EXISTS
    if isinstance(error, _FINAL_TYPES) or _forbidden(error):
        return Verdict.FINAL
    if codes:
        return Verdict.AGAIN if codes & _AGAIN_CODES else Verdict.FINAL
    if classes & _AGAIN_CLASSES:
        return Verdict.AGAIN
    if isinstance(error, OSError):
        return Verdict.FINAL if error.errno in _FINAL_ERRNOS else Verdict.AGAIN
    return Verdict.FINAL if classes & _FINAL_CLASSES else None


def not_implemented(error: Exception) -> bool:
    """Whether the store says that it cannot do such a thing at all."""
    return bool(_codes(error) & {"NotImplemented", "501"})


def final_error(error: Exception, scheme: str, what: str) -> CacheError:
    """The one error for a fault that no further try mends; `what` names the object, `scheme` the kind of store."""
    marks = _codes(error) | _classes(error)
    if marks & _NO_BUCKET:
        return CacheError(f"{what}: there is no such bucket", hint="create the bucket, or correct the URL")
    if marks & _REGION:
        hint = (
            "set AWS_DEFAULT_REGION to the region of the bucket, and AWS_ENDPOINT_URL where the store is not Amazon's"
        )
    elif marks & _CREDENTIALS:
        hint = _HOW_TO_SIGN_IN.get(scheme, "give the store's credentials in fsspec's configuration")
    elif isinstance(error, PermissionError) or _forbidden(error):
        hint = "ask for the right to list, read, write and delete there, or take other credentials: "
        hint += _HOW_TO_SIGN_IN.get(scheme, "fsspec's configuration has them")
    else:
        hint = "correct the URL or the settings of the store"
    return CacheError(f"{what}: {said(error)}", hint=hint)


def said(error: Exception) -> str:
    """The text of a fault, on one line, without what signs or authorises a request."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = " ".join(words.split()) or type(error).__name__
    text = without_user(text)
    return re.sub(r"\?[^\s\"']*=[^\s\"']*", "", text)  # signatures and tokens travel in query strings


def without_user(url: str) -> str:
    """A URL, or a text with URLs, without the user and password that may stand before the host."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", url)


def _codes(error: Exception) -> set[str]:
    """The codes that a store answered with: a word, an HTTP status, or both."""
    found = set()
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)  # botocore
        if isinstance(response, dict):
            found.add(str(response.get("Error", {}).get("Code", "")))
            found.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        if "HttpError" in {kind.__name__ for kind in type(one).__mro__}:  # gcsfs
            found.add(str(getattr(one, "code", "") or ""))
    return found - {""}


def _classes(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _forbidden(error: Exception) -> bool:
    return type(error) is OSError and str(error).startswith("Forbidden")  # how gcsfs says 403
