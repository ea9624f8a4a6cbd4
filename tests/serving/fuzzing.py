"""Requests that nobody should send, from a seed: mails and bodies mutated, headers and all.

Mails are of a corpus where there is one, else a few written here. A request is drawn from a good
one, whose body, type, headers, path and arrival are then spoilt, each with some probability.
"""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MAILS: Final = (
    b"From: Ann <ann@example.org>\r\nSubject: Lunch\r\n\r\nAt noon?\r\n",
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.de>\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\n"
    b"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n"
    b"\nBis sp=E4ter, gr=\n=FC=DFe\n",
    b"From: win@example.com\nReply-To: other@example.net\nSubject: You won\nMIME-Version: 1.0\n"
    b'Content-Type: multipart/alternative; boundary="b1"\n\n--b1\nContent-Type: text/plain\n\n'
    b"Claim it now http://example.com/a\n--b1\nContent-Type: text/html; charset=utf-8\n\n"
    b'<html><style>p{color:#fff}</style><p style="display:none">hidden</p>'
    b'<a href="http://evil.example/x">http://bank.example</a><script>x()</script></html>\n--b1--\n',
    b"Subject: nested\nContent-Type: multipart/mixed; boundary=x\n\n--x\n"
    b"Content-Type: message/rfc822\n\nSubject: inner\n\ninner text\n--x\n"
    b"Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\n"
    b"JVBERi0xLjQK\n--x--\n",
    "Subject: 你好\nList-Id: <l.example>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n".encode(),
)

_TOKENS: Final = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n\r\n", b"\n--b1\n", b"--x--",
    b"=?utf-8?b?", b"?=", b"=?x-unknown?q?=FF?=", b"charset=\xff", b"charset=utf-7",
    b"Content-Type: ", b"boundary=", b"Content-Transfer-Encoding: base64\n", b"<", b"&#x110000;",
    b"&#0;", b"<!--", b"]]>", b"%PDF", b"\x1f\x8b", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"-0",
    b"9" * 400, b"null", b"{", b"[", b'"', b"[" * 3000, b'{"a":' * 500, b"\xf0\x9f\x91\x8b",
    b"\xe2\x80\x8b" * 50, b"A" * 5000, b"=" * 300, b"\t" * 300, b'"raw":', b'"mails":',
    b'"inputs":', b'"raw_base64":', b'"shape":', b"true", b"-1",
)  # fmt: skip
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**63, 10**300, 1.5, 1e308, "", " ", "a", "\ud800", "\0", "%PDF",
    "QQ==", [], {}, [[]], {"a": 1}, ["a"], {"raw": "Subject: a\n\nb"}, {"body": "Hi"}, "raw",
    "text", "BYTES", "FP32", "base64",
)  # fmt: skip
_KEYS: Final = (
    "subject", "from", "body", "raw", "raw_base64", "mails", "inputs", "outputs", "name", "shape",
    "datatype", "data", "parameters", "content_type", "id", "\ud800", "", "x" * 300,
)  # fmt: skip
_TYPES: Final = (
    b"application/json", b"message/rfc822", b"application/octet-stream",
    b"application/json; charset=utf-16", b"text/plain", b"", b"multipart/form-data", b"\xff",
    b"application/x-www-form-urlencoded", b"a" * 500,
)  # fmt: skip
_PATHS: Final = (
    "/v1/classify", "/v1/classify/raw", "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer", "/v2/models/%00/infer",
    "/v2/models/{model}/versions/%ff/infer", "/v2//infer", "/v1/classify/", "/v1/models",
    "/v2/models/{model}", "/healthz", "/v2", "/v1/classify?x=%ff&x", "/../etc/passwd",
    "/v1/%2e%2e/classify",
)  # fmt: skip
_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-request-id", b"\xff\xfe"), (b"x-request-id", b"a" * 3000), (b"x-request-id", b"r-1"),
    (b"x-request-timeout-ms", b"NaN"), (b"x-request-timeout-ms", b"-1"),
    (b"x-request-timeout-ms", b"1e400"), (b"x-request-timeout-ms", b"\xb2"),
    (b"x-request-timeout-ms", b"20000"), (b"x-request-timeout-ms", b"0x10"),
    (b"inference-header-content-length", b"12"), (b"authorization", b"Bearer \xff"),
    (b"authorization", b"Basic"), (b"accept", b"\xff"), (b"content-encoding", b"gzip"),
    (b"expect", b"100-continue"), (b"cookie", b"=;=\xff"), (b"origin", b"null"),
    (b"range", b"bytes=0-"), (b"x-request-timeout-seconds", b"\xff"),
    (b"serve_multiplexed_model_id", b"\xff"), (b"host", b"\xff"),
    (b"x-session-id", b"\xff"), (b"traceparent", b"00-zz"), (b"forwarded", b"for=\xff"),
    (b"upgrade", b"h2c"),
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request as it goes over the wire."""

    method: str
    path: str
    """As it is spelled, with a query."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    """The body, as it arrives."""
    complete: bool = True
    """False: the sender goes away before the body's end."""


