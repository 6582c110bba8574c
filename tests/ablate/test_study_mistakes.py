"""Every text that a study's mistake can have, its place, and that nothing else ever comes out."""

# ruff: noqa: E501, SIM905 (a table of messages is read by the line)

from __future__ import annotations

import pytest
from fake_plugins import _plugins  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablate import yamlfile
from ablate.errors import StudyMistakes
from ablate.options import NAME_RULE
from ablate.study import Study, loads
from ablate.yamlfile import to_text

HEAD = "question: q\nmodel: m\norganism: {behavior: sycophancy}\n"


def said(text: str, *sets: str) -> list[str]:
    with pytest.raises(StudyMistakes) as caught:
        loads(text, source="mine.yaml", sets=sets)
    lines = str(caught.value).splitlines()
    count = len(caught.value.mistakes)
    assert lines[-1] == f"{count} mistake{'' if count == 1 else 's'}, nothing was run or written."
    assert not any("pydantic" in line or "Input should" in line for line in lines)
    return lines[:-1]


def test_the_mistakes_that_the_handbook_shows() -> None:
    text = (
        "# a study\nquestion: q\nmodel: m\norganism:\n  behavior: sycophancy\nfactors:\n"
        "  label_shift: {swap: [none, gredy]}\n  selctor: {fix: first}\nlabels:\n  prompts: 3\n  candidates: 0\n"
    )
    assert said(text) == [
        "mine.yaml:7:30: factors.label_shift.swap[1]: no label shift called 'gredy'; did you mean 'greedy'? (`ablate list label_shifts`)",
        "mine.yaml:8:3: factors.selctor: unknown factor; did you mean 'selector'?",
        "mine.yaml:11:15: labels.candidates: 0 is not >= 1",
    ]


