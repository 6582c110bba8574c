"""The JSON Schema that editors read, and the study that `ablate new` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_plugins import _plugins  # noqa: F401

from ablate import api
from ablate.errors import StudyError
from ablate.options import Options
from ablate.schema import json_schema, new_study
from ablate.study import loads


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, rule in schema.items():
            if key == "$ref":
                yield rule
            else:
                yield from references(rule)
    elif isinstance(schema, list):
        for rule in schema:
            yield from references(rule)


def test_it_is_json_and_every_reference_leads_somewhere() -> None:
    schema = json_schema()
    text = json.dumps(schema, allow_nan=False)
    assert "x-level" not in text
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {ref.removeprefix("#/$defs/") for ref in references(schema)} <= set(schema["$defs"])
    assert schema["required"] == ["question", "model", "organism"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(Options.model_fields)


def test_an_infinite_default_is_left_out_for_it_is_no_json() -> None:
    def patient(lm: Any, prompts: Any, rng: Any, *, k: int, bound: float = float("inf")) -> Any:
        """Waits."""

    api.label_shift(patient)
    assert "patient" in json.dumps(json_schema(), allow_nan=False)


def test_every_option_is_described() -> None:
    schema = json_schema()
    for name in ("Model", "Organism", "Factors", "Labels", "Train", "Evaluate", "Analysis"):
        assert schema["$defs"][name]["additionalProperties"] is False
        assert all(leaf["description"] for leaf in schema["$defs"][name]["properties"].values())
    assert all(leaf["description"] for leaf in schema["properties"].values() if "anyOf" not in leaf)


def test_leaves_may_be_swapped_and_seeds_may_not() -> None:
    schema = json_schema()
    whole = {"type": "integer", "minimum": 1}
    candidates = schema["$defs"]["Labels"]["properties"]["candidates"]
    assert candidates["default"] == 4
    assert candidates["anyOf"] == [
        whole,
        {
            "type": "object",
            "properties": {"swap": {"type": "array", "items": whole, "minItems": 1, "uniqueItems": True}},
            "required": ["swap"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {"fix": whole}, "required": ["fix"], "additionalProperties": False},
    ]
    assert "swap" not in json.dumps(schema["$defs"]["Organism"]["properties"]["seeds"])
    assert "swap" not in json.dumps(schema["$defs"]["Analysis"])
    assert schema["properties"]["model"]["anyOf"][1]["properties"]["swap"]["items"]["anyOf"][0]["type"] == "string"
    assert schema["properties"]["controls"]["items"] == {"enum": [None, "null", "oracle"]}


def test_levels_are_named_with_their_docs_and_options() -> None:
    schema = json_schema()
    assert schema["$defs"]["Factors"]["properties"]["label_shift"]["default"] == "none"
    assert schema["$defs"]["Factors"]["properties"]["label_shift"]["anyOf"][0] == {"$ref": "#/$defs/label_shift"}
    shifts = schema["$defs"]["label_shift"]["anyOf"]
    assert {"const": "greedy", "description": "The mode."} in shifts
    assert not any(rule.get("const") == "nucleus" for rule in shifts)  # top_p has no default
    nucleus = next(rule for rule in shifts if "nucleus" in rule.get("properties", {}))["properties"]["nucleus"]
    assert nucleus["required"] == ["top_p"]
    assert nucleus["properties"]["temperature"]["minimum"] == 0
    selectors = schema["$defs"]["selector"]["anyOf"]
    argmax = next(rule for rule in selectors if "argmax" in rule.get("properties", {}))["properties"]["argmax"]
    assert argmax["required"] == ["scorer"]
    assert argmax["properties"]["scorer"] == {"$ref": "#/$defs/scorer"}


def test_a_new_study_loads_with_every_option_at_its_default() -> None:
    text = new_study("my-study.2", "schema dir/study.json")
    assert text.startswith("# yaml-language-server: $schema=schema dir/study.json\n")
    study = loads(text, source="x")
    assert study.name == "my-study.2"
    assert [axis.labels for axis in study.axes] == [
        ("none", "greedy", "clean_view"),
        ("first", "majority", "argmax(mean_logprob)"),
        ("sft",),
    ]
    plain = loads(
        "name: my-study.2\nquestion: q\nmodel: smollm2-135m\norganism: {behavior: sycophancy}", source="x"
    ).options
    for section in ("model", "organism", "labels", "train", "evaluate", "seeds", "measures", "controls", "analysis"):
        assert getattr(study.options, section) == getattr(plain, section)


@pytest.mark.parametrize("name", ["2024", "1e5", "null", "true", "_"])
def test_a_new_study_may_have_any_name(name: str) -> None:
    assert loads(new_study(name, "s.json"), source="x").name == name


@pytest.mark.parametrize("name", ["", "a b", ".a", "a/b", "x\n"])
def test_a_name_that_names_no_folder(name: str) -> None:
    with pytest.raises(StudyError, match="cannot name a study"):
        new_study(name, "s.json")
