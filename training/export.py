"""An export: a bundle that has its model for another runtime too, if that scores as it should.

mailray export MODEL --runtime onnx [--int8] [--out DIR]
mailray export MODEL --runtime openvino [--out DIR]

The scores of mails that the model has not learned from are compared with PyTorch's in fp32; one
that differs by more than TOLERANCES is not written. Measured on the 605 SpamAssassin test mails of
`spam-minilm`: fp32 differs by 2e-7 at most and 8e-10 on average, both int8 by 0.016 and 0.0002 at
most, and no verdict changes. PyTorch's own bf16 differs by 0.0005 and 6e-6. The tolerances leave
int8 six times that and more, since models differ, and fp32 only rounding.
"""

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.bundle import FILES, Bundle, BundleError, Export, GraphPrecision, Kind, load
from training.card import card
from training.config import TrainConfig
from training.evaluation import data_of
from training.graph import (
    ExportError,
    require,
    write_dynamic_int8,
    write_fp32,
    write_static_int8,
)
from training.home import Home
from training.pairs import Side, allowed, same
from training.schema import read_yaml, validate
from training.scorer import Scorer
from training.sources import SourceError
from training.stages import Stages
from training.tensors import Reader

MAILS: Final = 1_000
"""Held-out mails that are scored at most, drawn evenly."""
FITTED: Final = 100
"""Mails that OpenVINO's ranges are fitted on at most; 64 and 200 give the same differences."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the calibrated probabilities of an export may be from those of PyTorch in fp32."""

    largest: float
    """Of any mail and label."""
    mean: float
    """Over mails and labels."""
    changed: float
    """The share of mails whose verdict changes, by labels or at an operating point."""


TOLERANCES: Final[dict[GraphPrecision, Tolerance]] = {
    "fp32": Tolerance(largest=1e-4, mean=1e-6, changed=0.0),
    "int8": Tolerance(largest=0.1, mean=2e-3, changed=5e-3),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens of mails for an export."""

    check: list[list[int]]
    """That its scores are compared on: the model has not learned from them."""
    fit: list[list[int]]
    """That its ranges are fitted on, where it has any; none of `check`."""


def sample(
    bundle: Bundle, home: Home, stages: Stages, source: str | None, split: Side, *, fit: bool
) -> Sample:
    """Mails to check an export on and, if asked, to fit it on.

    It is fitted on those that the model has learned from; every third of another source.

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
    fitted = rows[:0]
    if fit and (source is None or same(source, data_of(bundle).source)):
        fitted = mails.on("train")
    elif fit:
        fitted, rows = rows[::3], np.delete(rows, np.s_[::3])
        if not len(rows):
            raise SourceError(f"{source} has 1 mail; one to fit on and one to check on are needed")
    tokens = mails.cache.table()["tokens"]
    return Sample(
        check=tokens.take(_even(rows, MAILS)).to_pylist(),
        fit=tokens.take(_even(fitted, FITTED)).to_pylist(),
    )


def _even(rows: np.ndarray, most: int) -> np.ndarray:
    at = np.linspace(0, len(rows) - 1, min(most, len(rows)))
    return rows[np.unique(at.astype(np.int64))]


def export(
    bundle: Bundle,
    out: Path,
    kind: Kind,
    sample: Sample | None,
    stages: Stages,
    tolerance: Tolerance | None = None,
) -> Bundle:
    """Write at `out` a copy of a bundle that has a graph of this kind too.

    A `sample` of None is for no check, and not for OpenVINO. What stands at `out` is replaced as a
    whole, and only by a model that is within tolerance.

    Raises:
        ExportError: the model cannot be exported, or scores otherwise.
        BundleError: `out` is a directory of something else.
    """
    require(kind.runtime)
    if out.exists() and not (out / "bundle.json").is_file():
        raise BundleError(f"{out} is there and no model bundle; name another directory with --out")
    new = out.absolute().with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    new.mkdir(parents=True)
    try:
        for name in [*sorted(FILES), *(e.file for e in bundle.exports if e.kind != kind)]:
            shutil.copyfile(bundle.path / name, new / name)
        with stages.stage("export") as stage:
            stage.update(str(kind))
            made = _written(replace(bundle, path=new), kind, sample)
            stage.update(f"{kind}, {made.exports[-1].bytes / 1e6:,.1f} MB")
        if sample is not None:
            with stages.stage("check") as stage:
                stage.update(f"{len(sample.check):,} held-out mails")
                check = difference(made, kind, sample.check)
                stage.update(told(check))
            if fault := beyond(check, tolerance or TOLERANCES[kind.precision]):
                raise ExportError(f"{kind} is not written: {fault}")
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


def difference(bundle: Bundle, kind: Kind, tokens: Sequence[list[int]]) -> dict[str, Any]:
    """How far an export's scores of some mails are from those of PyTorch in fp32.

    `largest` and `mean` are of the absolute differences of calibrated probabilities, over mails and
    labels; `changed` counts mails with other labels, `points` those on another side of each
    operating point's threshold.
    """
    exact = Scorer(bundle, "fp32", "torch").score(tokens)
    other = Scorer(bundle, kind.precision, kind.runtime).score(tokens)
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


def _written(bundle: Bundle, kind: Kind, sample: Sample | None) -> Bundle:
    """The bundle, with the file of an export in its directory, unchecked."""
    file = bundle.path / kind.file
    whole = file if kind.precision == "fp32" else bundle.path / ".whole.onnx"
    write_fp32(bundle, whole)
    if kind.runtime == "openvino":
        assert sample is not None, "ranges are fitted on mails"
        write_static_int8(whole, file, _inputs(bundle, sample.fit))
    elif kind.precision == "int8":
        write_dynamic_int8(whole, file)
    if whole != file:
        whole.unlink()
    content = file.read_bytes()
    made = Export(
        kind.precision, hashlib.sha256(content).hexdigest(), len(content), runtime=kind.runtime
    )
    others = [export for export in bundle.exports if export.kind != kind]
    return replace(bundle, exports=(*others, made))


def _inputs(bundle: Bundle, mails: Sequence[list[int]]) -> Iterator[dict[str, np.ndarray]]:
    """What the graph reads of each mail."""
    reader = Reader(bundle.filler(), bundle.max_length, bundle.keep_head, buckets=0)
    for mail in mails:
        ids, _, _ = reader([mail])
        yield {"ids": ids.numpy(), "mask": np.ones_like(ids.numpy())}


def _put(new: Path, out: Path) -> None:
    """Put a directory into the place of another, which is there or not."""
    old = new.with_name(f"{new.name}-old")
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
