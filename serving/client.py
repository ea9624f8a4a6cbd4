"""The typed client of the API, sync and async. It needs neither FastAPI nor Torch.

    with MailrayClient("http://127.0.0.1:8000", token="...") as client:
        answer = client.classify(Path("a.eml").read_bytes())
        answers = client.classify_many([{"subject": "Lunch", "body": "At noon?"}, raw])

    async with AsyncMailrayClient(url) as client:
        answer = await client.classify(raw)

A server that is busy (429, 503) is asked again when it says so, until the deadline; one that cannot
be reached, a few times. What is asked may be asked again: nothing of it is counted twice.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel
from tenacity import AsyncRetrying, Retrying

from serving.answers import Answer, ErrorBody, Kept, Model, Models
from serving.calls import (
    BusyError,
    Call,
    ClientError,
    Feedback,
    Fields,
    MailLike,
    Patience,
    RefusedError,
    UnreachableError,
    answer_of,
    chunks,
    explain_call,
    feedback_call,
    mail_call,
    many_call,
    named,
    remaining,
)
from serving.drifted import DriftReport
from serving.explained import Explained

__all__ = [
    "AsyncMailrayClient",
    "BusyError",
    "ClientError",
    "Feedback",
    "Fields",
    "MailLike",
    "MailrayClient",
    "RefusedError",
    "UnreachableError",
]

_CHUNKS_AT_ONCE: Final = 4
"""Requests that the async client has under way for one `classify_many`."""

_MODELS: Final = Call("GET", "/v1/models", Models)
_DRIFT: Final = Call("GET", "/v1/drift", DriftReport)

_T = TypeVar("_T", bound=BaseModel)


class MailrayClient:
    """A server, and the connections to it; many threads may use one.

    Every call raises RefusedError where the server will not take what it was sent, and another
    ClientError where no answer came; the message is one line that says why.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline: float = 60.0,
        retry: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Of the server at `url`, which may want a bearer token; a call, all its tries together,
        takes at most `deadline` seconds."""
        self._url = url.rstrip("/")
        self._patience = Patience(deadline, retry)
        with named(url):
            self._http = httpx.Client(transport=transport, **_settings(self._url, token))

    def classify(self, mail: MailLike, *, request_id: str | None = None) -> Answer:
        """The verdict on one mail."""
        return self._ask(mail_call("/v1/classify", Answer, mail, request_id))

    def classify_many(self, mails: Sequence[MailLike]) -> list[Answer | ErrorBody]:
        """The verdict on each mail, in their order; an error in the place of one that is none.

        Any number: they are sent in requests of a size that servers take.
        """
        return [each for chunk in chunks(mails) for each in self._chunk(chunk)]

    def explain(self, mail: MailLike, *, label: str | None = None, top: int = 10) -> Explained:
        """Which words of a mail speak for a label, by default the second of two; `top` of them
        stand apart."""
        return self._ask(explain_call(mail, label, top))

    def feedback(self, said: Feedback) -> Kept:
        """Tell what a mail really was; once this returns, the server has it on disk."""
        return self._ask(feedback_call(said))

    def models(self) -> list[Model]:
        """The models that answer, the champion first."""
        return self._ask(_MODELS).models

    def drift(self) -> DriftReport:
        """How far the mails of late are from those that the model was tested on."""
        return self._ask(_DRIFT)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _chunk(self, mails: Sequence[MailLike]) -> list[Answer | ErrorBody]:
        try:
            return self._ask(many_call(mails)).answers
        except RefusedError as error:
            if len(mails) == 1:
                return [error.body]
            return [each for mail in mails for each in self._chunk([mail])]

    def _ask(self, call: Call[_T]) -> _T:
        start, deadline = time.monotonic(), self._patience.deadline

        def once() -> _T:
            with named(self._url, deadline):
                response = self._http.request(**call.request(remaining(start, deadline)))
            return answer_of(call, self._url, response)

        return Retrying(**self._patience.rules())(once)


class AsyncMailrayClient:
    """As MailrayClient, in one event loop."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline: float = 60.0,
        retry: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As MailrayClient's."""
        self._url = url.rstrip("/")
        self._patience = Patience(deadline, retry)
        with named(url):
            self._http = httpx.AsyncClient(transport=transport, **_settings(self._url, token))

    async def classify(self, mail: MailLike, *, request_id: str | None = None) -> Answer:
        """The verdict on one mail."""
        return await self._ask(mail_call("/v1/classify", Answer, mail, request_id))

    async def classify_many(self, mails: Sequence[MailLike]) -> list[Answer | ErrorBody]:
        """As MailrayClient's, with some requests under way at once."""
        slots = asyncio.Semaphore(_CHUNKS_AT_ONCE)

        async def one(chunk: list[MailLike]) -> list[Answer | ErrorBody]:
            async with slots:
                return await self._chunk(chunk)

        done = await asyncio.gather(*map(one, chunks(mails)))
        return [each for answers in done for each in answers]

    async def explain(
        self, mail: MailLike, *, label: str | None = None, top: int = 10
    ) -> Explained:
        """As MailrayClient's."""
        return await self._ask(explain_call(mail, label, top))

    async def feedback(self, said: Feedback) -> Kept:
        """Tell what a mail really was; once this returns, the server has it on disk."""
        return await self._ask(feedback_call(said))

    async def models(self) -> list[Model]:
        """The models that answer, the champion first."""
        return (await self._ask(_MODELS)).models

    async def drift(self) -> DriftReport:
        """As MailrayClient's."""
        return await self._ask(_DRIFT)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _chunk(self, mails: Sequence[MailLike]) -> list[Answer | ErrorBody]:
        try:
            return (await self._ask(many_call(mails))).answers
        except RefusedError as error:
            if len(mails) == 1:
                return [error.body]
            return [each for mail in mails for each in await self._chunk([mail])]

    async def _ask(self, call: Call[_T]) -> _T:
        start, deadline = time.monotonic(), self._patience.deadline

        async def once() -> _T:
            with named(self._url, deadline):
                request = call.request(remaining(start, deadline))
                try:
                    async with asyncio.timeout(request["timeout"]):
                        response = await self._http.request(**request)
                except TimeoutError as error:
                    raise httpx.ReadTimeout("") from error
            return answer_of(call, self._url, response)

        return await AsyncRetrying(**self._patience.rules())(once)


def _settings(url: str, token: str | None) -> dict[str, Any]:
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise ClientError("the token is none: it must be of visible ASCII characters, in one line")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return {"base_url": url, "headers": headers}
