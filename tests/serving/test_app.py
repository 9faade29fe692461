"""The HTTP API over real sockets: many requests at once, and clients that mean no good."""

import base64
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data_utils import load_corpus
from serving.app import Limits
from serving.offer import Offer, manner_of, names_of
from serving.speaking_queue import Closing, SpeakingQueue
from speech.vocoders.vocoder import GriffinLim
from speech.voice import Voice
from support.servers import JSON, Client, serving
from support.voices import Tiny, save_voice

POLICY = "content-security-policy"
HEAD = b"POST /api/speech HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LIMITS = Limits(longest_text=300, queue_size=64, patience_s=1.0)


@pytest.fixture(scope="module")
def offer(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Offer:
    """Two voices, the second one with style tokens."""
    folder = tmp_path_factory.mktemp("voices")
    paths = []
    for name, settings in (("one", ""), ("two", "use_gst=True")):
        hp = tiny(settings)
        save_voice(hp, load_corpus(hp), folder / name)
        paths.append(folder / name)
    return Offer.load(paths, ["griffin-lim"], precision="fp32")


@pytest.fixture(scope="module")
def client(offer: Offer) -> Iterator[Client]:
    with serving(offer, LIMITS) as client:
        yield client


def sound(body: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(body), dtype="int16")[0]


def said_here(offer: Offer, text: str, *, seed: int, voice: str = "one", speed: float = 1.0) -> np.ndarray:
    loaded = offer.voice(voice, None)
    manner = manner_of(loaded, speaker=None, style_token=None, style_weight=1.0, speed=speed)
    return np.rint(loaded.synthesize(text, seed=seed, manner=manner).wav * 32768).astype(np.int16)


@pytest.mark.slow
def test_fifty_requests_at_once_each_get_their_own_sound(offer: Offer, client: Client) -> None:
    texts = [f"the {word} tone" for word in ("low", "high", "first", "last", "other")]
    asked = [(texts[i % 5], i // 5, ("one", "two")[i % 2]) for i in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda a: client.speak(text=a[0], seed=a[1], voice=a[2]), asked))
    assert [answer.status for answer in answers] == [200] * 50
    expected = {each: said_here(offer, each[0], seed=each[1], voice=each[2]) for each in set(asked)}
    assert all(np.array_equal(sound(answer.body), expected[each]) for each, answer in zip(asked, answers, strict=True))
    assert len({answer.body for answer in answers}) == 50, "no two were the same request"


def test_json_holds_sound_times_and_attention(client: Client) -> None:
    answer = client.speak(text="A low tone. One more.", format="json", attention=True).json
    wav = sound(base64.b64decode(answer["wav"]))
    assert len(wav) / answer["sampling_rate"] == pytest.approx(answer["duration_s"], abs=0.001)
    assert [sentence["text"] for sentence in answer["sentences"]] == ["A low tone.", "One more."]
    assert [word["text"] for word in answer["words"]] == ["A", "low", "tone.", "One", "more."]
    attention = answer["sentences"][0]["attention"]
    weights = np.frombuffer(base64.b64decode(attention["weights"]), np.uint8)
    assert len(weights) == attention["steps"] * len(attention["symbols"])
    rows = weights.reshape(attention["steps"], -1).sum(1)
    assert np.abs(rows - 255.0).max() <= len(attention["symbols"]) / 2, "each step's weights sum to 1"


def test_speed_and_style_reach_the_voice(client: Client) -> None:
    plain, fast, styled = (
        client.speak(text="a low tone", voice="two", **more).body for more in ({}, {"speed": 2.0}, {"style_token": 1})
    )
    assert len(fast) < 0.7 * len(plain) and styled != plain


def test_the_page_and_what_there_is_to_choose_are_served(client: Client) -> None:
    page = client.get("/")
    assert page.status == 200 and b"<textarea" in page.body and "default-src 'self'" in page.headers[POLICY]
    assert client.get("/page.js").status == client.get("/page.css").status == 200
    voices = client.get("/api/voices").json["voices"]
    assert [(voice["name"], voice["style_tokens"] > 0) for voice in voices] == [("one", False), ("two", True)]
    assert client.get("/api/health").json == {"waiting": 0}

@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "Invalid JSON"),
        (b"{", 400, "Invalid JSON"),
        (b"[1]", 400, "should be an object"),
        (b"[" * 3000, 400, "Invalid JSON"),
        (b'{"text": "\xff"}', 400, "Invalid JSON"),
        (b'{"text": "\\ud800 hi"}', 400, "Invalid JSON"),
        (b'{"voice": "one"}', 400, "text: Field required"),
        (b'{"text": 3, "seed": -1, "extra": 1}', 400, "text: Input should be a valid string; seed: Input"),
        (b'{"text": "hi", "speed": 1e999}', 400, "speed: "),
        (b'{"text": "hi", "speed": NaN}', 400, "speed: "),
        (b'{"text": "hi", "style_weight": Infinity}', 400, "style_weight: "),
        (b'{"text": "hi", "voice": "../../etc/passwd"}', 400, "no such voice here; choose one of one, two"),
        (b'{"text": "hi", "vocoder": "/etc/passwd"}', 400, "no such vocoder here; choose one of griffin-lim"),
        (b'{"text": "hi", "style_token": 1}', 400, "no style tokens"),
        (b'{"text": "hi", "voice": "two", "style_token": 99}', 400, "the voice has the tokens 0 to"),
        (b'{"text": "hi", "speaker": "anna"}', 400, "speaker anna: this voice was trained without speaker names"),
        (b'{"text": ""}', 422, "nothing to say"),
        (b'{"text": "..."}', 422, "nothing to say"),
        (b'{"text": "hi [pause soon]"}', 422, "write [pause 0.5s]"),
        (b'{"text": "' + b"a " * 200 + b'"}', 400, "400 characters, and this server takes 300"),
        (b'{"text": "' + b"a" * 9000 + b'"}', 413, "larger than"),
    ],
)
def test_a_bad_request_is_one_clear_message(client: Client, body: bytes, status: int, message: str) -> None:
    answer = client.send("POST", "/api/speech", body, JSON)
    assert answer.status == status and message in answer.json["error"], answer
    assert not re.search("Traceback|--[a-z]", answer.json["error"]), "fields have no switches"
    assert client.get("/api/health").status == 200


