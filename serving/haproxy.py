"""HAProxy as `mailray serve` wants it: Ray starts this, which mends Ray's configuration.

    python haproxy.py BINARY ADDRESS REQUESTS [HAProxy's own arguments, with -f FILE]

Ray 2.60 has a template and few settings. By it HAProxy would tell its counters to every network,
wait an hour for a caller's headers, outlive a Ray that is killed, and let all in, however many
wait.
Only the standard library is imported here: it runs each time that a replica comes or goes.
"""

import ctypes
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

_UNWANTED: Final = ("frontend prometheus", "listen stats")
"""Sections that open ports of their own, on all interfaces."""

_SECTIONS: Final = re.compile(r"^(?=\S)", re.MULTILINE)
_LOG: Final = re.compile(r"^ *log 127\.0\.0\.1:514 .*\n", re.MULTILINE)
"""What Ray sends to whatever listens for syslog here, unless it is told otherwise."""
_BIND: Final = re.compile(r"^    bind .+$", re.MULTILINE)
_LEADS: Final = re.compile(r"^    use_backend (\S+) if .+$", re.MULTILINE)

_PR_SET_PDEATHSIG: Final = 1

# What the replicas would say; below /v2 as the Open Inference Protocol wants it.
_CODE, _MESSAGE = "overloaded", "as many requests as allowed are waiting; try again"
_REFUSAL: Final = json.dumps({"error": {"code": _CODE, "message": _MESSAGE}})
_REFUSAL_V2: Final = json.dumps({"error": f"{_CODE}: {_MESSAGE}"})

_TOO_SLOW: Final = json.dumps(
    {"error": {"code": "too_slow", "message": "The body did not arrive in time."}}
)

_FULL: Final = """\
    # Told here, at no cost to the replicas. Retry-After is how long those under way will take, at the
    # rate of the last second. The body is read first, or the caller would see its connection reset;
    # one that is longer than the buffer, or says not how long it is, is for the replicas to refuse.
    http-request set-var(txn.servers) nbsrv({name})
    http-request set-var(txn.each) be_conn({name}),div(txn.servers)
    http-request set-var(txn.rate) be_sess_rate({name}),add(1)
    http-request set-var(txn.wait) be_conn({name}),div(txn.rate),add(1)
    http-request set-var(txn.wait) int(30) if {{ var(txn.wait) -m int gt 30 }}
    acl asks method POST
    acl usable var(txn.servers) -m int gt 0
    acl full var(txn.each) -m int ge {requests}
    acl told req.hdr(Content-Length) -m found
    acl short req.hdr_val(Content-Length) -m int lt 120000
    http-request set-header X-Request-ID %[uuid] if asks usable full told short !{{ req.fhdr(X-Request-ID) -m reg '^[!-~]{{1,128}}$' }}
    http-error status 408 content-type application/json string '{slow}'
    http-request wait-for-body time 30s if asks usable full told short
    http-request return status 429 content-type application/json hdr Retry-After %[var(txn.wait)] hdr X-Request-ID %[req.fhdr(X-Request-ID)] string '{v2}' if asks usable full told short {{ path_beg /v2/ }}
    http-request return status 429 content-type application/json hdr Retry-After %[var(txn.wait)] hdr X-Request-ID %[req.fhdr(X-Request-ID)] string '{v1}' if asks usable full told short
"""  # noqa: E501 - HAProxy has no continued lines


def mended(text: str, address: str, requests: int) -> str:
    """Ray's configuration with what it lacks.

    `address` is where HAProxy listens, as it writes it. For each replica `requests` may be under
    way; of the next one that asks for something to be done it is said that there are too many.
    """
    sections = [each for each in _SECTIONS.split(text) if not each.startswith(_UNWANTED)]
    for number, section in enumerate(sections):
        if section.startswith("global"):
            sections[number] = _LOG.sub("", section)
        elif section.startswith("defaults"):
            sections[number] = f"{section.rstrip()}\n    timeout http-request 30s\n"
        elif section.startswith("frontend http_frontend"):
            sections[number] = _LEADS.sub(
                lambda lead: _full(lead[1], requests) + lead[0],
                _BIND.sub(f"    bind {address}", section, count=1),
            )
    return "".join(sections)


def _full(name: str, requests: int) -> str:
    return _FULL.format(name=name, requests=requests, v1=_REFUSAL, v2=_REFUSAL_V2, slow=_TOO_SLOW)


def main() -> None:
    """Mend the file behind -f, and become HAProxy."""
    binary, address, requests, *arguments = sys.argv[1:]
    if "-f" in arguments:
        file = Path(arguments[arguments.index("-f") + 1])
        # Ray has just written it, and waits for this process.
        file.write_text(mended(file.read_text("utf-8"), address, int(requests)), "utf-8")
    if sys.platform == "linux":
        parent = os.getppid()
        # When Ray's process ends, however it does, or its thread that has started this, which
        # lives as long. No more is taken on then, and what is under way is answered.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
        if os.getppid() != parent:
            raise SystemExit("what has started HAProxy has ended")
    os.execv(binary, [binary, *arguments])  # Ray waits for this process id


if __name__ == "__main__":
    main()
