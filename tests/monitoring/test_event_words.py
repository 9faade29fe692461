"""Events are told in the language of their reader, and no text in the code goes its own way."""

import ast
import re
from math import inf, nan

import pytest

from common.translations import read_messages
from monitoring.event_words import event_kind, event_message
from recovery.ladder import ROLL_BACK_AT, RecoveryPolicy, StepLimits
from run_directory.records import URGENT_KINDS
from support.messages import all_messages
from support.sources import source_files, tree_of
from training.summary import describe

FACTS = {"parameters": 4e6, "device": "cpu", "training": 600, "validation": 20, "batches": 38, "processes": 2}


def emitted_kinds() -> set[str]:
    """Of `Event(step, "kind", ...)`, and of the recovery policy's `("kind", message)`."""
    calls = [node for path in source_files() for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    events = [call.args[1] for call in calls if getattr(call.func, "id", "") == "Event" and len(call.args) > 2]
    return {"tightened", "relaxed", *(kind.value for kind in events if isinstance(kind, ast.Constant))}


def test_every_kind_of_event_has_a_name() -> None:
    kinds = emitted_kinds() | URGENT_KINDS
    assert len(kinds) > 20 and kinds == set(read_messages()["event_kinds"])
    assert event_kind("not_known_yet", "ru") == "not known yet"


def constant_parts(text: str) -> str:
    return re.sub(r"(\{\w*\})+", "{}", text).removeprefix("{}").removesuffix("{}")


def test_every_message_is_the_one_in_the_code() -> None:
    in_code = {constant_parts(message.text) for message in all_messages() if not message.module.endswith(".yaml")}
    texts = {name: constant_parts(text["en"]) for name, text in read_messages()["event_messages"].items()}
    assert [name for name, text in texts.items() if text not in in_code] == []


def test_what_training_writes_is_told_in_russian_to_the_last_part() -> None:
    limits = StepLimits(loss=3.0, gradient_norm=1000.0, recent_loss=1.0)
    faults = [limits.fault(*numbers) for numbers in ((nan, 1.0), (1.0, inf), (1.0, 2000.0), (5.0, 1.0))]
    plan = {"patience": 15, "validate_interval": 200}
    written = [describe({**FACTS, **plan}), describe({**FACTS, "patience": None, "validate_interval": 1})]
    written += [f"{fault.message}; the step was not taken" for fault in faults if fault is not None]
    for message in written:
        told = event_message(message, "ru")
        assert not re.search(r"\b(?:the|of|was|each|steps)\b", told), told
        assert event_message(message, "en") == message


def test_a_rollback_is_told_with_its_reason(tiny) -> None:
    policy, fault = RecoveryPolicy(tiny()), StepLimits(inf, 1000.0).fault(nan, 1.0)
    assert fault is not None
    taken = [policy.after_step(step, fault, loss=nan, norm=1.0, at=(0, step)) for step in range(int(ROLL_BACK_AT) + 1)]
    cause = next(decision.fault for decision in taken if decision.fault is not None)
    told = event_message(f"{cause.message}: back to step 0, with the learning rate x 0.5 (rollback 1 of 3)", "ru")
    assert told.endswith("возврат к шагу 0, скорость обучения x 0.5 (откат 1 из 3)")
    assert told.startswith("потеря — не конечное число (nan); таких шагов слишком много с шага 0")


@pytest.mark.parametrize("message", ["ValueError: no {such} thing", "", "x" * 5000])
def test_what_nobody_knows_stays_as_it_is(message: str) -> None:
    assert event_message(message, "ru") == message