class Fuzzer:
    """An endless source of requests; the same ones for the same seed."""

    def __init__(
        self, seed: int, mails: Sequence[bytes] = MAILS, model: str = "twin", version: str = "3"
    ) -> None:
        self._random = random.Random(seed)
        self._mails = mails
        self._names = {"model": model, "version": version}

    def request(self) -> Request:
        """The next one."""
        draw = self._random
        kind = draw.choice(("raw", "fields", "rawfield", "many", "tensor"))
        path, media, body = getattr(self, f"_{kind}")()
        for _ in range(draw.choice((0, 0, 1, 2, 5))):
            body = self._spoilt(body)
        if draw.random() < 0.1:
            path = draw.choice(_PATHS)
        if draw.random() < 0.1:
            media = draw.choice(_TYPES)
        headers = [(b"content-type", media)]
        if draw.random() < 0.3:
            headers += draw.sample(_HEADERS, draw.randint(1, 4))
        return Request(
            "POST" if draw.random() < 0.96 else draw.choice(("GET", "PUT", "OPTIONS", "HEAD", "X")),
            path.format(**self._names) if "{" in path else path,
            headers,
            self._pieces(body),
            complete=draw.random() > 0.04,
        )

    def _raw(self) -> tuple[str, bytes, bytes]:
        path = self._random.choice(("/v1/classify", "/v1/classify/raw"))
        mail = self._mail()
        return path, b"message/rfc822", self._spoilt(mail)

    def _fields(self) -> tuple[str, bytes, bytes]:
        return "/v1/classify", b"application/json", self._json(self._parts())

    def _rawfield(self) -> tuple[str, bytes, bytes]:
        return "/v1/classify", b"application/json", self._json(self._whole())

    def _many(self) -> tuple[str, bytes, bytes]:
        draw = self._random
        makers: tuple[Callable[[], Any], ...] = (
            self._parts, self._whole, lambda: draw.choice(_VALUES)
        )  # fmt: skip
        mails = [draw.choice(makers)() for _ in range(draw.choice((0, 1, 2, 5, 5, 70)))]
        return "/v1/classify", b"application/json", self._json({"mails": mails})

    def _tensor(self) -> tuple[str, bytes, bytes]:
        draw = self._random
        data: list[Any] = [self._mail().decode("latin-1") for _ in range(draw.randint(0, 4))]
        tensor: dict[str, Any] = {
            "name": draw.choice(("raw", "text")),
            "shape": draw.choice(([len(data)], [len(data), 1], [2**62, 4])),
            "datatype": "BYTES",
            "data": data if draw.random() < 0.5 else [[each] for each in data],
        }
        if draw.random() < 0.3:
            tensor["parameters"] = {"content_type": "base64"}
            tensor["data"] = [base64.b64encode(self._mail()).decode() for _ in data]
        tree: dict[str, Any] = {"inputs": [tensor]}
        if draw.random() < 0.3:
            tree["outputs"] = [{"name": draw.choice(("label", "scores", "x"))}]
        return draw.choice(_PATHS[2:4]), b"application/json", self._json(tree)

    def _parts(self) -> dict[str, Any]:
        text = self._mail().decode("latin-1")
        return {"subject": text[:60], "from": text[60:90], "body": text[90:]}

    def _whole(self) -> dict[str, Any]:
        mail = self._mail()
        if self._random.random() < 0.5:
            return {"raw": mail.decode("utf-8", "surrogateescape")}
        return {"raw_base64": base64.b64encode(mail).decode()}

    def _mail(self) -> bytes:
        mail = self._random.choice(self._mails)
        return self._spoilt(mail) if self._random.random() < 0.3 else mail

    def _json(self, tree: Any) -> bytes:
        draw = self._random
        if draw.random() < 0.3:
            tree = self._grafted(tree, depth=0)
        return json.dumps(tree, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")

    def _grafted(self, tree: Any, depth: int) -> Any:
        """A tree with one of its parts replaced, or with one too many."""
        draw = self._random
        if depth > 4 or draw.random() < 0.2 or not isinstance(tree, dict | list) or not tree:
            return draw.choice(_VALUES)
        if isinstance(tree, list):
            place = draw.randrange(len(tree))
            return [self._grafted(e, depth + 1) if i == place else e for i, e in enumerate(tree)]
        key = draw.choice(list(tree))
        if draw.random() < 0.3:
            return tree | {draw.choice(_KEYS): draw.choice(_VALUES)}
        return tree | {key: self._grafted(tree[key], depth + 1)}

    def _spoilt(self, body: bytes) -> bytes:
        """Bytes with one thing done to them."""
        draw = self._random
        at, to = sorted((draw.randint(0, len(body)), draw.randint(0, len(body))))
        kind = draw.randrange(8)
        if kind == 0:
            return body[:at]
        if kind == 1:
            return body[:at] + body[to:]
        if kind == 2:
            return body[:at] + draw.choice(_TOKENS) + body[at:]
        if kind == 3:
            return body[:at] + draw.choice(_TOKENS) + body[to:]
        if kind == 4:
            return body[:at] + draw.randbytes(draw.randint(1, 30)) + body[at:]
        if kind == 5:
            return body[:to] + body[at:to] * draw.choice((1, 2, 20)) + body[to:]
        if kind == 6:
            return body[:at] + self._random.choice(self._mails) + body[at:]
        spoilt = bytearray(body or b"\0")
        for _ in range(draw.randint(1, 8)):
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        return bytes(spoilt)

    def _pieces(self, body: bytes) -> list[bytes]:
        draw = self._random
        if draw.random() < 0.6 or len(body) < 2:
            return [body]
        cuts = sorted(draw.randint(0, len(body)) for _ in range(draw.randint(1, 6)))
        return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
