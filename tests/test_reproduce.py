"""Laws of generative figures and of the paper's tables."""

import functools
import json
import math
import re
import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from armdlab import AR, ARMDConfig, GenerationOrder, generate, generative, load, reproduce
from armdlab.budgets import BUDGETS, Budget
from armdlab.curriculum import Curriculum
from armdlab.figures import Picture
from armdlab.figures.tables import bars, curriculum, curves
from armdlab.generative import _recut, _rows_in_words, generated
from armdlab.measured import Measured
from armdlab.networks import SIZES, fresh
from armdlab.objectives import nll
from armdlab.recipes import Recipe
from armdlab.reproduce import Runs, Stopped, table1, table2, table3
from armdlab.samples import validity
from armdlab.sampling import seeded
from armdlab.tables import Cell, Line, Table

TEXT = "\n\n".join(
    f"The {kind} number {i} sits on the mat by the old door." for i in range(150) for kind in ("cat", "dog")
)


def train(session):
    for _ in session.watch(scores=2):
        pass
    return False


@pytest.fixture(scope="module")
def budget(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    for name, text in (("cats.txt", TEXT), ("cows.txt", TEXT.replace("cat", "cow"))):
        (folder / name).write_text(text)
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 32, "vocab_size": 300, "batch_size": 4}
    small = Recipe(corpus=f"file:{folder / 'cats.txt'}", steps=12, learning_rate=1e-2, block_size=4, **sizes)
    recipes = {"armd_0": small, "armd_1": replace(small, seed=1), "armd_32": replace(small, length=32)}
    recipes |= {f"ar_{seed}": replace(small, model="ar", steps=10, seed=seed) for seed in (0, 1)}
    recipes |= {"mdlm_0": replace(small, model="mdlm", steps=30), "block_0": replace(small, model="block")}
    recipes["judge"] = replace(small, model="ar", seed=9, length=32)
    writers = {"ar_0": (1,), "mdlm_0": (16, 4), "armd_0": (1, 2, 4), "armd_32": (1, 8)}
    zero_shot = (f"file:{folder / 'cows.txt'}",)
    return Budget(
        "tiny", recipes, f"file:{folder / 'cats.txt'}", zero_shot, writers, {"armd_0": (4,)}, "judge", 6, 2, 3
    )


@pytest.fixture(scope="module")
def runs(budget, tmp_path_factory):
    return Runs(budget, tmp_path_factory.mktemp("runs"), train, "armdlab reproduce")


# ---------------------------------------------------------------------------------------------------- generative


def test_generative_perplexity_is_the_judges_mean_over_all_tokens(runs):
    writer, judge = runs["armd_0"], runs["judge"]
    found = generated(writer, judge, streams=2, n_samples=5, batch_size=3, seed=4)
    texts = torch.cat(
        [
            generate(writer.model, length=16, streams=2, batch_size=n, seed=seeded(4, i).initial_seed())
            for i, n in enumerate((3, 2))
        ]
    )
    with torch.no_grad():
        nats = nll(judge.model, texts, None, "none").double()
        own = nll(writer.model, texts, GenerationOrder.strided(16, 2), "none").double()
    assert found.nats_per_token == pytest.approx(float(nats.mean()), abs=1e-6)
    assert found.standard_error == pytest.approx(float(nats.mean(-1).std()) / math.sqrt(5), rel=1e-5)
    assert found.own_nats_per_token == pytest.approx(float(own.mean()), abs=1e-5)
    entropies = []
    for row in texts.tolist():
        shares = [row.count(token) / 16 for token in set(row)]
        entropies.append(-sum(share * math.log(share) for share in shares))
    assert found.entropy == pytest.approx(sum(entropies) / 5)
    assert found.entropy_in_bits == pytest.approx(found.entropy / math.log(2))
    assert found.n_calls == 2 + 16 // 2 - 1


