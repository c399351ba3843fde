"""Laws of the lessons: they come from their masters, say what they show, and judge fairly."""

import itertools
import math
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from armdlab import GenerationOrder, lab
from armdlab.baselines import LeakyMask
from armdlab.checks import acceptance as acceptance_checks
from armdlab.checks import curriculum as curriculum_checks
from armdlab.checks import decoding as decoding_checks
from armdlab.checks import likelihood as likelihood_checks
from armdlab.checks import masking as masking_checks
from armdlab.checks import streams as stream_checks
from armdlab.figures import leak_matrix
from armdlab.masks import causal_mask, may_see, strictly_causal_mask
from armdlab.questions import QUESTIONS

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
sys.path.insert(0, str(FOLDER))
import make_lessons  # noqa: E402

LESSONS = sorted(FOLDER.glob("*.ipynb"))
NOTEBOOKS = [*LESSONS, *sorted((FOLDER / "solutions").glob("*.ipynb"))]
SHORT = {"00_start_here"}  # an opening of a quarter of an hour: one exercise, two questions
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.stem}")


def cells(path, kind=None):
    return [c for c in nbformat.read(path, as_version=4).cells if kind is None or c.cell_type == kind]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


def test_every_master_has_its_lesson_and_its_solution_and_they_are_fresh():
    masters = make_lessons.masters()
    assert masters
    assert len(NOTEBOOKS) == 2 * len(masters)
    assert [path for master in masters for path in make_lessons.stale(master)] == []


def test_a_changed_master_makes_its_notebooks_stale(tmp_path, monkeypatch):
    master = make_lessons.masters()[0]
    changed = tmp_path / master.name
    changed.write_text(master.read_text().replace("seed=1", "seed=2"))
    assert changed.read_text() != master.read_text()
    assert len(make_lessons.stale(changed)) == 2


@each_notebook
def test_every_code_cell_was_run_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))  # nbval never compares a cell whose count is null


