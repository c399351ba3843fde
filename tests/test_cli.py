"""Laws of the command line: results to stdout, progress to stderr, a sentence instead of a traceback."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from armdlab.budgets import BUDGETS, Budget
from armdlab.cli import main
from armdlab.doctor import Finding, examine
from armdlab.evaluation import likelihood
from armdlab.recipes import Recipe, Session
from armdlab.trained import load

TEXT = "\n\n".join(
    f"The {kind} number {i} sits on the {place}."
    for i in range(90)
    for kind in ("cat", "dog")
    for place in ("mat", "hill")
)
SMALL = ["--length", "32", "--n-layer", "2", "--d-model", "32", "--vocab-size", "300", "--batch-size", "4"]


def armdlab(*arguments, cwd=None):
    environment = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "armdlab.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    """Folders of untrained models: of masked diffusion, of left to right alone, and of any order."""
    folder = tmp_path_factory.mktemp("diffusion")
    (folder / "cats.txt").write_text(TEXT)
    sizes = {"length": 32, "n_layer": 2, "d_model": 32, "vocab_size": 300, "batch_size": 4, "block_size": 8}
    for model in ("mdlm", "block", "ar", "armd"):
        Session.begin(Recipe(model=model, corpus=f"file:{folder / 'cats.txt'}", **sizes), folder / model).save()
    return folder


def test_seams_of_streams_are_judged(diffusion):
    run = armdlab("bench", "seams", diffusion / "armd", "--judge", diffusion / "ar", "--streams", 2, "--samples", 4)
    assert run.returncode == 0, run.stderr
    numbers = [float(number) for number in re.findall(r" ([+-]\d+\.\d)(?=[ ,;])", run.stdout.splitlines()[-1])]
    assert abs(numbers[0] - sum(numbers[1:])) < 0.3  # rounded
    wrong = armdlab("bench", "seams", "tales", "--judge", diffusion / "ar")
    assert wrong.returncode
    assert "has another tokenizer than tales" in wrong.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "cats.txt").write_text(TEXT)
    run = armdlab(
        "train",
        "--corpus",
        f"file:{folder / 'cats.txt'}",
        "--steps",
        30,
        "--out",
        folder / "model",
        "--precision",
        "float32",
        "--json",
        *SMALL,
    )
    assert run.returncode == 0, run.stderr
    return folder, run


def test_training_reports_before_and_after_and_writes_a_card(trained):
    folder, run = trained
    card = json.loads(run.stdout)
    assert card["steps"] == card["planned_steps"] == 30
    assert card["validation"]["nats_per_token"] < card["before"] - 1
    assert card["seed"] == 0
    assert card["versions"].keys() == {"armdlab", "torch", "python"}
    assert "before: perplexity" in run.stderr
    assert "strided" in run.stderr
    names = {path.name for path in (folder / "model").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "card.json",
        "training.json",
        "training_state.safetensors",
        "README.md",
    }


def test_writing_gives_the_text_to_stdout_and_repeats_with_a_seed(trained):
    folder, _ = trained
    first, again = (
        armdlab("generate", folder / "model", "--prompt", "The cat", "--streams", 2, "--tokens", 20, "--seed", 1)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("The cat")
    assert first.stdout == again.stdout
    assert "20 tokens in 11 steps" in first.stderr


def test_live_lanes_go_to_stderr_and_the_text_to_stdout(trained):
    folder, _ = trained
    run = armdlab("generate", folder / "model", "--streams", 4, "--tokens", 16, "--seed", 1, "--live")
    plain = armdlab("generate", folder / "model", "--streams", 4, "--tokens", 16, "--seed", 1)
    assert run.stdout == plain.stdout
    assert all(f"stream {lane}" in run.stderr for lane in (1, 2, 3, 4))
    assert "step 7 of 7   16 of 16 tokens" in run.stderr


def run_main(monkeypatch, capsys, *arguments):
    """The command line inside this process: its exit code and what it said."""
    monkeypatch.setattr("sys.argv", ["armdlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code, said.out, " ".join(said.err.split())


@pytest.mark.parametrize(("model", "most"), [("mdlm", 3), ("block", 3 * 3)])
def test_masked_diffusion_writes_in_as_many_steps_as_asked(diffusion, monkeypatch, capsys, model, most):
    """All 24 tokens behind the prompt, in at most 3 calls for each block of 8 that they fill."""
    how = ("--prompt", "The", "--tokens", 21, "--steps", 3, "--seed", 1)
    (code, out, err), again = (run_main(monkeypatch, capsys, "generate", diffusion / model, *how) for _ in range(2))
    assert code == 0, err
    assert out.startswith("The")
    assert out == again[1]
    calls = int(re.search(r"21 tokens in (\d+) steps", err)[1])
    assert 3 <= calls <= most
    _, live, err = run_main(monkeypatch, capsys, "generate", diffusion / model, *how, "--live")
    assert live == out
    assert f"step {calls} of {calls} 21 of 21 tokens" in err


def test_a_prompt_is_seen_from_the_first_denoising_step(diffusion):
    lab = load(diffusion / "block")
    order = lab.denoising_order(4, length=24, n_known=11, seed=3)
    blocks = order.blocks_in_text_order.tolist()
    assert blocks[:8] == [0] * 8
    assert blocks[8:11] == [1] * 3  # of the model's second block, before the rest of it
    assert min(blocks[11:16]) > 1
    assert min(blocks[16:]) > max(blocks[11:16])
    assert lab.denoising_order(4, length=24, seed=3) == lab.denoising_order(4, length=24, seed=3)
    assert lab.denoising_order(9, length=24) != lab.denoising_order(9, length=24)


def test_what_looks_like_markup_in_a_path_is_printed_as_it_is(diffusion, monkeypatch, capsys):
    folder = diffusion / "[red]x[bold]:cat:"
    shutil.copytree(diffusion / "ar", folder)
    code, _, err = run_main(monkeypatch, capsys, "export", folder, diffusion / "out[red]:cat:")
    assert code == 0
    assert "out[red]:cat:" in err.replace(" ", "")


def test_json_has_null_where_there_is_no_number(diffusion, monkeypatch, capsys, tmp_path):
    """One row alone has no standard error."""
    corpus = tmp_path / "one.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": f"The cat sits on the mat, {n}."}) for n in ("or not", "or so")))
    code, out, err = run_main(monkeypatch, capsys, "evaluate", diffusion / "ar", "--corpus", f"file:{corpus}", "--json")
    assert code == 0, err
    facts = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert facts["results"][0]["standard_error"] is None


def test_what_was_found_goes_into_the_card_if_it_is_to_be_kept(diffusion, monkeypatch, capsys, tmp_path):
    folder = shutil.copytree(diffusion / "ar", tmp_path / "ar")
    before = json.loads((folder / "card.json").read_text())
    for how, kept in (((), set()), (("--keep",), {"figures"})):
        code, out, err = run_main(monkeypatch, capsys, "evaluate", folder, "--json", *how)
        assert code == 0, err
        after = json.loads((folder / "card.json").read_text())
        assert after.keys() - before.keys() == kept
        assert {name: after[name] for name in before} == before
    assert after["figures"] == json.loads(out)


def test_a_text_is_as_long_as_fits_if_no_number_is_asked_for(diffusion, monkeypatch, capsys):
    """Lanes of equal length where there is no prompt, and all that the model can hold behind one."""
    n_prompt = len(load(diffusion / "armd").tokenizer.encode("The cat"))
    for streams in (1, 4, 7):
        for prompt, tokens in (("", 32 // streams * streams), ("The cat", 32 - n_prompt)):
            how = ("--prompt", prompt, "--streams", streams, "--json")
            code, out, err = run_main(monkeypatch, capsys, "generate", diffusion / "armd", *how)
            assert code == 0, err
            assert json.loads(out)["tokens"] == tokens


def test_the_likeliest_of_one_is_the_likeliest(diffusion, monkeypatch, capsys):
    texts = [
        run_main(monkeypatch, capsys, "generate", diffusion / "ar", "--seed", 1, *how)[1]
        for how in (("--top-k", 1), ("--temperature", 0), ())
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("way", [["--verify"], ["--verify-heads"], ["--min-probability", "0.5"]])
def test_other_ways_to_write_in_parallel(trained, way):
    folder, _ = trained
    run = armdlab("generate", folder / "model", "--streams", 4, "--tokens", 16, "--seed", 1, "--json", "--live", *way)
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert 4 <= facts["steps"] <= 16
    assert facts["tokens"] == 16


def test_a_text_is_read_again_and_corrected_if_that_is_asked_for(diffusion, monkeypatch, capsys):
    how = ("generate", diffusion / "armd", "--streams", 8, "--prompt", "The cat", "--seed", 1, "--json")
    code, plain, err = run_main(monkeypatch, capsys, *how)
    assert code == 0, err
    code, out, err = run_main(monkeypatch, capsys, *how, "--correct", 0.02)
    assert code == 0, err
    before, after = json.loads(plain), json.loads(out)
    assert after["new_tokens"] > 0
    assert after["text"] != before["text"]
    assert after["text"].startswith("The cat")
    n_calls = int(re.search(r"read again in (\d+) calls: (\d+) tokens are new", err)[1])
    assert n_calls >= 3  # a pass that reads, a call that draws, a pass that reads what was drawn
    code, _, err = run_main(monkeypatch, capsys, "generate", diffusion / "ar", "--correct", 1)
    assert code == 2
    assert "needs a model that scores any order in one pass, an ARMD; AR cannot" in err


def test_two_ways_to_verify_are_one_too_many(diffusion, monkeypatch, capsys):
    code, _, err = run_main(monkeypatch, capsys, "generate", diffusion / "armd", "--verify", "--verify-heads")
    assert code == 2
    assert "--verify and --verify-heads are two ways of decoding; give one of them" in err


def test_json_is_for_machines(trained):
    folder, _ = trained
    run = armdlab("generate", folder / "model", "--streams", 2, "--tokens", 8, "--seed", 1, "--json")
    facts = json.loads(run.stdout)
    assert (facts["steps"], facts["tokens"], facts["streams"]) == (5, 8, 2)
    assert facts["nats_per_token"] > 0
    results = json.loads(armdlab("evaluate", folder / "model", "--json").stdout)["results"]
    orders = ["left to right", *(f"{s} strided streams" for s in (2, 4, 8)), "random orders (seed 0)"]
    assert [r["order"] for r in results] == orders


def test_evaluation_repeats_what_training_reported(trained):
    folder, run = trained
    results = json.loads(armdlab("evaluate", folder / "model", "--streams", 1, "--json").stdout)["results"]
    assert len(results) == 1
    assert results[0]["nats_per_token"] == pytest.approx(json.loads(run.stdout)["validation"]["nats_per_token"])


def test_a_text_of_less_than_a_row_is_scored_whole_under_every_order(trained, tmp_path, monkeypatch, capsys):
    corpus = tmp_path / "short.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in ("The cat sits.", "Oh.")))
    how = (trained[0] / "model", "--corpus", f"file:{corpus}", "--json")
    code, out, err = run_main(monkeypatch, capsys, "evaluate", *how)
    assert code == 0, err
    results = json.loads(out)["results"]
    assert results[-1]["order"] == "random orders (seed 0)"
    assert len({result["n_tokens"] for result in results}) == 1


def test_ctrl_c_saves_says_where_and_resuming_finishes(trained, tmp_path):
    folder, _ = trained
    out = tmp_path / "stopped"
    command = [
        sys.executable,
        "-m",
        "armdlab.cli",
        "train",
        "--corpus",
        f"file:{folder / 'cats.txt'}",
        "--steps",
        "600",
        "--precision",
        "float32",
        "--out",
        str(out),
        *SMALL,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "left to right: perplexity" not in (line := process.stderr.readline()):
        assert line, "training ended without a score"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    step = json.loads((out / "training.json").read_text())["step"]
    assert 0 < step < 600
    assert f"stopped at step {step} of 600; saved in" in " ".join(errors.split())

    resumed = armdlab("train", "--out", out, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming at step {step} of 600" in resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == 600


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "nowhere"], "error: nowhere is no folder here and no model that the lab ships"),
        (
            ["generate", "{model}", "--streams", "3", "--tokens", "8"],
            "error: streams=3 does not divide tokens=8; try --tokens 6",
        ),
        (
            ["generate", "{model}", "--tokens", "33"],
            "error: tokens=33 must be from 1 to 32, what the model can hold behind this prompt",
        ),
        (["generate", "{model}", "--prompt", "long " * 40], "error: the prompt has"),
        (
            ["generate", "{model}", "--temperature", "-1"],
            "error: temperature=-1.0 must be a number from 0; 1 samples the model as it is",
        ),
        (
            ["generate", "{model}", "--top-p", "2"],
            "error: top_p=2.0 must be above 0 and at most 1, or None to keep all",
        ),
        (
            ["generate", "{model}", "--seed", "99999999999999999999"],
            "error: seed=99999999999999999999 must be a whole number from -2**63 to 2**64 - 1; choose another, ",
        ),
        (
            ["train", "--out", "{new}", "--steps", "1", "--seed", "99999999999999999999"],
            "error: seed=99999999999999999999 must be a whole number from -2**63 to 2**64 - 1; choose another, ",
        ),
        (["generate", "{model}", "--streams", "0"], "error: streams=0 must be a whole number of at least 1"),
        (["generate", "{model}", "--device", "cuda:9"], "error: device=cuda:9 cannot be used here; `armdlab doctor`"),
        (["train", "--out", "{new}"], "error: minutes=None and steps=None; give one of them, such as --minutes 2"),
        (
            ["train", "--out", "{model}", "--steps", "5"],
            "error: {model} holds a model already; go on with --resume, or choose another --out",
        ),
        (
            ["train", "--out", "{model}", "--seed", "5", "--n-layer", "3", "--resume"],
            "error: --resume goes on with the plan saved in DIR; leave out --n-layer, --seed",
        ),
        (["train", "--out", "{new}", "--resume"], "error: {new} is no folder here"),
        (["train", "--out", "{new}", "--steps", "5", "--corpus", "file:{new}.txt"], "error: {new}.txt is not a file"),
        (["train", "--out", "{new}", "--steps", "5", "--corpus", "nonsense"], "error: corpus='nonsense' is unknown"),
        (["train", "--out", "{new}", "--steps", "5", "--precision", "int3"], "error: precision='int3' is unknown"),
        (["train", "--out", "{new}", "--steps", "0"], "error: steps=0 must be a whole number of at least 1"),
        (["train", "--out", "{new}", "--minutes", "0"], "error: minutes=0.0 must be above 0; 2 is a good start"),
        (["reproduce", "table9"], "error: table='table9' is unknown; choose table1, table2, table3"),
        (["reproduce", "table1", "--budget", "phone"], "error: budget='phone' is unknown; choose laptop, gpu"),
        (
            ["train", "--out", "{new}", "--steps", "5", "--model", "gpt"],
            "error: model='gpt' is unknown; choose armd, ar",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--model", "ar", "--rho", "4"],
            "error: --rho=4 is for --model armd alone; leave it out for --model ar",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--model", "mdlm", "--streams", "2", "--streams", "4"],
            "error: --streams=[2, 4] is for --model armd alone; leave it out for --model mdlm",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--model", "block", "--fine-tuning", "0.5"],
            "error: --fine-tuning=0.5 is for --model armd alone; leave it out for --model block",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--model", "mdlm", "--block-size", "4"],
            "error: --block-size=4 is for --model block alone; leave it out for --model mdlm",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--orders", "strided=lots"],
            "error: orders='strided=lots' is no family with its weight; write --orders 'strided=2'",
        ),
        (
            ["train", "--out", "{new}", "--steps", "5", "--start", "{model}", "--n-layer", "2"],
            "error: --start={model} brings sizes and tokenizer with it; leave out --n-layer",
        ),
        (
            ["evaluate", "{diffusion}/ar", "--streams", "2"],
            "error: streams=[2] for AR, which knows left to right alone; leave --streams out",
        ),
        (
            ["evaluate", "{diffusion}/mdlm", "--streams", "1"],
            "error: streams=[1] for MDLM, which is scored by the bound of masked diffusion; leave --streams out",
        ),
        (
            ["evaluate", "{model}", "--samples", "5"],
            "error: samples=5 are tales to judge, but file:{cats} is read in running rows; leave --samples out",
        ),
        (
            ["generate", "{model}", "--steps", "4"],
            "error: steps=4 for ARMD: denoising steps are for masked diffusion and block diffusion; leave them out, "
            "and name streams instead",
        ),
        (["generate", "{diffusion}/mdlm", "--steps", "0"], "error: steps=0 must be a whole number of at least 1"),
        (
            ["generate", "{diffusion}/mdlm", "--steps", "4", "--streams", "2"],
            "error: steps=4 and streams=2 both say how many tokens are made at once; give one of them",
        ),
        (
            ["generate", "{model}", "--streams", "500"],
            "error: streams=500 must be from 1 to 32, what the model can hold",
        ),
        (["bench", "nothing"], "error: name='nothing' is no benchmark; choose decoding, prefix_kernel, prompts, "),
        (["evaluate", "{model}", "--streams", "5"], "error: streams=5 does not divide length=32; try 4 or 8"),
    ],
)
def test_a_mistake_ends_in_one_sentence_without_a_traceback(
    trained, diffusion, tmp_path, monkeypatch, capsys, arguments, sentence
):
    names = {"model": trained[0] / "model", "new": tmp_path / "new", "diffusion": diffusion}
    names["cats"] = trained[0] / "cats.txt"
    monkeypatch.setattr("sys.argv", ["armdlab", *(argument.format(**names) for argument in arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(sentence.format(**names))
    assert not (tmp_path / "new").exists()


def test_a_mistake_leaves_a_fresh_process_with_code_2_and_no_traceback(tmp_path):
    run = armdlab("generate", tmp_path / "nowhere")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith(f"error: {tmp_path / 'nowhere'} is no folder here")
    assert "Traceback" not in run.stderr


def test_whoever_looks_for_a_fault_may_have_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("ARMDLAB_DEBUG", "1")
    monkeypatch.setattr("sys.argv", ["armdlab", "generate", str(tmp_path / "nowhere")])
    with pytest.raises(FileNotFoundError, match="nowhere is no folder here"):
        main()


@pytest.mark.parametrize("command", ["train", "generate", "evaluate", "reproduce", "export", "bench", "doctor"])
def test_help_shows_examples(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["armdlab", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert re.search(rf"Examples?: +armdlab {command} ", capsys.readouterr().out)  # the usage names it too


def test_benchmarks_are_listed_and_take_what_follows_their_name():
    listed = armdlab("bench")
    assert "training       How much dearer is a training step of ARMD" in listed.stdout
    small = ["--d-model", 32, "--n-layer", 2, "--batch-size", 1, "--length", 16, "--repeats", 1]
    run = armdlab("bench", "training", *small)
    assert run.returncode == 0, run.stderr
    assert "2 layers, width 32, 1 rows of 16" in run.stdout


def test_doctor_finds_this_machine_well_and_speaks_json():
    run = armdlab("doctor")
    assert run.returncode == 0, run.stdout
    assert "[OK]   Python" in run.stdout
    assert "[FAIL]" not in run.stdout
    assert all(finding["is_ok"] for finding in json.loads(armdlab("doctor", "--json").stdout))


def test_doctor_names_what_is_missing_and_the_mend(monkeypatch):
    monkeypatch.setattr("armdlab.doctor.LEAST_DISK", 10**18)
    monkeypatch.setattr("armdlab.doctor.jupyter_path", lambda *_: [])
    monkeypatch.setattr("armdlab.doctor.importlib.metadata.requires", lambda _: ["nonesuch>=3", "torch>=99"])
    ill = {finding.name: finding for finding in examine() if not finding.is_ok}
    assert ill.keys() == {"nonesuch", "torch", "disk", "ipywidgets in JupyterLab", "anywidget in JupyterLab"}
    assert ill["nonesuch"] == Finding("nonesuch", False, "not installed", "pip install 'nonesuch>=3'")
    assert ill["torch"].mend == "pip install 'torch>=99'"


def test_a_machine_that_lacks_something_is_told_by_the_exit_code_too(monkeypatch, capsys):
    monkeypatch.setattr("armdlab.doctor.LEAST_DISK", 10**18)
    code, out, _ = run_main(monkeypatch, capsys, "doctor")
    assert code == 1
    assert re.findall(r"\[FAIL\] (\w+)", out) == ["disk"]


def test_a_table_is_printed_and_written_with_its_figures(tmp_path, monkeypatch, capsys):
    (tmp_path / "cats.txt").write_text(TEXT)
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 16, "vocab_size": 280, "batch_size": 2}
    small = Recipe(corpus=f"file:{tmp_path / 'cats.txt'}", steps=6, **sizes)
    recipes = {"armd_0": small, "ar_0": replace(small, model="ar", steps=5)}
    recipes |= {"mdlm_0": replace(small, model="mdlm"), "block_0": replace(small, model="block")}
    tiny = Budget("laptop", recipes, small.corpus, (), {}, {}, "ar_0", 2, 1, 2)
    monkeypatch.setitem(BUDGETS, "laptop", tiny)
    monkeypatch.setattr("sys.argv", ["armdlab", "reproduce", "table3", "--out", str(tmp_path / "runs"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert facts == json.loads((tmp_path / "runs" / "table3.json").read_text())
    assert facts["lines"][0]["name"] == "AR, 5 steps"
    for name in ("table3.png", "table3_curves.png"):
        assert (tmp_path / "runs" / name).read_bytes().startswith(b"\x89PNG")
    assert said.err.count("it writes:") >= 4  # each run was watched
    of_five_scores = r"float32\),\s+perplexity\s+from\s+[\d.]+\s+[▁▂▃▄▅▆▇█]{5}\s+to\s+[\d.]+\s"
    assert len(re.findall(of_five_scores, said.err)) == 4  # each run's own way


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("train", "stopped at step 2 of 5 of ar_0; saved in {out}/ar_0; the same command goes on"),
        ("measure", "stopped; what was saved before is in {out}; the same command goes on"),
    ],
)
def test_ctrl_c_in_a_table_says_what_is_saved_and_what_is_not(trained, tmp_path, monkeypatch, capsys, where, sentence):
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 16, "vocab_size": 280, "batch_size": 2}
    small = Recipe(corpus=f"file:{trained[0] / 'cats.txt'}", steps=6, **sizes)
    recipes = {"armd_0": small, "ar_0": replace(small, model="ar", steps=5), "mdlm_0": replace(small, model="mdlm")}
    monkeypatch.setitem(
        BUDGETS, "laptop", Budget("laptop", recipes, small.corpus, (small.corpus,), {}, {}, "", 2, 1, 2)
    )

    @functools.wraps(likelihood)
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def stopped(session):
        return any(moment.step.step == 2 for moment in session.watch(scores=0))

    if where == "train":
        monkeypatch.setattr("armdlab.terminal.watch", stopped)
    else:
        monkeypatch.setattr("armdlab.reproduce.likelihood", interrupted)
    out = tmp_path / "runs"
    code, printed, err = run_main(monkeypatch, capsys, "reproduce", "table1", "--out", out)
    assert (code, printed) == (130, "")
    assert sentence.format(out=out).replace(" ", "") in err.replace(" ", "")


def test_a_table_is_refused_to_several_processes_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = run_main(monkeypatch, capsys, "reproduce", "table3", "--out", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert err == (
        "error: WORLD_SIZE=2 processes were launched, each of which would measure the whole table, and train by larger "
        "batches than its budget says; start `armdlab reproduce` without torchrun"
    )
    assert not (tmp_path / "runs").exists()


def test_an_export_says_how_large_it_is(trained, tmp_path):
    run = armdlab("export", trained[0] / "model", tmp_path / "small")
    assert run.returncode == 0, run.stderr
    assert "MiB in" in run.stderr
    assert armdlab("generate", tmp_path / "small", "--tokens", 4, "--seed", 1).returncode == 0


@pytest.mark.parametrize("model", ["ar", "mdlm", "block"])
def test_every_baseline_can_be_evaluated(trained, tmp_path, model):
    how = ("--model", model, "--corpus", f"file:{trained[0] / 'cats.txt'}", "--steps", 3)
    how += ("--block-size", 8) if model == "block" else ()
    assert armdlab("train", *how, "--out", tmp_path / model, "--precision", "float32", *SMALL).returncode == 0
    run = armdlab("evaluate", tmp_path / model, "--json")
    assert run.returncode == 0, run.stderr
    orders = [found["order"] for found in json.loads(run.stdout)["results"]]
    assert (
        orders
        == {
            "ar": ["left to right"],
            "mdlm": [
                "mean over random orders (seed 0)",
                "all steps of random orders (seed 0)",
                "random orders (seed 0)",
            ],
            "block": ["mean over random orders inside blocks of 8, left to right (seed 0)"],
        }[model]
    )
