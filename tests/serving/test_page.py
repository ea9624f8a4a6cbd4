"""The page at /: what is served, and that it needs nothing from elsewhere."""

import re
from pathlib import Path

from starlette.testclient import TestClient

from serving.api import build_api
from serving.routes import page
from tests.serving.cards import CARD, CURVE, POINTS
from tests.serving.site import LIMIT, Twin


def test_each_file_is_served_with_a_strict_policy_and_asked_about_again(carded: Path) -> None:
    files = sorted(file.name for file in page.FOLDER.iterdir())
    with TestClient(
        build_api(Twin(), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
    ) as client:
        assert page.paths() == {"/"} | {f"/page/{name}" for name in files if name != "index.html"}
        for path in page.paths():
            answer = client.get(path)
            policy = answer.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'",
                    "connect-src 'self'", "img-src 'self' data:", "base-uri 'none'",
                    "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)  # fmt: skip
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-cache"
            again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert client.head(path).status_code == 200
        assert client.get("/page/../api.py").status_code == 404
        assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_the_page_needs_nothing_from_elsewhere_and_has_nothing_inline() -> None:
    for file in page.FOLDER.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, no address
        assert not re.search(r"(src|href)=\W?(https?:)?//|@import|url\(", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    html = (page.FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", html)


def test_a_server_can_be_without_it() -> None:
    app = build_api(Twin(), max_in_flight=1, max_body_bytes=LIMIT, with_page=False)
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        assert [client.get(path).status_code for path in ("/", "/page/page.js")] == [404, 404]
        assert not any(
            "page" in path or path == "/" for path in client.get("/openapi.json").json()["paths"]
        )


def test_the_card_has_text_curves_and_no_path(carded: Path) -> None:
    with TestClient(
        build_api(Twin(carded), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
    ) as client:
        answer = client.get("/v1/models/twin/card")
        told = answer.json()
        assert (told["name"], told["version"], told["labels"]) == ("twin", "3", ["ham", "spam"])
        assert (told["text"], told["curves"]) == (CARD, {"spam": CURVE})
        assert told["points"] == POINTS
        assert told["epochs"][0]["val_recall"] is None
        assert str(carded) not in answer.text
        assert client.get("/v1/models/other/card").json()["error"]["code"] == "not_found"


def test_without_a_bundle_there_is_no_card(tmp_path: Path) -> None:
    for bundle in (None, tmp_path / "gone"):
        with TestClient(
            build_api(Twin(bundle), max_in_flight=1, max_body_bytes=LIMIT), client=("127.0.0.1", 1)
        ) as client:
            answer = client.get("/v1/models/twin/card")
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text