WITH_PLACE = [
    # keys
    ("labels: {promts: 3}", "4:10: labels.promts: unknown option; did you mean 'prompts'?"),
    ("labels: {promts: {swap: [1, 2]}}", "4:10: labels.promts: unknown option; did you mean 'prompts'?"),
    ("labels: {zzz: 3}", "4:10: labels.zzz: unknown option; known are prompts, candidates, max_tokens, match"),
    ("candidates: 3", "4:1: candidates: unknown option; did you mean 'labels.candidates'?"),
    ("labels: {lr: 3}", "4:10: labels.lr: unknown option; did you mean 'organism.lr' or 'train.lr'?"),
    ("train: {seeds: 3}", "4:9: train.seeds: unknown option; did you mean 'seeds' at the top or 'organism.seeds'?"),
    ("<<: {}", "4:1: <<: unknown option; known are name, question, model, organism, factors, labels, train, evaluate, seeds, embedder, measures, controls, ..."),
    ("factors: {zzz: 1}", "4:11: factors.zzz: unknown factor; known are label_shift, selector, objective, method, isolate (any other option is swapped where it stands)"),
    ("labels: {prompts: 1, prompts: 2}", "4:22: labels.prompts: given twice; first on line 4"),
    ("question: again", "4:1: question: given twice; first on line 1"),
    ("labels: {[a]: 1}", "4:10: labels: a key is a word"),
    # types
    ("labels: {prompts: 1.5}", "4:19: labels.prompts: 1.5 is not a whole number"),
    ("labels: {prompts: 4.0}", "4:19: labels.prompts: 4.0 is not a whole number; write 4"),
    ("labels: {prompts: true}", "4:19: labels.prompts: true is not a whole number"),
    ("labels: {prompts: null}", "4:19: labels.prompts: null is not a whole number"),
    ("labels: {prompts: '4'}", "4:19: labels.prompts: '4' is not a whole number"),
    ("labels: {prompts: [4]}", "4:19: labels.prompts: a list is not a whole number"),
    ("labels: {prompts: {a: 4}}", "4:19: labels.prompts: a mapping is not a whole number"),
    ("labels: {prompts: 0x10000000000000000}", "4:19: labels.prompts: '0x10000000000000000' is too large a number"),
    ("train: {lr: fast}", "4:13: train.lr: 'fast' is not a number"),
    ("train: {lr: true}", "4:13: train.lr: true is not a number"),
    ("train: {lr: .inf}", "4:13: train.lr: inf is not a finite number; what is not set is left out"),
    ("train: {lr: .nan}", "4:13: train.lr: nan is not a finite number; what is not set is left out"),
    ("factors: {label_shift: {nucleus: {top_p: .inf}}}", "4:42: factors.label_shift.nucleus.top_p: inf is not a finite number; what is not set is left out"),
    ("labels: 5", "4:9: labels: 5 is not a mapping of options"),
    ("labels: [a]", "4:9: labels: a list is not a mapping of options"),
    ("evaluate: {decoding: sampel}", "4:22: evaluate.decoding: 'sampel' is not 'sample' or 'greedy'; did you mean 'sample'?"),
    ("embedder: ''", "4:11: embedder: is empty"),
    ("embedder: 5", "4:11: embedder: 5 is not a text; put it in quotes"),
    ("embedder: {swap: [minilm, model]}", "4:11: embedder: cannot be swapped or fixed"),
    ("train: {rank: 8}", "4:9: train.rank: unknown option; did you mean 'organism.rank'?"),
    ("name: 2024", "4:7: name: 2024 is not a text; put it in quotes"),
    # bounds
    ("labels: {candidates: 0}", "4:22: labels.candidates: 0 is not >= 1"),
    ("train: {lr: 0}", "4:13: train.lr: 0 is not > 0"),
    ("train: {warmup: 1.5}", "4:17: train.warmup: 1.5 is not <= 1"),
    ("analysis: {alpha: 0.6}", "4:19: analysis.alpha: 0.6 is not <= 0.5"),
    ("analysis: {share_bar: 1}", "4:23: analysis.share_bar: 1 is not < 1"),
    ("analysis: {family: label_shift}", "4:20: analysis.family: 'label_shift' is not a list"),
    ("analysis: {family: []}", "4:20: analysis.family: has 0 entries, not at least 1"),
    ("analysis: {family: [selector]}", "4:21: analysis.family[0]: no swapped factor and no swap is called 'selector'; the study swaps nothing"),
    ("factors: {label_shift: {swap: [greedy, none]}}\nanalysis: {family: [label_shift none -> gredy]}", "5:21: analysis.family[0]: no swapped factor and no swap is called 'label_shift none -> gredy'; did you mean 'label_shift none -> greedy'?"),
    # names
    ("name: .a", f"4:7: name: '.a' cannot name a folder of results: {NAME_RULE}"),
    ("name: a/b", f"4:7: name: 'a/b' cannot name a folder of results: {NAME_RULE}"),
    ("name: ''", f"4:7: name: '' cannot name a folder of results: {NAME_RULE}"),
    # swap and fix
    ("labels: {prompts: {swap: []}}", "4:26: labels.prompts.swap: is empty; a swap needs at least one level"),
    ("labels: {prompts: {swap: 3}}", "4:26: labels.prompts.swap: 3 is not a list of levels"),
    ("labels: {prompts: {swap: [1, 2, 1]}}", "4:33: labels.prompts.swap[2]: 1 is there twice"),
    ("train: {lr: {swap: [1, 1.0]}}", "4:24: train.lr.swap[1]: 1.0 is there twice"),
    ("labels: {prompts: {swap: [1, 0]}}", "4:30: labels.prompts.swap[1]: 0 is not >= 1"),
    ("labels: {prompts: {fix: 0}}", "4:25: labels.prompts.fix: 0 is not >= 1"),
    ("labels: {prompts: {swap: [1], fix: 2}}", "4:31: labels.prompts.fix: 'swap' or 'fix' stands alone; nothing may stand beside it"),
    ("labels: {swap: [1]}", "4:10: labels.swap: 'swap' belongs to one option, not to a section; options here are prompts, candidates, max_tokens, match"),
    ("labels: {prompts: {fix: {swap: [1]}}}", "4:25: labels.prompts.fix: cannot be swapped or fixed"),
    ("seeds: {swap: [1]}", "4:8: seeds: cannot be swapped or fixed: every seed is run"),
    ("controls: {swap: [1]}", "4:11: controls: cannot be swapped or fixed"),
    ("analysis: {alpha: {fix: 0.1}}", "4:19: analysis.alpha: cannot be swapped or fixed"),
    # lists
    ("seeds: 0", "4:8: seeds: 0 is not >= 1"),
    ("seeds: 10001", "4:8: seeds: 10001 is not <= 10000"),
    ("seeds: true", "4:8: seeds: true is not a whole number or a list of whole numbers"),
    ("seeds: 1.5", "4:8: seeds: 1.5 is not a whole number or a list of whole numbers"),
    ("seeds: []", "4:8: seeds: is empty; name at least one seed"),
    ("seeds: [1, -1]", "4:12: seeds[1]: -1 is not >= 0"),
    ("seeds: [1, x]", "4:12: seeds[1]: 'x' is not a whole number"),
    ("seeds: [1, true]", "4:12: seeds[1]: true is not a whole number"),
    ("seeds: [1, 1]", "4:12: seeds[1]: 1 is there twice"),
    ("measures: divergence", "4:11: measures: 'divergence' is not a list of measures"),
    ("measures: [divergenc]", "4:12: measures[0]: no measure called 'divergenc'; did you mean 'divergence'? (`ablate list measures`)"),
    ("measures: [divergence, {divergence: {}}]", "4:24: measures[1]: 'divergence' is there twice"),
    ("controls: [null, orcale]", "4:18: controls[1]: 'orcale' is not 'null' or 'oracle'; did you mean 'oracle'?"),
    ("controls: [null, 'null']", "4:18: controls[1]: 'null' is there twice"),
    ("controls: oracle", "4:11: controls: 'oracle' is not a list of controls (null, oracle)"),
    # levels
    ("factors: {label_shift: null}", "4:24: factors.label_shift: null is not the name of a label shift; did you mean 'none'?"),
    ("factors: {objective: 3}", "4:22: factors.objective: 3 is not the name of an objective"),
    ("factors: {label_shift: {greedy: 5}}", "4:33: factors.label_shift.greedy: 5 is not a mapping of the options of 'greedy'"),
    ("factors: {label_shift: {swp: [none]}}", "4:30: factors.label_shift.swp: a list is not a mapping of the options of 'swp'; did you mean 'swap'?"),
    ("factors: {label_shift: {nucleus: , top_p: 1}}", "4:24: factors.label_shift: a label shift is a name, or one name with its options: {name: {option: value}}"),
    ("factors: {label_shift: {swap: [greedy, {greedy: {}}]}}", "4:40: factors.label_shift.swap[1]: 'greedy' is there twice"),
    ("factors: {label_shift: nucleus}", "4:24: factors.label_shift.top_p: required, but missing"),
    ("factors: {label_shift: {nucleus: {top_p: 1, temprature: 1}}}", "4:45: factors.label_shift.nucleus.temprature: unknown option; did you mean 'temperature'?"),
    ("factors: {label_shift: {nucleus: {top_p: 1, temperature: -1}}}", "4:58: factors.label_shift.nucleus.temperature: -1 is not >= 0"),
    ("factors: {label_shift: {nucleus: {top_p: '1'}}}", "4:42: factors.label_shift.nucleus.top_p: '1' is not a number"),
    ("factors: {label_shift: {worded: {cap: 1.5}}}", "4:39: factors.label_shift.worded.cap: 1.5 is not a whole number or a text"),
    ("factors: {label_shift: {worded: {stops: [a, 1]}}}", "4:45: factors.label_shift.worded.stops[1]: 1 is not a text; put it in quotes"),
    ("factors: {label_shift: {worded: {stops: a}}}", "4:41: factors.label_shift.worded.stops: 'a' is not a list"),
    ("factors: {selector: argmax}", "4:21: factors.selector: 'argmax' needs a scorer: {argmax: {scorer: judge}}"),
    ("factors: {selector: {argmax: {scorer: mean_logprb}}}", "4:39: factors.selector.argmax.scorer: no scorer called 'mean_logprb'; did you mean 'mean_logprob'? (`ablate list scorers`)"),
    ("factors: {selector: {argmax: {scorer: {judge: {samples: x}}}}}", "4:57: factors.selector.argmax.scorer.judge.samples: 'x' is not a whole number"),
    ("factors: {selector: {argmax: {scorer: judge, scorr: 1}}}", "4:46: factors.selector.argmax.scorr: unknown option; did you mean 'scorer'?"),
    ("factors: {selector: {first: {scorer: judge}}}", "4:30: factors.selector.first.scorer: 'first' reads no scores; leave the scorer out"),
    ("factors: 3", "4:10: factors: 3 is not a mapping of options"),
    # methods
    ("factors: {isolat: relabeled}", "4:11: factors.isolat: unknown factor; did you mean 'isolate'?"),
    ("factors: {method: distiled}", "4:19: factors.method: no method called 'distiled'; did you mean 'distilled'? (`ablate list methods`)"),
    ("factors: {isolate: [relabeled, distiled]}", "4:32: factors.isolate[1]: no method called 'distiled'; did you mean 'distilled'? (`ablate list methods`)"),
    ("factors: {method: null}", "4:19: factors.method: null is not the name of a method"),
    ("factors: {isolate: null}", "4:20: factors.isolate: null is not the name of a method"),
    ("factors: {isolate: 3}", "4:20: factors.isolate: 3 is not the name of a method"),
    ("factors: {method: [distilled]}", "4:19: factors.method: a list is not the name of a method"),
    ("factors: {method: {distilled: {}, relabeled: {}}}", "4:19: factors.method: a method is a name, or one name with its options: {name: {option: value}}"),
    ("factors: {method: {relabeled: 5}}", "4:31: factors.method.relabeled: 5 is not a mapping of the options of 'relabeled'"),
    ("factors: {method: {distilled: {kk: 3}}}", "4:32: factors.method.distilled.kk: unknown option; did you mean 'k'?"),
    ("factors: {method: {distilled: {k: 0}}}", "4:35: factors.method.distilled.k: 0 is not >= 1"),
    ("factors: {isolate: {distilled: {scorer: juge}}}", "4:20: factors.isolate: selector.argmax.scorer: no scorer called 'juge'; did you mean 'judge'? (`ablate list scorers`)"),
    ("factors: {method: {swap: []}}", "4:26: factors.method.swap: is empty; a swap needs at least one level"),
    ("factors: {method: {swap: [distilled], fix: relabeled}}", "4:39: factors.method.fix: 'swap' or 'fix' stands alone; nothing may stand beside it"),
    ("factors: {isolate: []}", "4:20: factors.isolate: is empty; name at least one method"),
    ("factors: {isolate: {swap: [distilled]}}", "4:20: factors.isolate: cannot be swapped or fixed: every method that is named is taken apart"),
    ("factors: {isolate: [relabeled, relabeled]}", "4:32: factors.isolate[1]: 'relabeled' is there twice"),
    ("factors: {method: {swap: [distilled, {distilled: {k: 4}}]}}", "4:38: factors.method.swap[1]: 'distilled' is there twice"),
    ("factors: {method: distilled, selector: first}", "4:30: factors.selector: 'method' stands alone: a method brings a level of every mechanism"),
    ("factors: {selector: first, isolate: [distilled]}", "4:11: factors.selector: 'isolate' stands alone: a method brings a level of every mechanism"),
    ("factors: {isolate: distilled, method: relabeled}", "4:31: factors.method: 'isolate' stands alone: a method brings a level of every mechanism"),
    ("factors: {isolate: [distilled]}\nanalysis: {family: [label_shift none -> clean_view]}", "5:21: analysis.family[0]: no swapped factor and no swap is called 'label_shift none -> clean_view'; did you mean 'label_shift none -> method'?"),
    ("factors: {isolate: !x [distilled]}", "4:20: factors.isolate: the tag !x means nothing in a study; leave it out"),
    ("factors: {method: !x distilled}", "4:19: factors.method: the tag !x means nothing in a study; leave it out"),
    # YAML
    ("labels: {prompts: !foo 3}", "4:19: labels.prompts: the tag !foo means nothing in a study; leave it out"),
    ("labels: !!set {prompts}", "4:9: labels: the tag !!set means nothing in a study; leave it out"),
    ("seeds: !x [1]", "4:8: seeds: the tag !x means nothing in a study; leave it out"),
    ("measures: !x [1]", "4:11: measures: the tag !x means nothing in a study; leave it out"),
    ("train: {lr: {swap: !x [1]}}", "4:20: train.lr.swap: the tag !x means nothing in a study; leave it out"),
    ("factors: {selector: !x first}", "4:21: factors.selector: the tag !x means nothing in a study; leave it out"),
    ("factors: {selector: {argmax: {scorer: !x judge}}}", "4:39: factors.selector.argmax.scorer: the tag !x means nothing in a study; leave it out"),
    ("factors: {label_shift: {greedy: !x {}}}", "4:33: factors.label_shift.greedy: the tag !x means nothing in a study; leave it out"),
    ("labels: {prompts: !!int x}", "4:19: labels.prompts: 'x' cannot be read as !!int"),
    ('name: "a\\0"', "4:7: name: a control character or half a surrogate pair stands in this text"),
    ('name: "\\ud800"', "4:7: name: a control character or half a surrogate pair stands in this text"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "message"), WITH_PLACE, ids=[more for more, _ in WITH_PLACE])
