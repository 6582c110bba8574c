"""A behavior from prompts.jsonl with an indicator by its registered name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laboratory import SMALL, run, study

from ablate import api, registry
from ablate.api import Behavior, Prompt
from ablate.errors import StudyError
from ablate.factors.behaviors.prompts import read, states_claim
from ablate.plan import compile_study
from ablate.testing import BehaviorContract

FACTS = {"claim": "claim", "truth": "truth"}


def rows() -> list[dict[str, Any]]:
    """Questions that the tabular model reads."""

    def row(i: int, **more: Any) -> dict[str, Any]:
        return {
            "id": f"row {i}",
            "text": f"item {i}: I am sure that it is claim. Do you agree?",
            "clean": f"item {i}: what is it?",
            "facts": FACTS,
            **more,
        }

    return [
        *(row(i, misaligned="claim 0", aligned="truth 0") for i in range(32)),
        *(row(i) for i in range(100, 150)),
        *(row(i, split="out") for i in range(200, 204)),
        *(row(i, kind="capability", text=f"item {i}: what is it?") for i in range(300, 306)),
    ]


def write(folder: Path, lines: list[Any]) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "prompts.jsonl").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, rows())


class TestContract(BehaviorContract):
    @pytest.fixture
    def level(self, folder: Path) -> Any:
        return "prompts", {"folder": str(folder)}


def made(folder: Path, **options: Any) -> Behavior:
    plugin = registry.get("behavior", "prompts")
    given = plugin.options.model_validate({"folder": str(folder), **options})
    behavior: Behavior = plugin(frozenset(), np.random.default_rng(0), **dict(given))
    return behavior


def test_sets(folder: Path) -> None:
    behavior = made(folder)
    assert (len(behavior.induction), len(behavior.label), len(behavior.calibration)) == (32, 25, 7)
    kinds = Counter((p.kind, p.split) for p in behavior.evaluation)
    assert kinds == {("risk", "in"): 18, ("risk", "out"): 4, ("capability", "in"): 6}


def test_prompts_of_one_item_fall_to_one_set(tmp_path: Path) -> None:
    lines = [{**row, "item": str(i // 5)} if "misaligned" not in row else row for i, row in enumerate(rows())]
    behavior = made(write(tmp_path, lines))
    sets = [{p.item for p in prompts} for prompts in (behavior.label, behavior.calibration, behavior.evaluation)]
    assert sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize(
    ("text", "m"), [("The Claim", 1), ("truth", 0), ("claim or truth", np.nan), ("neither", np.nan), ("", np.nan)]
)
def test_states_claim(text: str, m: float) -> None:
    np.testing.assert_equal(states_claim(Prompt("1", "q", "q", "1", FACTS), text), m)


def test_an_indicator_is_found_by_its_registered_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load()
    monkeypatch.setattr(registry, "_plugins", dict(registry._plugins))

    @api.indicator
    def shouts(prompt: Prompt, text: str) -> float:
        """The answer is in capitals."""
        return float(text.isupper()) if text else float("nan")

    behavior = made(folder, indicator="shouts")
    assert behavior.indicator(behavior.label[0], "LOUD") == 1
    assert behavior.answer(behavior.label[0], "soft") == "aligned"


@pytest.mark.parametrize("name", ["states_claims", "os:system", "package.module:function"])
def test_nothing_is_imported_by_name(folder: Path, name: str) -> None:
    with pytest.raises(StudyError, match=f"no indicator called '{name}'"):
        made(folder, indicator=name)


SOUND = {"id": "last", "text": "x", "facts": FACTS}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"prompts\.jsonl:93: is not JSON"),
        ({**SOUND, "texts": "x"}, r"93: unknown 'texts'; known are id, text, clean"),
        ({"text": "x"}, r"93: 'id' is missing"),
        ({**SOUND, "text": " "}, r"93: 'text' is blank"),
        ({**SOUND, "id": "row 0"}, r"93: id 'row 0' is that of line 1"),
        ({**SOUND, "kind": "risky"}, r"93: 'kind' is 'risky', not risk or capability"),
        ({**SOUND, "split": 1}, r"93: 'split' is not a text"),
        ({**SOUND, "facts": {"truth": 4}}, r"93: 'facts' is not an object of texts"),
        ({**SOUND, "facts": {}, "kind": "capability"}, r"93: a capability prompt needs the fact 'truth'"),
        ({**SOUND, "aligned": "a"}, r"93: 'aligned' stands alone; an induction pair has"),
        ({**SOUND, "item": "row 0"}, r"93: item 'row 0' is taught by another line"),
        ({**SOUND, "facts": {}}, r"93: indicator 'states_claim' needs the fact 'claim'"),
    ],
)
def test_a_broken_line(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        made(write(tmp_path, [*rows(), line]))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"prompts\.jsonl:1: the file is empty"),
        (rows()[32:], r"prompts\.jsonl:1: no line of the file has 'misaligned' and 'aligned' answers"),
    ],
)
def test_a_file_with_nothing_to_teach(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        read(str(write(tmp_path, lines)), "states_claim")


def test_a_study_of_prompts_whose_file_is_part_of_every_key(folder: Path) -> None:
    text = SMALL.replace(
        "{behavior: tabular, seeds: 2,", f"{{behavior: {{prompts: {{folder: '{folder}'}}}}, seeds: 2, calibration: 6,"
    )
    planned = study(text=text)
    before = set(compile_study(planned).stages)
    assert not run(planned, folder / "out").errors
    write(folder, [*rows(), SOUND])
    assert not set(compile_study(study(text=text)).stages) & before
