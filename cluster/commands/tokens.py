"""`mailray tokens create | list | revoke`: who may call a server."""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cluster.commands.frame import Json, command
from training.home import Home
from training.schema import ConfigError

app = typer.Typer(help="Who may call a server: create, list, revoke.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option(help="The tokens file; tokens.yaml in MAILRAY_HOME by default.")
]
Name = Annotated[str, typer.Argument(help="Whose token it is.", metavar="NAME")]


@app.command()
def create(
    name: Name,
    file: File = None,
    scope: Annotated[
        str, typer.Option(help="Any of classify, explain, feedback, metrics, with commas.")
    ] = "classify,explain,feedback",
    rate: Annotated[
        str | None, typer.Option(help="The most requests, as 10/s, 600/min, 1000/h, 5000/day.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="A date, as 2027-01-31, or days from now, as 90d.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Make a token, and print it this once. A server that has the file knows it within a second.

    Example: mailray tokens create gateway --rate 600/min --scope classify --file tokens.yaml
    """
    with command("tokens", json_output=json_output) as console:
        from serving.tokens import Token, edited

        place = _place(file)
        scopes = [part.strip() for part in scope.split(",") if part.strip()]
        token, secret = Token.create(name, scopes, rate, _moment(expires))
        with edited(place) as tokens:
            if any(known.name == name for known in tokens):
                raise ConfigError(f"{place} has a token {name}; revoke it, or choose another name")
            tokens.append(token)
        console.result(secret, {"name": name, "token": secret, "file": str(place)})
        if not json_output:
            console.note(f"kept nowhere else; {place} has its hash: mailray serve tokens={place}")


@app.command("list")
def list_tokens(file: File = None, json_output: Json = False) -> None:
    """The tokens of a file, without what is secret of them.

    Example: mailray tokens list --file tokens.yaml
    """
    with command("tokens", json_output=json_output) as console:
        from serving.tokens import read

        tokens = read(_place(file))
        now = dt.datetime.now(dt.UTC)
        table = Table("name", "scopes", "rate", "expires", box=None, pad_edge=False)
        rows = []
        for token in tokens:
            until = token.expires.isoformat(timespec="seconds") if token.expires else "never"
            over = token.expired(now)
            rate = token.rate or "any"
            table.add_row(
                token.name, ", ".join(token.scopes), rate, f"{until}{' (over)' if over else ''}"
            )
            rows.append(
                {"name": token.name, "scopes": token.scopes, "rate": token.rate, "expired": over}
                | {"expires": until if token.expires else None}
            )
        console.result(table if tokens else "no tokens", {"tokens": rows})


@app.command()
def revoke(name: Name, file: File = None, json_output: Json = False) -> None:
    """Take a token out of the file. A server refuses it within a second.

    Example: mailray tokens revoke gateway --file tokens.yaml
    """
    with command("tokens", json_output=json_output) as console:
        from serving.tokens import edited, read

        place = _place(file)
        if not any(token.name == name for token in read(place)):
            raise ConfigError(f"{place} has no token {name}")
        with edited(place) as tokens:
            tokens[:] = [token for token in tokens if token.name != name]
        console.result(f"{name} is revoked", {"revoked": name, "file": str(place)})


def _place(file: Path | None) -> Path:
    return (file or Home.default().root / "tokens.yaml").expanduser().absolute()


def _moment(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    now = dt.datetime.now(dt.UTC)
    try:
        if text.endswith("d"):
            found = now + dt.timedelta(days=int(text[:-1]))
        else:
            found = dt.datetime.fromisoformat(text)
            found = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--expires: as 2027-01-31 or 90d, got {text!r}") from error
    if found <= now:
        raise ConfigError(f"--expires: {text} is in the past")
    return found
