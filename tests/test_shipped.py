"""Laws of what the lab ships: small, whole, offline, honest about itself, and worth showing."""

import socket

import pytest

from armdlab import corpora, tales
from armdlab.baselines import BlockDiffusion
from armdlab.evaluation import bound, likelihood
from armdlab.rows import encode
from armdlab.samples import write_tales
from armdlab.trained import SHIPPED, load

MODELS = {"tales": "TableARMD", "tales_ar": "AR", "tales_mdlm": "MDLM", "manual": "ARMD"}


@pytest.fixture(scope="module", params=MODELS)
def lab(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a shipped model asks the network"))
        return load(request.param)


def test_every_checkpoint_is_named_here_and_every_name_is_there():
    assert {path.name for path in SHIPPED.iterdir() if path.is_dir()} == MODELS.keys()


def test_a_checkpoint_is_at_most_8_mebibytes_and_holds_no_state_of_training(lab):
    names = {path.name for path in lab.folder.iterdir()}
    assert names == {"README.md", "card.json", "config.json", "model.safetensors", "tokenizer.json"}
    assert sum(path.stat().st_size for path in lab.folder.iterdir()) <= 8 * 2**20
    assert lab.card["dtype_on_disk"] == "float16"


def test_a_card_says_how_the_model_was_made_and_what_it_is_worth(lab):
    card = lab.card
    assert type(lab.model).__name__ == MODELS[lab.folder.name]
    assert card["command"].startswith("armdlab train ")
    assert card["steps"] == card["planned_steps"] == card["recipe"]["steps"]
    assert card["seconds"] > 60
    assert card["versions"].keys() == {"armdlab", "torch", "python"}
    assert card["parameters"] == lab.model.n_parameters
    assert isinstance(card["seed"], int)
    assert card["validation"]["standard_error"] > 0
    assert card["figures"]["results"]
    assert "/tmp" not in str(card)


def test_its_figure_is_found_again(lab):
    """Half precision and another machine move it by less than a hundredth of a nat; other rows by their error."""
    card, length = lab.card, lab.model.config.max_length
    splits = corpora.load(card["corpus"].split(":")[0], seed=card["split_seed"], **_few(card["corpus"]))
    text = encode(splits["validation"]["text"], lab.tokenizer, length, card["layout"], 8_000)
    figure = (bound if isinstance(lab.model, BlockDiffusion) else likelihood)(lab.model, text, length)
    claimed = card["figures"]["results"][0]
    error = (figure.standard_error**2 + claimed["standard_error"] ** 2) ** 0.5
    assert abs(figure.nats_per_token - claimed["nats_per_token"]) < 4 * error + 0.01


def _few(corpus):
    return {"n": 2000} if corpus.startswith("tales") else {}


@pytest.mark.parametrize("name", ["tales", "tales_ar"])
def test_most_of_its_tales_hold_together(name):
    lab, grammar = load(name), tales.load_grammar()
    written = write_tales(lab.model, lab.tokenizer, 20, temperature=0.7, seed=1)
    assert sum(grammar.read(text).is_consistent for text in written) >= 16
