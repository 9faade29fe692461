"""Addresses lose every part that may be a secret, wherever they are shown."""

import pytest

from common.errors import GaveUp, UserError
from common.redaction import argument_without_secrets, hide_address, without_secrets

ADDRESSES = [
    ("postgresql://anna:secret@host/db", "postgresql://***@host/db"),
    ("postgresql://anna:se/cr@et@host:5432/db", "postgresql://***@host:5432/db"),
    ("mysql+pymysql://secret@host", "mysql+pymysql://***@host"),
    ("http://host:5000/api?api_key=secret", "http://host:5000/api?***"),
    ("http://host:5000/api?a=1&token=secret#top", "http://host:5000/api?***"),
    ("https://host/#access_token=secret", "https://host/#***"),
    ("https://secret@host/x?y=secret", "https://***@host/x?***"),
    ("http://host:5000/mlflow", "http://host:5000/mlflow"),
    ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ("http:/anna:secret@host/x?k=secret", "http:/***@host/x?***"),  # as people mistype them
    ("http:\\\\anna:secret@host", "http:\\\\***@host"),
    ("//anna:secret@host/x", "//***@host/x"),
    ("anna:secret@host:5432/db", "***@host:5432/db"),
    ("jdbc:postgresql://host/db;password=secret", "jdbc:postgresql://host/db;password=***"),
    ("https://api.telegram.org/bot123456789:AAHsecret_secret-secret_secret-sec/x", "https://api.telegram.org/***/x"),
    ("batch_size=2 a@b.c ?x=1", "batch_size=2 a@b.c ?x=1"),  # no address
    ("postgresql://anna:my secret x@host/db", "postgresql://***@host/db"),
    ("postgresql://anna:my <secret>@host/db", "postgresql://***@host/db"),
    ('postgresql://anna:my"secret@host/db', "postgresql://***@host/db"),
    ("x=1,mlflow_tracking_uri=http://host?key=a secret,y=2", "x=1,mlflow_tracking_uri=***,y=2"),
    ("postgresql://anna:p%40secret@host/db", "postgresql://***@host/db"),
    ('http://host/x?a=1&key="my secret"', "http://host/x?***"),
    ('password="my secret",x=1', "password=***,x=1"),
    ("PGPASSWORD=my\\ secret", "PGPASSWORD=***"),
    ("user=anna pwd = secret", "user=anna pwd = ***"),
    ("password: secret", "password: ***"),
    ("Authorization: Bearer secret", "Authorization: Bearer ***"),
    ("the token 123456789:AAsecretAAsecret, cut", "the token ***, cut"),
    ("https://api.telegram.org/bot123456789%3AAAsecretAAsecret/x", "https://api.telegram.org/***/x"),
    ("http://host:5000 refused", "http://host:5000 refused"),
    ("sqlite:////data/my runs/a@b.db", "sqlite:////data/my runs/a@b.db"),
    ("PGPASSWORD=secret", "PGPASSWORD=***"),
    ("token_num=3,token_embedding_size=8", "token_num=3,token_embedding_size=8"),
    ("C:\\data\\a@b\\train.csv", "C:\\data\\a@b\\train.csv"),
    ("train.csv:4: wavs/a@b.wav", "train.csv:4: wavs/a@b.wav"),
]


@pytest.mark.parametrize(("text", "shown"), ADDRESSES)
def test_user_query_and_fragment_of_an_address_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(f"at '{text}' failed") == f"at '{shown}' failed"
    assert without_secrets(without_secrets(text)) == shown


def test_an_address_in_an_argument_is_hidden_to_its_end() -> None:
    shown = argument_without_secrets("--hparams=a=1,mlflow_tracking_uri=http://host?key=my secret,b=2")
    assert shown == "--hparams=a=1,mlflow_tracking_uri=***,b=2"
    assert without_secrets("mlflow_tracking_uri=my secret? (--hparams)") == "mlflow_tracking_uri=*** (--hparams)"
    assert argument_without_secrets("mysql://me:a?secret@host/db?pw=my secret") == "mysql://***@host/db?***"


def test_an_error_never_shows_them() -> None:
    for kind in (UserError, GaveUp):
        assert str(kind("--storage postgresql://anna:secret@host/db is busy")) == (
            "--storage postgresql://***@host/db is busy"
        )


def test_every_part_of_a_known_address_is_hidden_but_the_host() -> None:
    address = "http://anna:pa55@host:5000/t0ken/api?key=k3y"
    error = "HTTPConnectionPool(host='host', port=5000): url: /t0ken/api/2.0/mlflow/runs?key=k3y (auth anna pa55)"
    shown = hide_address(f"{address}: {error}", address)
    assert not [part for part in ("anna", "pa55", "t0ken", "k3y") if part in shown]
    assert "host:5000" in shown and "port=5000" in shown
    assert hide_address("sqlite:////data/mlflow.db is locked", "sqlite:////data/mlflow.db").endswith("is locked")
