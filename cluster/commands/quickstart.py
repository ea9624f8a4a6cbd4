"""`mailray quickstart`: the whole road once, from raw mail to a verdict over HTTP."""

from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.baselines import beside
from cluster.commands.data import fetched
from cluster.commands.evaluation import report
from cluster.commands.frame import Json, command
from cluster.commands.serving import served, wait
from cluster.commands.training import cpus, named_run, trained
from cluster.session import ray_session
from training.config import resolve

MAILS = {
    "spam": "spam-2/00855.0d1b1b55419a3c35f19b7c35ea9a46b7",
    "easy ham": "easy-ham-1/00001.7c53336b37003a9286aba55d2945844c",
    "hard ham": "hard-ham-1/00051.2dbf15ab121393e6ea3e30a8a12fa23b",
}
"""What is asked over HTTP, and what it is."""


def quickstart(
    keep: Annotated[bool, typer.Option("--keep", help="Serve until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server.")] = 8000,
    json_output: Json = False,
) -> None:
    """Fetch real mail, train the default recipe, test, register, serve, classify.

    Example: mailray quickstart --keep
    """
    with command("quickstart", json_output=json_output) as console:
        from serving.client import MailrayClient
        from serving.config import ServeConfig

        console.note(f"the full log is {console.log_path}")
        place = fetched(console)
        config = resolve(recipe="spam-minilm")
        with ray_session(address=None, cpus=cpus(config)):
            result = trained(console, named_run(config, None, resume=False))
            serve = ServeConfig(model=str(result.bundle.path), port=port, cpus=2)
            with served(console, serve, None) as url:
                with MailrayClient(url) as client:
                    answers = {
                        kind: client.classify((place / name).read_bytes()).model_dump()
                        for kind, name in MAILS.items()
                    }
                console.result(
                    Group(
                        report(result.bundle.metrics["test"], config.data.label_set, "test mails"),
                        *beside(result.bundle.metrics),
                        Text(),
                        _verdicts(answers),
                        Text(f"\n{result.model} version {result.version}, served at {url}"),
                    ),
                    result.facts() | {"url": url, "verdicts": answers},
                )
                if keep:
                    console.note(f"serving at {url}; Ctrl-C stops")
                    wait()
        if not keep:
            console.note("stopped. Next: .venv/bin/mailray serve, or .venv/bin/mailray --help")


def _verdicts(answers: dict[str, dict[str, object]]) -> Table:
    rows = Table("mail", "over HTTP", "probability", "file", box=None)
    for kind, answer in answers.items():
        rows.add_row(kind, str(answer["label"]), f"{answer['probability']:.4f}", MAILS[kind])
    return rows
