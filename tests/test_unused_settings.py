"""What nothing uses is told: it changes nothing without what it belongs to."""

from pathlib import Path

import pytest

from config.unused_settings import BELONGS_TO, unused_settings
from hparams import field_names, resolve_hparams
from settings.presets import preset_names
from support.parameter_effects import EFFECTS, Seen
from support.voices import Tiny

OFF = {"drop_frame_rate": "0"}
SEEN = [(switch, name, row) for switch, names in BELONGS_TO.items() for name in names
        if isinstance(row := EFFECTS[name], Seen)]  # fmt: skip


def unused(overrides: str, preset: str | None = None) -> list[str]:
    return unused_settings(resolve_hparams(overrides=overrides, preset=preset))


@pytest.mark.parametrize(("switch", "name", "row"), SEEN, ids=[f"{name}-{switch}" for switch, name, _ in SEEN])
def test_a_setting_without_its_switch_changes_nothing(
    switch: str, name: str, row: Seen, tiny: Tiny, tmp_path: Path
) -> None:
    others = [part for part in row.base.split(",") if part and not part.startswith(f"{switch}=")]
    off = [*others, f"{switch}={OFF.get(switch, 'False')}"]
    before = row.observe(tiny(",".join(off)), tmp_path / "before")
    after = row.observe(tiny(",".join([*off, row.change])), tmp_path / "after")
    assert before == after


def test_enough_of_them_can_be_seen() -> None:
    assert len(SEEN) > 25
    assert {name for names in BELONGS_TO.values() for name in names} | set(BELONGS_TO) <= set(field_names())


def test_what_is_named_for_nothing_is_told_with_what_it_needs() -> None:
    assert sorted(unused("guide_sigma=0.3,use_guided_attn=False,mmi_weight=2,amp_dtype=bf16")) == [
        "amp_dtype=bf16 (--hparams) has no effect without fp16_run=True",
        "guide_sigma=0.3 (--hparams) has no effect without use_guided_attn=True",
        "mmi_weight=2.0 (--hparams) has no effect without use_mmi=True",
    ]
    assert unused("guide_sigma=0.3,no_dga=True") == [
        "guide_sigma=0.3 (--hparams) has no effect without guided attention, which no_dga=True turns off"
    ]
    assert unused("global_mean_npy=a.npy") == [
        "global_mean_npy=a.npy (--hparams) has no effect without drop_frame_rate over 0"
    ]


def test_what_is_used_or_comes_from_a_preset_or_a_default_is_not_told(tmp_path: Path) -> None:
    assert unused("guide_sigma=0.3,use_mmi=True,mmi_weight=2,fp16_run=True,amp_dtype=bf16") == []
    assert [told for preset in preset_names() for told in unused("", preset)] == []
    (tmp_path / "mine.yaml").write_text("mmi_weight: 2.0\n")
    told = unused_settings(resolve_hparams(hparams_file=tmp_path / "mine.yaml"))
    assert told == [f"mmi_weight=2.0 (file {tmp_path / 'mine.yaml'}) has no effect without use_mmi=True"]


def test_the_file_that_a_run_keeps_of_all_its_settings_tells_of_none_that_is_the_default(tmp_path: Path) -> None:
    settings = resolve_hparams(preset="small", overrides="mmi_weight=2.0")
    (tmp_path / "hparams.yaml").write_text(settings.hparams.to_yaml(), encoding="utf-8")
    told = unused_settings(resolve_hparams(hparams_file=tmp_path / "hparams.yaml"))
    assert told == [f"mmi_weight=2.0 (file {tmp_path / 'hparams.yaml'}) has no effect without use_mmi=True"]