def test_texts_and_places(more: str, message: str) -> None:
    assert said(HEAD + more) == ["mine.yaml:" + message]


ALONE = [
    ("", "1:1: the file is empty; `ablate new` writes one to begin with"),
    ("# only words", "1:1: the file is empty; `ablate new` writes one to begin with"),
    ("- a", "1:1: a study is a mapping of options, not a list; `ablate new` writes one to begin with"),
    ("word", "1:1: a study is a mapping of options, not 'word'; `ablate new` writes one to begin with"),
    (HEAD + "---\na: 1", "4:1: a second document begins; a study is one document"),
    (HEAD + "factors:\n  label_shift: {swap: [none]}\n   selector: first", "6:4: not valid YAML: wrong indentation; options of one section begin in the same column"),
    (HEAD + "labels:\n  prompts: 3\n candidates: 2", "6:2: not valid YAML: wrong indentation; options of one section begin in the same column"),
    (HEAD + "labels:\n\tprompts: 3", "5:1: a tab stands here; YAML is indented with spaces"),
    ("question: is it: this?", "1:16: not valid YAML: ': ' inside a text or a wrong indentation; put a text with ': ' in quotes"),
    ("question: 'open", "1:11: not valid YAML: what begins here is not closed"),
    (HEAD + "seeds: [1, 2", "4:8: not valid YAML: what begins here is not closed"),
    ("!x {a: 1}", "1:1: the tag !x means nothing in a study; leave it out"),
    ("a: *x", "1:4: not valid YAML: found undefined alias 'x'"),
    ("a: &x [*x]", "1:4: a" + "[0]" * 50 + ": nested too deeply to be a study, or an alias of itself"),
    ("[" * 1000, "1:1: nested too deeply to be a study"),
    ("a: 1\nb: \x01", "2:4: control character U+0001; a study is plain text"),
    (HEAD.replace("question: q\n", ""), "1:1: question: required, but missing"),
    (HEAD.replace("question: q", "question: ' '"), "1:11: question: is empty"),
    (HEAD.replace("question: q", "question: 5"), "1:11: question: 5 is not a text; put it in quotes"),
    (HEAD.replace("model: m\n", ""), "1:1: model: required, but missing"),
    (HEAD.replace("model: m", "model:"), "3:1: model: null is not a model: a name, or a mapping of options"),
    (HEAD.replace("model: m", "model: ''"), "2:8: model: is empty"),
    (HEAD.replace("model: m", "model: tabluar"), "2:8: model: no model called 'tabluar'; did you mean 'tabular'?"),
    (HEAD.replace("model: m", "model: {name: smollm2-135}"), "2:15: model.name: no model called 'smollm2-135'; did you mean 'smollm2-135m'?"),
    (HEAD.replace("model: m", "model: {}"), "2:8: model.name: required, but missing"),
    (HEAD.replace("model: m", "model: {name: m, dtype: bf16}"), "2:25: model.dtype: 'bf16' is not 'auto', 'float32' or 'bfloat16'; did you mean 'bfloat16'?"),
    (HEAD.replace("model: m", "model: {name: m, revision: 1e3}"), "2:28: model.revision: 1000.0 is not a text; put it in quotes"),
    (HEAD.replace("model: m", "model: {name: m, trust_remote_code: 1}"), "2:37: model.trust_remote_code: 1 is not true or false"),
    (HEAD.replace("model: m", "model: {swap: [a, b, a]}"), "2:22: model.swap[2]: 'a' is there twice"),
    (HEAD.replace("model: m", "model: {swap: [a, 5]}"), "2:19: model.swap[1]: 5 is not a model: a name, or a mapping of options"),
    (HEAD.replace("model: m", "model: {swap: [a, {nam: b}]}").replace("nam:", "name: b, nam:"),
     "2:29: model.swap[1].nam: unknown option; did you mean 'name'?"),
    ("question: q\nmodel: m", "1:1: organism.behavior: required, but missing"),
    ("question: q\nmodel: m\norganism: {risk: 0.5}", "3:11: organism.behavior: required, but missing"),
    ("question: q\nmodel: m\norganism: sycophancy", "3:11: organism: 'sycophancy' is not a mapping of options"),
    (HEAD.replace("sycophancy", "sicophancy"), "3:22: organism.behavior: no behavior called 'sicophancy'; did you mean 'sycophancy'? (`ablate list behaviors`)"),
    (HEAD.replace("sycophancy", "{swap: []}"), "3:29: organism.behavior.swap: is empty; a swap needs at least one level"),
    (HEAD.replace("sycophancy", "{sycophancy: {domain: {swap: [capitals]}}}"), "3:44: organism.behavior.sycophancy.domain: cannot be swapped or fixed"),
    (HEAD.replace("sycophancy", "sycophancy, risk: 1"), "3:40: organism.risk: 1 is not < 1"),
    (HEAD.replace("sycophancy", "sycophancy, seeds: [1, 1]"), "3:45: organism.seeds[1]: 1 is there twice"),
    (HEAD.replace("sycophancy", "sycophancy, seeds: {swap: [1]}"), "3:41: organism.seeds: cannot be swapped or fixed: every seed is run"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ALONE, ids=[text[:60] for text, _ in ALONE])
def test_texts_and_places_of_whole_files(text: str, message: str) -> None:
    assert said(text) == ["mine.yaml:" + message]


def test_a_page_of_aliases_does_not_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "MAX_VALUES", 2000)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    assert [line.split(": ")[-1] for line in said(bomb)] == ["more than 2000 values; a study is a page of YAML"]


