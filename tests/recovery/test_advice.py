"""The rule book: every symptom that anything finds has its rule."""

from typing import get_args

from hparams import HParams, create_hparams, field_names
from recovery.advice import RULES, Symptom, advice_for, causes_and_advice, safer_settings
from recovery.ladder import Kind


def test_every_symptom_has_causes_and_advice() -> None:
    assert set(get_args(Kind)) < set(get_args(Symptom)) == set(RULES)
    assert all(rule.causes and rule.advice for rule in RULES.values())


def test_safer_settings_are_hyperparameters_that_validate_together() -> None:
    hp = create_hparams("fp16_run=True,amp_dtype=fp16,batch_size=1")
    safer = {name: setting.value for name, setting in safer_settings(list(RULES), hp).items()}
    assert set(safer) <= set(field_names()) and safer["batch_size"] == 1 and safer["amp_dtype"] == "bf16"
    HParams.model_validate({**hp.canonical(), **safer})


def test_the_first_symptom_decides_where_two_ask_for_one_setting() -> None:
    hp = create_hparams("guide_loss_weight=3")
    assert safer_settings(["explosion", "alignment_lost"], hp)["guide_loss_weight"].value == 6
    assert list(safer_settings(["alignment_lost", "explosion"], hp)) == [
        "learning_rate", "guide_loss_weight", "grad_clip_thresh"
    ]  # fmt: skip


def test_advice_that_two_symptoms_share_is_given_once() -> None:
    both = advice_for(["not_finite", "explosion"])
    assert len(both) == len(set(both)) == 3


def test_half_precision_is_a_cause_only_where_a_run_has_it() -> None:
    with_half, without = (causes_and_advice("explosion", is_half=is_half) for is_half in (True, False))
    assert with_half[0][-1].startswith("half precision") and len(without[0]) == len(with_half[0]) - 1
