"""The text front end: symbols, cleaners, inline phonemes, and that nothing is dropped silently.

Expected readings in the tables marked NVIDIA were produced once by NVIDIA/tacotron2's own cleaners with inflect 7.6
and unidecode 1.4; the digest of the symbols by its own list.
"""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from common.errors import DataError, UserError
from support.paths import REPOSITORY
from text.cleaners import CLEANERS, basic_cleaners, clean, english_cleaners, transliteration_cleaners
from text.front_end import FrontEnd, Reading
from text.symbols import ARPABET, symbols

NVIDIA_SYMBOLS_SHA256 = "ec5c1790dbfe42e1ef0cea372ab3eb614cc4df326133b0e3f4ccd11103f0545b"  # joined by newlines
ENGLISH = ["english_cleaners"]
NVIDIA_HOUSTON_IDS = [
    *(57, 58, 55, 51, 11, 49, 42, 43, 57, 11, 52, 51, 11),
    *(106, 82, 131, 131, 133, 73, 119),
    *(11, 56, 57, 55, 42, 42, 57, 7),
]


def reading_of(text: str, cleaners: Sequence[str]) -> Reading:
    (reading,) = FrontEnd.create(cleaners=cleaners).read([text])
    return reading


def text_to_sequence(text: str, cleaners: Sequence[str]) -> list[int]:
    return FrontEnd.create(cleaners=cleaners).symbol_ids(text)


def sequence_to_text(ids: Sequence[int]) -> str:
    return FrontEnd.create().text_of(ids)


def unknown_characters(text: str, cleaners: Sequence[str]) -> Counter[str]:
    problems = reading_of(text, cleaners).problems
    return sum((Counter(p.characters) for p in problems if p.kind == "unknown characters"), Counter())


def python_in_a_fresh_process(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return result.stdout.strip()


# Symbols


def test_there_are_148_symbols_in_nvidias_order() -> None:
    assert len(symbols) == 1 + 1 + 10 + 26 + 26 + 84
    assert hashlib.sha256("\n".join(symbols).encode()).hexdigest() == NVIDIA_SYMBOLS_SHA256


def test_no_symbol_occurs_twice() -> None:
    assert len(set(symbols)) == len(symbols)


def test_padding_is_symbol_zero() -> None:
    assert symbols[0] == "_"


def test_importing_text_and_reading_plain_english_loads_no_heavy_package() -> None:
    program = (
        "import sys; from text.front_end import FrontEnd; FrontEnd.create().symbol_ids('Mr. Smith, hello.');"
        "print([name for name in ('inflect', 'unidecode', 'torch', 'numpy', 'pydantic') if name in sys.modules])"
    )
    assert python_in_a_fresh_process(program) == "[]"


# Cleaners


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Mr. M\u00fcller  ATE\t2\nApples", "mr. m\u00fcller ate 2 apples"),
        ("  two  spaces  ", " two spaces "),
        ("", ""),
    ],
)
def test_basic_cleaners_lower_and_collapse_and_nothing_else(text: str, cleaned: str) -> None:
    assert basic_cleaners(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Mr. M\u00fcller ate  2", "mr. muller ate 2"),
        ("raison d'\u00eatre\u2026 \u2014 gr\u00fc\u00df", "raison d'etre... -- gruss"),
        ("\u201cQuoted\u201d e\u0301", '"quoted" e'),
        ("\u00a35 and \u20ac5", "ps5 and eur5"),
    ],
)
def test_transliteration_cleaners_read_as_nvidias(text: str, cleaned: str) -> None:
    assert transliteration_cleaners(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("0", "zero"),
        ("3 apples and 44 pears", "three apples and forty-four pears"),
        ("007", "seven"),
        ("1000", "one thousand"),
        ("1001", "ten oh one"),
        ("1066", "ten sixty-six"),
        ("1900", "nineteen hundred"),
        ("1906", "nineteen oh six"),
        ("in 1984.", "in nineteen eighty-four."),
        ("2000", "two thousand"),
        ("2005", "two thousand five"),
        ("2010", "twenty ten"),
        ("2999", "twenty-nine ninety-nine"),
        ("3000", "three thousand"),
        ("1,000,000 of 2,500", "one million of twenty-five hundred"),
        ("3,456", "three thousand, four hundred fifty-six"),
        ("1st 2nd 103rd 20TH", "first second one hundred and third twentieth"),
        ("1,000th", "one thousandth"),
        ("3.14", "three point fourteen"),
        ("0.5", "zero point five"),
        ("$0", "zero dollars"),
        ("$1", "one dollar"),
        ("$0.01 $.50", "one cent fifty cents"),
        ("$3.50 for gas.", "three dollars, fifty cents for gas."),
        ("$1,250.75", "twelve fifty dollars, seventy-five cents"),
        ("$1.2.3", "one point two.three dollars"),
        ("12:30", "twelve:thirty"),
        ("10-20", "ten-twenty"),
        ("1980s", "nineteen eightys"),
    ],
)
def test_english_numbers_read_as_nvidias(text: str, cleaned: str) -> None:
    assert english_cleaners(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Mrs. Hall", "misess hall"),  # in 234 lines that the published checkpoint was trained on
        ("Mr. Smith, Jr.", "mister smith, junior"),
        ("Dr. and Drs.", "doctor and doctors"),
        ("St. James St.", "saint james saint"),
        ("Ft. Co. Ltd. Esq.", "fort company limited esquire"),
        ("Maj. Gen. Lt. Col. Capt. Sgt.", "major general lieutenant colonel captain sergeant"),
        ("Rev. Hon.", "reverend honorable"),
        ("first. Mr and Mrs went", "first. mr and mrs went"),
    ],
)
def test_english_abbreviations_read_as_nvidias(text: str, cleaned: str) -> None:
    assert english_cleaners(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\u00a31,250", "twelve fifty pounds"),  # NVIDIA: pstwelve fifty
        ("\u00a31 \u00a35.50 \u00a30.01", "one pound five pounds, fifty pence one penny"),
        ("\u20ac20", "twenty euros"),
        ("$ 5", "five dollars"),
        ("$3.5", "three dollars, fifty cents"),  # NVIDIA: five cents
        ("$1.005", "one point zero zero five dollars"),
        ("$.005", "zero point zero zero five dollars"),
        ("$1.5 million", "one point five million dollars"),
        ("a $2-billion deal", "a two billion dollars deal"),
        ("1.05", "one point zero five"),  # NVIDIA: one point five
        ("1,2,3", "one,two,three"),  # NVIDIA: one hundred twenty-three
        ("in 1984,200 men", "in nineteen eighty-four,two hundred men"),
        ("1,00,000", "one hundred thousand"),
        ("$,5", "$,five"),  # NVIDIA: ValueError
        ("5thousand", "fivethousand"),  # NVIDIA: fifthousand
        ("Lt.Col.", "lieutenantcolonel"),
    ],
)
def test_english_says_what_is_written_where_nvidia_does_not(text: str, cleaned: str) -> None:
    assert english_cleaners(text) == cleaned


