"""Ray Serve, too, logs nothing of a mail: its replicas, its proxy, its controller."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import unused_port
from tests.serving.server import FaultyTwin
from tests.serving.test_silence import BODIES, MARK
from tests.serving.twin import app_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]


class FaultyReplica:
    """As `serving.deployment.Replica`, with an engine whose exceptions quote the mail."""

    def __serve_build_asgi_app__(self) -> Any:
        return app_of(FaultyTwin(), body_timeout_s=1.0)


@pytest.fixture
def url(ray_session: None) -> Iterator[str]:
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    port = unused_port()
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=port),
    )
    deployment = serve.deployment(name="Silent")(serve.ingress()(FaultyReplica))
    serve.run(deployment.bind(), name="silent")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_no_mail_is_in_rays_logs_or_answers(url: str) -> None:
    import ray

    answers = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for path in ("/v1/classify", "/v1/classify/raw", "/v1/nothing"):
            for media, _, body in BODIES:
                answers.append(client.post(path, content=body, headers={"Content-Type": media}))
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/classify", json={"body": f"linger {MARK}"}, timeout=0.1)
        client.post("/v1/classify", json={"body": "linger"})
    assert {200, 400, 404, 415, 422, 500} <= {answer.status_code for answer in answers}
    for answer in answers:
        assert MARK not in answer.text
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())  # type: ignore[attr-defined]
    said = {file: file.read_bytes() for file in logs.rglob("*") if file.is_file()}
    # The replica has told of the faults, by type and place alone.
    assert any(b"a request failed: RuntimeError at " in content for content in said.values())
    assert [file for file, content in said.items() if MARK.encode() in content] == []
