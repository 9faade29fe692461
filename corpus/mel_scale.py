"""Whether mels made elsewhere can be natural logarithms of magnitudes, as training and vocoders take them for."""

from corpus.findings import Finding, warning

LEAST_RANGE, MOST_RANGE = 7.5, 16.5  # of one recording; measured on two corpora: 9.1 to 12.7
FLOOR, CEILING = -11.6, 5.0  # ln(1e-5), and more than a full-scale tone gives
_TOLERANCE = 0.02


def check_mel_scale(minimum: float, maximum: float) -> Finding | None:
    """A warning where the least and largest value of mels look like another scale; None where they look right.

    Take both over a whole corpus, or over one recording of speech.
    """
    scale = _other_scale(minimum, maximum)
    if scale is None:
        return None
    return warning(
        "mel scale",
        f"mels lie between {minimum:.2f} and {maximum:.2f}: {scale}, and not natural logarithms of magnitudes, which "
        "reach from about -11.5 to 1",
        "make them again with this project's settings; Griffin-Lim and vocoders would give noise",
        value=maximum - minimum,
        limit=LEAST_RANGE,
    )


def _other_scale(minimum: float, maximum: float) -> str | None:
    span = maximum - minimum
    if minimum >= -_TOLERANCE and maximum <= 1 + _TOLERANCE:
        return "they look scaled to 0..1"
    for bound in (1.0, 4.0):
        if abs(minimum + bound) <= _TOLERANCE and maximum <= bound + _TOLERANCE and span > bound:
            return f"they look like decibels scaled to -{bound:.0f}..{bound:.0f}"
    if span > 40 or maximum > 20:
        return "they look like decibels"
    if span > MOST_RANGE or minimum < FLOOR:
        return "they look like logarithms of power, or with another floor"
    if span < LEAST_RANGE:
        return "they look like logarithms to base 10" if minimum < -2 else "they may be standardised"
    return None
