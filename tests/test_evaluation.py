"""Laws of exact evaluation: nats above a truth that is known, and verdicts that can be counted by hand."""

import contextlib
import inspect
import json
import math
import re
from dataclasses import replace

import datasets
import pytest
import torch

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder, tales
from armdlab.cli import main
from armdlab.curriculum import Curriculum
from armdlab.evaluation import bound, likelihood
from armdlab.figures.tales import tale_table
from armdlab.generative import Generated
from armdlab.objectives import nll
from armdlab.rows import Rows, Text
from armdlab.samples import Diversity, Share, diversity, judge, novelty, validity, write_tales
from armdlab.scores import Figure
from armdlab.tale_evaluation import Excess, excess_nats, tale_report
from armdlab.tokenization import Tokenizer
from armdlab.training import Plan, Training, load_plan

N = 24
NAMES = ["Ada", "Bo", "Cy", "Dot", "Eve", "Flo"]


@pytest.fixture(scope="module")
def nap(tmp_path_factory):
    """A source of 24 tales: 6 names of equal chance, two endings of chances 3/4 and 1/4, and a place named twice."""
    folder = tmp_path_factory.mktemp("nap")
    names = "".join(f"  {name} | {he}\n" for name, he in zip(NAMES, 2 * ["she", "he", "it"], strict=True))
    (folder / "words.txt").write_text(
        f"list child\n  name (name) | he (pronoun)\n{names}\nlist place\n  place (place)\n  barn\n  hut\n"
    )
    (folder / "rules.txt").write_text("rule ending\n  3/4 slept\n  1/4 dreamed of warm soup and cake\n")
    (folder / "plot.txt").write_text(
        "plot nap\n\nstory nap\ncast\n  hero from child\n  home from place\ntext\n"
        "  {hero} sat in the {home}. There {hero.he} <ending>. Good night, {home}!\n"
    )
    return tales.load_grammar(folder)


@pytest.fixture(scope="module")
def everything(nap):
    return [tale.text for tale in nap.enumerate()]


@pytest.fixture(scope="module")
def tokenizer(everything):
    return Tokenizer.train(everything * 5, vocab_size=400)


@pytest.fixture(scope="module")
def corpus(nap):
    return list(tales.tales(400, 1, nap))


def small(vocab_size, cls=ARMD, **sizes):
    torch.manual_seed(1)
    return cls(ARMDConfig(vocab_size, N, **{"n_layer": 2, "n_head": 2, "d_model": 32, **sizes}))


@pytest.fixture(scope="module")
def trained(tokenizer, corpus):
    """Rows of whole tales, through the whole curriculum."""
    rows = Rows.encode(corpus, tokenizer, N)
    model = small(tokenizer.vocab_size, d_model=48)
    plan = Plan(400, Curriculum.for_steps(400, N), batch_size=16, learning_rate=1e-2)
    losses = [step.loss for step in Training(model, rows, plan).run()]
    return model.eval(), losses


# ----------------------------------------------------------------------------------------- training on rows


def test_tales_end_before_and_behind_the_last_head_of_four_streams(tokenizer, everything):
    assert {len(tokenizer.encode(text)) + 1 for text in everything} == {16, 21}


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("stop", [2, 10])
def test_training_on_whole_texts_resumes_bit_for_bit(tokenizer, corpus, tmp_path, layout, stop):
    rows, plan = Rows.encode(corpus, tokenizer, N, layout), Plan(12, Curriculum.for_steps(12, N), batch_size=4)
    whole = small(tokenizer.vocab_size)
    losses = [step.loss for step in Training(whole, rows, plan).run()]
    first = Training(small(tokenizer.vocab_size), rows, plan)
    for step in first.run():
        if step.step == stop:
            break
    first.save(tmp_path)
    rest = Training(small(tokenizer.vocab_size), rows, load_plan(tmp_path))
    rest.resume(tmp_path)
    assert [step.loss for step in rest.run()] == losses[stop:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.bare_model.parameters(), strict=True))


