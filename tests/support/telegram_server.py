"""A stand-in for Telegram's interface on 127.0.0.1: real HTTP, with the answers that a test asks for."""

import json
import re
import threading
import time
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

TOKEN = "123456789:canary-AAF0aVnTqzKtmE8sRk2bYxWq"


@dataclass
class Message:
    method: str
    fields: dict[str, str]
    picture: bytes | None
    time: float

    @property
    def text(self) -> str:
        return self.fields.get("text") or self.fields.get("caption") or ""


@dataclass
class TelegramServer:
    """`answers` are given one after the other, the last for ever: (status, body); None = the connection hangs."""

    answers: list[tuple[int, dict] | None] = field(default_factory=lambda: [OK])
    attempts: int = 0
    messages: list[Message] = field(default_factory=list)  # those that were answered with 200

    def __enter__(self) -> "TelegramServer":
        self._over = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, message: Message) -> tuple[int, dict]:
        self.attempts += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self._over.wait(60)
            return 500, {}
        if answer[0] == 200:
            self.messages.append(message)
        return answer


OK = (200, {"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 42, "type": "private"}}})
BROKEN = (500, {"ok": False, "error_code": 500, "description": "Internal Server Error"})
UNAUTHORISED = (401, {"ok": False, "error_code": 401, "description": "Unauthorized"})


def too_many(retry_after: int) -> tuple[int, dict]:
    return 429, {"ok": False, "error_code": 429, "description": "Too Many", "parameters": {"retry_after": retry_after}}


def _handler(server: TelegramServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert f"/bot{TOKEN}/" in self.path, "another token came"
            fields, picture = _content(self.headers["Content-Type"], body)
            status, content = server.answer(Message(self.path.rsplit("/", 1)[1], fields, picture, time.monotonic()))
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # a client that gave up on an answer
                self.close_connection = True

    return Handler


def _content(kind: str, body: bytes) -> tuple[dict[str, str], bytes | None]:
    if not kind.startswith("multipart/"):
        return dict(parse_qsl(body.decode())), None
    parts = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
    fields, picture = {}, None
    for part in parts:
        name = re.search(r'name="([^"]*)"', part["Content-Disposition"])[1]
        if part.get_filename():
            picture = part.get_payload(decode=True)
        else:
            fields[name] = part.get_payload(decode=True).decode()
    return fields, picture
