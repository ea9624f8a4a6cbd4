"""The Open Inference Protocol's tensors: mails in, labels and probabilities out.

Input is one tensor of datatype BYTES and shape [N] or [N, 1]: `raw`, whole RFC 5322 messages, or
`text`, plain text without headers. With `"parameters": {"content_type": "base64"}` its elements are
base64, as bytes that are not UTF-8 must be. Outputs are `label` BYTES [N], `probability` FP32 [N],
`scores` FP32 [N, labels], `unsure` BOOL [N].

Source: the protocol's REST specification, github.com/kserve/open-inference-protocol; the parameter
`content_type` is MLServer's.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from serving import payload
from serving.classifier import ModelInfo, Verdict
from serving.errors import ApiError
from serving.inference import (
    InferenceAnswer,
    InferenceRequest,
    InputTensor,
    OutputTensor,
    TensorKind,
)
from serving.mails import Parsed, decoded, text_of
from training.mail import Mail, MailTextOptions

INPUTS: Final = [TensorKind(name=name, datatype="BYTES", shape=[-1]) for name in ("raw", "text")]


def read(body: bytes, options: MailTextOptions, most: int) -> tuple[InferenceRequest, list[Parsed]]:
    """A request, and the text of each of its mails.

    Raises:
        ApiError: it is malformed, has more than `most` mails, or one of them is none. A tensor has
            no place for an error, so that one bad mail fails all.
    """
    try:
        asked = InferenceRequest.model_validate(payload.tree(body))
    except ValidationError as error:
        raise ApiError("invalid_tensor", payload.faults(error)) from error
    except ApiError as error:
        if error.code != "invalid_fields":  # a field given twice; the protocol's word for it is 400
            raise
        raise ApiError("invalid_tensor", error.message) from error
    [tensor] = asked.inputs
    elements = _flat(tensor)
    if len(elements) > most:
        raise ApiError(
            "invalid_tensor", f"inputs.0.shape: at most {most:,} mails, got {len(elements):,}"
        )
    parsed = []
    for place, element in enumerate(elements):
        start = time.monotonic()
        try:
            mail = _mail(tensor, element, f"inputs.0.data.{place}")
            text = text_of(mail, options)
        except ApiError as error:
            code = "invalid_tensor" if error.code == "invalid_fields" else error.code
            where = f"inputs.0.data.{place}: "
            raise ApiError(code, where + error.message.removeprefix(where)) from error
        parsed.append(Parsed(text, (time.monotonic() - start) * 1000, start))
    return asked, parsed


def outputs(model: ModelInfo) -> list[TensorKind]:
    """What a model's answers have; -1 is the number of mails."""
    return [
        TensorKind(name="label", datatype="BYTES", shape=[-1]),
        TensorKind(name="probability", datatype="FP32", shape=[-1]),
        TensorKind(name="scores", datatype="FP32", shape=[-1, len(model.labels)]),
        TensorKind(name="unsure", datatype="BOOL", shape=[-1]),
    ]


def answer(
    asked: InferenceRequest, verdicts: Sequence[Verdict], model: ModelInfo, request_id: str
) -> InferenceAnswer:
    """The outputs that were asked for, over all mails; `scores` flat, row by row."""
    first = verdicts[0]
    data: dict[str, list[Any]] = {
        "label": [verdict.label for verdict in verdicts],
        "probability": [verdict.probability for verdict in verdicts],
        "scores": [score for verdict in verdicts for score in verdict.scores.values()],
        "unsure": [verdict.unsure for verdict in verdicts],
    }
    wanted = list(data) if not asked.outputs else [choice.name for choice in asked.outputs]
    known = {kind.name: kind for kind in outputs(model)}
    decision = {"operating_point": first.operating_point, "threshold": first.threshold}
    return InferenceAnswer(
        model_name=first.model,
        model_version=first.version,
        id=request_id if asked.id is None else asked.id,
        parameters={name: value for name, value in decision.items() if value is not None},
        outputs=[
            OutputTensor(
                name=name,
                datatype=known[name].datatype,
                shape=[len(verdicts), *known[name].shape[1:]],
                data=data[name],
            )
            for name in dict.fromkeys(wanted)
        ],
    )


def _flat(tensor: InputTensor) -> list[str]:
    nested = len(tensor.shape) == 2
    flat = []
    for place, element in enumerate(tensor.data):
        if nested and isinstance(element, list) and len(element) == 1:
            [element] = element
        if not isinstance(element, str):
            raise ApiError("invalid_tensor", f"inputs.0.data.{place}: must be a string")
        flat.append(element.encode("utf-8", "ignore").decode())
    if tensor.shape not in ([len(flat)], [len(flat), 1]):
        raise ApiError(
            "invalid_tensor",
            f"inputs.0.shape: must be [N] or [N, 1] for N strings of data, got {tensor.shape} for "
            f"{len(flat):,}",
        )
    return flat


def _mail(tensor: InputTensor, element: str, where: str) -> bytes | Mail:
    encoded = (tensor.parameters or {}).get("content_type") == "base64"
    raw = decoded(element, where) if encoded else element.encode()
    if tensor.name == "raw":
        return raw
    text = raw.decode("utf-8", "replace")
    if not text.strip():
        raise ApiError("not_a_mail", "the text is blank")
    return Mail("", "", text)
