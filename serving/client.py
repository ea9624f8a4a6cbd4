"""A client of the API, for `mailray classify --url`."""

from typing import Any

import httpx

_OF_THE_MAIL = (400, 413, 422)


class ClientError(RuntimeError):
    """No verdict came back; the message is one line that says why."""


class RefusedError(ClientError):
    """The server will not take this mail; others may well pass."""


def classify(url: str, raw: bytes, timeout: float = 60.0) -> dict[str, Any]:
    """The API's answer on one RFC 5322 message; `timeout` is in seconds.

    Raises:
        RefusedError: it is the mail that is refused.
        ClientError: nothing answers at `url`, or it refuses for another reason.
    """
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/v1/classify/raw",
            content=raw,
            headers={"Content-Type": "message/rfc822"},
            timeout=timeout,
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ClientError(f"{url} is no URL, as http://127.0.0.1:8000 is one") from error
    except httpx.ConnectError as error:
        raise ClientError(f"nothing answers at {url}; `mailray serve` starts a server") from error
    except httpx.TimeoutException as error:
        raise ClientError(f"{url} has not answered within {timeout:g} s") from error
    except httpx.HTTPError as error:
        raise ClientError(f"{url} broke off: {error or type(error).__name__}") from error
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict) and "label" in answer:
        return answer
    if response.is_success:
        raise ClientError(f"{url} is no mailray server: its answer has no label")
    kind = RefusedError if response.status_code in _OF_THE_MAIL else ClientError
    raise kind(f"{url} refuses ({response.status_code}): {_reason(response, answer)}")


def _reason(response: httpx.Response, answer: Any) -> str:
    """The server's own words; Serve's proxy, when it sheds load itself, has plain text."""
    try:
        return str(answer["error"]["message"])
    except (KeyError, TypeError):
        lines = response.text.strip().splitlines()
        return lines[0][:200] if lines else response.reason_phrase
