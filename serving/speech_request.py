"""What a client asks for, checked: all that is wrong with a request is said at once."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import UserError
from speech.tempo import FASTEST, SLOWEST

Number = Annotated[float, Field(allow_inf_nan=False)]


class SpeechRequest(BaseModel):
    """The JSON of POST /api/speech. Without a name, the first voice, its first vocoder and its only speaker are meant.

    format: "wav", or "json" with the sound in base64 and times of sentences and words. attention: with "json", the
    attention of each sentence, a byte for each symbol of each decoder step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str
    voice: str | None = None
    vocoder: str | None = None
    speaker: str | None = None
    style_token: Annotated[int, Field(ge=0)] | None = None
    style_weight: Number = 1.0
    speed: Annotated[float, Field(ge=SLOWEST, le=FASTEST)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1234
    format: Literal["wav", "json"] = "wav"
    attention: bool = False


def read_request(body: bytes, *, longest_text: int) -> SpeechRequest:
    """UserError with all that is wrong."""
    try:
        request = SpeechRequest.model_validate_json(body)
    except ValidationError as error:
        problems = [_worded(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)]
        raise UserError("; ".join(problems)) from None
    if len(request.text) > longest_text:
        raise UserError(f"text: {len(request.text)} characters, and this server takes {longest_text} at once; cut it")
    return request


def _worded(place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place))
    return f"{name}: {message}" if name else message


def for_client(message: str) -> str:
    """A message that names switches of synthesize.py, with the fields of a request in their place."""
    fields = {f"--{name.replace('_', '-')}": name for name in SpeechRequest.model_fields}
    message = re.sub(r"leave out --no-split, or set --max-seconds [\d.]+", "write it in shorter sentences", message)
    return re.sub(r"--[a-z][a-z-]*", lambda found: fields.get(found[0], found[0]), message)
