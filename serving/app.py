"""The page and the HTTP API.

    GET  /             the page
    GET  /api/voices   what there is to choose from
    POST /api/speech   JSON (see `SpeechRequest`) -> audio/wav, or JSON
    GET  /api/health   {"waiting": N}

Every error is JSON, {"error": "..."}, with a status that says whose it is.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from common.errors import DataError, UserError
from common.log import LOG
from parallel.devices import NoMemory
from serving.answers import headers_of, json_of, wav_of
from serving.offer import Offer, manner_of
from serving.speaking_queue import Closing, Job, QueueFull, SpeakingQueue, Spoken
from serving.speech_request import SpeechRequest, for_client, read_request
from speech.narration import NarratedPart

PAGE = Path(__file__).parent / "page"
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}  # no other file is ever read
POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src blob:; frame-ancestors 'none'; form-action 'none'"
PAGE_HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
BYTES_BESIDE_TEXT, BYTES_A_CHARACTER = 4096, 12  # a character outside the basic plane is two escapes of six bytes
LOOK_EVERY_S = 0.5  # whether the client still waits
# What a client is told beside: when to come again, or that the rest of its request is not read.
HEADERS = {503: {"Retry-After": "5"}, 408: {"Connection": "close"}, 413: {"Connection": "close"}}


@dataclass(frozen=True)
class Limits:
    """longest_text in characters; queue_size: requests that may wait; patience_s: for a request to arrive whole."""

    longest_text: int = 5000
    queue_size: int = 64
    patience_s: float = 10.0

    @property
    def largest_body(self) -> int:
        return BYTES_BESIDE_TEXT + BYTES_A_CHARACTER * self.longest_text


class Refusal(Exception):
    """An answer that is no speech."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def create_app(offer: Offer, *, limits: Limits, hosts: Sequence[str]) -> Starlette:
    """hosts: names under which it may be asked for, which keeps foreign pages out; ["*"] for any."""
    speaking = SpeakingQueue(size=limits.queue_size)
    described = {"voices": offer.described(), "longest_text": limits.longest_text}

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(speaking.close)

    async def voices(_request: Request) -> Response:
        return JSONResponse(described)

    async def health(_request: Request) -> Response:
        return JSONResponse({"waiting": speaking.n_waiting})

    async def speech(request: Request) -> Response:
        return await answer(request, offer, speaking, limits)

    pages = [Route(path, partial(send_file, name=name)) for path, name in FILES.items()]
    api = [
        Route("/api/voices", voices),
        Route("/api/health", health),
        Route("/api/speech", speech, methods=["POST"]),
    ]
    return Starlette(
        routes=[*pages, *api],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={HTTPException: on_http_error, Refusal: on_refusal, Exception: on_defect},
        lifespan=lifespan,
    )


async def send_file(_request: Request, name: str) -> Response:
    return FileResponse(PAGE / name, headers=PAGE_HEADERS)


async def on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.message}, status_code=error.status, headers=HEADERS.get(error.status))


async def on_defect(_request: Request, error: Exception) -> Response:
    """Starlette raises it again afterwards, so that the log holds its traceback."""
    return JSONResponse({"error": f"a defect of the server: {type(error).__name__}; its log says more"}, 500)


async def answer(request: Request, offer: Offer, speaking: SpeakingQueue, limits: Limits) -> Response:
    """The speech that a request asks for. Refusal says why there is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # a form of a foreign page can't send this type unasked
        raise Refusal(415, "send JSON, with Content-Type: application/json")
    body = await body_of(request, limits)
    try:
        wanted = read_request(body, longest_text=limits.longest_text)
        job = speaking.put(partial(begin, wanted, offer))
        spoken = await finished(job, request)
        content = await asyncio.to_thread(encoded, spoken, wanted)
    except (UserError, QueueFull, Closing) as error:
        raise refusal_of(error) from None
    if wanted.format == "json":
        return JSONResponse(content)
    assert isinstance(content, bytes)
    return Response(content, media_type="audio/wav", headers=headers_of(spoken))


def begin(wanted: SpeechRequest, offer: Offer) -> tuple[Iterable[NarratedPart], int]:
    """In the speaking thread, as reading a text may take its time. UserError for what can't be said."""
    voice = offer.voice(wanted.voice, wanted.vocoder)
    manner = manner_of(
        voice,
        speaker=wanted.speaker,
        style_token=wanted.style_token,
        style_weight=wanted.style_weight,
        speed=wanted.speed,
    )
    return voice.narrate(voice.parts_of(wanted.text), seed=wanted.seed, manner=manner), voice.sampling_rate


def encoded(spoken: Spoken, wanted: SpeechRequest) -> bytes | dict[str, object]:
    return json_of(spoken, with_attention=wanted.attention) if wanted.format == "json" else wav_of(spoken)


async def body_of(request: Request, limits: Limits) -> bytes:
    """Refusal where it is too large or too slow; no more of it is kept than is allowed."""
    too_large = Refusal(413, f"the request is larger than {limits.largest_body} bytes; send less text at once")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.largest_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.patience_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.largest_body:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {limits.patience_s:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the client has gone") from None
    return bytes(body)


async def finished(job: Job, request: Request) -> Spoken:
    """Its result; the job is given up where the client goes away."""
    waiting = asyncio.wrap_future(job.done)
    while True:
        done, _ = await asyncio.wait([waiting], timeout=LOOK_EVERY_S)
        if done:
            return waiting.result()
        if await request.is_disconnected():
            job.give_up()
            raise Refusal(400, "the client has gone")


def refusal_of(error: Exception) -> Refusal:
    if isinstance(error, QueueFull):
        return Refusal(503, "too many requests wait already; try again in some seconds")
    if isinstance(error, Closing):
        return Refusal(503, "the server is closing")
    if isinstance(error, NoMemory):
        LOG.warning("%s", error)
        return Refusal(503, "the server has too little memory for this text now; send less at once, or try again later")
    LOG.debug("request=refused reason=%s", error)
    return Refusal(422 if isinstance(error, DataError) else 400, for_client(str(error)))