def test_left_to_right_what_stands_in_the_padding_changes_nothing(tokenizer, corpus):
    """Neither a loss nor a weight: padding is not learnt where nobody pays for it."""
    rows = Rows.encode(corpus, tokenizer, N)
    never = Curriculum(N, 10**9, 10**9, 10**9, rho=0)
    found = []
    for filling in (rows.end_of_text, 7):
        model = small(tokenizer.vocab_size)
        training = Training(model, rows, Plan(1, never, batch_size=4))
        tokens, order = training.batch(0)
        is_text = rows.is_text(tokens)
        losses = nll(model, torch.where(is_text, tokens, filling), order, "none")
        loss = (losses * is_text).sum() / is_text.sum()
        found.append((loss.detach(), torch.autograd.grad(loss, list(model.parameters()))))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert training._learn(tokens, order) == pytest.approx(float(found[0][0]), abs=1e-6)


def test_rows_of_another_length_are_refused_before_training(tokenizer, corpus):
    sentence = f"length=8 is asked for, but the rows were laid out for {N}; lay them anew"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Training(small(tokenizer.vocab_size), Rows.encode(corpus, tokenizer, N), Plan(2, Curriculum.for_steps(2, 8)))


# ------------------------------------------------------------------------------------------ above the truth


class Truth(AR):
    """The source itself as a model: of each next token, its exact chance given the tokens before it."""

    def __init__(self, nap, tokenizer, everything):
        super().__init__(ARMDConfig(tokenizer.vocab_size, N, n_layer=2, n_head=2, d_model=16))
        self.chances = {}
        for text in everything:
            ids = [*tokenizer.encode(text), tokenizer.end_of_text]
            for n in range(len(ids)):
                row = self.chances.setdefault(tuple(ids[:n]), torch.zeros(tokenizer.vocab_size, dtype=torch.float64))
                row[ids[n]] += math.exp(nap.log_prob(text))

    def forward(self, tokens, order=None):
        V = self.config.vocab_size
        unknown = torch.ones(V, dtype=torch.float64)
        return torch.stack(
            [
                torch.stack([(self.chances.get(tuple(row[:n]), unknown)).log() for n in range(len(row))])
                for row in tokens.tolist()
            ]
        )