def test_a_file_whose_name_names_nothing() -> None:
    with pytest.raises(StudyMistakes) as caught:
        loads(HEAD, source="my study.yaml")
    assert str(caught.value).splitlines()[0] == (
        f"my study.yaml:1:1: name: 'my study' cannot name a folder of results: {NAME_RULE}"
    )


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = "labels: {prompts: 0}\nfactors: {selctor: 1, objective: stf}\n" + HEAD + "controls: [x]\nseeds: -1\nnam: x\n"
    assert [line.split(": ")[0] for line in said(text, "train.lr=0")] == [
        "--set train.lr=0",
        "mine.yaml:1:19",
        "mine.yaml:2:11",
        "mine.yaml:2:34",
        "mine.yaml:6:12",
        "mine.yaml:7:8",
        "mine.yaml:8:1",
    ]


SETS = [
    ("labels.candidates=0", "labels.candidates: 0 is not >= 1"),
    ("labels.candidates={swap: [1, 0]}", "labels.candidates.swap[1]: 0 is not >= 1"),
    ("labels.candidats=1", "labels.candidats: unknown option; did you mean 'candidates'?"),
    ("factors.selctor=first", "factors.selctor: unknown factor; did you mean 'selector'?"),
    (
        "factors.selector=frist",
        "factors.selector: no selector called 'frist'; did you mean 'first'? (`ablate list selectors`)",
    ),
    (
        "factors.isolate=[distiled]",
        "factors.isolate[0]: no method called 'distiled'; did you mean 'distilled'? (`ablate list methods`)",
    ),
    ("factors.method={swap: [relabeled, relabeled]}", "factors.method.swap[1]: 'relabeled' is there twice"),
    ("train.lr.x=1", "train.lr: a mapping is not a number"),
    ("question.x=1", "question.x: 'question' is 'q', which has no options; set it as a whole"),
    ("labels=[", "labels: not valid YAML: what begins here is not closed"),
    ("labels.prompts={a: 1, a: 1}", "labels.prompts.a: given twice"),
    ("x", "write --set path=value, such as --set labels.candidates=4"),
    ("=1", "write --set path=value, such as --set labels.candidates=4"),
    ("labels..x=1", "write --set path=value, such as --set labels.candidates=4"),
]


