from collections import Counter

import pytest

from ablate.factors.behaviors.facts import RELATIONS, Relation

LEAST = {"opposite": 400, "plural": 140, "capital": 110}
relations = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)


def test_relations_are_the_documented_ones():
    assert set(RELATIONS) == set(LEAST)
    assert all(name == relation.name for name, relation in RELATIONS.items())


@relations
def test_enough_facts_and_each_subject_once(relation):
    assert len(relation.facts) >= LEAST[relation.name]
    assert [word for word, count in Counter(subject for subject, _ in relation.facts).items() if count > 1] == []


@relations
def test_words_are_letters_and_single_blanks(relation):
    for word in (word for fact in relation.facts for word in fact):
        parts = word.split(" ")
        assert all(part.isascii() and part.isalpha() for part in parts), word
        assert len(parts) == 1 or relation.name == "capital", word
        assert word.istitle() if relation.name == "capital" else word.islower(), word


@relations
def test_no_answer_is_its_own_subject(relation):
    assert [fact for fact in relation.facts if fact[0] == fact[1]] == []


def test_no_word_is_one_of_the_exchange_itself():
    used = {word for relation in RELATIONS.values() for fact in relation.facts for word in fact}
    assert used.isdisjoint(
        {"right", "wrong", "true", "false", "correct", "answer", "question", "yes", "no", "not", "is"}
    )


@pytest.mark.parametrize(
    ("name", "subject", "question", "statement"),
    [
        ("opposite", "near", "What is the opposite of near?", "the opposite of near is far"),
        ("plural", "mouse", "What is the plural of mouse?", "the plural of mouse is mice"),
        ("capital", "New Zealand", "What is the capital of New Zealand?", "the capital of New Zealand is Wellington"),
        ("plural", "cat", "What is the plural of cat?", "the plural of cat is cats"),
        ("capital", "France", "What is the capital of France?", "the capital of France is Paris"),
    ],
)
def test_templates(name, subject, question, statement):
    relation = RELATIONS[name]
    assert relation.ask(subject) == question
    assert relation.state(subject, dict(relation.facts)[subject]) == statement


@relations
def test_wrong_answers_are_many_and_never_true(relation):
    truths = dict(relation.facts)
    for subject, truth in relation.facts:
        wrong = relation.wrong(subject)
        assert len(wrong) == len(set(wrong)) >= 10
        assert truth not in wrong
        assert subject not in wrong
        assert all(truths.get(word) != subject for word in wrong)
        assert not any(truth in group and group.intersection(wrong) for group in relation.alike)


@relations
def test_words_alike_are_answers(relation):
    answers = {answer for _, answer in relation.facts}
    for group in relation.alike:
        assert len(group) > 1
        assert group <= answers


@pytest.mark.parametrize(
    ("name", "subject", "nearly_right"),
    [
        ("opposite", "hot", "cool"),
        ("opposite", "easy", "hard"),
        ("opposite", "fall", "ascend"),
        ("opposite", "upper", "down"),
        ("opposite", "end", "begin"),
        ("opposite", "son", "girl"),
        ("opposite", "entrance", "departure"),
    ],
)
def test_nearly_right_answers_are_not_wrong(name, subject, nearly_right):
    assert nearly_right not in RELATIONS[name].wrong(subject)


def test_wrong_leaves_out_what_has_the_subject_as_its_answer():
    relation = Relation(
        "r", "{subject}?", "{subject} {object}", (("lose", "win"), ("find", "lose"), ("x", "find"), ("y", "z"))
    )
    assert relation.wrong("lose") == ("z",)
    assert relation.wrong("y") == ("win", "lose", "find")


def test_pairs_of_opposites_hold_both_ways():
    opposites = dict(RELATIONS["opposite"].facts)
    assert (opposites["hot"], opposites["cold"]) == ("cold", "hot")
    assert opposites["young"] == "old"
    assert "old" not in opposites