def test_a_sentence_that_is_too_long_for_the_voice_is_advised_in_fields(offer: Offer) -> None:
    plain = offer.voice("one", None)
    hasty = replace(plain, limits=replace(plain.limits, max_frames=1))
    with serving(Offer({"hasty": {"griffin-lim": hasty}}), LIMITS) as client:
        answer = client.speak(text="the last one")
    assert answer.status == 422 and answer.json["error"].endswith("; write it in shorter sentences"), answer


def test_memory_that_ends_is_the_servers_fault(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("speech.voice.speak", no_room)
    with serving(offer, LIMITS) as client:
        answer = client.speak(text="hi")
    assert answer.status == 503 and "too little memory" in answer.json["error"] and answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "path",
    ["/../serve.py", "/%2e%2e/serve.py", "/..%2fserve.py", "//etc/passwd", "/page/page.html", "/page.js/../../x",
     "/page.js%00", "/serving/app.py", "/" + "a" * 5000],
)  # fmt: skip
def test_no_path_leads_to_another_file(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 404 and answer.json == {"error": "Not Found"}


def test_foreign_pages_can_neither_send_forms_nor_borrow_the_name(client: Client) -> None:
    form = client.send("POST", "/api/speech", b'{"text": "hi"}', {"Content-Type": "text/plain"})
    assert form.status == 415 and "application/json" in form.json["error"]
    assert client.get("/", Host="evil.example").status == 400
    assert client.send("DELETE", "/api/speech", b"", {}).status == 405


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_body_that_never_ends_is_cut_off(client: Client) -> None:
    with client.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as endless:
        for _ in range(8):
            endless.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
        answer = everything(endless)
    assert answer.startswith(b"HTTP/1.1 413") and b"larger than 7696 bytes" in answer


def test_a_slow_client_is_told_so_and_stops_nobody(client: Client) -> None:
    with client.raw(HEAD + b"Content-Length: 50\r\n\r\n" + b'{"text"') as slow:
        assert client.speak(text="hi").status == 200
        answer = everything(slow)
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 1 s" in answer


@pytest.fixture
def slow_offer(offer: Offer) -> tuple[Offer, threading.Event]:
    """A voice whose vocoder waits until it is let go."""
    plain = offer.voice("one", None)
    held = threading.Event()
    return Offer({"slow": {"griffin-lim": replace(plain, chosen_vocoder=Held(plain, held))}}), held


class Held:
    """Griffin-Lim's place is taken; the sound is made once the event is set."""

    def __init__(self, voice: Voice, event: threading.Event) -> None:
        self.own, self.event, self.n_calls = GriffinLim(voice.hp, n_iter=1), event, 0

    def __call__(self, mel):  # noqa: ANN001, ANN204
        self.n_calls += 1
        assert self.event.wait(30)
        return self.own(mel)


def test_more_than_may_wait_are_sent_away_and_the_others_served(slow_offer: tuple[Offer, threading.Event]) -> None:
    slow, held = slow_offer
    vocoder = slow.voice(None, None).vocoder
    assert isinstance(vocoder, Held)
    with serving(slow, replace(LIMITS, queue_size=2)) as client, ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(client.speak, text="hi")]
        while not vocoder.n_calls:  # else the first may still wait when the third comes
            time.sleep(0.01)
        waiting += [pool.submit(client.speak, text="hi") for _ in range(5)]
        refused = 0
        while refused < 3:  # one speaks, two wait
            refused = sum(each.done() for each in waiting)
            time.sleep(0.01)
        held.set()
        answers = [each.result() for each in waiting]
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 503, 503, 503]
    away = next(answer for answer in answers if answer.status == 503)
    assert away.headers["retry-after"] == "5" and "too many requests wait" in away.json["error"]


def test_nothing_more_is_said_to_a_client_that_has_gone(slow_offer: tuple[Offer, threading.Event]) -> None:
    slow, held = slow_offer
    vocoder = slow.voice(None, None).vocoder
    assert isinstance(vocoder, Held)
    body = b'{"text": "One. Two. Three. Four."}'
    with serving(slow, LIMITS) as client:
        client.raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body).close()
        time.sleep(1.0)  # longer than between two looks
        held.set()
        assert client.speak(text="hi").status == 200
    assert vocoder.n_calls == 2, "one sentence of the first request, and the second request"


def test_who_waits_when_the_server_ends_learns_so(slow_offer: tuple[Offer, threading.Event]) -> None:
    slow, held = slow_offer
    voice = slow.voice(None, None)
    queue = SpeakingQueue(size=4)
    jobs = [queue.put(lambda: (voice.narrate(voice.parts_of("One. Two.")), voice.sampling_rate)) for _ in range(3)]
    threading.Timer(0.3, held.set).start()
    queue.close()
    for job in jobs:
        with pytest.raises(Closing):
            job.done.result(5)
    with pytest.raises(Closing):
        queue.put(lambda: ([], 1))


def test_voices_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    assert names_of([tmp_path / "a.pt", tmp_path / "b" / "a.pt", tmp_path / "c"]) == ["a_1", "a_2", "c"]
