"""Who may call which route: refused before a byte of the body is read, and told why."""

import asyncio
import datetime as dt
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.access import OPEN, Access, Bucket, needed
from serving.config import ServeConfig
from serving.feedback.keeper import Keeper
from serving.feedback.store import Store
from serving.tokens import Token, digest, edited, parse_rate, read
from tests.serving.twin import MAIL, RFC822, app_of, client_of, token_in
from training.schema import ConfigError, validate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


def post(access: Access, headers: dict[str, str], path: str = "/v1/classify/raw") -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with client_of(app_of(access=access)) as client:
            answer: httpx.Response = await client.post(
                path, content=MAIL, headers={**RFC822, **headers}
            )
            return answer

    return asyncio.run(scenario())


def test_a_token_opens_the_door_and_nothing_else_does(file: Path) -> None:
    shown = token_in(file)
    access = Access(file)
    assert post(access, shown).status_code == 200
    secret = shown["Authorization"].removeprefix("Bearer ")
    assert post(access, {"Authorization": f"bearer  {secret} "}).status_code == 200
    for wrong in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": f"Bearer {secret}x"},
        {"Authorization": f"Bearer {digest(secret)}"},
        {"Authorization": "Bearer \u00ff\u00fe"},
    ):
        headers = {name: value.encode("latin-1") for name, value in wrong.items()}
        answer = post(access, headers)  # type: ignore[arg-type]
        assert answer.status_code == 401, wrong
        assert answer.json()["error"]["code"] == "unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/classify/raw", {}, 401),
        ("/v1/feedback", {}, 401),
        ("/nowhere", {}, 401),
        ("/v1/classify/raw", {"X-Long": "x" * 40_000}, 431),
    ],
)
def test_a_refused_request_has_no_byte_of_its_body_read(
    file: Path, path: str, headers: dict[str, str], status: int
) -> None:
    token_in(file)
    read_on = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read_on
        read_on += 1
        yield MAIL

    async def scenario() -> httpx.Response:
        async with client_of(app_of(access=Access(file))) as client:
            return await client.post(path, content=body(), headers={**RFC822, **headers})

    assert asyncio.run(scenario()).status_code == status
    assert read_on == 0


def test_a_token_may_do_only_what_its_scopes_say(file: Path) -> None:
    shown = token_in(file, scopes=["feedback"])
    access = Access(file)
    answer = post(access, shown)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert 'scope="classify"' in answer.headers["www-authenticate"]
    assert post(access, shown, "/v1/explain").status_code == 403
    assert post(access, shown, "/v2/models/twin/infer").status_code == 403
    assert post(access, shown, "/metrics").status_code == 403


def test_the_rate_of_a_token_is_429_with_the_seconds_to_wait(file: Path, clock: Clock) -> None:
    shown, other = token_in(file, rate="6/min"), token_in(file, "other", rate="6/min")
    access = Access(file, clock=clock)
    assert [post(access, shown).status_code for _ in range(7)] == [200] * 6 + [429]
    answer = post(access, shown)
    assert answer.json()["error"]["code"] == "rate_limited"
    assert answer.headers["retry-after"] == "10"
    assert post(access, other).status_code == 200
    clock.now += 10
    assert [post(access, shown).status_code for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [post(access, shown).status_code for _ in range(7)] == [200] * 6 + [429]


def test_replicas_share_a_rate(file: Path, clock: Clock) -> None:
    shown = token_in(file, rate="6/min")
    access = Access(file, replicas=3, clock=clock)
    assert [post(access, shown).status_code for _ in range(3)] == [200, 200, 429]


def test_many_mails_in_one_request_are_paid_off_later(clock: Clock) -> None:
    bucket = Bucket(10, 10, clock)
    assert bucket.take() == 0
    bucket.take(29, force=True)
    assert bucket.take() == pytest.approx(21)
    clock.now += 20.9
    assert bucket.take() > 0
    clock.now += 0.1
    assert bucket.take() == 0


def test_a_change_of_the_file_holds_without_a_restart(file: Path, clock: Clock) -> None:
    first = token_in(file)
    access = Access(file, clock=clock)
    second = token_in(file, "second")
    assert post(access, second).status_code == 401  # looked at once a second
    clock.now += 1
    assert post(access, second).status_code == 200
    with edited(file) as tokens:
        del tokens[0]
    clock.now += 1
    assert post(access, first).status_code == 401
    assert post(access, second).status_code == 200


def test_a_mounted_secret_that_is_turned_to_another_file_is_read(
    tmp_path: Path, clock: Clock
) -> None:
    old, new = tmp_path / "..1", tmp_path / "..2"
    before, after = token_in(old / "tokens.yaml"), token_in(new / "tokens.yaml")
    (tmp_path / "..data").symlink_to(old)
    (tmp_path / "tokens.yaml").symlink_to("..data/tokens.yaml")
    access = Access(tmp_path / "tokens.yaml", clock=clock)
    assert post(access, before).status_code == 200
    (tmp_path / "..data_tmp").symlink_to(new)
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    clock.now += 1
    assert post(access, before).status_code == 401
    assert post(access, after).status_code == 200


@pytest.mark.parametrize("content", ["- name: [", None, "- name: gateway\n  sha256: zz\n"])
def test_a_file_that_breaks_while_serving_changes_nothing(
    file: Path, clock: Clock, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    shown = token_in(file)
    access = Access(file, clock=clock)
    file.unlink()
    if content is not None:
        file.write_text(content)
    clock.now += 1
    assert post(access, shown).status_code == 200
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "stay valid" in line
    assert "zz" not in line


def test_an_expired_token_is_401(file: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    gone = token_in(file, expires=now - dt.timedelta(seconds=1))
    soon = token_in(file, "soon", expires=now + dt.timedelta(hours=1))
    access = Access(file)
    assert "expired" in post(access, gone).json()["error"]["message"]
    assert post(access, soon).status_code == 200


def test_probes_need_no_token_and_the_rest_is_configured(file: Path) -> None:
    token_in(file)

    def get(access: Access, path: str) -> int:
        async def scenario() -> int:
            async with client_of(app_of(access=access)) as client:
                return int((await client.get(path)).status_code)

        return asyncio.run(scenario())

    assert [get(Access(file), path) for path in ("/healthz", "/readyz", "/docs")] == [200] * 3
    assert [get(Access(file), path) for path in ("/v1/model", "/metrics")] == [401] * 2
    assert get(Access(file, public=()), "/openapi.json") == 401
    assert get(Access(file, public=["metrics"]), "/metrics") == 200


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("::1", 1), 200),
        (("::ffff:127.0.0.1", 1), 200),
        (("192.0.2.7", 1), 403),
        (("2001:db8::1", 1), 403),
        (("nonsense", 1), 403),
    ],
)
def test_without_tokens_only_this_machine_is_answered(client: tuple[str, int], status: int) -> None:
    def ask(**settings: Any) -> httpx.Response:
        async def scenario() -> httpx.Response:
            app = app_of(access=Access(None, **settings))
            async with client_of(app, client=client) as caller:
                answer = await caller.post("/v1/classify", json={"body": "Hi"})
                assert (await caller.get("/healthz")).status_code == 200
                return answer

        return asyncio.run(scenario())

    assert ask().status_code == status
    assert ask(open_to_all=True).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mail.example"])
