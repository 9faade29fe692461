"""Which layout a folder has, and its recordings with their texts."""

from itertools import islice
from pathlib import Path

from common.errors import DataError, UserError
from corpus.importers.folders import read_kaldi, read_pairs, read_vctk
from corpus.importers.items import Imported, Reader, checked
from corpus.importers.lists import list_files, read_common_voice, read_lists, read_lj_speech, read_m_ailabs

SHOWN_LISTS = 3
# asked in this order: what has marks of its own before what has few
READERS: dict[str, Reader] = {
    "common-voice": read_common_voice,
    "kaldi": read_kaldi,
    "vctk": read_vctk,
    "ljspeech": read_lj_speech,
    "m-ailabs": read_m_ailabs,
    "list": read_lists,
    "pairs": read_pairs,
}


def read_folder(folder: Path, *, layout: str | None = None) -> Imported:
    """All recordings of a folder with texts, as the first reader that makes sense of it gives them.

    layout: one of READERS, to ask no other. Raises UserError for another name, DataError where there is no such folder
    or nothing is recognised.
    """
    if layout is not None and layout not in READERS:
        raise UserError(f"--as {layout}: no such layout; known: {', '.join(READERS)}")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds the recordings")
    for name, read in READERS.items():
        if layout in (None, name):
            found = read(folder)
            if found is not None:
                items, findings = checked(found.items, root=folder)
                return Imported(found.layout, found.why, tuple(items), (*found.findings, *findings))
    asked = f"no {layout}" if layout else f"none of {', '.join(READERS)}"
    seen = ", ".join(path.name for path in islice(list_files(folder), SHOWN_LISTS))
    unread = f"; what stands in which column of {seen} could not be told" if seen else ""
    raise DataError(
        f"{folder} holds {asked}{unread}: it needs recordings with a list of their texts, or a text file beside each; "
        "for recordings without texts: python prepare_data.py cut FOLDER -o OUT"
    )
