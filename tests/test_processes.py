"""Laws of several processes: they learn one model, from batches of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from armdlab import load
from armdlab.recipes import Session

SCRIPT = """
import json, sys
import torch
from armdlab import ARMD, ARMDConfig
from armdlab.rows import Text
from armdlab.curriculum import Curriculum
from armdlab.processes import any_process
from armdlab.training import Plan, Training

torch.set_num_threads(1)
torch.manual_seed(0)
model = ARMD(ARMDConfig(10, 16, n_layer=2, n_head=2, d_model=16))
text = Text(torch.arange(400) % 10, n_characters=400)
run = Training(model, text, Plan(9, Curriculum.for_steps(9, 16), batch_size=4, learning_rate=1e-2))
first = run.batch(5)[0].tolist()
losses = [step.loss for step in run.run()]
rank = run.accelerator.process_index
agreed = [any_process(run.accelerator, flag) for flag in (rank == 1, False)]
run.save(sys.argv[1])
run.accelerator.wait_for_everyone()
weights = torch.cat([p.detach().flatten() for p in run.bare_model.parameters()]).double()
facts = {"world": run.accelerator.num_processes, "batch": first, "losses": losses, "weights": float(weights.sum())}
facts["agreed"] = agreed
open(f"{sys.argv[1]}/rank{rank}.json", "w").write(json.dumps(facts))
run.accelerator.end_training()
"""


REHEARSAL = """
import sys
from accelerate import Accelerator
from armdlab import recipes
from armdlab.recipes import Recipe, Session

sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 16, "vocab_size": 280, "batch_size": 2}
rank = Accelerator().process_index
session = Session.begin(Recipe(corpus=f"file:{sys.argv[1]}/cats.txt", **sizes), f"{sys.argv[1]}/run")
recipes.seconds_per_step = lambda model, text, plan: (0.01, 0.02)[rank ^ plan.bf16]  # each sees another cost
session.rehearse((False, True), 0.01, say=lambda _: None)
session.save()
open(f"{sys.argv[1]}/rank{rank}.txt", "w").write(f"{session.recipe.steps} {session.recipe.bf16}")
session.training.accelerator.end_training()
"""


# A thread of gloo that asks for Python's lock while the interpreter is torn down aborts the process, now and then,
# after all is learned and written (pytorch/pytorch#179291). How torch leaves is not the law here: leave without it.
LEAVE = """
import os
sys.stdout.flush()
os._exit(0)
"""


def in_two_processes(*what, **environment):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run(
        [*launch, *what], capture_output=True, text=True, env={**os.environ, **environment}, check=False, timeout=300
    )


def cats(folder):
    path = folder / "cats.txt"
    path.write_text("\n\n".join(f"The cat number {i} sits on the mat." for i in range(200)))
    return path


def script_in_two_processes(script, folder):
    path = folder / "script.py"
    path.write_text(script + LEAVE)
    run = in_two_processes(str(path), str(folder))
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_two_processes_agree_on_what_a_rehearsal_found_and_only_two_go_on(tmp_path):
    cats(tmp_path)
    script_in_two_processes(REHEARSAL, tmp_path)
    assert [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)] == ["55 False"] * 2
    assert json.loads((tmp_path / "run" / "card.json").read_text())["processes"] == 2
    with pytest.raises(
        ValueError, match=r"processes=2, .* are 1; resume with as many: `torchrun --nproc_per_node 2 -m"
    ):
        Session.resume(tmp_path / "run")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_two_processes_learn_one_model_from_batches_of_their_own(tmp_path):
    script_in_two_processes(SCRIPT, tmp_path)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [facts["world"] for facts in ranks] == [2, 2]
    assert [facts["agreed"] for facts in ranks] == [[True, False]] * 2, "what one process wants, all do"
    assert ranks[0]["batch"] != ranks[1]["batch"]
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert {"model.safetensors", "training_state.safetensors"} <= {path.name for path in Path(tmp_path).iterdir()}


TRAIN = ("-m", "--", "armdlab.cli", "train", "--steps", "3", "--length", "16", "--n-layer", "2", "--d-model", "16")
TRAIN += ("--vocab-size", "280", "--batch-size", "2", "--precision", "float32", "--json")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_the_command_line_trains_in_two_processes_of_which_one_speaks(tmp_path):
    out = tmp_path / "run"
    run = in_two_processes(*TRAIN, "--corpus", f"file:{cats(tmp_path)}", "--out", str(out))
    # the exit status is that of how torch leaves, see above
    assert json.loads(run.stdout)["processes"] == 2, run.stderr
    assert run.stderr.count("learning a tokenizer") == 1
    assert load(out).card["steps"] == 3


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
def test_processes_that_do_not_know_of_each_other_train_nothing(tmp_path):
    out = tmp_path / "run"
    run = in_two_processes(*TRAIN, "--corpus", f"file:{cats(tmp_path)}", "--out", str(out), ACCELERATE_USE_CPU="false")
    said = "WORLD_SIZE=2 processes were launched, and Accelerate knows of 1; for processes on CPUs set ACCELERATE_USE"
    assert said in run.stderr
    assert not out.exists()
