"""The means by which hparams.py declares: a field with its unit and range, and a section of fields with its rules."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tools import Check, failed_checks

Affects = Literal["arch", "features", "run"]
_TO_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
TextList = Annotated[tuple[str, ...], _TO_TUPLE]
SizeList = Annotated[tuple[Annotated[int, Field(ge=1)], ...], _TO_TUPLE]
PaddingList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], _TO_TUPLE]


def hp_field(
    default: Any,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    parity: Literal["odd", "even", ""] = "",
    aliases: tuple[str, ...] = (),
    affects: Affects = "run",
    mutable: bool = False,
) -> Any:
    """One declaration.

    affects: "arch" changes the state dict, "features" the mels or ids, "run" the rest.
    mutable: the value may change when a run is resumed.
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "parity": parity,
        "aliases": list(aliases),
        "affects": affects,
        "mutable": mutable,
    }
    return Field(default, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra)


def share_field(default: float, *, mutable: bool = False) -> Any:
    return hp_field(default, ge=0, le=1, mutable=mutable)


def dropout_field(default: float) -> Any:
    return hp_field(default, ge=0, lt=1)  # 1 would leave nothing to scale up


def width_field(default: int, *, parity: Literal["odd", "even", ""] = "") -> Any:
    return hp_field(default, ge=1, parity=parity, affects="arch")


class Section(BaseModel):
    """A frozen group of hyperparameters: no unknown names, no True for 1, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    checks: ClassVar[tuple[Check, ...]] = ()  # rules over several fields; see failed_checks

    @model_validator(mode="after")
    def _obeys_the_checks(self) -> Self:
        problems = failed_checks(type(self), dict(self))
        if problems:
            raise ValueError("; ".join(map(str, problems)))
        return self
