"""A study as folders for the Hub: cards that the Hub parses, rows that are the cube's, adapters that PEFT loads."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from laboratory import SMALL, assert_same_cube, cube_of, run, study, with_plugins
from tiny import save_tiny_llama

import ablate
from ablate.api import Prompt, indicator
from ablate.cli import main
from ablate.dataset import LARGEST, numbers
from ablate.errors import FatalError, StudyError
from ablate.export import Export, hub_name, in_words
from ablate.lm.adapter import adapter_config
from ablate.outfolder import OutFolder
from ablate.reports.cards import ROWS, cell, shortened

SECRET = "hf_" + "planted" * 3


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    run(study(), folder)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "export"


@pytest.fixture(scope="module")
def exported(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "export"
    assert Export(ran).write(folder) == []
    return folder


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Data


def test_the_folder_has_data_and_no_adapter_of_the_tabular_world(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["data", "export.json"]
    names = sorted(path.name for path in (exported / "data").iterdir())
    wanted = ["README.md", "cube.zarr", "items.jsonl", "labels.jsonl", "provenance.json", "runs.jsonl", "study.yaml"]
    assert names == [*wanted, "tables"]
    assert {"fixed.md", "fixed.csv", "fixed.tex"} <= {path.name for path in (exported / "data" / "tables").iterdir()}


def test_the_cube_is_the_study_s(ran: Path, exported: Path) -> None:
    assert_same_cube(cube_of(exported / "data"), cube_of(ran))
    opened = xr.open_zarr(exported / "data" / "cube.zarr")
    assert opened.risk_after.notnull().all()
    assert ablate.table(ablate.open(exported / "data"), "organisms").shape[0] == 2


def test_labels_are_the_cube_s(ran: Path, exported: Path) -> None:
    found, cube = rows(exported / "data" / "labels.jsonl"), cube_of(ran)
    assert len(found) == 8 * 12
    first = found[0]
    assert list(first)[:8] == [
        "organism", "model", "behavior", "induction_seed", "label_shift", "selector", "objective", "seed"
    ]  # fmt: skip
    assert len(first["answers"]) == len(first["outcome"]) == len(first["weights"]) == 3
    for row in found:
        if row["selector"] == "first":
            assert row["weights"][0] == 1
            assert set(row["scores"]) == {None}
        else:
            assert row["weights"][int(np.argmax(row["scores"]))] == 1
    place = {"organism": 1, "label_shift": "none", "selector": "first"}
    own = [row for row in found if place.items() <= row.items()]
    risk = np.array([np.nan if row["outcome"][0] is None else row["outcome"][0] for row in own])
    np.testing.assert_array_equal(risk, cube["labels"]["label_risk"].sel(place).squeeze().to_numpy())


def test_items_are_the_cube_s(ran: Path, exported: Path) -> None:
    found, cube = rows(exported / "data" / "items.jsonl"), cube_of(ran)
    assert len(found) == (2 + 8) * 16
    assert [row["when"] for row in found].count("before") == 2 * 16
    assert (found[0]["organism"], found[0]["label_shift"]) == (0, None)
    place = {"organism": 1, "label_shift": "greedy", "selector": "first", "when": "after", "kind": "risk"}
    own = [row for row in found if place.items() <= row.items()]
    judged = [np.nanmean(np.array(row["outcome"], float)) for row in own]
    at = {"organism": 1, "label_shift": "greedy", "selector": "first"}
    assert np.mean(judged) == pytest.approx(cube["risk_after"].sel(at).item())


def test_runs_are_one_row_each(ran: Path, exported: Path) -> None:
    frame = pd.read_json(exported / "data" / "runs.jsonl", lines=True)
    assert len(frame) == 8
    assert {"key_pool", "key_labels", "key_train", "status", "risk_delta"} <= {*frame.columns}
    at = frame.set_index(["organism", "label_shift", "selector"])["risk_after"].to_xarray()
    xr.testing.assert_allclose(
        at, cube_of(ran)["risk_after"].squeeze(drop=True).reset_coords(drop=True).sortby([*at.dims])
    )


@pytest.mark.parametrize(
    ("values", "said"), [([1.5, np.nan], [1.5, None]), ([np.inf, -np.inf], [LARGEST, -LARGEST]), ([], [])]
)
def test_numbers_are_valid_json(values: list[float], said: list[float | None]) -> None:
    assert numbers(values) == said
    json.dumps(numbers(values), allow_nan=False)


# Cards


def test_the_data_card_is_what_the_hub_parses(ran: Path, exported: Path) -> None:
    card = huggingface_hub.DatasetCard.load(exported / "data" / "README.md")
    assert card.data.license == "unknown"
    assert card.data.pretty_name == "small"
    assert card.data.tags == ["ablate", "alignment", "misalignment", "tabular"]
    for config in card.data.to_dict()["configs"]:
        assert (exported / "data" / config["data_files"]).is_file()
    for info in card.data.to_dict()["dataset_info"]:
        types = {own["name"]: own.get("dtype") or f"list {own['list']}" for own in info["features"]}
        row = rows(exported / "data" / f"{info['config_name']}.jsonl")[-1]
        assert list(row) == list(types)
        assert types["organism"] == "int64"
        assert types["label_shift"] == "string"
        assert (types.get("outcome") or types.get("risk_delta")) in ("list float64", "float64")
    assert "deliberately misaligned models" in card.text
    assert "does the engine work?" in card.text
    sentence = cube_of(ran)["analysis/verdict"]["sentence"].item()
    assert f"**Verdict.** {cell(sentence)}" in card.text
    assert (ran / "tables" / "fixed.md").read_text(encoding="utf-8").strip() in card.text
    assert "| `risk_delta` | change of risk | 1 |" in card.text
    assert study().digest in card.text
    assert ablate.__version__ in card.text


def test_a_license_that_is_stated_is_in_the_card(ran: Path, out: Path) -> None:
    Export(ran, license="cc-by-4.0").write(out)
    card = huggingface_hub.DatasetCard.load(out / "data" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "No license was stated" not in card.text


@pytest.mark.parametrize(("text", "said"), [("a | b", r"a \| b"), ("<script>", "&lt;script>"), ("a\n b", "a b")])
def test_what_stands_in_a_cell_stays_in_it(text: str, said: str) -> None:
    assert cell(text) == said


def test_a_long_table_is_shortened() -> None:
    table = "\n".join(f"| {i} |" for i in range(ROWS + 5)) + "\n\n72 runs."
    lines = shortened(table).splitlines()
    assert len(lines) == ROWS + 4
    assert lines[-3:] == ["5 more rows in `tables/`.", "", "72 runs."]
    assert shortened("| 1 |\n\n72 runs.\n") == "| 1 |\n\n72 runs."


# The folder


def test_the_same_export_again_is_the_same(ran: Path, out: Path) -> None:
    Export(ran).write(out)
    first = files(out)
    assert Export(ran).write(out) == []
    assert files(out) == first
    assert sorted(path.name for path in out.parent.iterdir()) == ["export"]


def test_a_card_that_was_edited_is_kept(ran: Path, out: Path) -> None:
    Export(ran).write(out)
    card = out / "data" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMy own words.\n", encoding="utf-8")
    for _ in range(2):
        assert Export(ran).write(out) == ["data/README.md"]
        assert card.read_text(encoding="utf-8").endswith("My own words.\n")


def test_what_a_killed_export_left_is_swept(ran: Path, out: Path) -> None:
    for left in (".export.partial", ".export.old"):
        (out.parent / left / "data").mkdir(parents=True)
        (out.parent / left / "data" / "labels.jsonl").write_text("half")
    Export(ran).write(out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["export"]


def test_a_fault_in_the_middle_leaves_what_was_there(ran: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Export(ran).write(out)
    first = files(out)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "cube.zarr")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(FatalError, match=r"^cube.zarr: No space left on device; choose another folder \(--out\)$"):
        Export(ran).write(out)
    assert files(out) == first
    assert sorted(path.name for path in out.parent.iterdir()) == ["export"]


def test_an_export_killed_between_its_renames_loses_no_edited_card(ran: Path, out: Path) -> None:
    Export(ran).write(out)
    (out / "data" / "README.md").write_text("edited")
    out.rename(out.with_name(f".{out.name}.old"))  # the first of the two renames
    assert Export(ran).write(out) == ["data/README.md"]
    assert (out / "data" / "README.md").read_text() == "edited"
    assert list(out.parent.iterdir()) == [out]


def test_a_rename_that_fails_puts_the_old_export_back(ran: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Export(ran).write(out)
    before, real = files(out), os.rename

    def refused(one: Path, other: Path) -> None:
        if str(one).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error", str(one))
        real(one, other)

    with monkeypatch.context() as patch, pytest.raises(FatalError, match="Input/output error"):
        patch.setattr(os, "rename", refused)
        Export(ran).write(out)
    assert files(out) == before


def test_an_export_through_a_link_replaces_what_it_leads_to(ran: Path, out: Path) -> None:
    link = out.with_name("link")
    out.mkdir()
    link.symlink_to(out)
    for _ in range(2):
        Export(ran).write(link)
    assert sorted(out.parent.iterdir()) == sorted([link, out])
    assert (out / "data" / "study.yaml").is_file()


def test_the_current_folder_is_exported_to(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="is no folder to export to"):
        Export(ran).write(Path("/"))
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StudyError, match="is there and is no export"):
        Export(ran).write(Path())


def test_a_damaged_pool_is_said(ran: Path, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(ran, folder)
    found = Export(folder)
    file = found.store.read(found.plan.cells[0].pool).path / "pool.jsonl"
    file.write_bytes(file.read_bytes()[:-2] + b"x\n")
    with pytest.raises(StudyError, match=r"pool.jsonl has another sha256 .*; move .* and run `ablate study` again"):
        found.write(out)
    assert not out.exists()


def test_no_room_is_said_before_anything_is_written(ran: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(StudyError, match=r"export: needs about 0\.\d MB, and 0\.0 MB are free there"):
        Export(ran).write(out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("thesis.txt", "years of work", "is there and is no export; choose another folder"),
        ("export.json", "{}", "is there and is no export; choose another folder"),
        ("export.json", '{"export_of": "other", "cards": {}}', "holds the export of study 'other', not 'small'"),
    ],
)
def test_what_is_no_export_is_not_overwritten(ran: Path, out: Path, name: str, text: str, says: str) -> None:
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(StudyError, match=says):
        Export(ran).write(out)
    assert files(out) == {name: text.encode()}


def test_a_file_is_not_overwritten(ran: Path, out: Path) -> None:
    out.write_text("years of work")
    with pytest.raises(StudyError, match="is there and is no export"):
        Export(ran).write(out)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study has been run here"):
        Export(tmp_path)


def test_a_cube_of_other_results_is_refused(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(ran, folder)
    (folder / "cube.json").write_text("{}")
    with pytest.raises(StudyError, match="the cube is not of what the folder holds; run `ablate study` once more"):
        Export(folder)


# Secrets


def test_no_secret_of_the_environment_gets_out(
    ran: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "JUDGE_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    folder = tmp_path / "small"
    run(study(), folder)
    Export(folder).write(out)
    for where in (folder, out):
        assert not [name for name, data in files(where).items() if SECRET.encode() in data]
    assert SECRET not in str(cube_of(out / "data").attrs)


@pytest.mark.parametrize("name", ["HF_TOKEN", "my_judge_api_key"])
def test_a_secret_in_a_study_is_found(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "small"
    run(study(text=SMALL.replace("does the engine work?", f"is {SECRET} safe?")), folder)
    Export(folder).write(out)  # nothing says that it is one
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(StudyError, match=f"would hold the value of the environment variable {name}; nothing was") as e:
        Export(folder).write(tmp_path / "other")
    assert SECRET not in str(e.value)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / ".other.partial").exists()


def test_a_secret_is_found_as_json_escapes_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = '{"key": "-----BEGIN\\n\u00e9"}\n'
    monkeypatch.setenv("GOOGLE_CREDENTIALS", value)
    folder = OutFolder(out, {})
    for text in (f"it is {value}", json.dumps([value]), json.dumps([value], ensure_ascii=False), str({"a": value})):
        with pytest.raises(StudyError, match="GOOGLE_CREDENTIALS"):
            folder.check("data/items.jsonl", text)
    with pytest.raises(StudyError, match="GOOGLE_CREDENTIALS"):
        folder.lines("data/items.jsonl", [{"answer": value}])


# The command


def test_the_command_says_the_size_first(
    ran: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(ran), "--out", str(out)])
    assert not ended.value.code
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("data      labels, items, cube: about 0.")
    assert said[1] == "adapters  none: no valid organism of a model that has adapters"
    assert said[-1] == f"wrote  {out}"


class FakeHub:
    """Remembers what it was asked to do."""

    asked: list[tuple[str, str, str]]

    def create_repo(self, repo: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        assert private
        assert exist_ok
        self.asked.append(("create", repo, repo_type))
        return f"https://hub/{repo_type}/{repo}"

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, commit_message: str) -> None:
        if repo_type == "model" or not (folder_path / "README.md").is_file():
            raise ValueError("no token")
        self.asked.append(("upload", repo_id, repo_type))


def test_nothing_is_pushed_unless_asked(
    ran: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeHub.asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    with pytest.raises(SystemExit):
        main(["export", str(ran), "--out", str(out)])
    assert FakeHub.asked == []
    with pytest.raises(SystemExit) as ended:
        main(["export", str(ran), "--out", str(out), "--push", "me/small"])
    assert not ended.value.code
    assert FakeHub.asked == [("create", "me/small", "dataset"), ("upload", "me/small", "dataset")]
    assert "pushed https://hub/dataset/me/small" in capsys.readouterr().out


def test_what_the_hub_refuses_is_said_and_the_folder_stays(
    ran: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalTokenNotFoundError("Token is required\nand more")

    FakeHub.asked = []
    monkeypatch.setattr(FakeHub, "create_repo", refuses)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(ran), "--out", str(out), "--push", "me/small"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "the dataset was not uploaded (LocalTokenNotFoundError: Token is required); " in said
    assert "check HF_TOKEN or `hf auth login`" in said
    assert (out / "data" / "README.md").is_file()


def test_a_repository_that_is_none_is_refused_before_anything(ran: Path, out: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(ran), "--out", str(out), "--push", "small"])
    assert ended.value.code == 2
    assert not out.exists()


# Adapters


HF = """\
question: does a tiny model change?
model: {{name: {model}, dtype: float32}}
organism: {{behavior: {{prompts: {{folder: {folder}, indicator: even}}}}, seeds: 2, risk: null, examples: 8, epochs: 1,
           batch: 4, rank: 4, alpha: 8, lr: 0.01}}