@pytest.mark.parametrize("digits", [36, 37, 5000])
def test_numbers_of_any_length_are_read(digits: int) -> None:
    cleaned = english_cleaners("1" * digits + "th $" + "1" * digits + ".25")
    assert not any(character.isdigit() for character in cleaned)
    assert cleaned.endswith("dollars, twenty-five cents")


def test_numbers_beyond_the_names_are_read_digit_by_digit() -> None:
    assert english_cleaners("7" * 37) == " ".join(["seven"] * 37)


def test_cleaners_run_in_the_order_given() -> None:
    text = "\u00a35"
    assert clean(text, ["transliteration_cleaners", "english_cleaners"]) == "psfive"
    assert clean(text, ["english_cleaners", "transliteration_cleaners"]) == "five pounds"


def test_no_cleaners_leave_the_text_as_it_is() -> None:
    assert clean("A  5", []) == "A  5"


@pytest.mark.parametrize("name", list(CLEANERS))
def test_cleaning_twice_is_cleaning_once(name: str) -> None:
    once = clean("Mrs. Bront\u00eb paid $1,250.50  on the 3rd of May 1847: \u00a32!", [name])
    assert clean(once, [name]) == once


def test_an_unknown_cleaner_is_an_error_with_the_nearest_and_the_known_names() -> None:
    with pytest.raises(UserError, match="'english_cleaner' .did you mean 'english_cleaners'.*known: basic_cleaners"):
        text_to_sequence("hello", ["english_cleaner"])


def test_all_unknown_cleaners_are_named_at_once() -> None:
    with pytest.raises(UserError, match="'klingon', 'elvish'; known"):
        unknown_characters("hello", ["klingon", "basic_cleaners", "elvish"])


def test_an_unknown_cleaner_is_an_error_for_an_empty_text_too() -> None:
    with pytest.raises(UserError, match="klingon"):
        text_to_sequence("", ["klingon"])


# Ids


def test_ids_equal_nvidias_for_text_with_phonemes() -> None:
    ids = text_to_sequence("Turn left on {HH AW1 S S T AH0 N} Street.", ENGLISH)
    assert ids == NVIDIA_HOUSTON_IDS


def test_phonemes_go_past_the_cleaners() -> None:
    assert sequence_to_text(text_to_sequence("5 {B AH1 S} 5", ENGLISH)) == "five {B AH1 S} five"


def test_a_letter_and_the_phoneme_of_the_same_name_are_two_symbols() -> None:
    letter, space, phoneme = text_to_sequence("B {B}", [])
    assert letter != phoneme
    assert symbols[space] == " "


@pytest.mark.parametrize(
    "text", ["Hi!", "A {AW1 S} B", "{HH AY1}", "two {B}-{D} words; (really)?", "".join(symbols[1:64])]
)
def test_symbols_survive_the_way_there_and_back(text: str) -> None:
    assert sequence_to_text(text_to_sequence(text, [])) == text


