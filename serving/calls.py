"""What a client sends and how it reads what comes back, without a connection.

`serving.client` has the connections, sync and async.
"""

import base64
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Generic, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, retry_if_exception, stop_before_delay
from tenacity.wait import wait_exponential, wait_random

from serving.answers import Answer, Answers, ErrorBody, ErrorDetail, Kept
from serving.explained import Explained

Fields = TypedDict("Fields", {"subject": str, "from": str, "body": str}, total=False)
MailLike = bytes | Fields
"""A raw RFC 5322 message, or a mail's fields of which at least one is not blank."""

_OF_WHAT_WAS_SENT: Final = (400, 409, 413, 415, 422)
_BUSY: Final = (429, 503)
_UNREACHED_TRIES: Final = 4
_CHUNK_MAILS: Final = 32
_CHUNK_BYTES: Final = 1024 * 1024
_BACKOFF: Final = wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.1)

_T = TypeVar("_T", bound=BaseModel)


class ClientError(RuntimeError):
    """No answer came back; the message is one line that says why."""


class UnreachableError(ClientError):
    """Nothing answers there, or it broke off."""


class BusyError(ClientError):
    """The server had no room until the deadline."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after
        """When it wants to be asked again, in seconds."""


class RefusedError(ClientError):
    """The server will not take what it was sent; other mails may well pass."""

    def __init__(self, message: str, body: ErrorBody) -> None:
        super().__init__(message)
        self.body = body


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a mail really was; it is named by an answer, a request id or its Message-ID."""

    label: str | list[str]
    answer: Answer | None = None
    """What the server had said."""
    request_id: str | None = None
    message_id: str | None = None
    mail: MailLike | None = None
    store_text: bool = False
    """Whether whose mail it is agrees to its being kept."""
    train: bool = False
    """Whether they agree to models' learning from it."""


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One question to the API, and the model of its answer."""

    method: str
    path: str
    kind: type[_T]
    json: Any = None
    raw: bytes | None = None
    request_id: str | None = None
    query: Mapping[str, str | int] | None = None

    def request(self, seconds: float) -> dict[str, Any]:
        """Arguments of `httpx.Client.request`, for a try that may take `seconds`."""
        headers = {"X-Request-Timeout-Ms": f"{seconds * 1000:.0f}"}
        if self.request_id is not None:
            headers["X-Request-ID"] = self.request_id
        body: dict[str, Any] = {}
        if self.raw is not None:
            headers["Content-Type"] = "message/rfc822"
            body = {"content": self.raw}
        elif self.json is not None:
            body = {"json": self.json}
        return {
            "method": self.method,
            "url": self.path,
            "headers": headers,
            "params": self.query,
            "timeout": seconds,
            **body,
        }


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is tried, in seconds, and whether it is tried again."""

    deadline: float
    retry: bool = True

    def rules(self) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying`."""
        return {
            "retry": retry_if_exception(self._again),
            "wait": _wait,
            "stop": self._over,
            "reraise": True,
        }

    def _again(self, error: BaseException) -> bool:
        return self.retry and isinstance(error, BusyError | UnreachableError)

    def _over(self, state: RetryCallState) -> bool:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, UnreachableError) and state.attempt_number >= _UNREACHED_TRIES:
            return True
        return stop_before_delay(self.deadline)(state)


def mail_call(path: str, kind: type[_T], mail: MailLike, request_id: str | None) -> Call[_T]:
    """A mail alone, its bytes as they are."""
    if isinstance(mail, bytes):
        return Call("POST", path, kind, raw=mail, request_id=request_id)
    return Call("POST", path, kind, json=mail, request_id=request_id)


def explain_call(mail: MailLike, label: str | None, top: int) -> Call[Explained]:
    """Why a mail has a label."""
    query: dict[str, str | int] = {"top": top} if label is None else {"top": top, "label": label}
    return replace(mail_call("/v1/explain", Explained, mail, None), query=query)


def many_call(mails: Sequence[MailLike]) -> Call[Answers]:
    """Many mails in one request."""
    return Call("POST", "/v1/classify", Answers, json={"mails": [_as_json(m) for m in mails]})


def feedback_call(said: Feedback) -> Call[Kept]:
    """What a mail really was."""
    given = said.answer
    body: dict[str, Any] = {
        "label": said.label,
        "request_id": said.request_id or (given.request_id if given else None),
        "message_id": said.message_id,
        "mail": None if said.mail is None else _as_json(said.mail),
        "consent": {"store_text": said.store_text, "train": said.train},
    }
    if given:
        body["verdict"] = {"label": given.label, "probability": given.probability}
        body |= {"model": given.model, "version": given.version}
    kept = {name: value for name, value in body.items() if value is not None}
    return Call("POST", "/v1/feedback", Kept, json=kept)


def chunks(mails: Sequence[MailLike]) -> Iterator[list[MailLike]]:
    """The mails in pieces that a request may have, by number and size."""
    chunk: list[MailLike] = []
    size = 0
    for mail in mails:
        length = len(mail) if isinstance(mail, bytes) else sum(map(len, map(str, mail.values())))
        if chunk and (len(chunk) == _CHUNK_MAILS or size + length > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(mail)
        size += length
    if chunk:
        yield chunk


def answer_of(call: Call[_T], url: str, response: httpx.Response) -> _T:
    """The answer in a response.

    Raises:
        RefusedError, BusyError, ClientError: there is none.
    """
    if response.is_success:
        try:
            return call.kind.model_validate_json(response.content)
        except ValidationError as error:
            what = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "no JSON"
            raise ClientError(
                f"{url} is no mailray server, or one of another version: its answer to "
                f"{call.method} {call.path} is not as expected ({what})"
            ) from error
    status = response.status_code
    body = _error(response)
    message = f"{url} refuses ({status}): {body.error.message}"
    if status in _BUSY:
        raise BusyError(message, _after(response.headers.get("Retry-After")))
    if status in _OF_WHAT_WAS_SENT:
        raise RefusedError(message, body)
    raise ClientError(message)


@contextmanager
def named(url: str, deadline: float = 0) -> Iterator[None]:
    """Faults of a connection as one line each."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ClientError(f"{url} is no URL, as http://127.0.0.1:8000 is one") from error
    except httpx.ConnectError as error:
        raise UnreachableError(
            f"nothing answers at {url}; `mailray serve` starts a server"
        ) from error
    except httpx.TimeoutException as error:
        raise ClientError(f"{url} has not answered within {deadline:g} s") from error
    except httpx.HTTPError as error:
        raise UnreachableError(f"{url} broke off: {error or type(error).__name__}") from error


def remaining(start: float, deadline: float) -> float:
    """What is left of a deadline that began at `start`, a time of `time.monotonic()`."""
    return max(start + deadline - time.monotonic(), 0.001)


def _as_json(mail: MailLike) -> Mapping[str, Any]:
    if not isinstance(mail, bytes):
        return mail
    try:
        return {"raw": mail.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(mail).decode()}


def _error(response: httpx.Response) -> ErrorBody:
    """The server's own words; Serve's proxy, when it sheds load itself, has plain text."""
    try:
        return ErrorBody.model_validate_json(response.content)
    except ValidationError:
        lines = response.text.strip().splitlines()
        message = lines[0][:200] if lines else response.reason_phrase
        return ErrorBody(error=ErrorDetail(code="unknown", message=message))


def _after(header: str | None) -> float:
    """A Retry-After header in seconds: a number of them, or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return 0.0
    try:
        return max(float(header), 0.0) if header.strip().isdigit() else _until(header)
    except ValueError:
        return 0.0


def _until(date: str) -> float:
    when = parsedate_to_datetime(date)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


def _wait(state: RetryCallState) -> float:
    """Longer each time, and never shorter than the server asks; callers told so at once spread."""
    error = state.outcome and state.outcome.exception()
    asked = error.after if isinstance(error, BusyError) else 0.0
    return max(_BACKOFF(state), asked + random.uniform(0, asked / 4))