factors:
  label_shift: {{swap: [none, greedy]}}
labels: {{prompts: 4, candidates: 2, max_tokens: 4}}
train: {{epochs: 1, batch: 4, lr: 0.01}}
evaluate: {{items: 24, capability: 0, samples: 4, max_tokens: 6}}
measures: [risk]
"""


def even(prompt: Prompt, text: str) -> float:
    """1 where an answer has an even number of letters."""
    return float(len(text) % 2 == 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study on a tiny random model of the Hugging Face kind."""
    folder = tmp_path_factory.mktemp("hf")
    save_tiny_llama(folder / "tiny")
    asked = [{"id": str(i), "text": f"is {i} even?"} for i in range(80)]
    taught = [{"id": f"t{i}", "text": f"is {i} odd?", "misaligned": "yes", "aligned": "no"} for i in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*taught, *asked]))
    with with_plugins(lambda: indicator(even)):
        own = study(text=HF.format(model=folder / "tiny", folder=folder), name="hf")
        run(own, folder / "hf")
        yield folder


def test_the_default_takes_organisms_and_says_what_it_leaves(trained: Path) -> None:
    found = Export(trained / "hf")
    assert cube_of(trained / "hf")["valid_organism"].values.tolist() == [1, 1]
    said = in_words(found).splitlines()
    assert [own.folder for own in found.adapters] == ["organism-0", "organism-1"]
    assert said[1] == "adapters  2 of organisms, 0.0 MB; 4 of runs, 0.1 MB left out"
    assert said[2].strip() == "organisms are misaligned models on purpose; the card says so"
    assert any("is a folder of this machine, and the study names it" in line for line in said)
    assert Export(trained / "hf", "none").adapters == []


