"""A bundle: one directory that holds a trained model and all that is needed to use it.

    bundle.json          labels, head, mail-text version, maximum length, versions, metrics,
                         curves, the reference for drift, what each epoch gave, and of what the
                         model was made
    config.yaml          the resolved training config
    encoder.json         the encoder's architecture
    model.safetensors    the weights, float32
    tokenizer.json       the tokenizer
    README.md            the model card (training/card.py)
    model.*.onnx         if `mailray export` made any (`KINDS`): the encoder and the head as a graph
                         for another runtime; `exports` in bundle.json names them

Nothing is pickled, and a directory with any other file is refused. It is written beside its place
and renamed, so it is whole or absent.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig

from training.card import card
from training.config import TrainConfig
from training.labels import Labels
from training.mail import MAIL_TEXT_VERSION
from training.model import HeadShape, MailModel, rebuild
from training.operating import OperatingPoint
from training.reference import Reference
from training.wide import Wide

FORMAT: Final = 2
FILES = frozenset(
    [
        "bundle.json",
        "config.yaml",
        "encoder.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    ]
)


class BundleError(ValueError):
    """A directory is no bundle that this version can use; the message says why."""


GraphRuntime = Literal["onnx", "openvino"]
GraphPrecision = Literal["fp32", "int8"]


class Kind(NamedTuple):
    """What an export is for."""

    runtime: GraphRuntime
    precision: GraphPrecision

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"

    @property
    def file(self) -> str:
        """Its name in the bundle."""
        of = "" if self.runtime == "onnx" else f".{self.runtime}"
        return f"model.{self.precision}{of}.onnx"


KINDS: Final = (Kind("onnx", "fp32"), Kind("openvino", "int8"), Kind("onnx", "int8"))
"""What `mailray export` may add, the most exact first."""
EXPORTED = frozenset(kind.file for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Export:
    """The encoder and the head once more, as a graph."""

    precision: GraphPrecision
    sha256: str
    bytes: int
    check: dict[str, Any] | None = None
    """How far its scores are from those of PyTorch in fp32, as `training.export.difference` gives
    it; None where nobody has looked."""
    runtime: GraphRuntime = "onnx"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"an export for {str(self.kind)!r}")

    @property
    def kind(self) -> Kind:
        """What it is for."""
        return Kind(self.runtime, self.precision)

    @property
    def file(self) -> str:
        """Its name in the bundle."""
        return self.kind.file


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `bundle.json` says, and the directory it stands in."""

    path: Path
    name: str
    version: str
    labels: tuple[str, ...]
    max_length: int
    keep_head: float
    """The share of a longer mail's tokens that come from its beginning."""
    read_length: int
    """Tokens of a mail that the model reads, those of a wide part included."""
    mail_text_version: int
    extras: tuple[str, ...]
    """What the mail text has beyond the default."""
    head: HeadShape
    metrics: dict[str, Any] = field(default_factory=dict)
    """`validation` and `test`, each as `training.metrics.report` gives it; `baselines` has such a
    report on the test mails for each of `training.baselines`, unless they were turned off."""
    temperature: float = 1.0
    """Of `training.calibration`; the weights are not."""
    points: tuple[OperatingPoint, ...] = ()
    """Of two labels, one of which a mail has; fitted on the validation mails."""
    epochs: tuple[dict[str, Any], ...] = ()
    """A row for each epoch of the run, as `training.checkpoint.epochs` gives them."""
    curves: dict[str, Any] = field(default_factory=dict)
    """By label, what `training.curve.Curve.told` gives of the test mails; of two labels, one of
    which a mail has, the second alone."""
    provenance: dict[str, str] = field(default_factory=dict)
    """As `training.provenance` gives it, and the SHA-256 of the checkpoint's `weights`."""
    exports: tuple[Export, ...] = ()
    """What it has beside PyTorch's weights."""
    reference: Reference | None = None
    """What mail looks like to it, for who asks whether other mail still does; None of a bundle that
    was made by a mailray that did not keep it."""

    @property
    def label_set(self) -> Labels:
        """The labels, and how a mail has them."""
        return Labels(self.labels, self.head.multi)

    def model(self) -> MailModel:
        """The trained model, float32, on the CPU, in evaluation mode."""
        settings = AutoConfig.from_pretrained(self.path / "encoder.json")
        # A recipe's kernel was for training, on other hardware maybe; `rebuild` chooses anew.
        settings._attn_implementation = "sdpa"
        model = rebuild(settings, self.head)
        try:
            model.load_state_dict(load_file(self.path / "model.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(
                f"{self.path / 'model.safetensors'} is damaged or of another model"
            ) from error
        return model.eval()

    def wide(self) -> Wide | None:
        """The trained wide part alone, float32, on the CPU; the encoder is not read."""
        if not self.head.wide:
            return None
        wide = Wide(self.head.wide, self.head.logits)
        try:
            with safe_open(self.path / "model.safetensors", "pt") as weights:
                state = {name: weights.get_tensor(f"wide.{name}") for name in wide.state_dict()}
            wide.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            raise BundleError(
                f"{self.path / 'model.safetensors'} is damaged or of another model"
            ) from error
        return wide.eval()

    def filler(self) -> int:
        """The token id of padding, as `MailModel.filler`."""
        facts = json.loads((self.path / "encoder.json").read_text("utf-8"))
        return int(facts.get("pad_token_id") or 0)

    def graph(self, kind: Kind) -> bytes:
        """The ONNX file of a kind that `exports` has.

        Raises:
            BundleError: the file is not the one that was exported.
        """
        [export] = [export for export in self.exports if export.kind == kind]
        content = (self.path / export.file).read_bytes()
        if hashlib.sha256(content).hexdigest() != export.sha256:
            raise BundleError(
                f"{self.path / export.file} is damaged or of another model; export it again"
            )
        return content

    def write_facts(self, folder: Path) -> None:
        """Write `bundle.json`."""
        facts = {key: value for key, value in asdict(self).items() if key != "path"}
        text = json.dumps({"format": FORMAT} | facts, indent=2)
        (folder / "bundle.json").write_text(text, "utf-8")

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with neither padding nor truncation."""
        tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def load(path: Path) -> Bundle:
    """The bundle in a directory; the weights are read only by `Bundle.model`.

    Raises:
        BundleError: files are missing or do not belong there, or it was made for another mail
            text.
    """
    if not path.is_dir():
        raise BundleError(f"{path} is no directory; a model bundle is needed")
    missing = sorted(file for file in FILES if not (path / file).is_file())
    if missing:
        raise BundleError(f"{path} is no model bundle: {', '.join(missing)} missing")
    # A pickle beside the weights runs code in whatever reads it; nothing of ours ever writes one.
    others = sorted(
        file.name
        for file in path.iterdir()
        if file.name not in FILES | EXPORTED and file.name[0] != "."
    )
    if others:
        raise BundleError(
            f"{path} has files that no bundle has: {', '.join(others[:5])}; remove them"
        )
    try:
        facts = json.loads((path / "bundle.json").read_text("utf-8"))
        if facts.get("format") != FORMAT:
            raise BundleError(
                f"{path} has bundle format {facts.get('format')}, this mailray reads {FORMAT}; "
                "train anew or use the mailray that made it"
            )
        bundle = Bundle(
            path=path,
            name=facts["name"],
            version=facts["version"],
            labels=tuple(facts["labels"]),
            max_length=facts["max_length"],
            keep_head=facts["keep_head"],
            read_length=facts.get("read_length", facts["max_length"]),
            mail_text_version=facts["mail_text_version"],
            extras=tuple(facts["extras"]),
            head=HeadShape(**facts["head"]),
            metrics=facts["metrics"],
            temperature=float(facts.get("temperature", 1.0)),
            points=tuple(OperatingPoint(**point) for point in facts.get("points", ())),
            epochs=tuple(dict(row) for row in facts.get("epochs", ())),
            curves=dict(facts.get("curves", {})),
            provenance=dict(facts.get("provenance", {})),
            exports=tuple(Export(**export) for export in facts.get("exports", ())),
            reference=Reference.read(known) if (known := facts.get("reference")) else None,
        )
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path / 'bundle.json'} is damaged: {error}") from error
    if bundle.mail_text_version != MAIL_TEXT_VERSION:
        raise BundleError(
            f"{path} was trained on mail text {bundle.mail_text_version}, this mailray makes "
            f"{MAIL_TEXT_VERSION}; train anew or use the mailray that made it"
        )
    if absent := [e.file for e in bundle.exports if not (path / e.file).is_file()]:
        raise BundleError(f"{path} is no whole model bundle: {', '.join(absent)} missing")
    return bundle


def save(
    path: Path,
    model: MailModel,
    tokenizer: Tokenizer,
    config: TrainConfig,
    *,
    version: str,
    metrics: dict[str, Any],
    temperature: float = 1.0,
    points: Sequence[OperatingPoint] = (),
    epochs: Sequence[dict[str, Any]] = (),
    curves: dict[str, Any] | None = None,
    provenance: dict[str, str] | None = None,
    reference: Reference | None = None,
) -> Bundle:
    """Write a bundle; `path` is replaced as a whole."""
    new = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    new.mkdir(parents=True)
    encoder: Any = model.encoder
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, new / "model.safetensors")
    encoder.config.to_json_file(new / "encoder.json", use_diff=False)
    tokenizer.save(str(new / "tokenizer.json"))
    tree = config.model_dump(mode="json")
    (new / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
    bundle = Bundle(
        path=path,
        name=config.tracking.model,
        version=version,
        labels=config.data.labels,
        max_length=config.data.max_length,
        keep_head=config.data.keep_head,
        read_length=config.data.read_length,
        mail_text_version=MAIL_TEXT_VERSION,
        extras=config.data.extras,
        head=model.shape,
        metrics=metrics,
        temperature=temperature,
        points=tuple(points),
        epochs=tuple(epochs),
        curves=curves or {},
        provenance=provenance or {},
        reference=reference,
    )
    (new / "README.md").write_text(card(bundle, config), "utf-8")
    bundle.write_facts(new)
    if path.exists():
        shutil.rmtree(path)
    new.rename(path)
    return bundle
