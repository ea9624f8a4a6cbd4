"""What mailray's server is measured against: FastAPI and LitServe around a transformers pipeline.

    python -m tests.bench.serve_contestants fastapi|litserve BUNDLE PORT

Both read mail with mailray's own `mail_text`, which spares them the standard library's parser, and
both have the bundle's encoder and head as a model of transformers, in float32, as
`pipeline("text-classification")` takes it. The bundle's wide part is left out, and with it the
tokens that the encoder does not read: they have less to do. LitServe (`pip install litserve`)
batches what comes within 10 ms, at most 32 mails.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import Body, FastAPI
from litserve import LitAPI, LitServer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput

from training.bundle import Bundle, load
from training.mail import mail_text

RawMail = Annotated[bytes, Body(media_type="message/rfc822")]


class PooledClassifier(PreTrainedModel):
    """The encoder and head of a bundle, as transformers spells a classifier of sequences."""

    def __init__(self, bundle: Bundle) -> None:
        mail_model = bundle.model()
        encoder: Any = mail_model.encoder
        config = encoder.config
        config.id2label = dict(enumerate(bundle.labels))
        config.label2id = {label: index for index, label in enumerate(bundle.labels)}
        super().__init__(config)
        mail_model.wide = None
        encoder.set_attn_implementation("sdpa")  # what transformers takes by itself
        self.classify: Any = mail_model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        """Logits of padded token ids."""
        logits = self.classify(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=logits)


def classifier(bundle: Bundle) -> Any:
    """The pipeline; called with a text or a list of them."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(bundle.path / "tokenizer.json"),
        pad_token="[PAD]",
        model_max_length=bundle.max_length,
    )
    model: Any = PooledClassifier(bundle)
    model.eval()
    return pipeline("text-classification", model=model, tokenizer=tokenizer, truncation=True)


def fastapi(bundle: Bundle, port: int) -> None:
    """Serve a pipeline as FastAPI's documentation does: one route, in its pool of threads."""
    app, pipe = FastAPI(), classifier(bundle)

    @app.post("/v1/classify/raw")
    def classify(raw: RawMail) -> dict[str, Any]:
        [verdict] = pipe(mail_text(raw))
        return dict(verdict)

    @app.get("/readyz")
    def readyz() -> str:
        return "ok"

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


class LitClassifier(LitAPI):  # type: ignore[misc]  # it may not be installed
    """A pipeline as LitServe takes it; its workers are processes of their own."""

    def setup(self, device: str) -> None:
        """Load the model, in a worker."""
        self.pipe = classifier(load(Path(sys.argv[2])))

    # What is annotated as a Request would be read as JSON.
    def decode_request(self, request: RawMail) -> bytes:
        """The raw mail of a request."""
        return request

    def predict(self, raws: list[bytes]) -> list[dict[str, Any]]:
        """The verdicts on a batch."""
        return list(self.pipe([mail_text(raw) for raw in raws], batch_size=len(raws)))

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        return output


def litserve(bundle: Bundle, port: int) -> None:
    """Serve a pipeline inside LitServe, batched."""
    api = LitClassifier(max_batch_size=32, batch_timeout=0.01, api_path="/v1/classify/raw")
    server = LitServer(api, accelerator="cpu", healthcheck_path="/readyz")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("fastapi", "litserve"):
        raise SystemExit(__doc__)
    {"fastapi": fastapi, "litserve": litserve}[sys.argv[1]](
        load(Path(sys.argv[2])), int(sys.argv[3])
    )
