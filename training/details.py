"""Details: what kind of mail each mail of an evaluation is, read off the mails once more.

    details(config.data, home, scored.ids, stages)      a row a mail, COLUMNS

Every detail is one of few words, so that `training.slices` can group mails by it. A source of bare
mail text tells only some of them; the others are 'unknown' there.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final

import pyarrow as pa

from training.config import DataConfig
from training.home import Home
from training.mail import Mail, MailError, MailTextOptions, render, text_options
from training.markup import owner
from training.mime import is_page, read
from training.originals import in_order, mail_of, originals
from training.stages import Stages

COLUMNS: Final = (
    "group", "source", "length", "language", "format", "attachments", "links", "sender", "month",
)  # fmt: skip
UNKNOWN: Final = "unknown"

_LENGTHS: Final = ((500, "under 500 characters"), (2_000, "500 to 2,000 characters"),
                   (8_000, "2,000 to 8,000 characters"))  # fmt: skip
_LONGEST: Final = "8,000 characters and more"
_FREE: Final = frozenset([
    "126.com", "163.com", "aim.com", "aol.com", "earthlink.net", "email.com", "excite.com",
    "fastmail.fm", "free.fr", "freenet.de", "gmail.com", "gmx.at", "gmx.ch", "gmx.de", "gmx.net",
    "googlemail.com", "hotmail.co.uk", "hotmail.com", "hotmail.fr", "icloud.com", "juno.com",
    "lycos.com", "mail.com", "mail.ru", "me.com", "msn.com", "naver.com", "netscape.net",
    "orange.fr", "outlook.com", "proton.me", "protonmail.com", "qq.com", "rediffmail.com",
    "rocketmail.com", "t-online.de", "usa.net", "web.de", "wanadoo.fr", "yahoo.co.jp",
    "yahoo.co.uk", "yahoo.com", "yahoo.de", "yahoo.fr", "yandex.ru", "ymail.com",
])  # fmt: skip
_ODD: Final = re.compile(r"\d{3}|xn--|-[^.]*-[^.]*-|^[^.]*$|\d\]?$|[^.]{25}")
"""Of a domain: digits in a row, Punycode, many hyphens, no dot, a number at its end, very long."""
_NO_PROSE: Final = re.compile(r"\w{2,9}://\S+|\S+@\S+|[\d_\W]+")
_LANGUAGE_CHARS: Final = 1_000
_LEAST_BYTES: Final = 50
"""Of letters, in UTF-8: a script of many letters says more with each."""
_CONFIDENCE: Final = 0.5


def details(data: DataConfig, home: Home, ids: Sequence[str], stages: Stages) -> pa.Table:
    """The details of these mails as strings, columns `id` and COLUMNS, in the order of `ids`.

    Raises:
        SourceError: the source, or one of the mails, is not there any more.
    """
    told: Any = partial(_told, source=data.source, options=text_options(data.extras))
    job = originals(data, home, ids).map_batches(told, batch_format="pyarrow", batch_size=None)
    tables = [SCHEMA.empty_table()]
    done = 0
    with stages.stage("details") as stage:
        for table in job.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(table, pa.Table)
            tables.append(table)
            done += table.num_rows
            stage.update(f"{done:,} mails", done, len(ids))
        stage.update(f"{done:,} mails read once more")
    return in_order(pa.concat_tables(tables), ids)


SCHEMA: Final = pa.schema([(name, pa.string()) for name in ("id", *COLUMNS)])


def _told(mails: pa.Table, source: str, options: MailTextOptions) -> pa.Table:
    rows = []
    for row in mails.to_pylist():
        try:
            mail = mail_of(row["raw"], row["text"], options)
        except MailError:  # of two mails with one id, the one that was never scored
            continue
        where = {"id": row["id"], "group": row["group"] or "none", "source": row["place"] or source}
        rows.append(where | of_mail(mail, row["raw"], row["date"]))
    return pa.Table.from_pylist(rows, SCHEMA)


def of_mail(mail: Mail, raw: bytes | None, date: int | None) -> dict[str, str]:
    """What a mail itself tells, and its source of its date; `raw` is None where it came as text."""
    facts = dict(fact.partition(": ")[::2] for fact in mail.facts)
    seconds = date or mail.date
    return {
        "length": _length(len(render(mail))),
        "language": language(mail.body),
        "format": UNKNOWN if raw is None else _format(facts, raw),
        "attachments": UNKNOWN if raw is None else "some" if "attachments" in facts else "none",
        "links": UNKNOWN if raw is None else _links(facts),
        "sender": _sender(mail.address, facts),
        "month": _month(seconds) if seconds else UNKNOWN,
    }


def _month(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m}"
    except (ValueError, OverflowError, OSError):  # a table's dates may be in other units
        return UNKNOWN


def language(text: str) -> str:
    """The ISO 639 code of the language of a text's beginning, 'unknown' if too short or unclear."""
    prose = _NO_PROSE.sub(" ", text[: 4 * _LANGUAGE_CHARS])[:_LANGUAGE_CHARS]
    if len("".join(prose.split()).encode("utf-8", "replace")) < _LEAST_BYTES:
        return UNKNOWN
    code, sure = _identifier().classify(prose)
    return UNKNOWN if sure < _CONFIDENCE or code == "zxx" else str(code)


@cache
def _identifier() -> Any:
    """py3langid's naive Bayes over byte n-grams: no network, no chance, 3,000 mails/s on a core."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # a second to load the model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _length(chars: int) -> str:
    return next((name for below, name in _LENGTHS if chars < below), _LONGEST)


def _format(facts: dict[str, str], raw: bytes) -> str:
    if facts.get("format", "").startswith("html only"):
        return "HTML only"
    page = any(text is not None and is_page(kind, text) for kind, _, text, _ in read(raw).parts)
    return "HTML and plain" if page else "plain"


def _links(facts: dict[str, str]) -> str:
    count = int(facts["links"].partition(" ")[0]) if "links" in facts else 0
    return "none" if not count else "1 or 2" if count < 3 else "3 and more"


def _sender(address: str, facts: dict[str, str]) -> str:
    """The first kind that a sender's domain is of."""
    domain = address.rpartition("@")[2]
    if not domain:
        return "no address"
    if "reply-to" in facts:
        return "answers go to another domain"
    if owner(domain) in _FREE:
        return "free mail"
    return "odd domain" if _ODD.search(domain) else "other domain"