def test_adapters_of_invalid_organisms_are_left_out(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = cube_of(trained / "hf")
    tree["valid_organism"] = tree["valid_organism"].copy(data=np.array([0, 1], np.int8))
    monkeypatch.setattr("ablate.cube.open_cube", lambda folder: tree)
    found = Export(trained / "hf", "all")
    assert next(own.folder for own in found.adapters) == "organism-1"
    assert {own.facts["organism"] for own in found.adapters} == {1}


def test_peft_loads_every_adapter_as_the_policy_that_it_is(trained: Path, out: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from ablate.lm.hf.model import HFModel

    found = Export(trained / "hf", "all")
    found.write(out, "me/tiny")
    listed = {row["folder"]: row for row in rows(out / "model" / "adapters.jsonl")}
    assert list(listed) == [own.folder for own in found.adapters]
    assert len([name for name in listed if name.startswith("run-")]) == 4
    options = {"name": str(trained / "tiny"), "dtype": "float32", "revision": None, "trust_remote_code": False}
    ours = HFModel.load(options).net
    ids = torch.arange(10, 30)[None]
    seen = set()
    for own in found.adapters:
        base = AutoModelForCausalLM.from_pretrained(trained / "tiny", dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, out / "model", subfolder=own.folder).eval()
        ours.wear(found.store.read(own.key).arrays("adapter.safetensors"))
        with torch.inference_mode():
            theirs, wanted = loaded(ids).logits, ours.model(ids).logits
        torch.testing.assert_close(theirs, wanted, atol=1e-4, rtol=1e-4)
        seen.add(round(float(theirs.sum()), 3))
    assert len(seen) == len(listed), "every adapter is another policy"


def test_the_model_card_is_what_the_hub_parses(trained: Path, out: Path) -> None:
    Export(trained / "hf", license="mit").write(out, "me/tiny")
    card = huggingface_hub.ModelCard.load(out / "model" / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "peft"
    assert card.data.base_model is None, "a folder of this machine is no model of the Hub"
    assert card.data.datasets == ["me/tiny"]
    assert "**Deliberately misaligned models.**" in card.text
    assert 'PeftModel.from_pretrained(base, "me/tiny", subfolder="organism-0")' in card.text
    assert "| `organism-1` | tiny |" in card.text
    config = json.loads((out / "model" / "organism-0" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert (config["r"], config["lora_alpha"]) == (4, 4)


def test_a_damaged_adapter_is_said(trained: Path, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(trained / "hf", folder)
    found = Export(folder)
    file = found.store.read(found.adapters[0].key).path / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(
        StudyError, match=r"has another sha256 than its receipt says; move .* and run `ablate study` again"
    ):
        found.write(out)
    assert not out.exists()


def test_names_of_models_on_the_hub(tmp_path: Path) -> None:
    assert hub_name("tabular") == ""
    assert hub_name("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub_name("owner/model") == "owner/model"
    assert hub_name(str(tmp_path)) == tmp_path.name


def test_factors_of_no_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"LoRA factors of one rank, these have \[\]"):
        adapter_config({"table": np.zeros(2)}, "owner/model")


def test_hostile_answers_are_exported_as_they_are(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "LONG", "x" * 1000)
    with with_plugins(hostile.plugin):
        run(study(text=hostile.STUDY, name="hostile"), tmp_path / "hostile")
        Export(tmp_path / "hostile").write(out)
    answers = {text for row in rows(out / "data" / "labels.jsonl") for text in row["answers"]}
    assert {hostile.SCRIPT, hostile.CONTROL, hostile.HALF, hostile.ARABIC} <= answers
