"""A model behind HTTP, as clients of OpenAI's completions expect it: `tamis spark serve MODEL`.

    GET  /v1/models        the one model
    POST /v1/completions   prompt (a text, tokens, or several of either), max_tokens, temperature, top_p, stop, seed, echo,
                           stream (server-sent events); top_k besides

One request is computed at a time, its prompts side by side; others wait. There are no accounts, keys or limits: it is meant
for this computer (127.0.0.1), and for a proxy that knows who asks. Only the standard library is needed.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tamis.errors import TamisError, UsageError
from tamis.spark.checkpoint import parse_json
from tamis.spark.engine import Engine, Generation, Prompt

MOST_BYTES = 4 << 20
"""Of a request: some hundred times the longest prompt."""
REFUSED = {"n": 1, "best_of": 1, "suffix": None, "logprobs": None, "logit_bias": None, "presence_penalty": 0,
           "frequency_penalty": 0}  # fmt: skip
"""Of OpenAI's fields those that are not built, and what they may be."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, checked."""

    prompts: list[Prompt]
    settings: dict[str, Any]
    """Of `Engine.generate`."""
    stream: bool
    echo: bool

    @classmethod
    def of(cls, body: Any) -> Request:
        """From the JSON of a request. Raises UsageError with what is wrong."""
        if not isinstance(body, dict):
            raise UsageError("The request is no JSON object.")
        for name, allowed in REFUSED.items():
            if body.get(name) not in (None, allowed):
                raise UsageError(f"{name} is {body[name]!r}; this server knows {allowed!r} only.")
        prompts = _prompts(body.get("prompt"))
        stop = body.get("stop") or []
        stop = [stop] if isinstance(stop, str) else stop
        if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
            raise UsageError("stop is neither a text nor a list of texts.")
        settings = {
            "max_tokens": _number(body, "max_tokens", int, 16),
            "temperature": _number(body, "temperature", float, 1.0),
            "top_p": _number(body, "top_p", float, 1.0),
            "top_k": _number(body, "top_k", int, 0),
            "seed": _number(body, "seed", int, None),
            "stop": stop,
        }
        stream, echo = (_flag(body, name) for name in ("stream", "echo"))
        if stream and len(prompts) > 1:
            raise UsageError("Several prompts cannot be streamed: send one, or leave out stream.")
        return cls(prompts, settings, stream, echo)


def _prompts(given: Any) -> list[Prompt]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(_is_token(each) for each in given):
            return [given]
        if all(
            isinstance(each, str) or (isinstance(each, list) and each and all(map(_is_token, each)))
            for each in given
        ):
            return given
    raise UsageError("prompt is neither a text, nor a list of tokens, nor a list of such prompts.")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(body: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise UsageError(f"{name} is {value!r}; a {'whole ' if kind is int else ''}number was expected.")
    try:
        return kind(value)
    except OverflowError:
        raise UsageError(f"{name} is larger than any number that can be computed with.") from None


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}; true or false was expected.")
    return bool(value)


class Server(ThreadingHTTPServer):
    """Serves one engine."""

    daemon_threads = True

    def __init__(self, engine: Engine, name: str, host: str, port: int) -> None:
        self.engine, self.name, self.turn = engine, name, threading.Lock()
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"No server can listen at {host}, port {port} ({error}): choose others."
            ) from None

    @property
    def address(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds that a silent client is waited for."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/v1/models":
            model = {"id": self.server.name, "object": "model", "created": 0, "owned_by": "tamis"}
            self._answer(200, {"object": "list", "data": [model]})
        else:
            self._fail(404, f"There is nothing at {self.path}: ask for /v1/models or POST /v1/completions.")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # Compared as text first: Python refuses to read a number of some thousand digits.
        if not length.isdecimal() or len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES:
            self.close_connection = True  # what follows is not read
            said = f"is {length[:40]!r}" if length else "is absent"
            return self._fail(413, f"Content-Length {said}; at most {MOST_BYTES} bytes were expected.")
        content = self.rfile.read(int(length))
        if self.path.partition("?")[0] != "/v1/completions":
            return self._fail(404, f"There is nothing at {self.path}: completions are at /v1/completions.")
        try:
            body = parse_json(content)
        except ValueError as error:
            return self._fail(400, f"The request is no JSON ({error}).")
        try:
            request = Request.of(body)
            with self.server.turn:
                if request.stream:
                    self._stream(request)
                else:
                    self._complete(request)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # whoever asked has gone
        except Exception as error:  # noqa: BLE001 - whoever asked is to hear of it, and the next one to be served
            self._fail(*_told(error))
        return None

    def _complete(self, request: Request) -> None:
        made = self.server.engine.generate_many(request.prompts, **request.settings)
        choices = [
            _choice(i, self._begin(request, prompt) + one.text, _reason(one))
            for i, (prompt, one) in enumerate(zip(request.prompts, made, strict=True))
        ]
        given, new = sum(one.prompt_tokens for one in made), sum(len(one.tokens) for one in made)
        usage = {"prompt_tokens": given, "completion_tokens": new, "total_tokens": given + new}
        self._answer(200, self._record(choices) | {"usage": usage})

    def _stream(self, request: Request) -> None:
        prompt = request.prompts[0]
        pieces = self.server.engine.stream(prompt, **request.settings)  # refuses before anything is sent
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")  # its length is not known
        self.end_headers()
        self.close_connection = True
        record = self._record([])
        try:
            for choice in self._choices(self._begin(request, prompt), pieces):
                self._send(json.dumps(record | {"choices": [choice]}))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 - the status has been sent: what went wrong is an event, too
            return self._send(json.dumps(_refusal(_told(error)[1])))
        return self._send("[DONE]")

    def _choices(self, begin: str, pieces: Any) -> Iterator[dict[str, Any]]:
        if begin:
            yield _choice(0, begin, None)
        while True:
            try:
                yield _choice(0, next(pieces), None)
            except StopIteration as end:
                yield _choice(0, "", _reason(end.value))
                return

    def _begin(self, request: Request, prompt: Prompt) -> str:
        if not request.echo:
            return ""
        return prompt if isinstance(prompt, str) else self.server.engine.decode(prompt)

    def _record(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": self.server.name, "choices": choices,
        }  # fmt: skip

    def _send(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _fail(self, status: int, message: str) -> None:
        self._answer(status, _refusal(message))

    def _answer(self, status: int, record: Mapping[str, Any]) -> None:
        content = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests hold what people write."""


def serve(engine: Engine, name: str, host: str, port: int) -> None:
    """Serve until Ctrl-C, which is the way to end it and no failure."""
    with Server(engine, name, host, port) as running:
        print(f"{name} completes at {running.address}/v1/completions   (Ctrl-C ends it)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()


def _told(error: Exception) -> tuple[int, str]:
    """Status and sentence. The story of a fault of ours goes to the server's own terminal."""
    if isinstance(error, TamisError):
        return 400, str(error)
    traceback.print_exception(error)
    return 500, f"An unexpected fault of the server, {type(error).__name__}: {error}."


def _refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": reason, "logprobs": None}


def _reason(one: Generation) -> str:
    return "length" if one.ended == "length" else "stop"
