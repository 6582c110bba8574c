"""From the tree that a user wrote to validated options and the levels of every axis; nothing is built or run here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from ablate.errors import StudyMistakes, did_you_mean
from ablate.levels import Level, plain_node, read_level
from ablate.methods import METHOD, OF_METHOD, point
from ablate.options import DEFAULT_LEVELS, SECTIONS, SWAPPABLE, Model, Options, Section, label_of
from ablate.records import METHOD_NAME
from ablate.wording import report, show, unknown
from ablate.yamlfile import Faults, Node, Place, parse

MAX_SEEDS = 10_000
"""More runs of one cell than anyone means; a list may name any seeds."""

METHOD_WORDS = ("method", "isolate")
"""What may stand among the factors in the place of the three mechanisms."""

Axes = dict[str, list[Any]]
"""Every path that has levels of its own, with its validated levels in the order of the file."""


def read(text: str, source: str, name: str, sets: Sequence[str]) -> tuple[Options, Axes]:
    """Validate a study: options with the first level of each axis, and the levels of every axis.

    ``name`` is what the study is called unless it says so itself; ``sets`` are ``path=value``.

    Raises:
        StudyMistakes: everything that is wrong with it.
    """
    faults = Faults()
    root = parse(text, source, faults)
    if not isinstance(root.value, dict):
        found = (
            "the file is empty" if root.value is None else f"a study is a mapping of options, not {show(root.value)}"
        )
        if not faults.silent(""):
            faults.add(root, f"{found}; `ablate new` writes one to begin with")
        faults.raise_any()
    for item in sets:
        _set(root, item, faults)
    root.value.setdefault("name", Node(name, "name", root.at, root.at))
    _fill_sections(root, faults)
    axes = _factors(root, faults)
    swapped = _pull_swaps(root, faults)
    _convert_lists(root, faults)
    options = _validate(root, faults)
    axes |= {path: _validated_levels(root, path, nodes, faults) for path, nodes in swapped.items()}
    _check_family(root, axes, faults)
    faults.raise_any()
    assert options is not None  # a validation that fails leaves a fault
    return options, axes


def _set(root: Node, item: str, faults: Faults) -> None:
    """Put one ``path=value`` of the command line into the tree."""
    place = Place("--set " + item.encode("utf-8", "replace").decode())
    path, equals, text = item.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts) or not path.isprintable():
        faults.add(Node(None, "", place, place), "write --set path=value, such as --set labels.candidates=4")
        return
    try:
        value = parse(text, place.source, faults, path=".".join(parts), places=False)
    except StudyMistakes as error:
        faults.extend(error)
        return
    parent = root
    for part in parts[:-1]:
        child = parent.value.get(part)
        if child is None or child.value is None:
            child = Node({}, parent.child(part), place, place)
        elif parent is root and part == "model":
            child = _spelled_out(child)
        if not isinstance(child.value, dict):
            about = Node(None, value.path, place, place)
            faults.add(about, f"'{child.path}' is {show(child.value)}, which has no options; set it as a whole")
            return
        parent.value[part] = child
        parent = child
    parent.value[parts[-1]] = value


def _spelled_out(model: Node) -> Node:
    """``model: name`` as ``model: {name: name}``."""
    return replace(model, value={"name": model}) if isinstance(model.value, str) else model


def _fill_sections(root: Node, faults: Faults) -> None:
    """Every section becomes a mapping; an absent or empty one takes its defaults."""
    for section in SECTIONS:
        node = root.value.get(section)
        if section == "model":
            if node is not None:
                root.value[section] = _spelled_out(node)
        elif node is None or (node.value is None and not faults.silent(section)):
            # the place of what is missing from a section that is missing is the beginning of the file
            root.value[section] = replace(node or Node({}, section, root.at, root.at), value={})
        elif not isinstance(node.value, dict):
            _drop(root, section, node, f"{show(node.value)} is not a mapping of options", faults)


def _drop(parent: Node, key: str, node: Node, message: str, faults: Faults) -> None:
    if not faults.silent(node.path):
        faults.add(node, message)
    faults.silence(parent.child(key))
    parent.value.pop(key, None)


def _settings(node: Node, faults: Faults) -> tuple[list[Node], bool]:
    """The levels that a node writes, and whether they are swapped: ``{swap: [...]}``, ``{fix: x}`` or ``x``."""
    if not _names_levels(node):
        return [node], False
    word, inner = next(iter(node.value.items()))
    if len(node.value) > 1:
        faults.add(
            list(node.value.values())[1], "'swap' or 'fix' stands alone; nothing may stand beside it", at_key=True
        )
        return [], False
    if word == "fix":
        return [inner], False
    if not isinstance(inner.value, list):
        if not faults.silent(inner.path):
            faults.add(inner, f"{show(inner.value)} is not a list of levels")
        return [], True
    if not inner.value:
        faults.add(inner, "is empty; a swap needs at least one level")
    return inner.value, True


def _names_levels(node: Node) -> bool:
    return isinstance(node.value, dict) and bool(node.value.keys() & {"swap", "fix"})


def _factors(root: Node, faults: Faults) -> Axes:
    """Read the three mechanisms; in the tree each is left with its first level."""
    node = root.value.get("factors") or Node({}, "factors", root.at, root.at)
    if node.value.keys() & set(METHOD_WORDS):
        return _methods(root, node, faults)
    for key, child in node.value.items():
        if key not in DEFAULT_LEVELS:
            faults.add(child, _unknown_factor(key), at_key=True)
    axes: Axes = {}
    first: dict[str, Node] = {}
    for family, default in DEFAULT_LEVELS.items():
        written = node.value.get(family) or replace(node, value=default, path=node.child(family))
        nodes, _ = _settings(written, faults)
        levels = [read_level(family, item, faults) for item in nodes]
        _refuse_twins([(item, level) for item, level in zip(nodes, levels, strict=True) if level.name], faults)
        axes[family] = levels
        first[family] = replace(written, value=levels[0] if levels else Level(family, ""))
    root.value["factors"] = replace(node, value=first)
    return axes


def _methods(root: Node, node: Node, faults: Faults) -> Axes:
    """Methods in the place of mechanisms: each run as a whole (``method``), or with each mechanism off and on
    (``isolate``); in the tree the mechanisms are left at their null levels.
    """
    word = next(key for key in node.value if key in METHOD_WORDS)
    for key, child in node.value.items():
        if key != word:
            faults.add(child, f"'{word}' stands alone: a method brings a level of every mechanism", at_key=True)
    written = node.value[word]
    if word == "method":
        nodes, _ = _settings(written, faults)
    else:
        nodes = written.value if isinstance(written.value, list) else [written]
        if not nodes:
            faults.add(written, "is empty; name at least one method")
        elif _names_levels(written):
            faults.add(written, "cannot be swapped or fixed: every method that is named is taken apart")
            nodes = []
    levels = [_read_method(item, faults) for item in nodes]
    _refuse_twins([(item, level) for item, level in zip(nodes, levels, strict=True) if level.name], faults)
    null = {family: read_level(family, replace(node, value=name), faults) for family, name in DEFAULT_LEVELS.items()}
    first = {**null, "method": levels[0] if levels else Level("method", "")}
    root.value["factors"] = replace(node, value={key: replace(written, value=level) for key, level in first.items()})
    own: Axes = {family: [level, OF_METHOD] if word == "isolate" else [OF_METHOD] for family, level in null.items()}
    return {**own, METHOD: levels}


def _read_method(node: Node, faults: Faults) -> Level:
    before = len(faults)
    level = read_level("method", node, faults)
    if level.name and len(faults) == before:
        try:
            point(level)
        except StudyMistakes as error:
            for mistake in error.mistakes:
                faults.add(node, f"{mistake.path}: {mistake.message}")
    return level


def _check_family(root: Node, axes: Axes, faults: Faults) -> None:
    """Refuse a confirmatory family of what the study does not swap, before hours go into it."""
    node = root.value["analysis"].value.get("family") if "analysis" in root.value else None
    known: list[str] = []
    swaps: list[list[str]] = []
    apart = METHOD in axes and len(axes["label_shift"]) > 1  # then each method is a question of its own
    for path, written in axes.items():
        if apart and path == METHOD:
            continue
        levels = [level for level in written if not isinstance(level, Level) or level.name]
        if len(levels) > 1 and path.split(".")[0] not in ("model", "organism"):
            labels = [label_of(level) for level in levels]
            factor = METHOD_NAME if path == METHOD else path.rpartition(".")[2]
            start = next((label for label in labels if label == DEFAULT_LEVELS.get(path)), labels[0])
            swaps.append([f"{factor} {start} -> {label}" for label in labels if label != start])
            known += [factor, *swaps[-1]]
    pairs = [f"{one} x {other}" for first, second in combinations(swaps, 2) for one in first for other in second]
    for item in node.value if node is not None and isinstance(node.value, list) else []:
        swap = item.value.rpartition(" | ")[2] if isinstance(item.value, str) else ""
        if swap and swap not in [*known, *pairs] and not faults.silent(item.path):
            named = f"; known are {', '.join(known)}" if known else "; the study swaps nothing"
            faults.add(item, f"no swapped factor and no swap is called '{swap}'{did_you_mean(swap, known) or named}")


def _unknown_factor(word: str) -> str:
    said = unknown(word, [*DEFAULT_LEVELS, *METHOD_WORDS], "factor")
    return said if "did you mean" in said else f"{said} (any other option is swapped where it stands)"


def _pull_swaps(root: Node, faults: Faults) -> dict[str, list[Node]]:
    """Take ``swap`` and ``fix`` out of the sections: in the tree each option is left with its first level."""
    swapped: dict[str, list[Node]] = {}
    for section in [key for key in root.value if key in SWAPPABLE]:
        node = root.value[section]
        if section == "model" and (_names_levels(node) or not isinstance(node.value, dict)):
            _pull(root, section, node, swapped, faults)
            continue
        for key, option in list(node.value.items()):
            if key in SWAPPABLE[section].model_fields and (section, key) != ("organism", "seeds"):
                _pull(node, key, option, swapped, faults)
    return swapped


def _pull(parent: Node, key: str, node: Node, swapped: dict[str, list[Node]], faults: Faults) -> None:
    nodes, is_swapped = _settings(node, faults)
    if node.path == "organism.behavior":
        nodes = [replace(item, value=read_level("behavior", item, faults)) for item in nodes]
    elif parent.path == "" and key == "model":
        nodes = [_spelled_out(item) for item in nodes]
        for item in nodes:
            if not isinstance(item.value, dict) and not faults.silent(item.path):
                faults.add(item, f"{show(item.value)} is not a model: a name, or a mapping of options")
                faults.silence(item.path)
    if not nodes:
        faults.silence(parent.child(key))
        del parent.value[key]
        return
    parent.value[key] = nodes[0]
    if is_swapped:
        swapped[parent.child(key)] = nodes


def _convert_lists(root: Node, faults: Faults) -> None:
    """Seeds, measures and controls, which have short forms that no schema knows."""
    organism = root.value.get("organism")
    for parent in (root, organism) if organism is not None else (root,):
        if "seeds" in parent.value:
            parent.value["seeds"] = replace(parent.value["seeds"], value=_seeds(parent.value["seeds"], faults))
    measures = root.value.get("measures")
    if measures is not None and measures.value is not None:
        items = _items(measures, "measures", faults)
        levels = [read_level("measure", item, faults) for item in items]
        _refuse_twins([(item, level) for item, level in zip(items, levels, strict=True) if level.name], faults)
        root.value["measures"] = replace(measures, value=tuple(levels))
    controls = root.value.get("controls")
    if controls is not None:
        items = _items(controls, "controls (null, oracle)", faults)
        words = [(item, _control(item, faults)) for item in items]
        known = [(item, word) for item, word in words if word]
        _refuse_twins(known, faults)
        root.value["controls"] = replace(controls, value=tuple(word for _, word in known))


def _control(node: Node, faults: Faults) -> str:
    if faults.silent(node.path):
        return ""
    if node.value is None:  # `null` is how YAML spells the absent value
        return "null"
    if node.value in ("null", "oracle"):
        return str(node.value)
    faults.add(node, f"{show(node.value)} is not 'null' or 'oracle'{did_you_mean(str(node.value), ['oracle'])}")
    return ""


def _items(node: Node, noun: str, faults: Faults) -> list[Node]:
    if isinstance(node.value, list):
        return node.value
    if not faults.silent(node.path):
        swap = "cannot be swapped or fixed" if _names_levels(node) else f"{show(node.value)} is not a list of {noun}"
        faults.add(node, swap)
    return []


def _seeds(node: Node, faults: Faults) -> tuple[int, ...]:
    """``3`` is 0, 1, 2; a list names the seeds."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        if 1 <= node.value <= MAX_SEEDS:
            return tuple(range(node.value))
        faults.add(node, f"{node.value} is not {'>= 1' if node.value < 1 else f'<= {MAX_SEEDS}'}")
        return (0,)
    if not isinstance(node.value, list):
        if _names_levels(node):
            faults.add(node, "cannot be swapped or fixed: every seed is run")
        elif not faults.silent(node.path):
            faults.add(node, f"{show(node.value)} is not a whole number or a list of whole numbers")
        return (0,)
    if not node.value:
        faults.add(node, "is empty; name at least one seed")
    whole: list[tuple[Node, int]] = []
    for item in node.value:
        if isinstance(item.value, int) and not isinstance(item.value, bool):
            whole.append((item, item.value))
            if item.value < 0:
                faults.add(item, f"{item.value} is not >= 0")
        elif not faults.silent(item.path):
            faults.add(item, f"{show(item.value)} is not a whole number")
    _refuse_twins(whole, faults)
    return tuple(seed for _, seed in whole)