def test_a_generative_figure_states_its_conditions(runs):
    said = str(generated(runs["mdlm_0"], runs["judge"], steps=8, n_samples=3, top_p=0.9))
    for part in (
        r"^MDLM of 0\.\d\d M parameters trained on file:\S+, 8 ancestral steps: generative perplexity [\d.]+ \(",
        r" nats or [\d.]+ bits a token\), entropy [\d.]+ \+- [\d.]+ nats or [\d.]+ bits a token; by itself [\d.]+ nats",
        r"distinct-1 [\d.]+, distinct-2",
        r"Judge: AR of 0\.\d\d M parameters trained on file:\S+, in rows of 32, raw ids, exp of the mean over all",
        r"3 samples of 16 tokens in [1-8] network calls a batch, temperature 1, nucleus p 0\.9, seed 0 in",
        r"seed 0 in batches of 64, ",
        r"writer in float32, judge in float32, chance in float64$",
    ):
        assert re.search(part, said), (part, said)


def test_a_generative_figure_is_kept_whole_for_one_writer_and_one_judge(runs, tmp_path):
    writer, judge, other = (runs[name] for name in ("armd_0", "judge", "ar_0"))
    measured = Measured(tmp_path)
    first, again = (measured("armd_0", generated, writer, judge, n_samples=2) for _ in range(2))
    assert again is not first
    assert again == first
    assert measured("armd_0", generated, writer, other, n_samples=2) != first
    assert measured("ar_0", generated, other, judge, n_samples=2) != first
    assert len(list(tmp_path.iterdir())) == 3


def test_of_a_writer_of_tales_a_generative_figure_says_what_the_grammar_says_exactly(runs, monkeypatch, tmp_path):
    """On the tales corpus the truth is known, so it stands beside what a judge thinks."""
    armd, texts = load("tales"), []
    with monkeypatch.context() as patch:
        patch.setattr(generative, "validity", lambda samples: texts.extend(samples) or validity(samples))
        found = generated(armd, load("tales_ar"), streams=4, n_samples=8)
    assert found.tales == validity(texts)
    assert found.tales.parses.whole == len(texts) == 8
    assert not any("<|endoftext|>" in text for text in texts)
    assert f" of the texts differ; by the grammar of tales {found.tales.shares}. Judge: AR of" in str(found)
    measured = Measured(tmp_path)
    kept = [measured("tales", generated, armd, load("tales_ar"), streams=8, n_samples=8) for _ in range(2)]
    assert kept[0].tales.violations
    assert kept[1] is not kept[0]
    assert kept[1] == kept[0]
    for other in (replace(armd, card=armd.card | {"layout": "running"}), runs["ar_0"]):
        unknown = generated(other, runs["judge"], n_samples=1, length=8)
        assert unknown.tales is None
        assert "grammar" not in str(unknown)


def test_a_judge_with_another_tokenizer_reads_the_text_again(runs, budget, tmp_path):
    other = replace(budget, recipes={"judge": replace(budget.recipes["judge"], vocab_size=280)})
    judge = Runs(other, tmp_path, train)["judge"]
    assert generated(runs["ar_0"], judge, n_samples=2).ids == "retokenised"


def test_a_judge_with_other_ids_reads_ends_of_texts_as_ends(runs):
    ids, end = runs["ar_0"].tokenizer, runs["ar_0"].tokenizer.end_of_text
    row = torch.tensor([end, *ids.encode("once upon"), end, *ids.encode(" a time"), end])
    assert _recut(row, ids, ids).tolist() == row.tolist()
    assert generated(runs["ar_0"], runs["judge"], n_samples=1, length=4).length == 4
    with pytest.raises(ValueError, match=r"^n_samples=0 must be at least 1$"):
        generated(runs["ar_0"], runs["judge"], n_samples=0)
    with pytest.raises(ValueError, match="length=0 must be"):
        generated(runs["ar_0"], runs["judge"], length=0)
    with pytest.raises(ValueError, match=r"^judge is the writer itself, which likes its own faults; give a model that"):
        generated(judge := runs["judge"], judge)


