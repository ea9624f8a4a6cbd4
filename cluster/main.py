"""The command line: `mailray`, or `python -m cluster.main` in a Ray job."""

from importlib.metadata import version as installed
from typing import Annotated

import typer

from cluster.commands import (
    comparison,
    data,
    doctor,
    evaluation,
    exports,
    feedback,
    jobs,
    models,
    quickstart,
    remote,
    reports,
    serving,
    suspects,
    tokens,
    training,
)

app = typer.Typer(
    name="mailray",
    help="Fine-tune, tune and serve BERT-class e-mail classifiers on Ray.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data.app.command()(suspects.suspects)
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(tokens.app, name="tokens")
app.add_typer(feedback.app, name="feedback")
app.add_typer(models.app, name="models")
for command in (
    training.train,
    evaluation.evaluate,
    comparison.compare,
    exports.export,
    training.tune,
    reports.report,
    serving.serve,
    serving.classify,
    remote.submit,
    doctor.doctor,
    quickstart.quickstart,
):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mailray {installed('mailray')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune, tune and serve BERT-class e-mail classifiers on Ray."""


if __name__ == "__main__":
    app()