def _refuse_twins(levels: Sequence[tuple[Node, Any]], faults: Faults) -> None:
    seen: set[str] = set()
    for node, level in levels:
        label = label_of(level)
        if label in seen:
            shown = show(label) if isinstance(level, str | Level | Model) else label
            faults.add(node, f"{shown} is there twice")
        seen.add(label)


def _homes() -> dict[str, str]:
    """Where an option that was misplaced belongs, as a phrase."""
    homes: dict[str, list[str]] = defaultdict(list)
    for key in Options.model_fields:
        homes[key].append(f"'{key}' at the top")
    for section, model in SECTIONS.items():
        for key in model.model_fields:
            homes[key].append(f"'{section}.{key}'")
    return {key: " or ".join(paths) for key, paths in homes.items()}


def _validate(root: Node, faults: Faults) -> Options | None:
    try:
        return Options.model_validate(plain_node(root))
    except ValidationError as error:
        report(error, root, Options, faults, homes=_homes())
        return None


def _validated_levels(root: Node, path: str, nodes: list[Node], faults: Faults) -> list[Any]:
    """Every swapped value through the schema of its section, in place of the first."""
    section, _, key = path.partition(".")
    model: type[Section] = SWAPPABLE[section]
    levels: list[tuple[Node, Any]] = []
    for node in nodes:
        tree = replace(root.value[section], value={**root.value[section].value, key: node}) if key else node
        try:
            validated = model.model_validate(plain_node(tree))
        except ValidationError as error:
            report(error, tree, model, faults, homes=_homes())
        else:
            levels.append((node, getattr(validated, key) if key else validated))
    _refuse_twins([(node, level) for node, level in levels if not isinstance(level, Level) or level.name], faults)
    return [level for _, level in levels]