def test_a_judge_reads_all_of_a_text_that_is_longer_than_its_rows_and_says_so(runs):
    writer, judge = runs["armd_32"], runs["ar_0"]
    found = generated(writer, judge, n_samples=2, seed=1)
    text = generate(writer.model, length=32, batch_size=2, seed=seeded(1, 0).initial_seed())
    with torch.no_grad():
        nats = nll(judge.model, text.view(4, 16), None, "none").double()
    assert found.nats_per_token == pytest.approx(float(nats.mean()), abs=1e-6)
    said = "in rows of 16 (longer are 2 of 2 texts, read in parts, blind across their seams), raw ids"
    assert said in str(found)
    recut = [torch.zeros(n, dtype=torch.int64) for n in (15, 17, 16)]  # by another tokenizer lengths differ
    assert _rows_in_words(judge, recut).startswith("in rows of 16 (longer are 1 of 3 texts, ")


def test_each_of_writer_and_judge_says_in_what_it_computes(runs):
    writer, judge = runs["ar_0"], runs["judge"]
    rounded = replace(judge, model=deepcopy(judge.model).bfloat16())
    assert generated(writer, rounded, n_samples=2).precision == "writer in float32, judge in bfloat16"


def test_a_judge_that_was_left_in_training_judges_without_dropout(runs):
    writer, judge = runs["ar_0"], runs["judge"]
    dropped = replace(judge, model=AR(replace(judge.model.config, dropout=0.5)))
    dropped.model.load_state_dict(judge.model.state_dict())
    dropped.model.train()
    expected, found = (generated(writer, lab, n_samples=3).nats_per_token for lab in (judge, dropped))
    assert found == pytest.approx(expected)
    assert dropped.model.training  # as it was


def test_network_calls_of_a_figure_are_the_most_that_a_batch_took(runs):
    """Where a batch draws an order that leaves more steps out, it takes fewer calls."""

    def calls(seed):
        drawn = ((n, seeded(seed, batch, 5)) for batch, n in enumerate((4, 1)))
        return [GenerationOrder.masking_process(16, 16, batch_size=n, generator=g).n_blocks for n, g in drawn]

    seed = next(seed for seed in range(99) if calls(seed)[1] < calls(seed)[0])
    found = generated(runs["mdlm_0"], runs["judge"], steps=16, n_samples=5, batch_size=4, seed=seed)
    assert found.n_calls == calls(seed)[0]


def test_steps_are_for_masked_diffusion_alone(runs):
    sentence = "steps=4 with streams=1 for ARMD: steps are for masked diffusion alone, in place of streams"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        generated(runs["armd_0"], runs["judge"], steps=4)
    inside = generated(runs["block_0"], runs["judge"], steps=2, n_samples=2)
    assert inside.order == "2 ancestral steps for each block of 4"
    assert inside.n_calls <= 8


# -------------------------------------------------------------------------------------------------------- tables


def test_table_3_holds_each_model_under_its_orders_with_the_papers_figures_beside(runs):
    table = table3(runs)
    by_name = {line.name: line for line in table.lines}
    assert len(by_name) == 6
    tuned = by_name["ARMD, 12 steps"]
    assert tuned.cells.keys() == {"held out", "random orders", "S = 2", "S = 4", "S = 8", "on 3 rows"}
    assert len(tuned.cells["held out"].conditions) == 2
    assert tuned.cells["held out"].over == "2 seeds"
    at_most, exact = (by_name[name].cells for name in ("MDLM, 30 steps, bound", "MDLM, log-mean-exp over 2 orders"))
    assert at_most["held out"].over == exact["on 3 rows"].over == "rows"
    assert exact["on 3 rows"].value < at_most["on 3 rows"].value  # by the same orders: whatever was drawn
    for cell in (at_most["on 3 rows"], exact["on 3 rows"]):
        assert re.search(
            r"random orders \(seed 0\); validation split of \S+, on 3 rows, 48 tokens in", cell.conditions[0]
        )
    assert table.ratio(by_name["AR, 10 steps"], "held out") == 1
    assert "Transformer 22.83" in str(table)
    assert "log-mean-exp over 2 random orders" in str(table)
    before = by_name["ARMD, 10 steps, before streams"].cells["held out"]
    assert before.conditions[0].startswith("perplexity ")
    for part in ("bits a token", "exact, left to right; validation split", "rows of 16, float32"):
        assert part in before.conditions[0]
    assert "at step 10: card of armd_0" in before.conditions[0]
    assert {run: history[-1]["step"] for run, history in table.curves.items()}["mdlm_0"] == 30
    assert json.loads(json.dumps(table.as_json()))["lines"][0]["paper"] == "Transformer 22.83 (1M steps)"
    assert "AR, 10 steps, held out" in bars(table).alt
    assert "mdlm_0 ends at" in curves(table.curves).alt


