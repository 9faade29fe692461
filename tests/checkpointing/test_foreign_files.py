"""What lies under the name of a checkpoint and is none, called by what it is."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing.directory import status_of
from checkpointing.foreign_files import describe_foreign_file
from common.errors import UserError

PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 112716544\n"


def torch_file() -> bytes:
    content = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(1000)}}, content)
    return content.getvalue()


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("tacotron2/model.pt", b"weights")
    return content.getvalue()


def tarred(mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return content.getvalue()


def safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4)


KINDS: list[tuple[Callable[[], bytes], str, str]] = [
    (lambda: PAGE, "is a web page (<!DOCTYPE html...), 85 bytes", "download it again"),
    (lambda: b"\n  <HTML>\n<body>404", "is a web page", "download it again"),
    (lambda: b"\xef\xbb\xbf<html>", "is a web page", "download it again"),
    (lambda: b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page", "download it again"),
    (lambda: POINTER, "is a git-lfs pointer", "git lfs pull"),
    (lambda: b'{"error": "not found"}', "is a JSON text", "download it again"),
    (lambda: b"[1, 2, 3]\n", "is a JSON text", "download it again"),
    (lambda: b"", "is empty", "copy or download it again"),
    (lambda: gzip.compress(torch_file()), "is packed with gzip", "gunzip"),
    (tarred, "is a tar archive", "unpack it"),
    (lambda: tarred("w:gz"), "is packed with gzip", "unpack"),
    (lambda: tarred("w:xz"), "is packed with xz", "unpack"),
    (zipped, "is a zip archive (of tacotron2/model.pt)", "unpack it"),
    (lambda: torch_file()[:-30], "is cut off", "copy or download it again"),
    (lambda: torch_file()[: len(torch_file()) // 2], "is cut off", "copy or download it again"),
    (safetensors, "is a safetensors file", "safetensors.torch.load_file"),
    (lambda: b"\x89PNG\r\n\x1a\n" + bytes(20), "is a picture", "name a .pt file"),
    (lambda: b"RIFF\x24\0\0\0WAVEfmt ", "is a sound", "name a .pt file"),
    (lambda: b"%PDF-1.7\n", "is a PDF document", "name a .pt file"),
    (lambda: b"batch_size: 32\nepochs: 5\n", "is a text (batch_size: 32...)", "name a .pt file"),
]


@pytest.mark.parametrize(("make", "kind", "advice"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(
    tmp_path: Path, make: Callable[[], bytes], kind: str, advice: str
) -> None:
    path = tmp_path / "tacotron2_statedict.pt"
    path.write_bytes(make())
    with pytest.raises(UserError) as refused:
        checkpoint_file.read(path)
    said = str(refused.value)
    assert said.startswith(f"{path} {kind}") and "not a checkpoint" in said and advice in said
    assert "foreign code" not in said
    assert status_of(path).kind == "not_ours" and kind in (status_of(path).problem or "")


def test_a_torch_file_and_bytes_without_a_form_have_no_such_name(tmp_path: Path) -> None:
    for content in (torch_file(), bytes(range(256)), b"\x80\x02}q\x00."):
        (tmp_path / "x.pt").write_bytes(content)
        assert describe_foreign_file(tmp_path / "x.pt") is None
