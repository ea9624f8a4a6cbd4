"""An export: a bundle that has its model for another runtime too, if that scores as it should.

mailray export MODEL --runtime onnx [--int8] [--out DIR]

The scores of mails that the model has not learned from are compared with PyTorch's in fp32; one
that differs by more than TOLERANCES is not written. Measured on the 605 SpamAssassin test mails of
`spam-minilm`: fp32 differs by 2e-7 at most and 8e-10 on average, int8 by 0.016 and 0.0002, and no
verdict changes. PyTorch's own bf16 differs by 0.0005 and 6e-6. The tolerances leave int8 six times
that and more, since models differ, and fp32 only rounding.
"""

import hashlib
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.bundle import FILES, Bundle, BundleError, OnnxExport, OnnxPrecision, load
from training.card import card
from training.config import TrainConfig
from training.evaluation import data_of
from training.graph import ExportError, require, write_fp32, write_int8
from training.home import Home
from training.pairs import Side, allowed
from training.schema import read_yaml, validate
from training.scorer import Scorer
from training.sources import SourceError
from training.stages import Stages

MAILS: Final = 1_000
"""Held-out mails that are scored at most, drawn evenly."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the calibrated probabilities of an export may be from those of PyTorch in fp32."""

    largest: float
    """Of any mail and label."""
    mean: float
    """Over mails and labels."""
    changed: float
    """The share of mails whose verdict changes, by labels or at an operating point."""


TOLERANCES: Final[dict[OnnxPrecision, Tolerance]] = {
    "fp32": Tolerance(largest=1e-4, mean=1e-6, changed=0.0),
    "int8": Tolerance(largest=0.1, mean=2e-3, changed=5e-3),
}


def held_out(
    bundle: Bundle, home: Home, stages: Stages, source: str | None, split: Side
) -> list[list[int]]:
    """The tokens of mails that the model has not learned from.

    Raises:
        SourceError: there are none here.
    """
    remedy = "name held-out mail with --source, or export --unchecked"
    try:
        mails, rows = allowed(bundle, home, stages, source, split)
    except SourceError as error:
        raise SourceError(f"{error}; {remedy}") from error
    if not len(rows):
        of = source or data_of(bundle).source
        raise SourceError(
            f"{of} has no {split} mail that {bundle.path} may be asked about; {remedy}"
        )
    even = rows[np.unique(np.linspace(0, len(rows) - 1, min(MAILS, len(rows))).astype(np.int64))]
    tokens: list[list[int]] = mails.cache.table()["tokens"].take(even).to_pylist()
    return tokens


def export(
    bundle: Bundle,
    out: Path,
    precision: OnnxPrecision,
    tokens: Sequence[list[int]] | None,
    stages: Stages,
    tolerance: Tolerance | None = None,
) -> Bundle:
    """Write at `out` a copy of a bundle that has an ONNX model of this precision too.

    `tokens` are those of held-out mails, None for no check. What stands at `out` is replaced as a
    whole, and only by a model that is within tolerance.

    Raises:
        ExportError: the model cannot be exported, or scores otherwise.
        BundleError: `out` is a directory of something else.
    """
    require()
    if out.exists() and not (out / "bundle.json").is_file():
        raise BundleError(f"{out} is there and no model bundle; name another directory with --out")
    new = out.absolute().with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    new.mkdir(parents=True)
    try:
        for name in [*sorted(FILES), *(e.file for e in bundle.exports if e.precision != precision)]:
            shutil.copyfile(bundle.path / name, new / name)
        with stages.stage("export") as stage:
            stage.update(f"onnx {precision}")
            made = _written(replace(bundle, path=new), precision)
            stage.update(f"onnx {precision}, {made.exports[-1].bytes / 1e6:,.1f} MB")
        if tokens is not None:
            with stages.stage("check") as stage:
                stage.update(f"{len(tokens):,} held-out mails")
                check = difference(made, precision, tokens)
                stage.update(told(check))
            if fault := beyond(check, tolerance or TOLERANCES[precision]):
                raise ExportError(f"onnx {precision} is not written: {fault}")
            made = replace(
                made, exports=(*made.exports[:-1], replace(made.exports[-1], check=check))
            )
        config = validate(TrainConfig, read_yaml(new / "config.yaml"))
        (new / "README.md").write_text(card(made, config), "utf-8")
        made.write_facts(new)
        _put(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return load(out)


def difference(
    bundle: Bundle, precision: OnnxPrecision, tokens: Sequence[list[int]]
) -> dict[str, Any]:
    """How far an export's scores of some mails are from those of PyTorch in fp32.

    `largest` and `mean` are of the absolute differences of calibrated probabilities, over mails and
    labels; `changed` counts mails with other labels, `points` those on another side of each
    operating point's threshold.
    """
    exact = Scorer(bundle, "fp32", "torch").score(tokens)
    other = Scorer(bundle, precision, "onnx").score(tokens)
    apart = np.abs(exact.astype(np.float64) - other)
    labels = bundle.label_set
    changed = labels.guess(exact) != labels.guess(other)
    return {
        "mails": len(tokens),
        "largest": float(apart.max()),
        "mean": float(apart.mean()),
        "changed": int((changed.any(1) if labels.multi else changed).sum()),
        "points": {
            point.name: int(((exact[:, 1] >= limit) != (other[:, 1] >= limit)).sum())
            for point in bundle.points
            if (limit := point.threshold) is not None
        },
    }


def told(check: dict[str, Any]) -> str:
    """What `difference` gives, in words."""
    points = "".join(f", {count:,} at {name}" for name, count in check["points"].items())
    return (
        f"{check['mails']:,} held-out mails: probabilities differ by at most "
        f"{check['largest']:.2g}, {check['mean']:.2g} on average; {check['changed']:,} verdicts "
        f"change{points}"
    )


def beyond(check: dict[str, Any], tolerance: Tolerance) -> str:
    """What of a check is out of tolerance; empty for nothing."""
    faults = []
    for key, limit in (("largest", tolerance.largest), ("mean", tolerance.mean)):
        if not check[key] <= limit:  # NaN too
            faults.append(
                f"the {key} difference of a probability is {check[key]:.2g}, more than {limit:g}"
            )
    most = max([check["changed"], *check["points"].values()])
    if most > tolerance.changed * check["mails"]:
        faults.append(
            f"{most:,} of {check['mails']:,} verdicts change, more than {tolerance.changed:.1%}"
        )
    return "; ".join(faults)


def _written(bundle: Bundle, precision: OnnxPrecision) -> Bundle:
    """The bundle, with the file of an export in its directory, unchecked."""
    file = bundle.path / f"model.{precision}.onnx"
    if precision == "fp32":
        write_fp32(bundle, file)
    else:
        whole = bundle.path / ".whole.onnx"
        write_fp32(bundle, whole)
        write_int8(whole, file)
        whole.unlink()
    content = file.read_bytes()
    made = OnnxExport(precision, hashlib.sha256(content).hexdigest(), len(content))
    others = [export for export in bundle.exports if export.precision != precision]
    return replace(bundle, exports=(*others, made))


def _put(new: Path, out: Path) -> None:
    """Put a directory into the place of another, which is there or not."""
    old = new.with_name(f"{new.name}-old")
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