def test_table_2_compares_every_writer_with_its_own_first_line(runs):
    table = table2(runs)
    assert [line.name.split(",")[0] for line in table.lines] == ["ar_0"] + ["mdlm_0"] * 2 + ["armd_0"] * 4 + [
        "armd_32"
    ] * 2
    strided = table.lines[4].cells["by the judge"].conditions[0]
    assert re.search(
        r"against its first line: perplexity [+-][\d.]+%, entropy [+-][\d.]+%, by itself [+-][\d.]+%", strided
    )
    cells = [line.cells["by the judge"] for line in table.lines]
    assert re.fullmatch(r" \([\d.]+ bits\)", cells[0].note)
    for line, base, first in (
        (2, 1, "its first line"),
        (4, 3, "sequential"),
        (5, 3, "sequential"),
        (6, 3, "sequential"),  # four streams, corrected
        (8, 7, "sequential"),
    ):
        ratio = cells[line].value / cells[base].value
        assert cells[line].note.endswith(f" bits), {ratio:.3f} x {first}")
    assert {cell.over for cell in cells} == {"samples"}
    again = "4 strided streams, corrected where dearer by 1 nat, 2 rounds"
    assert again in table.lines[6].name
    assert again in cells[6].conditions[0]
    assert cells[6].conditions != cells[5].conditions  # of texts this short it may doubt nothing, and says so
    assert "~103 in N steps" in table.lines[1].paper  # whatever the number of steps
    assert "~113 in N/2 steps" in table.lines[2].paper


def test_table_1_reads_other_corpora_by_the_models_own_tokenizer(runs, budget):
    table = table1(runs)
    (column,) = {column for line in table.lines for column in line.cells}
    assert column == budget.zero_shot[0]
    assert all("not trained on" in line.cells[column].conditions[0] for line in table.lines)
    assert all(line.paper.count(" / ") == 4 and "..." not in line.paper for line in table.lines)
    assert table.lines[0].cells[column].value > runs["ar_0"].card["validation"]["perplexity"]


def test_what_is_trained_is_not_trained_again_and_what_stopped_goes_on(budget, tmp_path):
    steps = []

    def stops_at_4(session):
        for moment in session.watch(scores=0):
            steps.append(moment.step.step)
            if moment.step.step == 4:
                return True
        return False

    first = Runs(budget, tmp_path, stops_at_4)
    sentence = f"stopped at step 4 of 10 of ar_0; saved in {tmp_path / 'ar_0'}"
    with pytest.raises(Stopped, match=f"^{re.escape(sentence)}$"):
        first["ar_0"]
    assert first["ar_0"].card["steps"] == 10
    assert steps == list(range(1, 11))
    first["ar_0"]
    assert len(steps) == 10
    card = json.loads((tmp_path / "ar_0" / "card.json").read_text())
    (tmp_path / "ar_0" / "card.json").write_text(json.dumps(card | {"recipe": card["recipe"] | {"of_later": 1}}))
    assert first["ar_0"].card["steps"] == 10  # what a later version wrote besides is left out, as Session.resume does
    other = replace(budget, recipes={"ar_0": replace(budget.recipes["ar_0"], d_model=16)})
    with pytest.raises(
        ValueError, match=r"was trained by another recipe \(d_model was 32, now 16\); choose another --out$"
    ):
        Runs(other, tmp_path, train)["ar_0"]


