"""`mailray export`: a model for another runtime."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.evaluation import located, one_of
from cluster.commands.frame import Address, Json, command
from cluster.session import ray_session
from training.home import Home
from training.schema import ConfigError


def export(
    model: Annotated[
        str, typer.Argument(help="A bundle directory, NAME, NAME@ALIAS or NAME:VERSION.")
    ],
    runtime: Annotated[
        str, typer.Option(help="Both on the CPU: onnx (ONNX Runtime), or openvino, always in int8.")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="With int8 weights: a quarter of the size, faster.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The bundle to write; NAME-VERSION-RUNTIME by default.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Held-out mail for the check, as config key data.source."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of the model's own source: test or validation.")
    ] = "test",
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Without held-out mail; the bundle says so.")
    ] = False,
    address: Address = None,
    json_output: Json = False,
) -> None:
    """Write a bundle that another runtime can run too, if it scores held-out mail as PyTorch does.

    Example: mailray export mailray-spam@champion --runtime openvino --out spam-int8
    """
    with command("export", json_output=json_output) as console:
        one_of("--runtime", runtime, "onnx", "openvino")
        one_of("--split", split, "test", "validation")
        if unchecked and source is not None:
            raise ConfigError("--unchecked and --source exclude each other")
        if unchecked and runtime == "openvino":
            raise ConfigError("--unchecked is not for openvino, which is fitted on mails")
        from training import export as exporting
        from training.bundle import Kind, load
        from training.graph import require

        kind = Kind(runtime, "int8" if int8 or runtime == "openvino" else "fp32")  # type: ignore[arg-type]
        require(kind.runtime)
        bundle = load(located(model))
        place = out or Path(f"{bundle.name}-{bundle.version}-{runtime}")
        if not place.absolute().parent.is_dir():
            raise ConfigError(f"--out: there is no directory {place.parent}")
        with nullcontext() if unchecked else ray_session(address=address, cpus=3):
            sample = None
            if not unchecked:
                sample = exporting.sample(
                    bundle, Home.default(), console, source, split,  # type: ignore[arg-type]
                    fit=runtime == "openvino",
                )  # fmt: skip
        made = exporting.export(bundle, place, kind, sample, console)
        check = made.exports[-1].check
        said = exporting.told(check) if check else "not checked on any mail"
        console.result(
            f"{place}  {kind}; {said}",
            {"path": place.absolute(), "runtime": runtime, "precision": kind.precision,
             "bytes": made.exports[-1].bytes, "check": check},
        )  # fmt: skip
