"""`mailray classify --bulk`: every mail of a source, to Parquet files."""

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.commands.evaluation import located
from cluster.console import Console
from cluster.session import ray_session
from training.home import Home
from training.mail import MailError
from training.schema import ConfigError

if TYPE_CHECKING:
    from training.bundle import Bundle


def bulk(
    console: Console,
    name: str,
    out: Path | None,
    *,
    model: str,
    how: tuple[str, str],
    operating_point: str,
    workers: int | None,
    address: str | None,
) -> None:
    """Score the mails of a source that are not in `out` yet; `how` is a runtime and a precision.

    Raises:
        MailError: no mail at all has a verdict then.
    """
    from serving import parts
    from serving.decision import Decision
    from training.bundle import load
    from training.sources import open_source

    if out is None:
        raise ConfigError("--bulk needs --out DIR: a directory for the verdicts")
    if re.match(r"\w{2,}:/", str(out)):  # a Path has one slash of two
        raise ConfigError(f"--out: a directory that all nodes share, no URI, got {out}")
    out = out.absolute()
    bundle = load(located(model).absolute())
    decision = Decision.of(bundle, operating_point)  # type: ignore[arg-type]
    with console.stage("source") as stage:
        stage.update(f"listing {name}")
        source = open_source(name, None, Home.default().corpora)
        known = "" if source.mails is None else f"{source.mails:,} mails in "
        stage.update(f"{known}{len(source.pieces):,} pieces")
    runtime, precision = _chosen(bundle, *how, out, address)
    facts = parts.manifest(bundle, source, decision, runtime, precision)
    parts.begin(out, facts)
    began = time.monotonic()
    with console.stage("verdicts") as stage:
        _, whole = parts.there(out)
        now = {"scored": 0, "mails_per_second": 0.0}
        if len(whole) < len(source.pieces):
            with ray_session(address=address, cpus=workers or 1):
                from serving.bulk import classify

                now = classify(
                    bundle, source, out, stage,
                    runtime=runtime, precision=precision, operating_point=operating_point,  # type: ignore[arg-type]
                    workers=workers,
                )  # fmt: skip
        found = parts.summarize(out, facts, bundle)
        stage.update(
            f"{found['mails']:,} mails, {now['scored']:,} of them now, "
            f"{now['mails_per_second']:,.0f} mails/s"
        )
    if found["errors"] == found["mails"]:
        id_, reason = parts.first_error(out) or (name, "it has no mails")
        raise MailError(f"--bulk: no mail of {name} has a verdict; the first, {id_}: {reason}")
    console.result(
        _shown(found, out),
        {"model": bundle.name, "version": bundle.version, "operating_point": decision.point,
         "runtime": runtime, "out": out, "seconds": time.monotonic() - began} | now | found,
    )  # fmt: skip


def _chosen(
    bundle: "Bundle", runtime: str, precision: str, out: Path, address: str | None
) -> tuple[str, str]:
    """The runtime and precision of all parts: those that it was begun with, or what is fastest.

    Raises:
        BundleError: the bundle has none such.
    """
    from serving import parts
    from training.choice import candidates
    from training.scorer import Scorer

    candidates(bundle, runtime, precision)  # type: ignore[arg-type]
    if runtime != "auto":
        return runtime, precision
    if known := parts.begun(out):
        return known["runtime"], known["precision"] if precision == "auto" else precision
    if not bundle.exports or address or os.environ.get("RAY_ADDRESS"):
        return "torch", precision  # of a cluster's machines this one is no measure
    scorer = Scorer(bundle, precision, "auto", threads=1)  # type: ignore[arg-type]
    return scorer.runtime, scorer.precision


def _shown(found: dict[str, Any], out: Path) -> Group:
    table = Table("verdict", "mails", "share", box=None)
    named = {**found["labels"], "unsure, of these": found["unsure"], "no mail": found["errors"]}
    for label, count in named.items():
        table.add_row(label, f"{count:,}", f"{count / found['mails']:.2%}")
    drift = ", ".join(
        f"{quantity} {each['state'].replace('_', ' ')} (PSI {each['psi']:.3f})"
        for quantity, each in found.get("drift", {}).items()
    )
    beside = f"\nbeside the mail that the model was tested on: {drift}" if drift else ""
    return Group(table, Text(f"\n{found['mails']:,} mails: {out}{beside}"))
