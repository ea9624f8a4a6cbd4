"""HTTP without a library: what sends a load should take no CPU from what is measured."""

import asyncio
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes


@dataclass
class Connections:
    """Connections to a port of this machine that are kept, as many as there are callers at once."""

    port: int
    path: str = "/v1/classify/raw"
    idle: list[Streams] = field(default_factory=list)

    async def post(self, mail: bytes, seconds: float) -> Reply:
        """Send a raw mail.

        Raises:
            OSError, EOFError, TimeoutError, ValueError: no answer came within so many seconds.
        """
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: a\r\nContent-Type: message/rfc822\r\n"
            f"Content-Length: {len(mail)}\r\n\r\n"
        )
        async with asyncio.timeout(seconds):
            while self.idle and self.idle[-1][0].at_eof():
                self.idle.pop()[1].close()
            reader, writer = (
                self.idle.pop()
                if self.idle
                else await asyncio.open_connection("127.0.0.1", self.port)
            )
            kept = False
            try:
                writer.write(head.encode() + mail)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                kept = headers.get("connection") != "close"
            finally:
                self.idle.append((reader, writer)) if kept else writer.close()
        return Reply(int(lines[0].split()[1]), headers, body)

    def close(self) -> None:
        """Close those that are idle."""
        while self.idle:
            self.idle.pop()[1].close()
