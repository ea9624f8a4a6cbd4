"""The Open Inference Protocol: what its clients ask, and what they are told."""

import asyncio
import json
from base64 import b64encode
from typing import Any

import httpx
import pytest

from serving.errors import ApiError
from tests.serving.twin import JSON, LIMIT, MAIL, MOST, RFC822, TEXT, Send, Twin, app_of, client_of

INFER = "/v2/models/twin/infer"


def tensor(*data: Any, **changes: Any) -> dict[str, Any]:
    """A request of one input tensor."""
    given = {"name": "raw", "shape": [len(data)], "datatype": "BYTES", "data": list(data)}
    return {"inputs": [given | changes]}


def refused(response: httpx.Response) -> tuple[int, str]:
    """Status and message of an answer in the protocol's shape of errors."""
    body = response.json()
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    return response.status_code, body["error"]


def test_metadata_says_what_the_server_and_the_model_are(send: Send) -> None:
    assert send("GET", "/v2").json() == {"name": "mailray", "version": "1", "extensions": []}
    for path in ("/v2/models/twin", "/v2/models/twin/versions/3"):
        assert send("GET", path).json() == {
            "name": "twin",
            "versions": ["3"],
            "platform": "mailray",
            "inputs": [
                {"name": "raw", "datatype": "BYTES", "shape": [-1]},
                {"name": "text", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "unsure", "datatype": "BOOL", "shape": [-1]},
            ],
        }


def test_health_is_told_of_process_server_and_model(send: Send, twin: Twin) -> None:
    assert send("GET", "/v2/health/live").json() == {"live": True}
    assert send("GET", "/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/twin/ready", "/v2/models/twin/versions/3/ready"):
        assert send("GET", path).json() == {"name": "twin", "ready": True}
    twin.ready = False
    assert send("GET", "/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/twin/ready"):
        assert refused(send("GET", path)) == (503, "not_ready: the model is not ready")


@pytest.mark.parametrize("path", [INFER, "/v2/models/twin/versions/3/infer"])
def test_mails_of_a_tensor_are_answered_row_by_row(send: Send, twin: Twin, path: str) -> None:
    response = send("POST", path, json={"id": "42", **tensor(MAIL.decode(), "Subject: b\n\nc")})
    assert response.status_code == 200
    assert response.json() == {
        "model_name": "twin",
        "model_version": "3",
        "id": "42",
        "parameters": {"operating_point": "balanced", "threshold": 0.5},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["ham", "ham"]},
            {"name": "probability", "datatype": "FP32", "shape": [2], "data": [0.75, 0.75]},
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [2, 2],
                "data": [0.75, 0.25, 0.75, 0.25],
            },
            {"name": "unsure", "datatype": "BOOL", "shape": [2], "data": [False, False]},
        ],
    }
    assert twin.texts == [TEXT, "subject: b\nfrom: \n\nc"]


def test_an_answer_without_an_id_of_its_own_has_the_requests(send: Send) -> None:
    response = send("POST", INFER, json=tensor("a"), headers={"X-Request-ID": "r-1"})
    assert response.json()["id"] == "r-1"


def test_only_the_outputs_asked_for_come_back_in_their_order(send: Send) -> None:
    asked = {"outputs": [{"name": "scores"}, {"name": "label"}, {"name": "scores"}]}
    outputs = send("POST", INFER, json=tensor("a") | asked).json()["outputs"]
    assert [output["name"] for output in outputs] == ["scores", "label"]