@each_notebook
def test_nothing_stored_depends_on_a_machine(path):
    pictures = re.compile(r"base64,[A-Za-z0-9+/=]+")  # in which any letters may stand by chance
    text = pictures.sub("", path.read_text(encoding="utf-8"))
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    assert not re.search(r"0x[0-9a-f]{6,}", text), "an address of an object"
    assert not re.search(r"(/home/|/root/|/Users/|/work/|/tmp/|C:\\\\)", text), "a path of one machine"
    assert not [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"]


@each_notebook
def test_every_picture_has_words(path):
    pictures = [o.data["text/html"] for o in outputs(path) if "<img" in o.get("data", {}).get("text/html", "")]
    assert 4 <= len(pictures) <= 8
    for picture in pictures:
        alt = re.search(r'alt="([^"]*)"', picture)
        assert alt
        assert len(alt[1]) > 40
    assert not [o for o in outputs(path) if "image/png" in o.get("data", {})], "an image that comes without words"
    for cell in cells(path, "markdown"):
        assert not re.search(r"!\[\]\(", cell.source)


@each_notebook
def test_headings_go_down_one_level_at_a_time_and_cells_are_short(path):
    headings = [len(h) for cell in cells(path, "markdown") for h in re.findall(r"^(#+) ", cell.source, re.MULTILINE)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    lengths = sorted(len(cell.source.splitlines()) for cell in cells(path, "code"))
    assert lengths[-1] <= 25
    assert lengths[len(lengths) // 2] <= 6
    folds = [c for c in cells(path) if all(line.startswith("<details>") for line in c.source.splitlines())]
    assert (20 if path.stem in SHORT else 25) <= len(cells(path)) - len(folds) <= 45


@each_notebook
def test_links_to_files_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        found = re.findall(r"\]\(([^)#\s]+)", cell.source) + re.findall(r'href="([^"#]+)"', cell.source)
        for target in found:
            if not target.startswith("http"):
                assert (path.parent / target).exists(), target


@each_notebook
def test_a_lesson_starts_and_finishes_by_its_own_number(path):
    number = path.stem[:2]
    codes = [cell.source for cell in cells(path, "code")]
    assert codes[0].endswith(f'lab.start("{number}")')
    assert codes[-1].startswith(f'lab.finish("{number}", ')
    assert f"# {number.upper()} {lab.LESSONS[number]}" == cells(path)[0].source.splitlines()[0]


@each_notebook
def test_every_lesson_links_the_glossary(path):
    assert "README.md#glossary)" in cells(path)[0].source
    assert "\n## Glossary\n" in (FOLDER / "README.md").read_text(encoding="utf-8")


def lesson_with(fault, folder):
    """A copy of the first lesson, among all that it links to, into which `fault` has planted something."""
    shutil.copytree(FOLDER, folder / "notebooks")
    for name in ("README.md", "data", "armdlab", "tests"):
        (folder / name).symlink_to(FOLDER.parent / name)
    path = folder / "notebooks" / LESSONS[0].name
    notebook = nbformat.read(path, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    fault(notebook, codes, texts)
    nbformat.write(notebook, path)
    return path


def printed(text):
    return lambda notebook, codes, texts: codes[0].outputs[0].update(text=text)


def without_words(notebook, codes, texts):
    output = next(o for cell in codes for o in cell.outputs if "<img" in o.get("data", {}).get("text/html", ""))
    output.data["text/html"] = re.sub('alt="[^"]*"', "", output.data["text/html"])


headings_and_cells = test_headings_go_down_one_level_at_a_time_and_cells_are_short
own_number = test_a_lesson_starts_and_finishes_by_its_own_number
FAULTS = [
    (test_every_code_cell_was_run_in_order, lambda n, codes, texts: codes[3].update(execution_count=None)),
    (test_nothing_stored_depends_on_a_machine, lambda n, codes, texts: n.metadata.update(widgets={"a": 1})),
    (test_nothing_stored_depends_on_a_machine, printed("<armdlab.Thing object at 0x7f3a9c41d2b0>")),
    (test_nothing_stored_depends_on_a_machine, printed("written to /home/ada/runs")),
    (test_nothing_stored_depends_on_a_machine, printed("C:\\Users\\ada")),
    (test_every_picture_has_words, without_words),
    (test_every_picture_has_words, lambda n, codes, texts: texts[1].update(source="![](picture.png)")),
    (
        test_headings_go_down_one_level_at_a_time_and_cells_are_short,
        lambda n, c, texts: texts[1].update(source="#### x"),
    ),
    (headings_and_cells, lambda n, c, texts: texts[1].update(source="# x")),
    (headings_and_cells, lambda n, c, t: c[2].update(source="x = 1\n" * 26)),
    (test_links_to_files_lead_somewhere, lambda n, codes, texts: texts[1].update(source="[there](nowhere.ipynb)")),
    (
        test_a_lesson_starts_and_finishes_by_its_own_number,
        lambda n, codes, t: codes[0].update(source='lab.start("02")'),
    ),
    (test_every_lesson_links_the_glossary, lambda n, codes, texts: texts[0].update(source="# 00 Start here")),
]


@pytest.mark.parametrize(("law", "fault"), FAULTS, ids=lambda part: getattr(part, "__name__", ""))
def test_a_planted_fault_breaks_its_law(law, fault, tmp_path):
    law(lesson_with(lambda *_: None, tmp_path / "whole"))
    with pytest.raises(AssertionError):
        law(lesson_with(fault, tmp_path / "faulty"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_lesson_and_solution_differ_in_exercises_only(path):
    pairs = list(zip(cells(path), cells(FOLDER / "solutions" / path.name), strict=True))
    differing = [(a, b) for a, b in pairs[1:] if a.source != re.sub(r"""(\]\(|href=")\.\./""", r"\1", b.source)]
    assert (1 if path.stem in SHORT else 2) <= len(differing) <= 3
    for lesson, solution in differing:
        assert lesson.cell_type == "code"
        assert "your code" in lesson.source or "change this" in lesson.source
        assert "SOLUTION" not in solution.source


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_stubs_are_judged_open_and_solutions_passed(path):
    for source, expected in ((path, "not yet"), (FOLDER / "solutions" / path.name, "passed")):
        judged = [c for c in cells(source, "code") if re.search(r"= checks\.", c.source)]
        assert len(judged) >= (1 if path.stem in SHORT else 2)
        assert all(c.outputs[-1].data["text/plain"].startswith(expected) for c in judged)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_questions_are_asked_before_they_are_answered(path):
    asked = {
        re.search(r'lab\.predict\("([^"]+)"', cell.source)[1]: above
        for above, cell in itertools.pairwise(cells(path))
        if cell.cell_type == "code" and "lab.predict" in cell.source
    }
    assert len(asked) >= (2 if path.stem in SHORT else 3)
    assert asked.keys() <= QUESTIONS.keys()
    assert all(QUESTIONS[name].answer in QUESTIONS[name].letters for name in asked)
    for name, above in asked.items():
        assert above.cell_type == "markdown", name
        assert re.findall(r"^- \*\*(\w)\*\* \S", above.source, re.MULTILINE) == list(QUESTIONS[name].letters), name


# ---------------------------------------------------------------------------------------------------- the judges


def right_steps(times):
    return [[j for j, tau in enumerate(times) if tau == t] for t in sorted(set(times), reverse=True)]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda times: None, "nothing is returned: fill in the stub above"),
        (lambda times: right_steps(times)[::-1], "your order is reversed: for times [2, 3, 1, 3, 2, 1] it begins with"),
        (
            lambda times: [[j] for step in right_steps(times) for j in step],
            "ties are split: for times [2, 3, 1, 3, 2, 1] positions 1 and 3 were masked at the same step",
        ),
        (lambda times: right_steps(times)[1:], "every position 0 to 5 must appear once"),
        (lambda times: times[9], "your function stopped with IndexError: list index out of range"),
        (lambda times: 3, "a list of lists of positions is wanted; yours is 3"),
        (lambda times: [["a", None]], "a list of lists of positions is wanted; yours is [['a', None]]"),
        (lambda times: [*right_steps(times), []], "a step of yours is empty"),
        (lambda times: [[j + 1 for j in step] for step in right_steps(times)], "count them from 0, as Python does"),
        (lambda times: [list(range(len(times)))], "steps are merged: for times [2, 3, 1, 3, 2, 1] you make positions"),
        (
            lambda times: [*right_steps(times)[:-2], right_steps(times)[-1], right_steps(times)[-2]],
            "the steps should be",
        ),
    ],
)
def test_judge_of_orders_names_the_mistake(function, sentence):
    verdict = masking_checks.order_from_masking(function)
    assert not verdict.passed
    assert sentence in repr(verdict)


def test_judge_of_orders_passes_the_right_answer_in_any_form():
    assert masking_checks.order_from_masking(right_steps).passed
    assert masking_checks.order_from_masking(lambda times: [step[::-1] for step in right_steps(times)]).passed
    assert masking_checks.order_from_masking(lambda times: tuple(map(torch.tensor, right_steps(times)))).passed


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda b: None, "nothing is returned"),
        (lambda b: (b[None] < b[:, None], b[None] < b[:, None]), "you used < where M^c needs <=: token 0 cannot see"),
        (lambda b: (b[None] <= b[:, None], b[None] <= b[:, None]), "you used <= where M^sc needs <: token 0 sees"),
        (lambda b: ((b[None] <= b[:, None]).T, b[None] < b[:, None]), "M^c is transposed: row n says"),
        (
            lambda b: (torch.ones(len(b), len(b)).tril().bool(), b[None] < b[:, None]),
            "M^c is the plain triangle: token 2 and token 3 are compared by rank, not by block",
        ),
        (lambda b: (b[None] <= b[:, None]).float(), "return two tensors, M^c and M^sc; yours is Tensor"),
        (lambda b: ((b[None] <= b[:, None]).float(), b[None] < b[:, None]), "M^c holds torch.float32; compare"),
        (lambda b: (b[None] < b[:, None], b[None] <= b[:, None]), "your two masks are swapped: return M^c"),
        (lambda b: (b[None] <= b[:, None], 3), "yours is tuple of Tensor, int"),
        (lambda b: (b, b), "M^c has shape (6,); it should be (6, 6), a row a token"),
    ],
)
def test_judge_of_masks_names_the_mistake(function, sentence):
    verdict = masking_checks.masks(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_masks_passes_the_right_answer():
    assert masking_checks.masks(lambda b: (b[None] <= b[:, None], b[None] < b[:, None])).passed
    assert masking_checks.masks(lambda b: [b[None] <= b[:, None], b[None] < b[:, None]]).passed


def test_judge_of_leaks_counts_cells():
    from strategies import random_tokens, tiny

    model = tiny(LeakyMask)
    tokens = random_tokens(model, 1, 6)
    for order, cells_leaking in ((GenerationOrder.left_to_right(6), 5), (GenerationOrder.strided(6, 3), 9)):
        verdict = masking_checks.leaks(leak_matrix(model, tokens, order), order, wanted=9)
        assert verdict.passed == (cells_leaking == 9)
        assert f"{cells_leaking} cells" in verdict.sentence


def test_masks_of_the_lesson_hold_the_cells_that_it_states():
    order = GenerationOrder.from_masking_times([2, 3, 1, 3, 2, 1])
    assert (int(causal_mask(order).sum()), int(strictly_causal_mask(order).sum())) == (24, 12)


# ------------------------------------------------------------------------------------- the judges of lesson 02


def strict(blocks):
    return (blocks[None, :] < blocks[:, None]).double()


def strict_sum_by_loop(pe, x, blocks):
    """A slow reference that is obviously right."""
    rows = [
        sum(((pe[n] @ pe[i]) * x[i] for i in range(len(x)) if blocks[i] < blocks[n]), torch.zeros_like(x[0]))
        for n in range(len(x))
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda pe, x, b: None, "nothing is returned: fill in the stub above"),
        (lambda pe, x, b: pe @ x, "your function stopped with RuntimeError: mat1 and mat2"),
        (lambda pe, x, b: pe @ pe.T, "return G^0, a tensor of shape (6, 7) like X; yours is a tensor of shape (6, 6)"),
        (lambda pe, x, b: 3, "return G^0, a tensor of shape (6, 7) like X; yours is int"),
        (lambda pe, x, b: (pe @ pe.T * (b[None] <= b[:, None])) @ x, "you used <= where M^sc needs <, so a target's"),
        (lambda pe, x, b: pe @ pe.T @ x, "the mask is missing: every target sums over all tokens"),
        (lambda pe, x, b: strict(b) @ x, "the weights are missing: multiply each token by <PE_n, PE_i>"),
        (lambda pe, x, b: (pe @ pe.T * strict(b).T) @ x, "the mask is transposed: row n of the sum"),
        (lambda pe, x, b: (pe @ pe.T).tril(-1) @ x, "you compare ranks, not blocks: tokens made together"),
        (
            lambda pe, x, b: strict_sum_by_loop(pe, x, b) / strict(b).sum(-1, keepdim=True).clamp(min=1),
            "you divide by the number of earlier tokens",
        ),
        (
            lambda pe, x, b: (pe @ pe.T).masked_fill(strict(b) == 0, -torch.inf).softmax(-1).nan_to_num() @ x,
            "there is no softmax in eq. (6)",
        ),
        (
            lambda pe, x, b: (pe @ pe.T).masked_fill(strict(b) == 0, -torch.inf).softmax(-1) @ x,
            "there is no softmax in eq. (6)",
        ),
        (
            lambda pe, x, b: strict_sum_by_loop(pe, x, b) / strict(b).sum(-1, keepdim=True),
            "you divide by the number of earlier tokens",
        ),
        (
            lambda pe, x, b: (pe @ pe.T).masked_fill(strict(b) == 0, -torch.inf) @ x,
            "G^0 holds nan or inf: eq. (6) has no",
        ),
        (lambda pe, x, b: 2 * strict_sum_by_loop(pe, x, b), "for blocks [0, 1, 2, 2, 3, 3] row 1 should begin with"),
    ],
)
def test_judge_of_prefix_aggregation_names_the_mistake(function, sentence):
    verdict = stream_checks.prefix_aggregation(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_prefix_aggregation_passes_a_matrix_a_loop_and_a_state():
    def by_state(pe, x, blocks):
        state, rows = torch.zeros(pe.shape[1], x.shape[1]).double(), torch.zeros_like(x)
        for block in blocks.unique():
            now = blocks == block
            rows[now] = pe[now] @ state
            state += pe[now].T @ x[now]
        return rows

    for function in (lambda pe, x, b: (pe @ pe.T * strict(b)) @ x, strict_sum_by_loop, by_state):
        assert stream_checks.prefix_aggregation(function).passed


def read(queries, keys, values, allowed, *, scale=True):
    scores = queries @ keys.mT / (keys.shape[-1] ** 0.5 if scale else 1)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values


def streams(qx, qg, k, v, e, t):
    return read(qx, k, v, may_see(e, e)), read(qg, k, v, may_see(t, e, strictly=True))


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda *given: None, "nothing is returned"),
        (lambda qx, *given: qx, "return two tensors, what X reads and what G reads; yours is Tensor"),
        (lambda *given: streams(*given)[::-1], "your two streams are swapped: return what X reads first"),
        (
            lambda qx, qg, k, v, e, t: (read(qx, k, v, may_see(e, e)), read(qg, k, v, may_see(t, e))),
            "G needs M^sc (<), and you gave it M^c (<=): a leak",
        ),
        (
            lambda qx, qg, k, v, e, t: (read(qx, k, v, may_see(e, e, strictly=True)), streams(qx, qg, k, v, e, t)[1]),
            "X needs M^c (<=), and you gave it M^sc (<)",
        ),
        (
            lambda qx, qg, k, v, e, t: (
                read(qx, k, v, may_see(e, e), scale=False),
                read(qg, k, v, may_see(t, e, strictly=True), scale=False),
            ),
            "X divides its scores by nothing; divide by the root of d = 8",
        ),
        (
            lambda qx, qg, k, v, e, t: ((qx @ k.mT / 8**0.5).softmax(-1) * may_see(e, e) @ v, qg),
            "X is masked after the softmax, so its weights do not sum to 1",
        ),
        (
            lambda qx, qg, k, v, e, t: ((qx @ k.mT / 8**0.5).masked_fill(~may_see(e, e), 0).softmax(-1) @ v, qg),
            "forbidden scores of X become 0, which still weighs e^0 = 1",
        ),
        (lambda qx, qg, k, v, e, t: ((qx @ k.mT / 8**0.5).softmax(-1) @ v, qg), "X reads without a mask"),
        (lambda qx, qg, k, v, e, t: (streams(qx, qg, k, k, e, t)[0], qg), "X reads keys; what the weights mix is"),
        (lambda qx, qg, k, v, e, t: (qx[:, 0], qg), "X reads (2, 7, 8); it should be (2, 3, 7, 8), a row a query"),
        (lambda qx, qg, k, v, e, t: (qx, qg), "what X reads differs from the package's attention by up to"),
        (lambda qx, qg, k, v, e, t: (qx * torch.nan, qg), "X holds nan: a row that may see nothing has no softmax"),
    ],
)
def test_judge_of_two_streams_names_the_mistake(function, sentence):
    verdict = stream_checks.two_stream_attention(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_two_streams_passes_the_right_answer():
    assert stream_checks.two_stream_attention(streams).passed
    assert stream_checks.two_stream_attention(lambda *given: list(streams(*given))).passed


def moves(model, tokens, order, *, put=None, tolerance=0.0):
    rows = []
    with torch.no_grad():
        before = model(tokens, order)
        for p in range(tokens.shape[1]):
            changed = tokens.clone()
            changed[0, p] = (changed[0, p] + 1) % model.config.vocab_size if put is None else put
            rows.append(((model(changed, order) - before).abs() > tolerance).any(-1)[0])
    return torch.stack(rows)


def leak_test(model, tokens, order, **how):
    blocks = order.blocks_in_text_order
    return moves(model, tokens, order, **how) & (blocks[None, :] <= blocks[:, None])


def in_place(model, tokens, order):
    tokens[0, 0] = 5
    return leak_test(model, tokens, order)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda m, t, o: None, "nothing is returned"),
        (
            lambda m, t, o: leak_test(m, t, o).any(),
            "return a tensor of shape (6, 6), [changed token, output]; yours is",
        ),
        (lambda m, t, o: leak_test(m, t, o).float(), "your answer holds torch.float32; say True or False"),
        (in_place, "your test changed the tokens that it was given; change a clone of them"),
        (moves, "on ARMD your answer counts every output that moves; those of LATER blocks"),
        (lambda m, t, o: leak_test(m, t, o) & torch.eye(6).bool(), "looks at the changed token's own output alone"),
        (
            lambda m, t, o: moves(m, t, o) & (o.blocks_in_text_order < o.blocks_in_text_order[:, None]),
            "on LeakyQuery your answer finds no leak inside a block",
        ),
        (lambda m, t, o: ~leak_test(m, t, o), "on ARMD your answer has no mistake but its sign"),
        (lambda m, t, o: leak_test(m, t, o)[o.positions][:, o.positions], "has rows and columns by rank"),
        (lambda m, t, o: leak_test(m, t, o).T, "is transposed: the row is the token that you change"),
        (lambda m, t, o: leak_test(m, t, o, put=0), "at positions [0, 4] the token is 0, and you seem to put the same"),
        (lambda m, t, o: leak_test(m, t, o, tolerance=1e-5), "compare bit by bit (!=), with no tolerance"),
        (
            lambda m, t, o: leak_test(m, t, o) & (torch.arange(6) < 5),
            "on LeakyQuery, when token 2 (block 2) is changed, output 5 (block 2) moves, which is a leak",
        ),
        (lambda m, t, o: t[9], "your function stopped with IndexError"),
    ],
)
def test_judge_of_leak_tests_names_the_mistake(function, sentence):
    verdict = stream_checks.leak_test(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_leak_tests_passes_the_right_answer_and_leaves_chance_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert stream_checks.leak_test(leak_test).passed
    assert torch.equal(torch.rand(1), expected)


# ------------------------------------------------------------------------------------- the judges of lesson 03


def log_p_of(logits, tokens, axis=-1):
    return logits.log_softmax(axis).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda z, t: None, "nothing is returned"),
        (lambda z, t: log_p_of(z, t).sum(-1), "yours is log p, below 0; nats count surprise, so turn the sign"),
        (lambda z, t: -log_p_of(z, t).sum(-1) / math.log(2), "yours is in bits; take the natural logarithm"),
        (lambda z, t: -log_p_of(z, t).mean(-1), "yours is the mean over tokens; the chances of all tokens multiply"),
        (lambda z, t: log_p_of(z, t).sum(-1).exp(), "yours is p itself; take its logarithm"),
        (lambda z, t: -log_p_of(z[:, :-1], t[:, 1:]).sum(-1), "you shift logits by one, as for an AR model"),
        (lambda z, t: -z.gather(-1, t[..., None])[..., 0].sum(-1), "you sum logits; they are no log-probabilities"),
        (lambda z, t: -log_p_of(z, t, axis=1).sum(-1), "your softmax runs over positions"),
        (lambda z, t: -log_p_of(z, t), "return one number a text, a tensor of shape (3,); yours is a tensor of shape"),
        (lambda z, t: float(-log_p_of(z, t).sum()), "for logits of shape (3, 5, 7) return one number a text"),
        (lambda z, t: -log_p_of(z, t).sum(-1) + 1, "for logits of shape (3, 5, 7) the first should be"),
    ],
)
def test_judge_of_prices_names_the_mistake(function, sentence):
    verdict = likelihood_checks.nats_of_texts(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda nats: None, "nothing is returned"),
        (lambda nats: nats.mean(0), "yours is the mean of the nats, which is the bound"),
        (lambda nats: nats.amin(0), "yours is the cheapest order"),
        (lambda nats: -(-nats).logsumexp(0), "you sum over the 4 orders and do not divide by K: log K is missing"),
        (lambda nats: (-nats).logsumexp(0) - math.log(len(nats)), "yours is below 0; give nats, -log of the mean"),
        (lambda nats: nats.neg().exp().mean(0), "yours is the mean probability; take -log of it"),
        (lambda nats: nats.exp().mean(0).log(), "you take exp of nats, not of minus nats"),
        (lambda nats: -nats.neg().exp().mean(0).log(), "exp(-nats) is 0 in float64, and its log is infinite"),
        (lambda nats: math.log(3) - (-nats).logsumexp(1), "return one number a text, the mean over axis 0"),
        (lambda nats: nats.amax(0), "for 4 orders of 3 texts of about 2 nats the first should be"),
    ],
)
def test_judge_of_means_over_orders_names_the_mistake(function, sentence):
    verdict = likelihood_checks.log_mean_exp(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda log_p, m: None, "nothing is returned"),
        (lambda log_p, m: -(log_p * m).sum(-1), "you sum the masked tokens without a weight"),
        (lambda log_p, m: -(log_p * m).sum(-1) / m.sum(-1), "your weight is 1/k, which gives nats a token"),
        (lambda log_p, m: -(log_p * m).sum(-1) * m.double().mean(-1), "your weight is k/N; the fewer are masked"),
        (lambda log_p, m: (log_p * m).sum(-1) / m.double().mean(-1), "yours is below 0; nats are -log p"),
        (lambda log_p, m: -log_p.sum(-1) / m.double().mean(-1), "you score all tokens; those that are not masked"),
        (lambda log_p, m: -(log_p * ~m).sum(-1) / m.double().mean(-1), "you score what is NOT masked"),
        (lambda log_p, m: -(log_p * m).sum(-1) / m.double().mean(), "you count k over the whole batch"),
        (lambda log_p, m: -(log_p * m).sum(), "return one number a text, a tensor of shape (3,)"),
        (lambda log_p, m: log_p[:, 0], "for 3 texts of 5 tokens with [2, 3, 4] masked the first should be"),
    ],
)
def test_judge_of_one_call_bounds_names_the_mistake(function, sentence):
    verdict = likelihood_checks.one_call_bound(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judges_of_lesson_03_pass_right_answers():
    assert likelihood_checks.nats_of_texts(lambda z, t: -log_p_of(z, t).sum(-1)).passed
    assert likelihood_checks.log_mean_exp(lambda nats: math.log(len(nats)) - (-nats).logsumexp(0)).passed

    def by_loop(nats):
        least = nats.amin(0)
        return least - (least - nats).exp().mean(0).log()

    assert likelihood_checks.log_mean_exp(by_loop).passed
    assert likelihood_checks.one_call_bound(lambda log_p, m: -(log_p * m).sum(-1) / m.double().mean(-1)).passed


# ------------------------------------------------------------------------------------- the judges of lesson 04


def right_ramp(step, i_ar, i_perm, rho):
    if step < i_ar or rho == 0:
        return 0
    return rho if step >= i_perm else 1 + (rho - 1) * (step - i_ar) // max(1, i_perm - i_ar - 1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda *given: None, "nothing is returned"),
        (
            lambda step, a, p, rho: rho * (step >= a),
            "at step 10 there is a ramp, and 1 of 8 tokens are shuffled; yours",
        ),
        (lambda *given: float(right_ramp(*given)), "for i_AR = 10, i_perm = 40, rho = 8: at step 0 a whole number is"),
        (lambda step, a, p, rho: 1 + (rho - 1) * (step - a) // (p - a - 1), "at step 0 the order is left to right, so"),
        (lambda step, a, p, rho: max(0, rho * (step - a) // (p - a)), "at step 10 the first token is shuffled, so the"),
        (
            lambda step, a, p, rho: 0 if step < a else 1 + (rho - 1) * (step - a) // (p - a - 1),
            "at step 44 the ramp is over and 8 tokens are shuffled; yours grows on, to 9",
        ),
        (
            lambda step, a, p, rho: right_ramp(step, a, p + 1, rho) if step < p else rho,
            "at step 27 yours is 4, not 5: the ramp has i_perm - i_AR - 1 intervals, and ends at rho",
        ),
        (
            lambda step, a, p, rho: 0 if step < a else rho if step >= p else 1 + (rho - 1) * (step - a) // (p - a - 1),
            "your function stopped with ZeroDivisionError",
        ),
        (
            lambda step, a, p, rho: right_ramp(step, a, p, rho) or int(step >= a),
            "for i_AR = 3, i_perm = 50, rho = 0: at step 3 rho is 0, so no token is ever shuffled; yours is 1",
        ),
        (
            lambda step, a, p, rho: right_ramp(step, a, p, rho) + (step == 20),
            "at step 20 3 tokens are shuffled; yours is",
        ),
    ],
)
def test_judge_of_ramps_names_the_mistake(function, sentence):
    verdict = curriculum_checks.ramp(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def exchanged(length, chosen):
    positions = torch.arange(length)
    positions[chosen.sort().values] = chosen
    return positions


def right_shuffle(length, count, generator):
    return exchanged(length, torch.randperm(length, generator=generator)[:count])


def shuffled_neighbours(length, count, generator):
    start = int(torch.randint(length - count + 1, (), generator=generator))
    return exchanged(length, start + torch.randperm(count, generator=generator))


def rolled(length, count, generator):
    """Always a cycle, never another permutation."""
    chosen, positions = torch.randperm(length, generator=generator)[:count], torch.arange(length)
    positions[chosen] = chosen.roll(1)
    return positions


def fond_of_0(length, count, generator):
    chance = torch.ones(length).index_fill(0, torch.tensor([0]), 20.0)
    return exchanged(length, torch.multinomial(chance, count, generator=generator)) if count else torch.arange(length)


def first_two_exchanged(length, count, generator):
    return exchanged(length, torch.randperm(length, generator=generator)[:2])


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda n, c, g: None, "nothing is returned"),
        (lambda n, c, g: torch.randperm(n, generator=g), "for 3 of 9 at most 3 positions leave their places; in ["),
        (
            lambda n, c, g: torch.randint(n, (n,), generator=g),
            "for 3 of 9 every position 0 to 8 must appear once; yours",
        ),
        (lambda n, c, g: torch.arange(n), "for 3 of 9 nothing moves in 300 draws; the chosen positions must exchange"),
        (
            lambda n, c, g: right_shuffle(n, c, None),
            "for 3 of 9 the same seed gave two orders; draw from the `generator`",
        ),
        (
            lambda n, c, g: right_shuffle(n, c, torch.Generator().manual_seed(3)),
            "for 3 of 9 300 seeds gave one and the same order",
        ),
        (
            lambda n, c, g: exchanged(n, torch.randperm(c, generator=g)),
            "for 3 of 9 positions [3, 4, 5, 6, 7, 8] never move in 300 draws",
        ),
        (rolled, "for 3 of 9 3.0 positions move in the mean of 300 draws, and 2 should"),
        (first_two_exchanged, "positions move in the mean of 300 draws, and 2 should"),
        (fond_of_0, "for 3 of 9 position 0 moves"),
        (shuffled_neighbours, "for 3 of 9 those that move are always neighbours; choose them anywhere"),
        (
            lambda n, c, g: right_shuffle(n, c, g).tolist(),
            "return whole numbers, a tensor of shape (9,); yours is list",
        ),
        (lambda n, c, g: right_shuffle(n, c, g).float(), "yours is torch.float32 of shape (9,)"),
    ],
)
def test_judge_of_shuffles_names_the_mistake(function, sentence):
    verdict = curriculum_checks.shuffled_order(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judges_of_lesson_04_pass_right_answers():
    assert curriculum_checks.ramp(right_ramp).passed
    assert curriculum_checks.shuffled_order(right_shuffle).passed
    for seed in range(5):  # another stream of chance, and still right
        assert curriculum_checks.shuffled_order(
            lambda n, c, g, s=seed: right_shuffle(n, c, torch.Generator().manual_seed(g.initial_seed() + 1000 * s))
        ).passed
    assert curriculum_checks.shuffled_order(
        lambda n, c, g: GenerationOrder.shuffled(n, c, generator=g).positions
    ).passed


# ------------------------------------------------------------------------------------- the judges of lesson 05


def strided(n, s):
    order = GenerationOrder.strided(n, s)
    return order.positions.tolist(), order.blocks.tolist()


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda n, s: None, "nothing is returned: fill in the stub above"),
        (lambda n, s: 3, "for N = 8, S = 2: return two lists, positions and blocks; yours is 3"),
        (lambda n, s: (["a"], [0]), "two lists, positions and blocks of whole numbers; your positions are ['a']"),
        (lambda n, s: (strided(n, s)[0][1:], strided(n, s)[1]), "8 positions and 8 blocks are wanted; yours are 7 and"),
        (lambda n, s: ([p + 1 for p in strided(n, s)[0]], strided(n, s)[1]), "your positions count from 1; count them"),
        (lambda n, s: ([0] * n, strided(n, s)[1]), "every position 0 to 7 must appear once; yours are [0, 0, 0"),
        (
            lambda n, s: (list(range(n)), strided(n, s)[1]),
            "what is made together are neighbours, which need each other most; stream s starts at s * N/S, so rank 1 "
            "is position 4",
        ),
        (lambda n, s: (strided(n, s)[0][::-1], strided(n, s)[1]), "rank 0 is position 0; yours is 7"),
        (
            lambda n, s: (strided(n, s)[0], [r // s for r in range(n)]),
            "your 2 heads share block 0, so they are drawn from nothing and know nothing of each other",
        ),
        (lambda n, s: (strided(n, s)[0], list(range(n))), "every token has a block of its own, 8 steps"),
        (
            lambda n, s: (strided(n, s)[0], [max(0, r // s - 1) for r in range(n)]),
            "heads and the tokens behind them share a block",
        ),
        (
            lambda n, s: (strided(n, s)[0], [b + 1 for b in strided(n, s)[1]]),
            "rank 0, position 0, is in block 0; yours is 1",
        ),
    ],
)
def test_judge_of_strided_orders_names_the_mistake(function, sentence):
    verdict = decoding_checks.strided_order(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda steps, k: None, "nothing is returned"),
        (lambda steps, k: (steps[k - 1], steps[k]), "before call 0 nothing is known but BOS, so no token goes in"),
        (lambda steps, k: (steps[k + 1], []), "the targets are what this call makes, [0]; yours are []"),
        (
            lambda steps, k: ([p for step in steps[:k] for p in step], steps[k]),
            "N = 8, S = 2, call 2: [0, 4] all go in again; the cache holds what earlier calls took in, so only what "
            "the last call made is new, [4]",
        ),
        (
            lambda steps, k: (steps[k], steps[k]),
            "the evidence holds position 0, which this very call is to make: its token is not known yet",
        ),
        (
            lambda steps, k: (steps[k - 1][-1:] if k else [], steps[k]),
            "call 3: positions [1] were made by the last call too, and no later call will take them in",
        ),
        (lambda steps, k: (steps[k], steps[k - 1] if k else []), "call 0: your two lists are swapped"),
        (lambda steps, k: (steps[k - 2] if k > 1 else [], steps[k]), "positions [0] were made by the last call too"),
        (
            lambda steps, k: (steps[max(k - 2, 0)] if k else [], steps[k]),
            "the evidence is what the last call made, [4]; yours is [0]",
        ),
    ],
)
def test_judge_of_the_rows_of_a_call_names_the_mistake(function, sentence):
    verdict = decoding_checks.rows_of_a_call(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judges_of_decoding_pass_the_right_answers_in_any_form():
    assert decoding_checks.strided_order(strided).passed
    assert decoding_checks.strided_order(lambda n, s: tuple(map(torch.tensor, strided(n, s)))).passed
    assert decoding_checks.rows_of_a_call(lambda steps, k: (steps[k - 1] if k else [], steps[k])).passed
    assert decoding_checks.rows_of_a_call(lambda steps, k: (steps[k - 1][::-1] if k else (), steps[k][::-1])).passed


# ------------------------------------------------------------------------------------- the judges of lesson 06


def right_acceptance(p, q):
    return (p / q).clamp(max=1)


def right_residual(p, q):
    left = (p - q).clamp(min=0)
    return left / left.sum()


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda p, q: None, "nothing is returned"),
        (lambda p, q: p / q, "you accept with p / q, which is above 1 where q drafts too seldom"),
        (lambda p, q: (q / p).clamp(max=1), "you accept with min(1, q / p), the wrong way round"),
        (lambda p, q: p, "you accept with p; a draft has come with chance q already"),
        (torch.minimum, "you accept with min(p, q), the chance of drafting AND keeping x"),
        (lambda p, q: torch.ones_like(p), "you accept every draft, so that texts are those of q"),
        (lambda p, q: (p >= q).double(), "you refuse every draft that q makes too often; it may stay"),
        (lambda p, q: right_acceptance(p, q) - 2, "must hold chances, from 0 to 1; yours are [-1.000, -1.000, -1.667]"),
        (lambda p, q: 0.5 * right_acceptance(p, q), "the token that is kept has chances ["),
        (lambda p, q: 0.5, "accept_probability returns one chance for each token, a tensor of shape (3,); yours is fl"),
    ],
)
def test_judge_of_acceptance_names_the_mistake(function, sentence):
    verdict = acceptance_checks.acceptance_rule(function, right_residual)
    assert not verdict.passed
    assert sentence in verdict.sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda p, q: None, "nothing is returned"),
        (lambda p, q: p - q, "you do not clip p - q: where q is above p nothing is left"),
        (lambda p, q: (p - q) / (p - q).sum(), "you divide p - q by its sum, which is 0; clip it at 0 first"),
        (lambda p, q: (p - q).clamp(min=0), "you do not divide by the sum, so the residual does not sum to 1"),
        (lambda p, q: p, "you draw from p; what q drafts too often is then made too often"),
        (lambda p, q: q, "you draw from q again; its mistakes are then made twice"),
        (lambda p, q: (p - q).abs() / (p - q).abs().sum(), "you take |p - q|: where q is above p"),
        (lambda p, q: right_residual(q, p), "you have max(q - p, 0), the wrong way round"),
        (lambda p, q: torch.ones_like(p), "residual must hold chances that sum to 1; yours are [1.000, 1.000, 1.000]"),
        (lambda p, q: torch.ones_like(p) / len(p), "the token that is kept has chances [0.333, 0.333, 0.333]"),
        (lambda p, q: right_residual(p, q)[:1], "residual returns one chance for each token, a tensor of shape (3,)"),
    ],
)
def test_judge_of_residuals_names_the_mistake(function, sentence):
    verdict = acceptance_checks.acceptance_rule(right_acceptance, function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_acceptance_passes_what_is_exact_and_keeps_as_much_as_it_can():
    assert acceptance_checks.acceptance_rule(right_acceptance, right_residual).passed
    by_overlap = acceptance_checks.acceptance_rule(
        lambda p, q: torch.where(q > 0, torch.minimum(p, q) / q.clamp(min=1e-300), 1.0), right_residual
    )
    assert by_overlap.passed
    in_float32 = acceptance_checks.acceptance_rule(
        lambda p, q: torch.tensor([min(1.0, a / b) if b else 1.0 for a, b in zip(p.tolist(), q.tolist(), strict=True)]),
        lambda p, q: right_residual(p.float(), q.float()),
    )
    assert in_float32.passed, in_float32
    idle = acceptance_checks.acceptance_rule(lambda p, q: 0 * p, lambda p, q: p)
    assert not idle.passed
    assert "the result is exact, but drafts stay with chance 0.00 only, and 0.60 is possible" in idle.sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda a: None, "nothing is returned"),
        (lambda a: a.cumprod(0).sum(), "you count the drafts that pass, and the call draws one token more"),
        (lambda a: 1 + a[:-1].cumprod(0).sum(), "you let the last draft count for nothing; if all 3 pass"),
        (lambda a: a.sum(), "you add the chances as if each draft counted alone; it counts only if"),
        (lambda a: 1 + a.sum(), "yours is one plus the sum of the chances"),
        (lambda a: 1 + a[:-1].sum(), "a call makes 2.0200 tokens in the mean; yours is 2.3000"),
        (lambda a: (a.mean() ** torch.arange(len(a) + 1)).sum(), "you take the mean chance for all drafts"),
        (lambda a: 1 + a[1:].cumprod(0).sum(), "you leave the first draft out; if it fails"),
        (lambda a: a.prod(), "yours is the chance that the whole window passes"),
        (lambda a: (len(a) + 1) * a.prod(), "yours is 4 times the chance that the whole window passes"),
        (lambda a: a, "return one number; yours is a tensor of shape (3,)"),
        (lambda a: "2", "for chances [0.5, 0.8, 0.3] a call makes 2.0200 tokens in the mean; yours is 2.0000"),
        (lambda a: [1.9], "return one number; yours is list"),
    ],
)
def test_judge_of_tokens_per_call_names_the_mistake(function, sentence):
    verdict = acceptance_checks.tokens_per_call(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_tokens_per_call_passes_a_tensor_and_a_loop():
    assert acceptance_checks.tokens_per_call(lambda a: 1 + a.cumprod(0).sum()).passed

    def by_loop(a):
        made, goes_on = 1.0, 1.0
        for chance in a.tolist():
            goes_on *= chance
            made += goes_on
        return made

    assert acceptance_checks.tokens_per_call(by_loop).passed