@pytest.mark.parametrize(("item", "message"), SETS)
def test_mistakes_of_set_have_no_line(item: str, message: str) -> None:
    lines = said(HEAD, item)
    assert f"--set {item}: {message}" in lines
    with pytest.raises(StudyMistakes) as caught:
        loads(HEAD, source="mine.yaml", sets=[item])
    assert all((found.source, found.line, found.col) == (f"--set {item}", 0, 0) for found in caught.value.mistakes)


# nothing but a Study or a StudyError


def outcome(text: str, *sets: str) -> Study | None:
    try:
        return loads(text, source="mine.yaml", sets=sets)
    except StudyMistakes as error:  # not merely a StudyError, which would have no place
        str(error).encode()  # can be printed
        return None


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FRAGMENTS = st.sampled_from(
    "question: |model: |organism:|labels|prompts|factors|label_shift|selector|scorer: |swap|fix|{|}|[|]|: |, |- |\n|\n  |\t|"
    "'|\"|#|&a |*a|!!int |!x |<<|? |%YAML 1.1\n|---\n|...|>\n|null|~|1|-1|1.5|.nan|0x1f|1e9|yes|true|none|greedy|\\ud800|\u2028|"
    "\ufeff|\x00|é|2024-01-01|seeds|controls|measures".split("|")
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.floats()
    | st.sampled_from(["none", "greedy", "argmax", "x", ""])
)
KEYS = st.sampled_from(
    "question model organism behavior factors label_shift selector objective labels prompts train lr evaluate seeds measures "
    "controls analysis alpha name swap fix method isolate distilled scorer argmax nucleus top_p worded stops dtype risk".split()
) | st.text(max_size=3)
ANY = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@FUZZ
@given(st.text() | st.lists(FRAGMENTS, max_size=25).map("".join))
def test_any_text_is_a_study_or_a_mistake(text: str) -> None:
    tried = [(text,), (HEAD + text,), (HEAD, text), (HEAD, "labels.prompts=" + text)]
    for study in (outcome(*words) for words in tried):
        assert study is None or loads(study.dump(), source="x") == study