@pytest.mark.parametrize(
    ("changes", "data", "text"),
    [
        ({"shape": [1, 1]}, MAIL.decode(), TEXT),
        ({"shape": [1, 1]}, [MAIL.decode()], TEXT),
        ({"parameters": {"content_type": "base64"}}, b64encode(MAIL).decode(), TEXT),
        ({"parameters": {"content_type": "str"}}, MAIL.decode(), TEXT),
        ({"name": "text"}, "At noon?", "subject: \nfrom: \n\nAt noon?"),
        ({"name": "text"}, "a\ud800b\0c", "subject: \nfrom: \n\nabc"),
        (
            {"name": "text", "parameters": {"content_type": "base64"}},
            b64encode("Grüße".encode()).decode(),
            "subject: \nfrom: \n\nGrüße",
        ),
    ],
)
def test_every_form_of_a_tensor_gives_the_model_its_text(
    send: Send, twin: Twin, changes: dict[str, Any], data: Any, text: str
) -> None:
    body = json.dumps(tensor(data, **changes))
    assert send("POST", INFER, content=body, headers=JSON).status_code == 200
    assert twin.texts == [text]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (tensor("a", shape=[2]), "shape: must be [N] or [N, 1]"),
        (tensor("a", "b", shape=[1, 2]), "shape: must be"),
        (tensor(["a"]), "inputs.0.data.0: must be a string"),
        (tensor(["a", "b"], shape=[2, 1]), "inputs.0.data.0: must be a string"),
        (tensor("a", 1), "inputs.0.data.1: must be a string"),
        (tensor("a", shape=[]), "inputs.0.shape: "),
        (tensor("a", shape=[-1]), "inputs.0.shape.0: "),
        (tensor("a", name="mail"), "inputs.0.name: input should be 'raw' or 'text'"),
        (tensor("a", datatype="FP32"), "inputs.0.datatype: input should be 'BYTES'"),
        (tensor(), "inputs.0.data: "),
        (tensor("", "a"), "not_a_mail: inputs.0.data.0: empty"),
        (tensor(" ", name="text"), "not_a_mail: inputs.0.data.0: the text is blank"),
        (tensor("%", parameters={"content_type": "base64"}), "inputs.0.data.0: is not base64"),
        (tensor(*["a"] * (MOST + 1)), "at most 5 mails, got 6"),
        (tensor("a") | {"outputs": [{"name": "logits"}]}, "outputs.0.name: "),
        ({"inputs": []}, "inputs: "),
        ({"inputs": tensor("a")["inputs"] * 2}, "inputs: "),
        (tensor("a", parameters={"\ud800" * 99: []}), "invalid_tensor: 'inputs.0.parameters."),
        (tensor("a") | {"more": 1}, "'more': no such field"),
        ([], "the body: must be an object"),
        (None, "must be an object"),
    ],
)
def test_a_wrong_request_is_400_in_the_protocols_shape(
    send: Send, twin: Twin, body: Any, words: str
) -> None:
    status, message = refused(send("POST", INFER, content=json.dumps(body), headers=JSON))
    assert status == 400
    assert words in message
    assert twin.texts == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"inputs": NaN}', b"[" * 100_000])
def test_what_is_no_json_is_400(send: Send, body: bytes) -> None:
    response = send("POST", INFER, content=body, headers=JSON)
    assert refused(response)[0] == 400
    assert refused(response)[1].startswith("malformed_json: ")


def test_a_field_given_twice_is_400(send: Send) -> None:
    response = send("POST", INFER, content=b'{"id": "1", "id": "2"}', headers=JSON)
    assert refused(response) == (400, "invalid_tensor: 'id': given more than once")


@pytest.mark.parametrize("name", ["twins", "twin/versions/4", "%ff", "twin%00"])
def test_another_model_or_version_is_404(send: Send, name: str) -> None:
    for method, end in [("GET", ""), ("GET", "/ready"), ("POST", "/infer")]:
        response = send(method, f"/v2/models/{name}{end}", headers=JSON)
        assert refused(response)[0] == 404
        assert "here answers twin version 3" in refused(response)[1]


def test_other_refusals_have_the_protocols_shape_too(send: Send, twin: Twin) -> None:
    assert refused(send("GET", "/v2/nowhere"))[0] == 404
    assert refused(send("PUT", "/v2/models/twin"))[0] == 405
    assert refused(send("POST", INFER, content=MAIL, headers=RFC822))[0] == 415
    assert refused(send("POST", INFER, content=b"x" * (LIMIT + 1), headers=JSON))[0] == 413
    for headers in ({"Inference-Header-Content-Length": "10"}, {"X-Request-Timeout-Ms": "no"}):
        response = send("POST", INFER, json=tensor("a"), headers=headers)
        assert refused(response)[0] == 400
    twin.fault = ApiError("overloaded", "full")
    response = send("POST", INFER, json=tensor("a"))
    assert refused(response) == (429, "overloaded: full")
    assert response.headers["retry-after"] == "1"
    twin.fault = ZeroDivisionError("secret")
    status, message = refused(send("POST", INFER, json=tensor("a")))
    assert status == 500
    assert "secret" not in message


def test_a_tensor_takes_one_permit(twin: Twin) -> None:
    async def scenario() -> None:
        async with client_of(app_of(twin, max_in_flight=1)) as client:
            twin.go.clear()
            working = asyncio.create_task(client.post(INFER, json=tensor("a", "b")))
            while len(twin.texts) < 2:
                await asyncio.sleep(0.001)
            assert refused(await client.post(INFER, json=tensor("a")))[0] == 429
            twin.go.set()
            assert (await working).status_code == 200

    asyncio.run(scenario())
