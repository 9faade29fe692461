"""Rules that several fields or sections share (tools.Check), and what they count with."""

from tools import Check


def at_most(lower: str, upper: str) -> Check:
    return Check((lower, upper), lambda low, up: low <= up, f"{lower} must be at most {upper}")


def below(lower: str, upper: str) -> Check:
    return Check((lower, upper), lambda low, up: low < up, f"{lower} must be below {upper}")


def not_blank(name: str) -> Check:
    return Check((name,), lambda text: bool(text.strip()), f"{name} must not be empty")


def no_secret(name: str, advice: str = "") -> Check:
    """An address without user name, password or key. advice: how else to give them, with its punctuation before."""
    told = f"{name} must hold no user name, password or key, as hyperparameters are kept in files{advice}"
    return Check((name,), lambda address: not set("@?#") & set(address), told)


def shrunk(size: int, *, kernel: int, stride: int, pad: int, n_layers: int) -> int:
    """What so many equal convolutions leave of an axis; 0 where nothing is left."""
    for _ in range(n_layers):
        size = (size + 2 * pad - kernel) // stride + 1 if size > 0 else 0
    return max(size, 0)


def is_pair(pair: tuple[int, ...]) -> bool:
    return len(pair) == 2


def leaves_mel_bands(
    bands: int,
    filters: tuple[int, ...],
    size: tuple[int, ...],
    strides: tuple[int, ...],
    pad: tuple[int, ...],
    is_used: bool,
) -> bool:
    """Whether the reference encoder's convolutions leave something of the mel bands; pairs are judged elsewhere."""
    if not (is_used and is_pair(size) and is_pair(strides) and is_pair(pad)):
        return True
    return shrunk(bands, kernel=size[1], stride=strides[1], pad=pad[1], n_layers=len(filters)) > 0
