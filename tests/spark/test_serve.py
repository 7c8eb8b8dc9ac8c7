"""python -m pytest tests/spark/test_serve.py"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="needs the extra: pip install tamis[spark]")

from tamis.errors import InputError, UsageError
from tamis.spark.engine import Engine
from tamis.spark.published import shipped
from tamis.spark.serve import MOST_BYTES, Server

PROMPT = "The city"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.open(shipped(), context=64, sequences=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Server]:
    with Server(engine, "small", "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def connection(server: Server) -> Iterator[HTTPConnection]:
    client = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    yield client
    client.close()


def ask(connection: HTTPConnection, **fields: Any) -> tuple[int, Any]:
    """Status and JSON of a completion; greedy unless said."""
    body = json.dumps({"model": "small", "temperature": 0, "max_tokens": 5} | fields)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def events(connection: HTTPConnection, **fields: Any) -> list[str]:
    body = json.dumps({"temperature": 0, "max_tokens": 5, "stream": True} | fields)
    connection.request("POST", "/v1/completions", body)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
    parts = answer.read().decode().split("\n\n")
    assert parts.pop() == "" and all(part.startswith("data: ") for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def test_a_completion_is_what_the_engine_makes(connection: HTTPConnection, engine: Engine) -> None:
    status, found = ask(connection, prompt=PROMPT)
    expected = engine.generate(PROMPT, max_tokens=5)
    assert status == 200 and found["object"] == "text_completion" and found["model"] == "small"
    assert found["choices"] == [
        {"index": 0, "text": expected.text, "finish_reason": "length", "logprobs": None}
    ]
    given = expected.prompt_tokens
    assert found["usage"] == {"prompt_tokens": given, "completion_tokens": 5, "total_tokens": given + 5}


def test_several_prompts_and_tokens_as_prompts(connection: HTTPConnection, engine: Engine) -> None:
    prompts = [PROMPT, engine.encode("A house"), "It was"]  # three, where two run at once
    status, found = ask(connection, prompt=prompts, echo=True)
    assert status == 200
    for i, (prompt, choice) in enumerate(zip(prompts, found["choices"], strict=True)):
        text = prompt if isinstance(prompt, str) else engine.decode(prompt)
        assert choice["index"] == i
        assert choice["text"] == text + engine.generate(prompt, max_tokens=5).text
    assert (
        ask(connection, prompt=prompts[1])[1]["choices"][0]["text"]
        == engine.generate(prompts[1], max_tokens=5).text
    )


def test_streamed_pieces_make_the_same_text(connection: HTTPConnection, engine: Engine) -> None:
    parts = events(connection, prompt=PROMPT, max_tokens=12)
    assert parts.pop() == "[DONE]"
    choices = [json.loads(part)["choices"][0] for part in parts]
    assert len(choices) > 5
    assert "".join(choice["text"] for choice in choices) == engine.generate(PROMPT, max_tokens=12).text
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]


def test_what_goes_wrong_in_the_middle_of_a_stream_is_an_event(
    connection: HTTPConnection, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> Iterator[str]:
        yield " of"
        raise InputError("The model computes values that are not finite.")

    monkeypatch.setattr(engine, "stream", breaks)
    first, last = map(json.loads, events(connection, prompt=PROMPT))
    assert first["choices"][0]["text"] == " of"
    assert last["error"]["message"] == "The model computes values that are not finite."


def test_a_fault_of_ours_is_told_and_the_next_one_served(
    connection: HTTPConnection,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def breaks(*_: Any, **__: Any) -> Iterator[str]:
        yield " of"
        raise ZeroDivisionError("of ours")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "stream", breaks)
        patch.setattr(engine, "generate_many", lambda *_, **__: 1 / 0)
        assert (
            "ZeroDivisionError: of ours"
            in json.loads(events(connection, prompt=PROMPT)[-1])["error"]["message"]
        )
        status, found = ask(connection, prompt=PROMPT)
        assert status == 500 and "ZeroDivisionError" in found["error"]["message"]
    assert "Traceback" in capfd.readouterr().err
    assert ask(connection, prompt=PROMPT)[0] == 200


def test_stop_and_seed(connection: HTTPConnection, engine: Engine) -> None:
    whole = engine.generate(PROMPT, max_tokens=20).text
    word = whole.split()[3]
    _, found = ask(connection, prompt=PROMPT, max_tokens=20, stop=word)
    assert found["choices"][0] | {"text": ""} == {
        "index": 0,
        "text": "",
        "finish_reason": "stop",
        "logprobs": None,
    }
    assert found["choices"][0]["text"] == whole[: whole.index(word)]
    assert (
        json.loads(events(connection, prompt=PROMPT, max_tokens=20, stop=[word])[-2])["choices"][0][
            "finish_reason"
        ]
        == "stop"
    )
    drawn = [
        ask(connection, prompt=PROMPT, temperature=1.2, seed=seed, max_tokens=20)[1]["choices"]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "prompt is neither"),
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": []}, "prompt is neither"),
        ({"prompt": [["a"]]}, "prompt is neither"),
        ({"prompt": [True]}, "prompt is neither"),
        ({"prompt": [99999]}, "outside the vocabulary"),
        ({"prompt": "\ud800"}, "half a character"),
        ({"prompt": "city " * 100}, "the context holds 64"),
        ({"prompt": "x", "max_tokens": 0}, "at least 1"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens is 1.5; a whole number"),
        ({"prompt": "x", "temperature": -1}, "The temperature is -1"),
        ({"prompt": "x", "temperature": 10**400}, "larger than any number"),
        ({"prompt": "x", "seed": -1}, "The seed is -1"),
        ({"prompt": "x", "stop": 3}, "stop is neither"),
        ({"prompt": "x", "stream": "yes"}, "true or false"),
        ({"prompt": ["x", "y"], "stream": True}, "cannot be streamed"),
        ({"prompt": "x", "n": 2}, "n is 2; this server knows 1 only"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_sentence(
    connection: HTTPConnection, fields: dict[str, Any], sentence: str
) -> None:
    status, found = ask(connection, **fields)
    assert status == 400 and sentence in found["error"]["message"]
    assert ask(connection, prompt=PROMPT)[0] == 200  # the connection goes on


NUMBER = b"1" * 5000  # Python refuses to read it


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b'{"prompt": "x", "max_tokens": ' + NUMBER + b"}"],
)
def test_no_json_is_a_sentence(connection: HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/completions", body)
    answer = connection.getresponse()
    assert answer.status == 400 and "JSON" in json.loads(answer.read())["error"]["message"]


def test_other_addresses_and_lengths(connection: HTTPConnection) -> None:
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"][0]["id"] == "small"
    for method, path in (("GET", "/"), ("POST", "/v1/chat/completions")):
        connection.request(method, path, b"" if method == "POST" else None)
        answer = connection.getresponse()
        assert answer.status == 404 and "/v1/completions" in json.loads(answer.read())["error"]["message"]
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", str(MOST_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_one_who_leaves_does_not_stop_the_others(server: Server, engine: Engine) -> None:
    expected = engine.generate(PROMPT, max_tokens=5).text
    gone = HTTPConnection("127.0.0.1", server.server_port)
    gone.request("POST", "/v1/completions", json.dumps({"prompt": PROMPT, "max_tokens": 50, "stream": True}))
    gone.close()
    client = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    status, found = ask(client, prompt=PROMPT)
    client.close()
    assert status == 200 and found["choices"][0]["text"] == expected


def test_a_port_that_is_taken_is_a_sentence(server: Server, engine: Engine) -> None:
    for port in (server.server_port, 70000):
        with pytest.raises(UsageError, match="No server can listen at"):
            Server(engine, "second", "127.0.0.1", port)
