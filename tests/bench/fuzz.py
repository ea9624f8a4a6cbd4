"""Requests that nobody should send, to a real server, over sockets.

    mailray serve --model mailray-spam &
    python tests/bench/fuzz.py http://127.0.0.1:8000 --count 5000 --mails FOLDER

A good body is spoilt as in `tests/serving/fuzzing.py`; on top of that come lengths that lie,
chunks that are none, and senders that go away. Ends with 1 if anything was answered by a 5xx, was
not answered within a minute, or the server does not answer good mail afterwards. The last line is
JSON.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.serving.fuzzing import MAILS, Fuzzer, Request  # noqa: E402

AT_ONCE = 8
PATIENCE_S = 60


def wire(request: Request, draw: random.Random) -> tuple[bytes, list[bytes], bool]:
    """Header bytes, body pieces, and whether the server owes an answer."""
    lines = [f"{request.method} {request.path} HTTP/1.1".encode()]
    if not any(name == b"host" for name, _ in request.headers):
        lines.append(b"host: mailray")
    lines += [b"connection: close", *(name + b": " + value for name, value in request.headers)]
    body = b"".join(request.pieces)
    owed = request.complete
    kind = draw.choice(("length", "length", "length", "chunked", "chunked", "lie", "broken"))
    if kind == "chunked":
        lines.append(b"transfer-encoding: chunked")
        pieces = [b"%x\r\n%b\r\n" % (len(p), p) for p in request.pieces if p] + [b"0\r\n\r\n"]
    elif kind == "broken":
        lines.append(b"transfer-encoding: chunked")
        pieces, owed = [b"zz\r\n", body, b"\r\n-1\r\n"], False
    else:
        more = draw.randint(1, 10**6) if kind == "lie" else 0
        lines.append(b"content-length: %d" % (len(body) + more))
        pieces, owed = list(request.pieces), owed and not more
    if not request.complete:
        pieces = pieces[: len(pieces) // 2]
    return b"\r\n".join(lines) + b"\r\n\r\n", pieces, owed


async def status_of(host: str, port: int, request: Request, draw: random.Random) -> int | None:
    """The status of the answer; None where the connection ended without one, and none was owed."""
    head, pieces, owed = wire(request, draw)
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, port)
        reset = True
        with suppress(OSError):
            writer.write(head)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if not owed:
                writer.write_eof()
            reset = False
        answer = b""
        try:
            answer = await reader.read()
        except ConnectionError:
            reset = True
        writer.transport.abort()
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    if not answer.startswith(b"HTTP/1.1 "):
        # A server that refuses before it has read all closes, and that can overtake its answer.
        assert not owed or reset, "no answer"
        return None
    return int(answer[9:12])


async def fuzz(url: str, fuzzer: Fuzzer, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How often each status came, and what was wrong."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    draw = random.Random(seed)
    found: Counter[str] = Counter()
    wrong: list[str] = []
    left = iter(range(count))

    async def worker() -> None:
        for number in left:
            request = fuzzer.request()
            try:
                status = await status_of(host, port, request, draw)
                found["none" if status is None else str(status)] += 1
                if status is not None and status >= 500:
                    wrong.append(f"{number}: {status} to {request}")
            except (TimeoutError, AssertionError) as error:
                wrong.append(f"{number}: {type(error).__name__} {error} to {request}")

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return found, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mails", type=Path, help="a folder of raw messages, at any depth")
    arguments = parser.parse_args()
    mails: list[bytes] = list(MAILS)
    if arguments.mails:
        files = sorted(file for file in arguments.mails.rglob("*") if file.is_file())
        mails = [file.read_bytes() for file in files[:: max(1, len(files) // 500)]]
    [model] = httpx.get(f"{arguments.url}/v1/models").json()["models"]
    fuzzer = Fuzzer(arguments.seed, mails, model["name"], model["version"])
    found, wrong = asyncio.run(fuzz(arguments.url, fuzzer, arguments.count, arguments.seed))
    good = httpx.post(f"{arguments.url}/v1/classify", json={"body": "Hi"}, timeout=PATIENCE_S)
    if good.status_code != 200:
        wrong.append(f"afterwards: {good.status_code} to a good mail")
    for line in wrong[:20]:
        print(line[:1000], file=sys.stderr)  # noqa: T201
    facts = {"requests": arguments.count, "statuses": dict(sorted(found.items()))}
    print(json.dumps(facts | {"wrong": len(wrong), "mails": len(mails)}))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
