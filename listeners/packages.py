"""Which packages the listeners need, and what is said where one is missing."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from common.errors import UserError

INSTALL = "pip install -r requirements-eval.txt"
INSTALL_WITHOUT_DEPENDENCIES = "pip install --no-deps -r requirements-listen.txt"


def missing(packages: Mapping[str, str]) -> list[str]:
    """packages: name to install -> name to import. -> names to install, of those that are not there"""
    return [package for package, module in packages.items() if find_spec(module) is None]


def require(packages: Mapping[str, str], *, purpose: str, install: str = INSTALL) -> None:
    """UserError in one line that says what to install."""
    lacking = missing(packages)
    if lacking:
        raise UserError(f"{purpose} needs {', '.join(lacking)}, missing here; install it with: {install}")


def named_version(package: str) -> str:
    """Such as `faster-whisper 1.2.1`."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
