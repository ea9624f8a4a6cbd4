"""The client against the API's own routes: each understands what the other says."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.access import Access
from serving.client import AsyncMailrayClient, ClientError, Feedback, RefusedError
from serving.explained import Explained
from serving.feedback.keeper import Keeper
from serving.feedback.store import Store
from tests.serving.test_explaining import Engine, Explainer
from tests.serving.twin import MAIL, app_of, token_in

Ask = Callable[[AsyncMailrayClient], Awaitable[Any]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield store
    store.close()


@pytest.fixture
def asked(tmp_path: Path, store: Store) -> Iterator[Callable[..., Any]]:
    """Ask a server that has tokens and keeps feedback."""
    keeper = Keeper(store)
    secret = token_in(tmp_path / "tokens.yaml")["Authorization"].removeprefix("Bearer ")
    app = app_of(access=Access(tmp_path / "tokens.yaml"), keeper=keeper)

    def ask(call: Ask, token: str | None = secret) -> Any:
        async def scenario() -> Any:
            transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
            url = "http://mailray"
            async with AsyncMailrayClient(
                url, token=token, retry=False, transport=transport
            ) as client:
                return await call(client)

        return asyncio.run(scenario())

    yield ask
    keeper.close()


@pytest.mark.parametrize("raw", [MAIL, b"Subject: Pr\xeds\n\nClaim it"])
def test_feedback_on_an_answer_is_kept_with_the_mail_as_it_was(
    asked: Callable[..., Any], store: Store, raw: bytes
) -> None:
    async def scenario(client: AsyncMailrayClient) -> Any:
        answer = await client.classify(raw)
        said = Feedback("spam", answer=answer, mail=raw, store_text=True, train=True)
        return answer, await client.feedback(said), await client.feedback(said)

    answer, first, again = asked(scenario)
    assert (first.new, first.text_kept, again.new, again.id) == (True, True, False, first.id)
    [row] = store.records()
    assert (row.raw, row.label, row.given) == (raw, "spam", answer.label)
    assert (row.request_id, row.token) == (answer.request_id, "gateway")
    assert (row.model, row.version, row.train) == (answer.model, answer.version, True)


def test_feedback_that_is_wrong_says_how_to_mend_it(asked: Callable[..., Any]) -> None:
    with pytest.raises(RefusedError, match="one of ham, spam is needed"):
        asked(lambda client: client.feedback(Feedback("junk", message_id="<a@example.org>")))


def test_an_explanation_names_the_words_and_where_they_stand() -> None:
    app = app_of(Engine(Explainer()))

    async def scenario() -> Any:
        transport = httpx.ASGITransport(app)
        async with AsyncMailrayClient("http://mailray", transport=transport) as client:
            return await client.explain({"subject": "Lunch", "body": "noon"}, label="ham", top=1)

    told: Explained = asyncio.run(scenario())
    assert (told.label, [span.text for span in told.top]) == ("ham", ["Lunch"])
    assert told.top[0].field is not None
    assert told.top[0].field.model_dump() == {"name": "subject", "start": 0, "end": 5}


def test_many_and_models_and_a_model_that_is_not_explained(asked: Callable[..., Any]) -> None:
    good, bad = asked(lambda client: client.classify_many([MAIL, b""]))
    assert good.label == "ham"
    assert bad.error.code == "not_a_mail"
    [model] = asked(lambda client: client.models())
    assert (model.name, model.role) == ("twin", "champion")
    with pytest.raises(ClientError, match=r"no means to explain"):
        asked(lambda client: client.explain(MAIL))


def test_without_a_token_it_is_told_that_one_is_needed(asked: Callable[..., Any]) -> None:
    with pytest.raises(ClientError, match=r"refuses \(401\): a token is needed"):
        asked(lambda client: client.classify(MAIL), token=None)