def test_the_truth_is_no_nats_above_the_truth(nap, tokenizer, everything, corpus):
    model = Truth(nap, tokenizer, everything)
    found = excess_nats(model, tokenizer, corpus[:60], grammar=nap)
    assert abs(found.nats_per_tale) < 1e-5
    assert found.standard_error < 1e-5 < found.nll_standard_error  # the tales' own spread cancels in each pair
    assert found.entropy == pytest.approx(math.log(12) + 0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert found.padding_nats == 0
    assert found.nll == pytest.approx(found.entropy, abs=4 * found.nll_standard_error)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_over_all_tales_the_excess_is_the_kl_divergence_and_no_model_is_below_the_truth(
    nap, tokenizer, everything, trained, streams
):
    """Weighted by enumeration instead of samples: KL >= 0 exactly, for a good model and a fresh one."""
    chances = torch.tensor([nap.log_prob(text) for text in everything], dtype=torch.float64).exp()
    assert float(chances.sum()) == pytest.approx(1)
    divergences = []
    for model in (trained[0], small(tokenizer.vocab_size).eval()):
        found = [excess_nats(model, tokenizer, [text], streams=streams, grammar=nap) for text in everything]
        divergences.append(float((chances * torch.tensor([each.nats_per_tale for each in found])).sum()))
    assert -1e-6 < divergences[0] < 2 < divergences[1]


def test_excess_agrees_with_a_slow_reference_and_errors_with_the_formula(nap, tokenizer, corpus, trained):
    model, held_out = trained[0], corpus[:40]
    found = excess_nats(model, tokenizer, held_out, streams=2, grammar=nap, batch_size=7)
    order, differences, padding = GenerationOrder.strided(N, 2), [], []
    for text in held_out:
        ids = [*tokenizer.encode(text), tokenizer.end_of_text]
        row = torch.tensor([[*ids, *[tokenizer.end_of_text] * (N - len(ids))]])
        with torch.no_grad():
            nats = nll(model, row, order, "none")[0].double().tolist()
        last = max(order.blocks_in_text_order[: len(ids)].tolist())
        paid = [nats[p] for p in range(len(ids), N) if order.blocks_in_text_order[p] < last]
        differences.append(sum(nats[: len(ids)]) + sum(paid) + nap.log_prob(text))
        padding.append(sum(paid))
    values = torch.tensor(differences, dtype=torch.float64)
    assert found.nats_per_tale == pytest.approx(float(values.mean()), abs=1e-5)
    assert found.standard_error == pytest.approx(float(values.std() / math.sqrt(40)), rel=1e-4)
    assert found.padding_nats == pytest.approx(sum(padding) / 40, abs=1e-5)
    assert found.padding_nats > 0


def test_packed_rows_score_each_tale_once(nap, tokenizer, corpus):
    torch.manual_seed(0)
    model = ARMD(ARMDConfig(tokenizer.vocab_size, 3 * N, n_layer=2, n_head=2, d_model=16)).eval()
    found = excess_nats(model, tokenizer, corpus[:30], layout="packed", grammar=nap)
    rows = Rows.encode(corpus[:30], tokenizer, 3 * N, "packed")
    assert len(rows) < 20
    with torch.no_grad():
        nats = sum(float((nll(model, tokens, None, "none") * rows.is_text(tokens)).sum()) for tokens in rows.batches(4))
    assert found.nll == pytest.approx(nats / 30, rel=1e-5)
    assert (found.n_tales, found.layout, found.padding_nats) == (30, "packed", 0)


def test_an_order_of_ones_own_is_scored_and_named(nap, tokenizer, corpus, trained):
    order = GenerationOrder.random(N, generator=torch.Generator().manual_seed(3))
    found = excess_nats(trained[0], tokenizer, corpus[:20], order=order, grammar=nap)
    assert found.order == repr(order)
    assert found.nats_per_tale > 0


def test_likelihood_of_rows_is_per_token_of_text_and_says_how_rows_were_laid(nap, tokenizer, corpus, trained):
    rows = Rows.encode(corpus[:50], tokenizer, N)
    per_tale = excess_nats(trained[0], tokenizer, corpus[:50], streams=2, grammar=nap)
    found = likelihood(trained[0], rows, N, streams=2)
    assert found.n_tokens == per_tale.n_tokens == int(rows.is_text(rows.pad(torch.arange(50))).sum())
    assert found.nats_per_token * found.n_tokens == pytest.approx(50 * per_tale.nll)
    assert found.nats_per_character == pytest.approx(50 * per_tale.nll / rows.n_characters)
    assert str(found).endswith(
        f"exact, 2 strided streams; held-out text, {found.n_tokens} tokens in padded rows of {N}, float32)"
    )


def test_an_excess_states_its_conditions(nap, tokenizer, corpus, trained):
    found = excess_nats(trained[0], tokenizer, corpus[:50], grammar=nap)
    tail = (
        r"nats a tale above the truth \(NLL \d\.\d{3} \+- \d\.\d{3}, 0\.000 of it for padding; entropy 3\.047; "
        r"an upper bound on the KL of texts, by canonical tokens; left to right, 50 tales of \d+\.\d tokens in padded "
        rf"rows of {N}\)"
    )
    assert re.fullmatch(rf"-?\d\.\d{{3}} \+- \d\.\d{{3}} {tail}", str(found))


@pytest.mark.parametrize("figure", [Figure, Excess, Generated])
def test_a_class_of_figures_says_of_which_weights_it_is(figure):
    """Peers mix raw and averaged weights; here there are raw ones alone, so it stands once and not in every line."""
    said = " ".join(inspect.getdoc(figure).split())
    assert "last step" in said
    assert "no average" in said


# --------------------------------------------------------------------------------------------- what is written


def test_validity_counts_shares_kinds_and_distances_as_one_would_by_hand(nap):
    found = validity(
        [
            "Ada sat in the barn. There she slept. Good night, barn!",
            "Ada sat in the barn. There he slept. Good night, barn!",
            "Bo sat in the hut. There he slept. Good night, barn!",
            "Bo sat in the hut. There he",
            "",
        ],
        grammar=nap,
    )
    assert (found.parses, found.is_consistent) == (Share(3, 5), Share(1, 5))
    assert found.violations == {
        "grammar": (2, 0, 0, 0, 0, 0),
        "place": (0, 1, 0, 0, 0, 0),
        "pronoun": (0, 1, 0, 0, 0, 0),
    }
    assert str(found).splitlines() == [
        "5 texts: 0.600 +- 0.221 parse, 0.200 +- 0.202 are consistent",
        "violations, by words between   none    1-9  10-19  20-39  40-79    80+    all",
        "  grammar                         2      0      0      0      0      0      2",
        "  place                           0      1      0      0      0      0      1",
        "  pronoun                         0      1      0      0      0      0      1",
    ]


def test_distances_fall_into_the_columns_that_name_them():
    """The lab's own tales, with every later mention broken once: each lands in the column of its distance."""
    tale = tales.sample(1)
    mentions = [m for m in tales.load_grammar().read(tale.text).mentions if m.distance is not None]
    for mention in mentions:
        wrong = next(option for option in mention.options if option != mention.words)
        broken = validity([tale.text[: mention.start] + wrong + tale.text[mention.end :]]).violations[mention.kind]
        firsts = (1, 10, 20, 40, 80)
        assert broken[max(i + 1 for i, first in enumerate(firsts) if mention.distance >= first)] >= 1
        assert broken[0] == 0


def test_a_share_has_a_binomial_error_and_is_never_certain():
    assert str(Share(50, 200)) == "0.250 +- 0.031"
    assert Share(20, 20).standard_error > 0
    assert math.isnan(Share(0, 0).value)
    assert str(Share(0, 0)) == "of none"


def test_novelty_is_of_valid_tales_alone(nap, everything):
    samples = [everything[0], everything[1], "no tale"]
    assert novelty(samples, {everything[0]}, grammar=nap) == Share(1, 2)
    assert novelty(["no tale"], set(), grammar=nap) == Share(0, 0)


def test_diversity_of_texts_that_can_be_counted_by_hand():
    found = diversity(["a b a b", "a b a b"])
    assert found == Diversity(pytest.approx(math.log(2)), (2 / 8, 2 / 6, 2 / 4), 0.5, 8)
    assert "entropy 0.693 nats or 1.000 bits a word" in str(found)
    assert diversity(["a b c d"]).distinct == (1, 1, 1)
    assert math.isnan(diversity(["alone"]).distinct[1])


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_written_tales_end_at_their_first_end_and_repeat_with_a_seed(tokenizer, trained, streams):
    how = {"streams": streams, "seed": 4, "batch_size": 8}
    texts = write_tales(trained[0], tokenizer, 20, **how)
    assert len(texts) == 20
    assert not any("<|endoftext|>" in text for text in texts)
    assert texts == write_tales(trained[0], tokenizer, 20, **how)
    assert texts[:16] == write_tales(trained[0], tokenizer, 16, **how)
    assert texts != write_tales(trained[0], tokenizer, 20, **{**how, "seed": 5})


def test_what_is_written_follows_the_chances_that_are_paid_for(nap, tokenizer, everything, trained):
    """Sampling and scoring speak of the same q: frequencies of texts are at least exp(-price), for S = 2."""
    order, rows = GenerationOrder.strided(N, 2), Rows.encode(everything, tokenizer, N)
    tokens = rows.pad(torch.arange(len(rows)))
    with torch.no_grad():
        nats = (nll(trained[0], tokens, order, "none").double() * rows.is_paid(tokens, order)).sum(-1)
    n = 3000
    texts = write_tales(trained[0], tokenizer, n, streams=2, batch_size=500)
    for text, price in zip(everything, nats.tolist(), strict=True):
        expected = math.exp(-price)
        least = expected - 4 * math.sqrt(expected * (1 - expected) / n)
        assert texts.count(text) / n > least > 0


def test_a_model_that_learnt_the_tales_writes_tales_with_every_number_of_streams(nap, tokenizer, trained):
    """So padding is made where a text is shorter than a head's place: without it no text of two streams would end."""
    for streams in (1, 2, 4):
        found = validity(write_tales(trained[0], tokenizer, 60, streams=streams), grammar=nap)
        assert found.parses.value > 0.6


def test_the_whole_table_is_printed_and_drawn_by_one_call_each(nap, tokenizer, corpus, trained):
    splits = {"train": {"text": corpus[:300]}, "validation": {"text": corpus[300:]}}
    report = tale_report(trained[0], tokenizer, splits, n_tales=40, n_samples=20, grammar=nap)
    lines, said = str(report).splitlines(), " ".join(str(report).split())
    assert lines[0].split() == "left to right 2 streams 4 streams the source".split()
    assert max(map(len, lines)) <= 84  # what a narrow page of a notebook holds
    assert [line[:22].strip() for line in lines[1:11]] == [
        "excess, nats a tale",
        "NLL, nats a tale",
        "of it for padding",
        "parse",
        "consistent",
        "new, of the consistent",
        "nats a word",
        "distinct-1",
        "distinct-2",
        "distinct-3",
    ]
    dear = replace(report, excess=tuple(replace(each, nll=each.nll + 1e5) for each in report.excess))
    assert len(str(dear).splitlines()[2].split()) == 4 + 3 * 3 + 1  # no column touches the next, however dear
    assert f"40 held-out tales, padded rows of {N}" in said
    assert "20 of each writer, temperature 1, nothing truncated, seed 0" in said
    assert report.written[-1].validity.is_consistent == Share(20, 20)
    picture = tale_table(report)
    assert picture.png.startswith(b"\x89PNG")
    assert "left to right: " in picture.alt
    assert "4 strided streams: " in picture.alt


def test_a_report_calls_new_what_the_training_split_does_not_hold(nap, tokenizer, everything, trained):
    for known, n_new in ((everything, 0), (["some other text"], 20)):
        splits = {"train": {"text": known}, "validation": {"text": everything[:5]}}
        report = tale_report(trained[0], tokenizer, splits, streams=(1,), n_samples=20, grammar=nap)
        assert report.written[-1].novelty == Share(n_new, 20)


def test_judging_one_writer_gives_every_verdict(nap, everything):
    found = judge("a copyist", everything[:5], set(everything), grammar=nap)
    assert (found.validity.is_consistent, found.novelty) == (Share(5, 5), Share(0, 5))
    assert found.diversity.different == 1


def test_the_command_line_trains_on_whole_tales_resumes_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "model")
    sizes = ["--length", "320", "--n-layer", "2", "--d-model", "16", "--batch-size", "2", "--precision", "float32"]

    def armdlab(*arguments):
        monkeypatch.setattr("sys.argv", ["armdlab", *arguments])
        with contextlib.suppress(SystemExit):
            main()
        return capsys.readouterr()

    card = json.loads(armdlab("train", "--corpus", "tales:60", "--steps", "2", "--out", out, *sizes, "--json").out)
    assert (card["layout"], card["validation"]["layout"], card["steps"]) == ("padded", "padded", 2)
    assert json.loads(armdlab("train", "--out", out, "--resume", "--json").out)["layout"] == "padded"
    facts = json.loads(armdlab("evaluate", out, "--samples", "2", "--streams", "2", "--json").out)
    excess, written = facts["tales"]["excess"], facts["tales"]["written"]
    assert [e["order"] for e in excess] == ["2 strided streams"]
    assert excess[0]["nats_per_tale"] > 100
    assert [w["writer"] for w in written] == ["2 strided streams", "the source"]
    assert written[1]["validity"]["is_consistent"] == {"part": 2, "whole": 2}
    said = armdlab("evaluate", out, "--samples", "2", "--streams", "1").out
    assert "excess, nats a tale" in said
    assert "2 of each writer, temperature 1" in said
    assert "tales" not in json.loads(armdlab("evaluate", out, "--samples", "0", "--streams", "1", "--json").out)
    bad = armdlab("train", "--corpus", "tales:60", "--steps", "2", "--out", out + "2", "--layout", "folded", *sizes)
    assert "layout='folded' is unknown; choose running, padded (a text a row) or packed" in bad.err


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda model, tokenizer, nap: excess_nats(model, tokenizer, ["Once."], grammar=nap),
            "'Once.' is no tale: the text leaves the grammar at word 1, \"Once.\"; score tales of this grammar",
        ),
        (
            lambda model, tokenizer, nap: excess_nats(
                model, tokenizer, ["x"], streams=2, order=GenerationOrder.left_to_right(N), grammar=nap
            ),
            "streams=2 and order=GenerationOrder(length=24, n_blocks=24) both say who is made when; give one of them",
        ),
        (
            lambda model, tokenizer, nap: tale_report(model, tokenizer, {}, streams=[], grammar=nap),
            "streams is empty; name at least one number of streams, such as (1, 2, 4)",
        ),
        (
            lambda model, *_: likelihood(model, Text(torch.zeros(N), 0), N, streams=2, shuffled=3),
            "streams=2 and shuffled=3 both say who is made when; give one of them",
        ),
        (
            lambda model, *_: bound(model, Text(torch.zeros(N), 0), N),
            "model=ARMD is not trained by masks and has no bound; give an MDLM or a BlockDiffusion, or call likelihood",
        ),
        (lambda *_: validity([]), "there are no samples to judge; give at least one text"),
        (lambda *_: diversity(["", " "]), "there is no word in these samples; give at least one text"),
        (
            lambda model, *_: likelihood(model, Text(torch.empty(0, dtype=torch.long), 0), N),
            "the text to score is empty; hold out a larger share, or give more text",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(nap, tokenizer, call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call(small(tokenizer.vocab_size), tokenizer, nap)