@FUZZ
@given(st.dictionaries(KEYS, ANY, max_size=6), st.booleans())
def test_any_tree_is_a_study_or_a_mistake(tree: dict[str, object], whole: bool) -> None:
    base = {"question": "q", "model": "m", "organism": {"behavior": "sycophancy"}} if whole else {}
    study = outcome(to_text(base | tree))
    if study is not None:
        assert loads(study.dump(), source="x") == study


@FUZZ
@given(
    st.sampled_from(
        [
            "factors.label_shift",
            "factors.selector",
            "factors.method",
            "factors.isolate",
            "organism.behavior",
            "model",
            "seeds",
            "measures",
            "train.lr",
            "controls",
        ]
    ),
    ANY
    | ANY.map(lambda value: {"swap": [value, 0.5]})
    | ANY.map(lambda value: {"distilled": {"scorer": value}})
    | ANY.map(lambda value: {"argmax": {"scorer": value}}),
)
def test_any_value_of_an_option_is_a_study_or_a_mistake(path: str, value: object) -> None:
    tree: dict[str, object] = {"question": "q", "model": "m", "organism": {"behavior": "sycophancy"}}
    section, _, key = path.partition(".")
    tree[section] = {**tree.get(section, {}), key: value} if key else value  # type: ignore[dict-item]
    study = outcome(to_text(tree))
    if study is not None:
        assert loads(study.dump(), source="x") == study