@pytest.mark.parametrize("table", [table1, table2, table3])
def test_measuring_goes_on_where_it_stopped_and_makes_the_same_table(runs, budget, tmp_path, monkeypatch, table):
    for name in budget.recipes:
        runs[name]
    at_once, in_parts = (tmp_path / name for name in ("at_once", "in_parts"))
    for folder in (at_once, in_parts):
        shutil.copytree(runs.folder, folder, ignore=shutil.ignore_patterns("measured"))
    calls, stops_at = [], None

    def counted(measure):
        @functools.wraps(measure)
        def counting(*args, **how):
            if len(calls) == stops_at:
                raise KeyboardInterrupt
            calls.append(measure)
            return measure(*args, **how)

        return counting

    for name in ("likelihood", "bound", "any_order", "generated"):
        monkeypatch.setattr(reproduce, name, counted(getattr(reproduce, name)))
    expected = table(Runs(budget, at_once, train))
    n, stops_at, said = len(calls), len(calls) + len(calls) // 2, []
    with pytest.raises(KeyboardInterrupt):
        table(Runs(budget, in_parts, train))
    stops_at = None
    found = table(Runs(budget, in_parts, train, say=said.append))
    assert len(calls) == 2 * n
    assert (str(found), found.as_json()) == (str(expected), expected.as_json())
    kept = [sentence for sentence in said if sentence.startswith("kept from before: ")]
    assert len(kept) == n // 2
    assert re.fullmatch(r"kept from before: (ar|armd)_0, left to right, perplexity [\d.]+", kept[0])


@pytest.mark.parametrize("table", [table1, table3])
def test_a_corpus_that_cannot_be_had_fails_before_anything_is_trained(budget, tmp_path, table):
    missing = replace(budget, test="file:nowhere.txt", zero_shot=("file:nowhere.txt",))
    runs = Runs(missing, tmp_path, lambda _: pytest.fail("trained"))
    with pytest.raises(FileNotFoundError, match=r"^nowhere\.txt is not a file; give file:PATH, the path of a"):
        table(runs)


def test_the_corpora_of_writers_and_judge_are_loaded_before_the_first_of_them_is_trained(budget, tmp_path):
    recipes = budget.recipes | {"armd_32": replace(budget.recipes["armd_32"], corpus="file:nowhere.txt")}
    runs = Runs(replace(budget, recipes=recipes), tmp_path, lambda _: pytest.fail("trained"))
    with pytest.raises(FileNotFoundError, match=r"^nowhere\.txt is not a file; give file:PATH, the path of a"):
        table2(runs)


def test_a_judge_whose_rows_are_shorter_than_a_text_is_refused_before_anything_is_trained(budget, tmp_path):
    runs = Runs(replace(budget, judge="ar_1"), tmp_path, lambda _: pytest.fail("trained"))
    sentence = (
        "judge='ar_1' has rows of 16 tokens, and armd_32 writes 32: it would read these texts in parts, blind across "
        "their seams; give it length=32"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        table2(runs)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_judge_reads_rows_as_long_as_the_longest_text_and_learns_from_as_many_tokens_a_step(name):
    recipes = BUDGETS[name].recipes
    judge = recipes[BUDGETS[name].judge]
    writers = [recipes[run] for run in BUDGETS[name].writers]
    assert judge.length == max(writer.length for writer in writers)
    assert {recipe.length * recipe.batch_size for recipe in (judge, *writers)} == {judge.length * judge.batch_size}


def test_a_card_without_the_score_before_streams_leaves_its_cell_empty_and_says_so(runs, budget, tmp_path):
    shutil.copytree(runs.folder, tmp_path / "runs")
    path, said = tmp_path / "runs" / "armd_1" / "card.json", []
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"history": [e for e in card["history"] if e["step"] != 10]}))
    table = table3(Runs(budget, tmp_path / "runs", train, say=said.append))
    assert {line.name: line.cells for line in table.lines}["ARMD, 10 steps, before streams"] == {}
    assert "the card of armd_1 has no score at step 10, before streams; its cell is left empty" in said
    assert "ARMD, 10 steps, before streams" in str(table)
    assert "before streams" not in bars(table).alt


def test_tables_name_the_split_that_was_scored(runs, budget, tmp_path):
    for part in ("train", "test"):
        rows = [json.dumps({"text": f"{part} cow {i} sits on the mat"}) for i in range(60)]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(rows))
    table = table1(Runs(replace(budget, zero_shot=(str(tmp_path),)), runs.folder, train))
    said = table.lines[0].cells[str(tmp_path)].conditions[0]
    assert f"test split of {tmp_path}, not trained on" in said


