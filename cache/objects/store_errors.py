"""What an object store's error means: worth another try or final, and what the user is told."""

import re

from epalm.errors import CacheError

AGAIN = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("408", "409", "429", "500", "502", "503", "504"),
}
_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
SIGN_IN = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "memory": "",
}


def codes_of(error: Exception) -> set[str]:
    """The codes that a store answered with: a word, and an HTTP status; none where the network failed."""
    text = str(error)
    return {*re.findall(r"<Code>(\w+)</Code>", text)[:1], *re.findall(r"status code: (\d+)", text)[:1]}


def final_error(where: str, scheme: str, codes: set[str], error: Exception) -> CacheError:
    """The one error for a fault that no further try mends."""
    if "NoSuchBucket" in codes:
        return CacheError(f"{where}: there is no such bucket", hint="create the bucket, or correct the URL")
    if codes & _REGION:
        hint = "set AWS_DEFAULT_REGION to the bucket's region, and AWS_ENDPOINT_URL where the store is not Amazon's"
    elif codes & _CREDENTIALS or "401" in codes:
        hint = SIGN_IN[scheme]
    elif "403" in codes:
        hint = f"ask for the right to list, read, write and delete there, or take other credentials: {SIGN_IN[scheme]}"
    else:
        hint = "correct the URL or the settings of the store"
    return CacheError(f"{where}: {text_of(error)}", hint=hint)


def text_of(error: Exception) -> str:
    """The text of a fault, on one line, without what signs or authorises a request."""
    words = " ".join(str(error).partition("Debug source")[0].split()) or type(error).__name__
    return re.sub(r"\?[^\s\"']*=[^\s\"']*", "", without_user(words))  # signatures travel in query strings


def without_user(url: str) -> str:
    """A URL, or a text with URLs, without the user and password that may stand before the host."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", url)