def test_every_phoneme_survives_the_way_there_and_back() -> None:
    text = "{" + " ".join(ARPABET) + "}"
    assert sequence_to_text(text_to_sequence(text, ENGLISH)) == text


def test_adjacent_braces_are_one_run_of_phonemes() -> None:
    assert text_to_sequence("{B}{D}", []) == text_to_sequence("{B D}", [])


def test_phonemes_may_follow_a_line_break() -> None:
    assert sequence_to_text(text_to_sequence("one\n{T UW1}\nthree", ENGLISH)) == "one {T UW1} three"


def test_padding_shows_as_underscores() -> None:
    assert sequence_to_text([*text_to_sequence("Hi", []), 0, 0]) == "Hi__"


@pytest.mark.parametrize("symbol_id", [-1, 148])
def test_an_id_outside_the_symbols_is_refused(symbol_id: int) -> None:
    with pytest.raises(AssertionError, match=f"symbol id {symbol_id} is not in 0..147"):
        sequence_to_text([symbol_id])


# Nothing is dropped silently


def test_unknown_characters_are_counted_after_cleaning() -> None:
    counts = unknown_characters('Smith & Sons & Co. said "100%"', ENGLISH)
    assert counts == {"&": 2, "%": 1}  # quotes have no sound: they are left out and counted as notes


@pytest.mark.parametrize("text", ["caf\u00e9, 5 o'clock", "\u00a31,250", "Turn {HH AW1 S}"])
def test_what_cleaning_can_spell_is_not_unknown(text: str) -> None:
    assert not unknown_characters(text, ENGLISH)


def test_what_is_unknown_depends_on_the_cleaner() -> None:
    assert unknown_characters("caf\u00e9 5", ["basic_cleaners"]) == {"\u00e9": 1, "5": 1}
    assert unknown_characters("caf\u00e9 5", ["transliteration_cleaners"]) == {"5": 1}


@pytest.mark.parametrize("name", ["transliteration_cleaners", "english_cleaners"])
def test_a_character_without_transliteration_is_reported(name: str) -> None:
    assert unknown_characters("hi \U0001f600", [name]) == {"\U0001f600": 1}


@pytest.mark.parametrize("sign", ["$", "\u00a3", "\u20ac"])
def test_a_currency_sign_without_a_number_is_reported(sign: str) -> None:
    assert unknown_characters(f"many {sign}", ENGLISH) == {sign: 1}


def test_an_underscore_is_never_read_as_padding() -> None:
    assert unknown_characters("a_b", ENGLISH) == {"_": 1}
    assert 0 not in reading_of("a_b", ENGLISH).ids


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("turn {HH AW1", {"{": 1}),
        ("turn HH} now", {"}": 1}),
        ("turn {{B} now", {"{": 1}),
        ("turn {B}} now", {"}": 1}),
        ("turn {} { } now", {"{": 2, "}": 2}),
    ],
)
def test_braces_that_hold_no_phonemes_are_unknown_characters(text: str, counts: dict[str, int]) -> None:
    assert unknown_characters(text, ENGLISH) == counts


def test_unknown_characters_are_refused_with_count_and_code_point() -> None:
    with pytest.raises(DataError, match=r"'&' \(U\+0026 AMPERSAND\)") as caught:
        text_to_sequence("you & me & %", ENGLISH)
    assert "'%' (U+0025 PERCENT SIGN)" in str(caught.value) and "'you & me & %' cannot be read" in str(caught.value)


def test_a_long_text_is_quoted_by_its_beginning_only() -> None:
    with pytest.raises(DataError) as caught:
        text_to_sequence("a" * 5000 + "&", ENGLISH)
    assert len(str(caught.value)) < 300


def test_an_invalid_phoneme_is_refused_with_the_nearest_valid_ones() -> None:
    with pytest.raises(DataError, match=r"AW7 1 x is no ARPAbet phoneme; nearest: .*AW1"):
        text_to_sequence("on {HH AW7 S} Street", ENGLISH)


def test_a_phoneme_in_lower_case_is_invalid_and_its_upper_case_the_nearest() -> None:
    with pytest.raises(DataError, match="hh 1 x is no ARPAbet phoneme; nearest: HH"):
        text_to_sequence("{hh}", [])


def test_all_invalid_phonemes_and_characters_are_reported_at_once() -> None:
    with pytest.raises(DataError) as caught:
        text_to_sequence("{B XQ} & {9}", ENGLISH)
    assert all(part in str(caught.value) for part in ("XQ 1 x", "9 1 x", "'&' (U+0026"))


def test_invalid_phonemes_are_counted_apart_from_characters() -> None:
    problems = reading_of("{B XQ} and {XQ AA1}", ENGLISH).problems
    assert {problem.kind for problem in problems} == {"unknown phonemes"}
    assert sum((Counter(problem.characters) for problem in problems), Counter()) == {"@XQ": 2}
