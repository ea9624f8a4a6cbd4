"""`mailray report`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.evaluation import file_to_be, located, one_of
from cluster.commands.frame import Address, Json, command
from cluster.session import ray_session
from training.home import Home


def report(
    model: Annotated[
        str, typer.Argument(help="A bundle directory, NAME, NAME@ALIAS or NAME:VERSION.")
    ],
    source: Annotated[
        str | None, typer.Option(help="Other mail, as config key data.source; all of it.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of the model's own source: train, validation, test or all.")
    ] = "test",
    output: Annotated[
        Path | None, typer.Option(help="The file; report-NAME-VERSION.html here, if not given.")
    ] = None,
    show_content: Annotated[
        bool, typer.Option("--show-content", help="Show what the mails say that it names.")
    ] = False,
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", help="Leave out disguised mail, which takes longest.")
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 2,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Write what a model is worth as one HTML file: figures, plots, baselines, slices, wrong mails.

    Example: mailray report mailray-spam@champion --output report.html
    """
    with command("report", json_output=json_output) as console:
        one_of("--split", split, "train", "validation", "test", "all")
        one_of("--precision", precision, "auto", "bf16", "fp32")
        if output is not None:
            file_to_be("--output", output)
        from training.assessment import assess
        from training.bundle import load
        from training.report import write

        bundle = load(located(model))
        with ray_session(address=address, cpus=workers + 2):
            evaluation = assess(
                bundle, Home.default(), console, source=source, split=split, precision=precision,  # type: ignore[arg-type]
                workers=workers, disguised=not no_robustness, content=show_content,
            )  # fmt: skip
        with console.stage("report") as stage:
            name = re.sub(r"[^\w.-]+", "-", f"report-{bundle.name}-{bundle.version}")
            file = write(output or Path(f"{name}.html"), evaluation)
            stage.update(f"{file.stat().st_size / 1e6:.1f} MB")
        facts = {"model": bundle.name, "version": bundle.version, "report": file.absolute()}
        console.result(str(file), facts | dict(evaluation.values))
