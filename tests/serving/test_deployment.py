"""The classifier on a real Ray cluster: one replica, HTTP from outside, an orderly end."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import httpx
import pytest

from serving.answers import Answer
from serving.classifier import Classifier
from serving.client import ClientError, MailrayClient
from serving.config import ServeConfig
from serving.deployment import ServeError, start, stop
from training.bundle import Bundle
from training.registry import ModelNotFound

MAIL = b"From: Ann <ann@example.org>\nSubject: Lunch\n\nAt noon?\n"
PERMITS = 8

pytestmark = pytest.mark.usefixtures("ray_session")


def classify(url: str, raw: bytes, deadline: float = 30) -> Answer:
    with MailrayClient(url, deadline=deadline) as client:
        return client.classify(raw)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(bundle: Bundle, ray_session: None) -> Iterator[str]:
    config = ServeConfig(
        model=str(bundle.path),
        port=free_port(),
        precision="fp32",
        batch_tokens=4 * 64,
        max_in_flight=PERMITS,
        max_body_bytes=1_000_000,
    )
    yield start(config)
    stop()
    with pytest.raises(ClientError, match="nothing answers"):
        classify(f"http://127.0.0.1:{config.port}", MAIL, 5)


def test_a_served_mail_scores_as_the_classifier_says(url: str, bundle: Bundle) -> None:
    [expected] = Classifier(bundle.path, "fp32").classify_raw([MAIL])
    answer = classify(url, MAIL)
    assert answer.label == expected.label
    assert answer.scores == pytest.approx(expected.scores, abs=1e-4)
    assert (answer.model, answer.version) == ("mailray-spam", "7")


def test_the_answer_carries_the_requests_id(url: str) -> None:
    headers = {"X-Request-ID": "r-1"}
    response = httpx.post(f"{url}/v1/classify", json={"body": "Hi"}, headers=headers)
    assert response.json()["request_id"] == response.headers["x-request-id"] == "r-1"
    for given in (b"", b"\xff"):  # Serve's own proxy would answer 500 to the second
        response = httpx.post(
            f"{url}/v1/classify", json={"body": "Hi"}, headers={b"X-Request-ID": given}
        )
        assert response.headers.get_list("x-request-id") == [response.json()["request_id"]]


@pytest.mark.parametrize(
    "name", ["serve_multiplexed_model_id", "x-session-id", "X-Request-Timeout-Seconds"]
)
def test_serves_own_headers_are_no_callers_affair(url: str, name: str) -> None:
    headers = {name.encode(): b"\xff"}  # Serve would answer 500 to most of them
    response = httpx.post(f"{url}/v1/classify", json={"body": "Hi"}, headers=headers)
    assert response.status_code == 200


def test_each_of_many_callers_gets_the_verdict_on_its_own_mail(url: str, bundle: Bundle) -> None:
    mails = [MAIL + b"word%d " % number * number for number in range(24)]
    expected = Classifier(bundle.path, "fp32").classify_raw(mails)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda raw: classify(url, raw), mails))
    for answer, verdict in zip(answers, expected, strict=True):
        assert answer.scores == pytest.approx(verdict.scores, abs=1e-4)


def test_more_callers_than_permits_are_told_to_come_back(url: str) -> None:
    go = threading.Event()

    def slow_body() -> Iterator[bytes]:
        yield MAIL
        go.wait(20)
        yield b"and more"

    def post(content: Iterator[bytes] | bytes) -> httpx.Response:
        headers = {"Content-Type": "message/rfc822"}
        return httpx.post(f"{url}/v1/classify/raw", content=content, headers=headers, timeout=30)

    # Twice as many: those that come while a quick mail holds a permit are refused, too.
    with ThreadPoolExecutor(2 * PERMITS) as pool:
        working = [pool.submit(post, slow_body()) for _ in range(2 * PERMITS)]
        deadline = time.monotonic() + 15
        while (refused := post(MAIL)).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        go.set()
        statuses = [future.result().status_code for future in working]
    assert set(statuses) == {200, 429}
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "overloaded"
    assert classify(url, MAIL).label in {"ham", "spam"}


def test_refusals_keep_their_shape_through_the_proxy(url: str) -> None:
    with pytest.raises(ClientError, match=r"\(413\): the body has more than 1,000,000 bytes"):
        classify(url, b"x" * 1_500_000)
    with pytest.raises(ClientError, match=r"\(400\): empty"):
        classify(url, b"")
    assert httpx.get(f"{url}/nowhere").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}


def test_serving_twice_is_refused(url: str, bundle: Bundle) -> None:
    with pytest.raises(ServeError, match="serves already"):
        start(ServeConfig(model=str(bundle.path), port=free_port()))


class TestWithoutAServer:
    """Runs after `url` has stopped, as the last of this module."""

    @pytest.fixture(autouse=True)
    def _stopped(self, ray_session: None) -> None:
        stop()

    def test_a_taken_port_is_one_clear_line(self, bundle: Bundle) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ServeError, match=f"port {port} of 127.0.0.1 is taken"):
                start(ServeConfig(model=str(bundle.path), port=port))

    def test_an_address_of_another_machine_is_one_clear_line(self, bundle: Bundle) -> None:
        with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1 port 8000: "):
            start(ServeConfig(model=str(bundle.path), host="192.0.2.1", open=True))

    def test_more_cpus_than_there_are_is_one_clear_line(self, bundle: Bundle) -> None:
        with pytest.raises(ServeError, match="2 x 500 CPUs are needed"):
            start(ServeConfig(model=str(bundle.path), replicas=2, cpus=500))

    def test_a_missing_bundle_is_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match="neither a bundle directory nor NAME"):
            start(ServeConfig(model=str(tmp_path / "nothing")))

    def test_damaged_weights_are_one_clear_line_and_nothing_is_left(
        self, bundle: Bundle, tmp_path: Path
    ) -> None:
        copytree(bundle.path, tmp_path / "damaged")
        (tmp_path / "damaged/model.safetensors").write_bytes(b"no weights")
        port = free_port()
        with pytest.raises(
            ServeError, match=r"did not start: .*model\.safetensors is damaged"
        ) as e:
            start(ServeConfig(model=str(tmp_path / "damaged"), port=port))
        assert "\n" not in str(e.value)
        with pytest.raises(ClientError, match="nothing answers"):
            classify(f"http://127.0.0.1:{port}", MAIL, 5)