def test_the_gpu_budget_is_the_papers_settings():
    recipe = BUDGETS["gpu"].recipes["armd_0"]
    assert (recipe.batch_size, recipe.length, recipe.vocab_size) == (512, 1024, "openai-community/gpt2")
    with torch.device("meta"):
        config = ARMDConfig(50_257, recipe.length, **{size: getattr(recipe, size) for size in SIZES})
        assert fresh("armd", config, block_size=16, seed=0).n_parameters == 123_553_152
    plan = recipe.plan.curriculum
    assert (plan.i_ar, plan.i_perm, plan.i_strided, plan.rho, plan.streams) == (9_000, 48_000, 180_000, 32, (1, 2, 4))
    assert recipe.plan.steps - plan.i_strided == 80_000
    news = BUDGETS["gpu"].recipes["armd_news"].plan.curriculum
    assert (news.i_ar, news.i_perm, news.rho, news.length) == (100_000, 300_000, 8, 128)


def test_the_laptop_budget_keeps_to_the_claims_that_it_tests():
    recipes = BUDGETS["laptop"].recipes
    armd, mdlm = recipes["armd_0"].plan, recipes["mdlm_0"]
    assert armd.curriculum.i_strided == recipes["ar_0"].steps == mdlm.steps // 10
    assert armd.steps <= 1.2 * armd.curriculum.i_strided
    same = ("corpus", "length", "vocab_size", "n_layer", "d_model", "batch_size", "learning_rate", "muon", "dropout")
    for name in ("ar_0", "mdlm_0", "block_0"):
        assert all(getattr(recipes[name], key) == getattr(recipes["armd_0"], key) for key in same)


def test_a_table_shows_means_errors_ratios_and_conditions():
    lines = (
        Line("A", {"x": Cell(20.0, 0.5, ("how A",), over="3 seeds")}, "22.83"),
        Line("B", {"x": Cell(19.0, 0.25, ("how B",), " (7.9 bits)"), "y": Cell(30.0, 1.0, ())}),
    )
    said = str(Table("Title", lines, "A"))
    assert "20.00 +- 0.50 (3 seeds) 1.000 x" in said
    assert "19.00 +- 0.25 0.950 x (7.9 bits)" in said
    assert "30.00 +- 1.00" in said
    assert said.endswith("A: how A\nB: how B")


def test_a_curriculum_is_drawn_with_its_marks():
    plan = BUDGETS["laptop"].recipes["armd_0"].plan
    assert curriculum(plan.curriculum, plan.steps).alt == (
        "Left to right for 36 steps; shuffled tokens grow from 1 to 8 until step 96; from step 240 of 288 on, "
        "orders of 1, 2, 4, 8 streams."
    )


def test_a_mixture_is_drawn_as_one_dot_for_each_step_and_says_its_weights(monkeypatch):
    monkeypatch.setattr(Picture, "of", lambda figure, alt: (figure, alt))
    mixture = (("left to right", 4), ("strided", 2), ("one by one", 1), ("infilling", 1))
    plan = Curriculum(16, i_ar=0, i_perm=0, i_strided=10, rho=2, streams=(2, 4), mixture=mixture)
    figure, alt = curriculum(plan, 90)
    assert alt == (
        "Shuffled tokens grow from 1 to 2 until step 0; from step 10 of 90 on, 50 % left to right, 25 % strided, "
        "12 % one by one, 12 % infilling, in orders of 2, 4 streams."
    )
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[1:] == [
        "50 % left to right, no streams",
        "25 % strided, streams S",
        "12 % one by one, streams S",
        "12 % infilling, no streams",
    ]
    dots = {round(step): height for group in axes.collections for step, height in group.get_offsets().tolist()}
    assert dots.keys() == set(range(10, 90))
    for step, height in dots.items():
        assert height == (plan.n_streams(step) if plan.family(step) in ("strided", "one by one") else 0)
    assert axes.get_title(loc="left") == "The curriculum: shuffled, then a mixture of orders"


def test_a_left_to_right_training_has_no_streams_to_draw(monkeypatch):
    monkeypatch.setattr(Picture, "of", lambda figure, alt: (figure, alt))
    figure, alt = curriculum(Curriculum.left_to_right(16), 240)
    assert alt == "Left to right for 240 steps."
    assert not figure.axes[0].collections
