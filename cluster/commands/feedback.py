"""`mailray feedback list | export | erase | expire`: what callers said of the verdicts."""

import datetime as dt
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cluster.commands.frame import Json, command
from training.schema import ConfigError

if TYPE_CHECKING:
    from serving.feedback.record import Record
    from serving.feedback.store import Store

app = typer.Typer(
    help="What callers said of the verdicts: list, export, erase, expire.", no_args_is_help=True
)

Url = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="As feedback= of `mailray serve`; else MAILRAY_FEEDBACK_URL, else MAILRAY_HOME's.",
    ),
]


@app.command("list")
def list_feedback(
    store: Url = None,
    newest: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    json_output: Json = False,
) -> None:
    """The newest feedback, without the mails.

    Example: mailray feedback list --newest 10
    """
    with command("feedback", json_output=json_output) as console, _opened(store) as opened:
        rows = [_row(record) for record in opened.records(newest=newest)]
        table = Table(
            "id", "sent", "token", "label", "given", "model", "mail", "train",
            box=None, pad_edge=False,
        )  # fmt: skip
        for row in rows:
            model = f"{row['model'] or '?'}:{row['version'] or '?'}"
            table.add_row(
                row["id"], row["sent"], row["token"], row["label"] or "none", row["given"] or "",
                model, "kept" if row["mail"] else "", "yes" if row["train"] else "",
            )  # fmt: skip
        total = opened.count()
        console.result(table if rows else "no feedback", {"feedback": rows, "total": total})


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The JSONL file to write.", metavar="FILE")],
    store: Url = None,
    json_output: Json = False,
) -> None:
    """A source for `mailray train`: the mails whose feedback has consent to train on them.

    Example: mailray feedback export desk.jsonl && mailray train data.source=desk.jsonl
    """
    with command("feedback", json_output=json_output) as console, _opened(store) as opened:
        done = without = 0
        with _replaced(file) as out:
            for record in opened.records(train=True):
                mail = record.mail()
                if mail is None:
                    without += 1
                    continue
                head = {"id": record.id, "label": record.label, "date": record.created // 1000}
                out.write(json.dumps(head | mail, ensure_ascii=False) + "\n")
                done += 1
        left = f"; {without:,} without a mail left out" if without else ""
        console.result(
            f"{done:,} mails in {file}{left}",
            {"file": str(file), "mails": done, "without_a_mail": without},
        )


@app.command()
def erase(
    ids: Annotated[list[str], typer.Argument(help="As `mailray feedback list` shows them.")],
    store: Url = None,
    json_output: Json = False,
) -> None:
    """Erase feedback by its id, with the mail. Exit code 2 if one is not there.

    Example: mailray feedback erase 5f0c2b0b7cbf4c24a3cc5d1e5a9d7a63
    """
    with command("feedback", json_output=json_output) as console, _opened(store) as opened:
        gone = [id for id in ids if opened.erase(id)]
        missing = [id for id in ids if id not in gone]
        if missing:
            erased = f"; erased: {', '.join(gone)}" if gone else ""
            raise ConfigError(f"there is no feedback {', '.join(missing)}{erased}")
        console.result(f"{len(gone):,} erased", {"erased": gone})


@app.command()
def expire(
    days: Annotated[int, typer.Option(min=1, help="What is older is erased.")],
    store: Url = None,
    json_output: Json = False,
) -> None:
    """Erase old feedback; a server does so by itself with feedback_days=.

    Example: mailray feedback expire --days 365
    """
    with command("feedback", json_output=json_output) as console, _opened(store) as opened:
        gone = opened.expire(days)
        console.result(f"{gone:,} erased", {"erased": gone})


@contextmanager
def _opened(url: str | None) -> "Iterator[Store]":
    from serving.feedback.store import Store, feedback_url

    store = Store(feedback_url(url))
    try:
        yield store
    finally:
        store.close()


def _row(record: "Record") -> dict[str, Any]:
    moment = dt.datetime.fromtimestamp(record.created // 1000, dt.UTC)
    return {
        "id": record.id,
        "sent": moment.isoformat().replace("+00:00", "Z"),
        "token": record.token,
        "request_id": record.request_id,
        "message_id": record.message_id,
        "label": record.label,
        "given": record.given,
        "probability": record.probability,
        "model": record.model,
        "version": record.version,
        "mail": record.has_mail,
        "train": record.train,
    }


@contextmanager
def _replaced(file: Path) -> Iterator[Any]:
    """A file that is whole or as it was; it has mails, so nobody else may read it."""
    handle, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            yield out
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
