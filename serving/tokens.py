"""Bearer tokens: who may call the server, for what, and how often.

    - name: gateway
      sha256: 4be0...             # of the token; the token itself is kept nowhere
      scopes: [classify, feedback]
      rate: 600/min               # optional
      expires: 2027-01-01T00:00:00Z    # optional

A list like this one is the tokens file, YAML or JSON; `mailray tokens create` writes it. SHA-256
and no slow hash: a token is 256 random bits, which nobody can try out, whereas a slow hash would
let anybody who sends wrong ones keep the server's CPUs busy.
"""

import datetime as dt
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from training.schema import ConfigError, Section

Scope = Literal["classify", "explain", "feedback", "metrics"]
SCOPES: Final[tuple[Scope, ...]] = ("classify", "explain", "feedback")
"""What a token may do unless its maker says otherwise."""

_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_RATE: Final = re.compile(rf"([1-9]\d{{0,8}})/({'|'.join(_SECONDS)})")
_MAX_FILE_BYTES: Final = 16 << 20


def parse_rate(text: str) -> tuple[int, int]:
    """Requests, and the seconds in which so many are allowed; raises ValueError."""
    found = _RATE.fullmatch(text)
    if not found:
        raise ValueError(f"a rate is written as 10/s, 600/min, 1000/h or 5000/day, got {text!r}")
    return int(found[1]), _SECONDS[found[2]]


def _is_rate(text: str) -> str:
    parse_rate(text)
    return text


class Token(Section):
    """One line of the tokens file."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Whose it is; feedback is kept under it."""
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    """Of the token, in hexadecimal."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = SCOPES
    """What it may do."""
    rate: Annotated[str, AfterValidator(_is_rate)] | None = None
    """The most requests in a time, as 600/min."""
    expires: AwareDatetime | None = None
    """When it ends, with a time zone."""

    @staticmethod
    def create(
        name: str,
        scopes: Sequence[str] = SCOPES,
        rate: str | None = None,
        expires: dt.datetime | None = None,
    ) -> tuple["Token", str]:
        """A new one, and the secret that its holder sends; raises ConfigError."""
        secret = f"mailray_{secrets.token_urlsafe(32)}"  # a prefix that secret scanners can find
        tree = {"name": name, "sha256": digest(secret), "scopes": tuple(scopes)}
        return _checked([tree | {"rate": rate, "expires": expires}], "")[0], secret

    def expired(self, now: dt.datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now


def digest(secret: str) -> str:
    """What the file keeps of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def holder(tokens: Sequence[Token], secret: str) -> Token | None:
    """The token that a caller shows; all are compared, in a time that tells nothing of them."""
    shown, found = digest(secret), None
    for token in tokens:
        if hmac.compare_digest(token.sha256, shown):
            found = token
    return found


def read(file: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        ConfigError: it cannot be read, or holds something else; no line of it is quoted.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than a tokens file can be")
        tree = yaml.safe_load(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; `mailray tokens create` makes it") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not YAML") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{file}: not YAML{f', line {mark.line + 1}' if mark else ''}") from None
    tokens = _checked([] if tree is None else tree, str(file))
    for fault, values in (
        ("name", [token.name for token in tokens]),
        ("sha256", [token.sha256 for token in tokens]),
    ):
        if len(set(values)) < len(values):
            raise ConfigError(f"{file}: two tokens have the same {fault}")
    return tokens


@contextmanager
def edited(file: Path) -> Iterator[list[Token]]:
    """The tokens of a file, to be changed within the block; then it is replaced, mode 600.

    A file that is not there is made. Two that edit at once follow each other.

    Raises:
        ConfigError: as `read`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = list(read(file)) if file.exists() else []
        yield tokens
        tree = [token.model_dump(mode="json", exclude_none=True) for token in tokens]
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                yaml.safe_dump(tree, opened, sort_keys=False)
                opened.flush()
                os.fsync(handle)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    finally:
        os.close(folder)


def _checked(tree: Any, where: str) -> tuple[Token, ...]:
    try:
        return tuple(TypeAdapter(list[Token]).validate_python(tree))
    except ValidationError as error:
        faults = []
        for item in error.errors(include_url=False, include_input=False):
            place = ".".join(map(str, item["loc"][1:]))
            entry = f"{where}: entry {int(item['loc'][0]) + 1}: " if item["loc"] else f"{where}: "
            said = item["msg"].removeprefix("Value error, ")
            faults.append(f"{entry if where else ''}{place}{': ' if place else ''}{said}")
        raise ConfigError("\n".join(faults)) from None
