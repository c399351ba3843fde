"""Laws of checkpoints: what comes back is what went in, whole or not at all, and every fault has a name."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from strategies import random_tokens, tiny

from armdlab import AR, ARMD, ARMDConfig, generate, load
from armdlab.baselines import BlockDiffusion, TableARMD
from armdlab.checkpoints import written_whole
from armdlab.tokenization import Tokenizer


@pytest.mark.parametrize("cls", [ARMD, AR])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, cls, tie_weights):
    model = tiny(cls, tie_weights=tie_weights)
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    tokens = random_tokens(model, 2, 8)
    assert again.config == model.config
    assert torch.equal(again(tokens), model(tokens))
    assert not again.training
    assert (again.head.weight is again.embedding.weight) == tie_weights


def test_a_fingerprint_outlasts_the_disk_and_tells_the_smallest_change(tmp_path):
    model = tiny(ARMD)
    before = model.fingerprint
    model.save_pretrained(tmp_path)
    assert ARMD.from_pretrained(tmp_path).fingerprint == before
    rounded = ARMD.from_pretrained(tmp_path).bfloat16()
    assert rounded.fingerprint != before
    with torch.no_grad():
        weight = model.embedding.weight[0, 0]
        weight.copy_(torch.nextafter(weight, weight + 1))
    assert model.fingerprint != before


def test_a_checkpoint_is_json_and_safetensors_and_no_pickle(tmp_path):
    tiny(ARMD).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "ARMD"


def test_half_precision_on_disk_halves_the_file_and_loads_as_float32(tmp_path):
    model = tiny(ARMD)
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = ARMD.from_pretrained(tmp_path / "half")
    assert again.bos.dtype == torch.float32
    assert torch.equal(again.bos, model.bos.half().float())


def test_a_file_whose_writing_fails_leaves_the_old_one_untouched(tmp_path):
    path = tmp_path / "value"
    path.write_text("old")

    def fail():
        with written_whole(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_over_a_checkpoint_never_leaves_a_mixture_of_torn_files(tmp_path, monkeypatch):
    model = tiny(ARMD)
    model.save_pretrained(tmp_path)
    before = load_file(tmp_path / "model.safetensors")

    def full_disk(_state, path, **_):
        Path(path).write_bytes(b"torn")
        raise OSError("No space left on device")

    monkeypatch.setattr("armdlab.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        tiny(ARMD, seed=1).save_pretrained(tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def _drop(name):
    return lambda folder: (folder / name).unlink()


def _edit_config(**changes):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        (_drop("model.safetensors"), FileNotFoundError, "{folder} holds no model.safetensors; give a folder that"),
        (_drop("config.json"), FileNotFoundError, "{folder} holds no config.json; give a folder that"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 100),
            ValueError,
            "{folder}/model.safetensors is no whole safetensors file (",
        ),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            ValueError,
            "{folder}/config.json is no JSON (",
        ),
        (
            lambda folder: (folder / "config.json").write_text("[]"),
            ValueError,
            "{folder}/config.json holds a list, not an object; restore it, or train again",
        ),
        (
            _edit_config(d_model=32),
            ValueError,
            "{folder}/model.safetensors does not fit its config.json: bos should be (32,), the file holds (16,); "
            "restore the two files that were saved together",
        ),
        (
            _edit_config(n_layer=4),
            ValueError,
            "{folder}/model.safetensors does not fit its config.json: layers.3.attention_norm.weight should be (16,), "
            "the file holds nothing; restore",
        ),
        (
            _edit_config(n_head=5),
            ValueError,
            "n_head=5 does not cut d_model=16 into heads of even width; try d_model=20",
        ),
        (
            _edit_config(colour="red"),
            ValueError,
            "{folder}/config.json holds unknown settings ['colour']; it was not written by this version of armdlab",
        ),
        (
            _edit_config(architecture="AR"),
            ValueError,
            "{folder}/config.json describes AR, not ARMD; load it by AR.from_pretrained, or by armdlab.load, which "
            "finds the class itself",
        ),
    ],
)
def test_every_fault_of_a_checkpoint_is_named(tmp_path, damage, error, sentence):
    tiny(ARMD).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=f"^{re.escape(sentence.format(folder=tmp_path))}"):
        ARMD.from_pretrained(tmp_path)


def test_a_model_of_before_there_were_waves_says_how_it_loads(tmp_path):
    old = tiny(TableARMD)
    old.save_pretrained(tmp_path)
    _edit_config(architecture="ARMD")(tmp_path)
    sentence = (
        f"{tmp_path}/model.safetensors holds a table of position embeddings, as ARMD had in earlier versions; in "
        'config.json beside it, write "TableARMD" in the place of "ARMD", and it loads as it was'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        ARMD.from_pretrained(tmp_path)
    _edit_config(architecture="TableARMD")(tmp_path)
    tokens = random_tokens(old, 1, 8)
    with torch.no_grad():
        assert torch.equal(TableARMD.from_pretrained(tmp_path)(tokens), old(tokens))


def test_a_name_that_is_nowhere_is_named():
    with pytest.raises(FileNotFoundError, match=r"^no/where is no folder here and could not be read from the Hub \("):
        ARMD.from_pretrained("no/where")


@pytest.mark.parametrize("error", [OSError, OSError("\n"), LocalEntryNotFoundError("gone\nfor good")])
def test_an_error_of_the_hub_is_named_by_its_first_line_or_else_its_kind(monkeypatch, error):
    def fails(*_, **__):
        raise error

    words = "gone" if isinstance(error, LocalEntryNotFoundError) else "OSError"
    monkeypatch.setattr("armdlab.checkpoints.hf_hub_download", fails)
    with pytest.raises(FileNotFoundError, match=rf"^no/where is no folder here and .* the Hub \({words}\); check"):
        ARMD.from_pretrained("no/where")
    hub = SimpleNamespace(Tokenizer=SimpleNamespace(from_pretrained=fails))
    monkeypatch.setattr("armdlab.tokenization.tokenizers", hub)
    with pytest.raises(FileNotFoundError, match=rf"^tokenizer no/such could not .* the Hub \({words}\); check"):
        Tokenizer.from_hub("no/such")


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer.train(["one two three four five"] * 9, vocab_size=260)
    torch.manual_seed(0)
    AR(ARMDConfig(tokenizer.vocab_size, 12, n_layer=2, n_head=2, d_model=16)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


def test_load_finds_the_class_and_writes_text(folder):
    lab = load(folder)
    assert type(lab.model) is AR
    assert lab.card == {}
    text = lab.write("one ", seed=0)
    assert text.startswith("one ")
    assert lab.tokens("one ", length=10, seed=0).shape == (1, 10)
    assert text == load(folder).write("one ", seed=0)


def test_model_and_tokenizer_that_do_not_belong_together_are_refused(folder):
    Tokenizer.train(["one two three four five"] * 9, vocab_size=258).save(folder)
    with pytest.raises(ValueError, match=r"holds a tokenizer of 258 ids and a model of 260; restore the files"):
        load(folder)


def test_load_says_what_there_is_when_there_is_nothing():
    with pytest.raises(FileNotFoundError, match=r"^nothing is no folder here and no model that the lab ships \("):
        load("nothing")


def test_an_export_is_half_as_large_and_writes_the_same_text(tmp_path):
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["some words of a text"] * 3, 300)
    model = AR(ARMDConfig(tokenizer.vocab_size, 12, n_layer=2, n_head=2, d_model=16))
    model.save_pretrained(tmp_path / "run")
    tokenizer.save(tmp_path / "run")
    (tmp_path / "run" / "card.json").write_text('{"corpus": "words"}')
    (tmp_path / "run" / "training_state.safetensors").write_bytes(b"large")
    load(tmp_path / "run").export(tmp_path / "small")
    small = load(tmp_path / "small")
    assert not (tmp_path / "small" / "training_state.safetensors").exists()
    assert small.card == {"corpus": "words", "dtype_on_disk": "float16"}
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "run")]
    assert sizes[0] < 0.6 * sizes[1]
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(small.model(tokens), model.eval()(tokens), atol=1e-3, rtol=1e-2)
    with torch.no_grad():
        model.head.weight[0, 0] = 1e5
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"^head\.weight holds 100000, more than dtype=torch\.float16 can; keep float32$"
    ):
        load(tmp_path / "run").export(tmp_path / "small")


def test_what_is_written_ends_where_its_text_ends(tmp_path):
    tokenizer = Tokenizer.train(["some words of a text"] * 3, 300)
    AR(ARMDConfig(tokenizer.vocab_size, 12, n_layer=2, n_head=2, d_model=16)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    lab, words = load(tmp_path), tokenizer.encode("some words")
    assert lab.read([*words, tokenizer.end_of_text, *words]) == "some words"
    assert lab.read(words) == "some words"
    assert "<|endoftext|>" not in lab.write("some", seed=0)


def test_a_lab_packs_its_model_once_and_anew_after_it_was_trained_on(folder):
    lab = load(folder)
    engine = lab.engine
    assert lab.engine is engine
    before = lab.tokens("one ", length=12, seed=0)
    with torch.no_grad():
        lab.model.head.weight.mul_(-50)
    assert lab.engine is not engine
    after = lab.tokens("one ", length=12, seed=0)
    assert not torch.equal(after, before)
    assert torch.equal(after, generate(lab.model, prompt=lab.tokenizer.encode("one "), length=12, seed=0))


def test_a_class_that_this_version_does_not_know_is_named(folder):
    _edit_config(architecture="Oracle")(folder)
    sentence = f"{folder / 'config.json'} describes Oracle, which this version of armdlab does not know"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load(folder)


@pytest.mark.parametrize(
    ("cls", "more", "names", "said"),
    [
        (ARMD, (), ("max_length", "vocab_size"), "max_length and vocab_size"),
        (BlockDiffusion, (4,), ("block_size",), "block_size"),
    ],
)
def test_what_a_config_lacks_is_named(tmp_path, cls, more, names, said):
    cls(ARMDConfig(7, 12, n_layer=2, n_head=2, d_model=16), *more).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in names}))
    sentence = f"{tmp_path / 'config.json'} lacks {said}; it was not written by this version of armdlab"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        cls.from_pretrained(tmp_path)