def test_an_address_for_others_without_tokens_is_one_clear_line(host: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"set tokens=FILE .* or open=true") as error:
        validate(ServeConfig, {"model": "m", "host": host})
    assert "\n" not in str(error.value)
    validate(ServeConfig, {"model": "m", "host": host, "open": True})
    config = validate(ServeConfig, {"model": "m", "host": host, "tokens": str(file)})
    assert Path(config.tokens or "").is_absolute()
    assert validate(ServeConfig, {"model": "m"}).host == "127.0.0.1"


def test_every_call_that_does_something_needs_a_scope(tmp_path: Path) -> None:
    keeper = Keeper(Store(f"sqlite:///{tmp_path / 'feedback.db'}"))
    document = app_of(keeper=keeper).openapi()
    keeper.close()
    for path, methods in document["paths"].items():
        for method in methods:
            if method != "get" and path not in OPEN:
                assert needed(path, method.upper()) is not None, f"{method} {path}"


def test_openapi_says_what_a_call_needs(file: Path) -> None:
    token_in(file)
    for access, needs in (  # type: ignore[var-annotated]
        (Access(file), [{"token": []}]),
        (Access(None), [{"token": []}, {}]),
    ):
        document = app_of(access=access).openapi()
        scheme = document["components"]["securitySchemes"]["token"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        call = document["paths"]["/v1/classify"]["post"]
        assert call["security"] == needs
        assert "Scope: `classify`" in call["description"]
        assert {"401", "403", "429", "431"} <= set(call["responses"])
        assert "`overloaded`" in call["responses"]["429"]["description"]
        assert "`rate_limited`" in call["responses"]["429"]["description"]
        assert "WWW-Authenticate" in call["responses"]["401"]["headers"]
        assert "security" not in document["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- name: a b\n  sha256: " + "0" * 64, "entry 1: name"),
        ("- name: a\n  sha256: secret", "entry 1: sha256"),
        ("- name: a\n  sha256: " + "0" * 64 + "\n  rate: 5/week", "600/min"),
        ("- name: a\n  sha256: " + "0" * 64 + "\n  scopes: [admin]", "entry 1: scopes.0"),
        ("- name: a\n  sha256: " + "0" * 64 + "\n  expires: 2027-01-01", "expires"),
        ("- name: a\n  sha256: " + "0" * 64 + "\n  token: secret", "entry 1: token"),
        (("- name: a\n  sha256: " + "ab" * 32 + "\n") * 2, "two tokens have the same name"),
        ("name: a", "list"),
        ("- [", "not YAML, line"),
        ("[" * 100_000, "not YAML"),
        ("\udcff", "not YAML"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_never_quoted(
    file: Path, content: str, words: str
) -> None:
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=words) as error:
        Access(file)
    assert "secret" not in str(error.value).replace("token: Extra", "")
    assert str(file) in str(error.value)


def test_a_file_of_tokens_has_no_token_and_is_for_its_owner_alone(file: Path) -> None:
    secret = token_in(file)["Authorization"].removeprefix("Bearer ")
    assert secret not in file.read_text()
    assert len(secret.removeprefix("mailray_")) == 43  # 256 bits
    assert file.stat().st_mode & 0o777 == 0o600
    assert [token.name for token in read(file)] == ["gateway"]
    assert list(file.parent.iterdir()) == [file]


def test_two_who_edit_a_file_at_once_lose_no_token(file: Path) -> None:
    threads = [threading.Thread(target=token_in, args=(file, f"t{n}")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in read(file)} == {f"t{n}" for n in range(12)}


def test_json_is_a_tokens_file_too(file: Path) -> None:
    token, _ = Token.create("gateway", rate="5/s")
    file.write_text(f"[{token.model_dump_json()}]")
    assert read(file) == (token,)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/s", (10, 1)), ("600/min", (600, 60)), ("1/h", (1, 3600)), ("5000/day", (5000, 86_400))],
)
def test_rates_have_one_spelling(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate
    for wrong in ("", "0/s", "-1/s", "1.5/s", "10", "10/sec", " 10/s", "10/s\n", "1e3/s"):
        with pytest.raises(ValueError, match="a rate is written as"):
            parse_rate(wrong)
