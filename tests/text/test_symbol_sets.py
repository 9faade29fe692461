"""Symbol sets: named ones, files, and a table's way between symbols and ids."""

from pathlib import Path

import pytest

from common.errors import UserError
from text.symbol_sets import SymbolTable, corpus_table, joined, named_table, read_symbols, table_from
from text.symbols import symbols as nvidia_symbols

# Piper's default map (piper-phonemize, src/phoneme_ids.hpp) and the list that VITS, Matcha and StyleTTS2 share.
PIPER = (
    " !'(),-.:;?abcdefhijklmnopqrstuvwxyz\xe6\xe7\xf0\xf8\u0127\u014b\u0153\u01c0\u01c1\u01c2\u01c3\u0250"
    "\u0251\u0252\u0253\u0254\u0255\u0256\u0257\u0258\u0259\u025a\u025b\u025c\u025e\u025f\u0260\u0261"
    "\u0262\u0263\u0264\u0265\u0266\u0267\u0268\u026a\u026b\u026c\u026d\u026e\u026f\u0270\u0271\u0272"
    "\u0273\u0274\u0275\u0276\u0278\u0279\u027a\u027b\u027d\u027e\u0280\u0281\u0282\u0283\u0284\u0288"
    "\u0289\u028a\u028b\u028c\u028d\u028e\u028f\u0290\u0291\u0292\u0294\u0295\u0298\u0299\u029b\u029c"
    "\u029d\u029f\u02a1\u02a2\u02b2\u02c8\u02cc\u02d0\u02d1\u02de\u03b2\u03b8\u03c7\u1d7b\u2c710123456789"
    '\u0327\u0303\u032a\u032f\u0329\u02b0\u02e4\u03b5\u2193#"\u2191\u033a\u033bg\u02a6X\u031d\u030a'
)
VITS = (
    ';:,.!?\xa1\xbf\u2014\u2026"\xab\xbb\u201c\u201d ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy'
    "z\u0251\u0250\u0252\xe6\u0253\u0299\u03b2\u0254\u0255\xe7\u0257\u0256\xf0\u02a4\u0259\u0258\u025a"
    "\u025b\u025c\u025d\u025e\u025f\u0284\u0261\u0260\u0262\u029b\u0266\u0267\u0127\u0265\u029c\u0268"
    "\u026a\u029d\u026d\u026c\u026b\u026e\u029f\u0271\u026f\u0270\u014b\u0273\u0272\u0274\xf8\u0275\u0278"
    "\u03b8\u0153\u0276\u0298\u0279\u027a\u027e\u027b\u0280\u0281\u027d\u0282\u0283\u0288\u02a7\u0289"
    "\u028a\u028b\u2c71\u028c\u0263\u0264\u028d\u03c7\u028e\u028f\u0291\u0290\u0292\u0294\u02a1\u0295"
    "\u02a2\u01c0\u01c1\u01c2\u01c3\u02c8\u02cc\u02d0\u02d1\u02bc\u02b4\u02b0\u02b1\u02b2\u02b7\u02e0"
    "\u02e4\u02de\u2193\u2191\u2192\u2197\u2198'\u0329\u1d7b"
)


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "symbols.txt"
    path.write_text(content, encoding="utf-8")
    return path


def test_the_default_set_is_nvidias_list() -> None:
    assert table_from("nvidia").symbols == nvidia_symbols


@pytest.mark.parametrize(("reference", "characters"), [("piper", PIPER), ("vits", VITS)])
def test_the_ipa_set_covers_pipers_and_vits_symbols(reference: str, characters: str) -> None:
    assert [c for c in characters if c not in named_table("ipa")] == [], reference


def test_the_ipa_set_keeps_the_order_that_checkpoints_rely_on() -> None:
    table = named_table("ipa")
    assert table.symbols[:18] == ("_", *VITS[:16], "A")
    assert len(table) == 210


def test_the_russian_set_has_33_letters_and_a_stress_mark() -> None:
    table = named_table("russian")
    letters = [s for s in table.symbols if "\u0430" <= s <= "\u044f" or s == "\u0451"]
    assert len(letters) == 33
    assert "+" in table


@pytest.mark.parametrize("name", ["nvidia", "ipa", "russian"])
def test_padding_is_symbol_zero_and_never_part_of_a_text(name: str) -> None:
    table = named_table(name)
    assert table.symbols[0] == "_"
    assert "_" not in table


@pytest.mark.parametrize("name", ["nvidia", "ipa", "russian"])
def test_every_symbol_survives_the_way_to_its_id_and_back(name: str) -> None:
    table = named_table(name)
    assert table.text_of(range(1, len(table))) == joined(table.symbols[1:])
    assert [table.id_of[s] for s in table.symbols[1:]] == list(range(1, len(table)))


@pytest.mark.parametrize(
    ("name", "symbol", "fitted"),
    [
        ("ipa", "\u00e3", ("a", "\u0303")),  # a nasal vowel in one code point
        ("ipa", "\u00e7", ("\u00e7",)),
        ("nvidia", "\u2026", (".", ".", ".")),
        ("nvidia", "\u2014", ("-",)),
        ("russian", "\u00ab", ('"',)),
        ("russian", "\u2013", ("\u2014",)),
        ("russian", "\u2019", ("'",)),
        ("nvidia", "\u044f", None),
    ],
)
def test_a_symbol_is_fitted_by_itself_its_parts_or_a_stand_in(name: str, symbol: str, fitted: object) -> None:
    assert named_table(name).fitted(symbol) == fitted


def test_the_symbols_of_a_corpus_are_sorted_behind_padding() -> None:
    assert corpus_table("\u00fcber dem") == SymbolTable(("_", " ", "b", "d", "e", "m", "r", "\u00fc"), "corpus")


def test_a_file_gives_its_symbols_in_its_order(tmp_path: Path) -> None:
    path = written(tmp_path, "b\r\n<space>\n\na\n@AA1\n\u0301\n")
    assert table_from(str(path)).symbols == ("_", "b", " ", "a", "@AA1", "\u0301")


def test_padding_may_stand_first_in_a_file(tmp_path: Path) -> None:
    assert read_symbols(written(tmp_path, "_\na\n")) == ("_", "a")


def test_all_bad_lines_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_symbols(written(tmp_path, "a\nab\na\n@QQ9\n_\n"))
    message = str(caught.value)
    assert "4 bad lines" in message
    assert "symbols.txt:2: 'ab' is 2 characters" in message
    assert "symbols.txt:3: 'a' stands in line 1 already" in message
    assert "symbols.txt:4: '@QQ9'" in message
    assert "symbols.txt:5: '_' is padding" in message


def test_a_set_that_is_neither_known_nor_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"neither a set \(nvidia, ipa, russian, corpus\) nor a file"):
        table_from("klingon")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is UTF-16, and not UTF-8"):
        read_symbols(path)
