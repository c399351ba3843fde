"""Laws of soft targets: in the mean over all tales they are the truth, whatever is known and whatever is not."""

import itertools
import math
import re
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

import armdlab
from armdlab import AR, ARMD, ARMDConfig, tales
from armdlab.costs import nats_to_learn
from armdlab.grammar import alternatives, read
from armdlab.orders import GenerationOrder
from armdlab.recipes import Recipe, Session
from armdlab.rows import Rows
from armdlab.sampling import seeded
from armdlab.soft_targets import SoftTargets
from armdlab.tales import TaleGrammar
from armdlab.tokenization import Tokenizer

FILES = {
    "a_lists.txt": """\
list person
  name (name) | he (pronoun)
  Ann         | she
  Bo          | he
  Cyrus       | he

list thing
  one (object) | many (object) | colours -> colour
  kite         | kites         | red sky-blue
  ice cream    | ice creams    | red

list colour
  colour (attribute) | tags
  red                | -
  sky-blue           | -

list number
  number (count) | value | tags
  one            | 1     | few
  two            | 2     | few
  three          | 3     | many
  four           | 4     | many
""",
    "b_stories.txt": """\
rule glad
  1/2  glad
  1/3  as glad as can be
  1/6  so merry

plot all

story given 2/3
cast
  hero   from person
  thing  from thing
  colour from thing.colours
  friend from person, not hero.he
text
  {A colour} {thing}! "[Take it|Here], {friend}," said {hero}. {friend.He} was <glad>, {friend}!

story kept 1/3
cast
  hero  from person
  start from many
  gone  from few
  left  is start - gone
text
  {hero} has {left}, and had {start}. {hero.He} lost [{gone}|all of {gone}].
""",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return TaleGrammar(read(folder))


@pytest.fixture(scope="module")
def all_tales(small):
    return list(small.enumerate())


def dense(targets, tokens, vocab_size):
    """Targets as a distribution at each position (B, N, V): one token alone where none is named."""
    soft = torch.zeros(*tokens.shape, vocab_size, dtype=torch.float64)
    soft.index_put_((targets.rows, targets.positions, targets.tokens), targets.chances.double(), accumulate=True)
    is_named = soft.sum(-1, keepdim=True) > 0
    return torch.where(is_named, soft, torch.nn.functional.one_hot(tokens, vocab_size).double()), is_named[..., 0]


def orders(length):
    return {
        "left to right": GenerationOrder.left_to_right(length),
        "from right to left": GenerationOrder(torch.arange(length).flip(0), torch.arange(length)),
        "2 streams": GenerationOrder.strided(length, 2),
        "5 streams": GenerationOrder.strided(length, 5),
        "shuffled": GenerationOrder.shuffled(length, length, generator=seeded(3)),
    }


@pytest.mark.parametrize("vocab_size", [257, 500])
@pytest.mark.parametrize("family", orders(10))
def test_in_the_mean_over_all_tales_targets_are_the_exact_conditional(small, all_tales, vocab_size, family):
    texts = [tale.text for tale in all_tales]
    tokenizer = Tokenizer.train(texts, vocab_size)
    rows = Rows.encode(texts, tokenizer, 120)
    tokens = rows.pad(torch.arange(len(rows)))
    order = orders(120)[family]
    soft, is_named = dense(SoftTargets(tokenizer, small)(tokens, order), tokens, tokenizer.vocab_size)
    hard = torch.nn.functional.one_hot(tokens, tokenizer.vocab_size).double()
    torch.testing.assert_close(soft.sum(-1), torch.ones(tokens.shape, dtype=torch.float64))
    assert is_named.any()

    p = torch.tensor([math.exp(tale.log_prob) for tale in all_tales], dtype=torch.float64)
    blocks = order.blocks_in_text_order
    for position in is_named.any(0).nonzero().flatten().tolist():
        known = blocks < blocks[position]
        alike = defaultdict(list)
        for row, ids in enumerate(tokens[:, known].tolist()):
            alike[tuple(ids)].append(row)
        for group in alike.values():
            weights = p[group] / p[group].sum()
            mean, truth = ((weights[:, None] * part[group, position]).sum(0) for part in (soft, hard))
            torch.testing.assert_close(mean, truth, msg=lambda m, at=position: f"position {at}: {m}")


def told_otherwise(text, choice, which):
    """A tale with one choice made otherwise."""
    parts, at = [], 0
    for span in choice.spans:
        parts += [text[at : span.start], span.forms[span.rows[which]]]
        at = span.end
    return "".join(parts) + text[at:]


@pytest.mark.parametrize("seed", range(40))
def test_every_alternative_is_a_tale_and_as_likely_as_is_said(seed):
    source, text = tales.load_grammar(), tales.sample(seed).text
    choices = alternatives(source.read(text).telling)
    assert len(choices) > 5
    for choice in choices:
        assert told_otherwise(text, choice, choice.chosen) == text
        assert math.fsum(choice.chances) == pytest.approx(1)
        for which, chance in enumerate(choice.chances):
            other = source.log_prob(told_otherwise(text, choice, which))
            assert other - source.log_prob(text) == pytest.approx(math.log(chance / choice.chances[choice.chosen]))


def test_no_alternative_of_a_draw_is_forgotten(small, all_tales):
    tellings = [small.read(tale.text).telling for tale in all_tales]
    drawn = {draw.name for telling in tellings for draw in telling.story.draws}
    said = [{c.name: c.text if c.name in drawn else c.index for c in tale.derivation} for tale in all_tales]
    checked = 0
    for tale, telling, choices in zip(all_tales, tellings, said, strict=True):
        for choice in alternatives(telling):
            if choice.name in drawn:
                rest = {**choices, choice.name: None}
                alike = {
                    other.text for other, its in zip(all_tales, said, strict=True) if {**its, choice.name: None} == rest
                }
                assert {told_otherwise(tale.text, choice, i) for i in range(len(choice.chances))} == alike
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("seed", [3, 14, 20])
def test_a_name_that_is_taken_gets_nothing_and_all_others_the_same(seed):
    tokenizer, text = armdlab.load("tales").tokenizer, tales.sample(seed).text
    mentions = [mention for mention in tales.load_grammar().read(text).mentions if mention.kind == "name"]
    friend = next(mention for mention in mentions if mention.variable == "friend")
    taken = {mention.words for mention in mentions} - {friend.words}
    assert taken
    tokens = Rows.encode([text], tokenizer, 160).pad(torch.arange(1))
    soft, _ = dense(SoftTargets(tokenizer)(tokens, GenerationOrder.left_to_right(160)), tokens, tokenizer.vocab_size)
    names = tales.load_grammar().grammar.lists["character"].cells["name"]
    at = tokenizer.encode_with_starts(text)[1].index(friend.start - 1)
    found = soft[0, at, [tokenizer.encode(f" {name}")[0] for name in names]]
    truth = torch.tensor([0.0 if name in taken else 1 / (60 - len(taken)) for name in names])
    torch.testing.assert_close(found.float(), truth)


@pytest.mark.parametrize("kind", [ARMD, AR])
def test_gradients_are_the_same_in_the_mean_and_differ_less(small, all_tales, kind):
    texts = [
        tale.text for tale in all_tales if "lost" in tale.text
    ]  # of one story, so that all its alternatives are there
    p = torch.tensor([math.exp(small.log_prob(text)) for text in texts])
    tokenizer = Tokenizer.train(texts, 320)
    hard = Rows.encode(texts, tokenizer, 60)
    soft = replace(hard, soft_targets=SoftTargets(tokenizer, small))
    torch.manual_seed(0)
    model = kind(ARMDConfig(tokenizer.vocab_size, 60, n_layer=2, n_head=2, d_model=16, d_position=8))
    means, spreads, order = [], [], GenerationOrder.left_to_right(60)
    for text in (hard, soft):
        gradients = []
        for row in range(len(texts)):
            _, costs = nats_to_learn(model, text, text.pad(torch.tensor([row])), order, seeded(0))
            gradients.append(torch.autograd.grad(costs.sum(), model.head.weight)[0])
        gradients = torch.stack(gradients)
        means.append((p[:, None, None] * gradients).sum(0) / p.sum())
        spreads.append((p[:, None, None] * (gradients - means[-1]) ** 2).sum() / p.sum())
    torch.testing.assert_close(means[1], means[0], atol=1e-5, rtol=1e-4)
    assert spreads[1] < 0.9 * spreads[0]


def test_what_is_reported_are_nats_of_the_tokens_and_only_named_positions_learn_otherwise():
    tokenizer = armdlab.load("tales").tokenizer
    tokens = Rows.encode(list(tales.tales(4, 5)), tokenizer, 160).pad(torch.arange(4))
    log_chances = torch.randn(4, 160, tokenizer.vocab_size, generator=seeded(1)).log_softmax(-1)
    nats = -log_chances.gather(-1, tokens[..., None])[..., 0]
    targets = SoftTargets(tokenizer)(tokens, GenerationOrder.strided(160, 4))
    soft, is_named = dense(targets, tokens, tokenizer.vocab_size)
    expected = targets.expected(nats, log_chances)
    assert 40 < is_named.sum() < 160
    assert torch.equal(expected[~is_named], nats[~is_named])
    torch.testing.assert_close(expected, -(soft * log_chances).sum(-1).float())


@pytest.mark.parametrize("text", ["This is no tale.", ""])
def test_what_is_no_tale_is_left_as_it_is(text):
    tokenizer = armdlab.load("tales").tokenizer
    told, end = tokenizer.encode(text), tokenizer.end_of_text
    for ids in ([*told, end], [*told, end, end], [*tokenizer.encode("It was "), *told]):
        tokens = torch.tensor([ids])
        none = SoftTargets(tokenizer)(tokens, GenerationOrder.left_to_right(len(ids)))
        assert len(none.tokens) == len(none.chances) == 0
        nats = torch.rand(tokens.shape)
        assert torch.equal(none.expected(nats, torch.zeros(*tokens.shape, tokenizer.vocab_size)), nats)


def test_each_row_has_the_targets_of_its_own_order():
    tokenizer = armdlab.load("tales").tokenizer
    tokens = Rows.encode(list(tales.tales(3, 6)), tokenizer, 160).pad(torch.arange(3))
    order = GenerationOrder.shuffled(160, 160, batch_size=3, generator=seeded(2))
    find = SoftTargets(tokenizer)
    together = find(tokens, order)
    for row in range(3):
        alone, is_its = find(tokens[row : row + 1], order.rows(slice(row, row + 1))), together.rows == row
        assert torch.equal(together.positions[is_its], alone.positions)
        assert torch.equal(together.tokens[is_its], alone.tokens)
        assert torch.equal(together.chances[is_its], alone.chances)


def grammar_of(folder, lists, cast, text):
    story = f"plot all\n\nstory one\ncast\n{cast}\ntext\n  {text}\n"
    (folder / "a_lists.txt").write_text(lists, encoding="utf-8")
    (folder / "b_story.txt").write_text(story, encoding="utf-8")
    return TaleGrammar(read(folder))


def test_what_could_not_have_been_drawn_is_no_alternative_even_if_a_sum_hangs_on_it(tmp_path):
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    lines = [f"  {word} | {i + 1} | {'few' if i < 3 else '-'}" for i, word in enumerate(numbers)]
    lists = "list number\n  number (count) | value | tags\n" + "\n".join(lines) + "\n"
    cast = "  p from few\n  q from few, not p\n  c is p + q\n  d is c - p"
    source = grammar_of(tmp_path, lists, cast, "{p} and {q} make {c}, so {c} less {p} is {d}.")
    choice, other = alternatives(source.read("one and three make four, so four less one is three.").telling)
    assert (choice.name, choice.chances) == ("p", (0.5, 0.5))
    assert told_otherwise("one and three make four, so four less one is three.", choice, 1 - choice.chosen) == (
        "two and three make five, so five less two is three."
    )
    assert other.name == "q"


def test_words_that_share_a_token_with_a_mark_are_left_as_they_are(tmp_path):
    """'tom is cut into 't and om, 'cat into ' and cat: what is cut so has no alternatives, whichever word is there."""
    lists = "list pet\n  pet (object)\n  tom\n  cat\n  dog\n  tin\n"
    source = grammar_of(tmp_path, lists, "  pet from pet", "'{pet}' is a word, and {pet} a pet.")
    texts = [tale.text for tale in source.enumerate()]
    tokenizer = Tokenizer.train(texts, 300)
    assert tokenizer.decode(tokenizer.encode("'tom")[:1]) == "'t"
    tokens = Rows.encode(texts, tokenizer, 60).pad(torch.arange(4))
    assert not len(SoftTargets(tokenizer, source)(tokens, GenerationOrder.left_to_right(60)).tokens)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_with_soft_targets_goes_on_as_if_it_had_never_stopped(tmp_path, bf16):
    recipe = Recipe(corpus="tales:120", steps=4, length=400, vocab_size=400, n_layer=2, d_model=32, batch_size=2)
    recipe = replace(recipe, soft_targets=True, unlikelihood=5.0, bf16=bf16)
    whole = Session.begin(recipe, tmp_path / "whole")
    losses = [step.loss for step in whole.training.run()]
    part = Session.begin(recipe, tmp_path / "part")
    first = [step.loss for step in itertools.islice(part.training.run(), 2)]
    part.save()
    rest = Session.resume(tmp_path / "part")
    assert [*first, *[step.loss for step in rest.training.run()]] == losses
    hard = Session.begin(replace(recipe, soft_targets=False), tmp_path / "hard")
    assert next(hard.training.run()).loss == pytest.approx(losses[0], rel=1e-6)  # nats are reported as ever
    with pytest.raises(ValueError, match="another text"):
        hard.training.resume(tmp_path / "part")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"corpus": "manual"},
            "soft_targets=True is for tales, whose grammar knows what else could stand; corpus='manual' has none: "
            "leave it out",
        ),
        (
            {"layout": "running"},
            "soft_targets=True needs rows of one whole tale each, and layout='running' makes others; take padded",
        ),
        (
            {"layout": "packed"},
            "soft_targets=True needs rows of one whole tale each, and layout='packed' makes others; take padded",
        ),
        (
            {"model": "mdlm"},
            "soft_targets=True is for models that are trained by orders, and MDLM is trained by masks; leave it out",
        ),
    ],
)
def test_soft_targets_are_refused_where_nobody_knows_them(tmp_path, change, sentence):
    recipe = Recipe(corpus="tales:200", start="tales", length=160, soft_targets=True)
    if "model" in change:
        change = {**change, "start": "tales_mdlm"}
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.begin(replace(recipe, **change), tmp_path)
