"""The OpenAPI document: complete, and true of what the API does.

More cases than by default:  MAILRAY_CASES=2000 pytest tests/serving/test_openapi.py

All of Schemathesis' checks are on; those of resources, links and access find nothing to do here. Of
`infer`, a request that its schema allows may be refused: a schema cannot say that a shape fits its
data. Headers and parameters that nobody declared are not held against the API.
"""

import os
from base64 import b64encode
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from serving.access import Access
from serving.explanation import Explanation
from tests.serving.test_explaining import told
from tests.serving.twin import Twin, app_of
from training.mail import Mail

CASES = int(os.environ.get("MAILRAY_CASES", "10"))
"""Examples of each operation, beside those of the document and of its bounds."""

headers = st.sampled_from([b"Subject: a\n", b"From: Ann <ann@example.org>\n", b"X: \xff\n"])
messages = st.tuples(headers, st.binary(max_size=200)).map(lambda parts: b"\n".join(parts))
texts = messages.map(lambda raw: raw.decode("utf-8", "replace"))
schemathesis.openapi.media_type("message/rfc822", messages)
schemathesis.openapi.media_type("application/octet-stream", messages)
schemathesis.openapi.format("rfc5322", texts)
schemathesis.openapi.format("byte", messages.map(lambda raw: b64encode(raw).decode()))


config = SchemathesisConfig.from_dict(
    {
        # HTTP lets anybody add headers and parameters, which servers pass over.
        "generation": {"allow-extra-parameters": False},
        "operations": [
            {
                # That a shape fits its data is nothing that a schema can say.
                "include-path-regex": "/infer$",
                "checks": {
                    "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404"]}
                },
            }
        ],
    }
)


class Explains(Twin):
    """Explains too, however little time there is: 504 is for other tests."""

    async def explain(
        self, text: str, *, mail: Mail | None, label: str | None, deadline: float
    ) -> Explanation:
        return told(text, label)


schema = schemathesis.openapi.from_asgi(
    "/openapi.json",
    # Its caller has no address of this machine.
    app_of(Explains(), max_in_flight=64, access=Access(None, open_to_all=True)),
    config=config,
)


@schema.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
    """Mostly the model that there is: any other is 404, whatever the body."""
    if path_parameters and len(str(path_parameters)) % 4:
        return {name: {"name": "twin", "version": "3"}.get(name, "") for name in path_parameters}
    return path_parameters


@schema.parametrize()
@settings(max_examples=CASES, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_document_says(case: Any) -> None:
    case.call_and_validate()
