"""Laws of the decoding benchmark: what it counts, how it tells seconds, and what it writes down."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from strategies import tiny

from armdlab import AR, ARMD, Corrector, Gate, GenerationOrder, generate
from armdlab.baselines import MDLM
from armdlab.engine import Engine

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import calls_figure  # noqa: E402
import decoding  # noqa: E402
import records  # noqa: E402
import seams  # noqa: E402
from decoding_limit import Call, Pass, bytes_of_a_weight, one_by_one, watched, work  # noqa: E402
from timing import clock_of  # noqa: E402

SMALL = {"length": 16, "batch": 1, "layers": 2, "width": 32, "vocab": 64, "threads": 1, "repeats": 1, "samples": 1}
SMALL |= {"precision": "auto", "device": torch.device("cpu"), "streams": [1, 2, 4]}


def asked(**other):
    return argparse.Namespace(**{**SMALL, "what": "speed", **other})


def calls_of(model, length, **how):
    engine = Engine.of(model)
    return watched(engine, lambda: generate(engine, length=length, seed=0, **how))


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["decoding.py", *map(str, arguments)])
    decoding.main()


def test_work_counts_bytes_and_operations_as_by_hand():
    # D = 4, V = 10, of the two layers one with two rows of which one gives keys and values, one with a row for both
    calls = [Call((Pass(1, 2, 6, 3), Pass(1, 1, 2, 2)), 1), Call((Pass(1, 1, 3, 3),), 2)]
    weights = 3 * 12 * 16 + 2 * 40
    numbers_in_cache = (3 + 2 + 3) * 2 * 4
    in_products = (1 + 1 + 1) * 2 * 16 + (2 + 1 + 1) * 10 * 16 + (1 + 2) * 40
    attention = 4 * 4 * (6 + 2 + 3)
    for weight_bytes, cache_bytes in ((2, 4), (4, 4), (2, 2)):
        sizes = {"width": 4, "vocab": 10, "weight_bytes": weight_bytes, "cache_bytes": cache_bytes}
        found = work(calls, **sizes)
        assert found == (weights * weight_bytes + numbers_in_cache * cache_bytes, 2 * in_products + attention)


def test_a_block_of_two_streams_gives_by_x_alone_and_its_last_layer_asks_by_g_alone():
    model = tiny(ARMD, n_layer=3, n_two_stream=2)
    first, second, block = calls_of(model, 4, streams=2)  # heads one by one, then a block of two
    assert first == Call((Pass(1, 2, 2, 1), Pass(1, 1, 1, 1), Pass(1, 1, 1, 1)), 1)
    assert second == Call((Pass(1, 2, 4, 2), Pass(1, 1, 2, 2), Pass(1, 1, 2, 2)), 1)
    assert block == Call((Pass(1, 3, 9, 3), Pass(1, 2, 6, 3), Pass(2, 2, 8, 4)), 2)


def test_one_stream_of_ar_is_one_row_a_call_for_every_text_of_the_batch():
    model = tiny(AR)
    assert calls_of(model, 6, batch_size=5) == one_by_one(6, model.config.n_layer, 5)


def test_masked_diffusion_pays_for_the_whole_text_at_each_call():
    order = GenerationOrder.blockwise(8, 4)
    first, second = calls_of(tiny(MDLM, max_length=8, n_layer=1), 8, order=order)
    assert first == Call((Pass(9, 9, 1 + 8 * 9, 9),), 4)  # BOS comes in with it, and sees itself
    assert second == Call((Pass(8, 8, 8 * 9, 9),), 4)


@pytest.mark.parametrize("streams", [2, 3])
def test_verified_calls_pay_for_drafts_and_judges(streams):
    W = streams
    for call in calls_of(tiny(ARMD, n_two_stream=2), 12, streams=W, verify=True)[1:]:
        assert (call.passes[0].n_giving, call.passes[0].n_asking) == (W, W + 2 * W - 1)
        assert call.passes[-1].n_asking == call.n_predicted == 2 * W - 1


def test_verified_heads_pay_for_what_is_left_to_judge_and_then_for_plain_blocks():
    calls = calls_of(tiny(ARMD), 12, streams=4, verify="heads")
    asked = [call.n_predicted for call in calls]
    assert asked[:2] == [4, 4]  # all heads drafted; three judged, and the place behind them
    assert asked[-2:] == [4, 4]
    assert asked[2:-2] == sorted(asked[2:-2], reverse=True)


def test_gated_calls_pay_for_streams_that_wait_and_not_for_slots_that_none_may_see():
    calls = calls_of(tiny(ARMD), 12, streams=3, gate=Gate(0.0))
    assert [call.n_predicted for call in calls] == [3] * len(calls)
    assert [call.passes[0].n_slots for call in calls] == [1, 2, 3, 4, 7, 10]  # BOS, heads one by one, then threes
    assert [call.passes[-1].n_slots for call in calls] == [1, 2, 3, 6, 9, 12]


def test_watching_leaves_the_engine_as_it_was():
    engine = Engine.of(tiny(ARMD))
    before = engine.head, engine.run_layer
    text = generate(engine, length=8, seed=0)
    watched(engine, lambda: generate(engine, length=8, seed=0))
    assert (engine.head, engine.run_layer) == before
    assert torch.equal(generate(engine, length=8, seed=0), text)


@pytest.mark.parametrize(
    ("layout", "dtype", "size"), [("half", torch.float32, 2), ("plain", torch.float32, 4), ("plain", torch.bfloat16, 2)]
)
def test_a_weight_takes_what_its_layout_holds(layout, dtype, size, monkeypatch):
    if layout == "half" and torch.backends.quantized.engine not in ("x86", "fbgemm"):
        pytest.skip("FBGEMM is not built for this processor")
    monkeypatch.setattr("armdlab.engine.best_layout", lambda *_, **__: layout)
    assert bytes_of_a_weight(Engine.of(tiny(AR).to(dtype))) == size


def test_the_peer_computes_in_the_dtype_of_the_lab(monkeypatch):
    pytest.importorskip("transformers", reason="transformers is not installed (extra `bench`)")
    for has_tiles, dtype, size in ((False, torch.float32, 4), (True, torch.bfloat16, 2)):
        monkeypatch.setattr("armdlab.packing.multiplies_tiles", lambda: has_tiles)  # noqa: B023
        jobs = decoding.rows(asked(precision="half", only=["gpt2", "ar"]))
        assert {job.dtype for job in jobs.values()} == {dtype}
        assert jobs[decoding.PEER].weight_bytes == size


def test_seconds_are_of_the_processor_for_one_thread_and_of_the_wall_else(monkeypatch):
    waited = []
    monkeypatch.setattr("torch.accelerator.synchronize", waited.append)
    assert clock_of(torch.device("cpu"), 1) is time.process_time
    assert clock_of(torch.device("cpu"), 2) is time.perf_counter
    assert not waited
    before = time.perf_counter()
    assert clock_of(torch.device("cuda"), 1)() >= before
    assert waited == [torch.device("cuda")]


def test_models_go_to_the_device():
    assert {model.bos.device.type for model in decoding.models(asked(device=torch.device("meta"))).values()} == {"meta"}


def test_rows_of_other_settings_stay_and_of_the_same_are_replaced(tmp_path):
    path = tmp_path / "rows.json"

    def add(seconds, **other):
        return records.add_to(path, [{"row": "AR", **records.settings(asked(**other)), "seconds": seconds}])

    add(1.0)
    for seconds, other in enumerate(({"length": 32}, {"batch": 8}, {"threads": 2}, {"precision": "half"}), start=2):
        assert [row["seconds"] for row in add(seconds, **other)] == [seconds]
    assert [row["seconds"] for row in add(9.0, repeats=7)] == [9.0]
    held = records.read(path)
    assert [(row["length"], row["batch"], row["threads"], row["precision"]) for row in held] == [
        (16, 1, 1, "auto"),
        (32, 1, 1, "auto"),
        (16, 8, 1, "auto"),
        (16, 1, 2, "auto"),
        (16, 1, 1, "half"),
    ]
    assert [row["seconds"] for row in held] == [9.0, 2, 3, 4, 5]


def test_a_file_that_names_its_settings_once_is_read_as_rows_that_have_them(tmp_path):
    path = tmp_path / "quality.json"
    facts = {"row": "AR", "way": "AR", "calls": 128.3, "seconds": 0.057, "consistent": 0.955, "error": 0.015}
    once = {"what": "quality", "length": 256, "batch": 1, "threads": 1, "streams": [1, 2], "precision": "auto"}
    path.write_text(json.dumps({"torch": "2.13.0", "processor": "Zen", "settings": once, "found": [facts]}))
    records.add_to(path, [{"row": "AR", **records.settings(asked(what="quality")), "seconds": 1.0}])
    old, new = records.read(path)
    assert {key: old[key] for key in facts} == facts
    assert (old["length"], old["device"], old["torch"], old["processor"]) == (256, "cpu", "2.13.0", "Zen")
    assert (new["length"], new["seconds"]) == (16, 1.0)
    assert "streams" not in old


def test_the_recorded_quality_can_be_read_and_drawn(tmp_path):
    path = shutil.copy(BENCHMARKS / "quality.json", tmp_path)
    rows = records.read(Path(path))
    assert all(name in row for row in rows for name in ("what", "length", "batch", "precision", "device", "threads"))
    decoding.draw(asked(picture=tmp_path / "front.png"), rows)
    for name in ("front.png", "front_calls.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_verified_drafts_are_counted_and_other_ways_have_none():
    engine = Engine.of(tiny(ARMD, max_length=12))
    plain = decoding.counted(engine, 2, end=None, streams=3)
    assert plain == {"calls": 6, "tokens_per_call": 2, "accepted": None}
    found = decoding.counted(engine, 5, end=None, streams=3, verify=True)
    assert found["calls"] * found["tokens_per_call"] == pytest.approx(12)
    assert 0 < found["accepted"] < 1
    # of an engine that drafts what it judges, where nothing is left to chance, all pass
    sure = tiny(ARMD, max_length=12)
    with torch.no_grad():
        sure.head.weight.zero_()
    assert decoding.counted(Engine.of(sure), 2, end=None, streams=3, verify=True)["accepted"] == 1


def test_calls_that_correct_are_counted_and_make_no_token_more():
    engine = Engine.of(tiny(ARMD, max_length=12))
    plain, again = (decoding.counted(engine, 3, end=None, streams=3, correct=c) for c in (None, Corrector(above=1e3)))
    assert again["calls"] == plain["calls"] + 1  # nothing is doubted, and one pass says so
    more = decoding.counted(engine, 3, end=None, streams=3, correct=Corrector(above=0.5))
    assert more["calls"] > again["calls"]
    assert more["calls"] * more["tokens_per_call"] == pytest.approx(12)


def test_masked_diffusion_is_counted_by_the_calls_that_it_makes():
    engine = Engine.of(tiny(MDLM, max_length=12))
    assert decoding.counted(engine, 3, end=None, steps=100)["calls"] < 13


def test_a_profile_returns_what_it_prints(capsys):
    found = decoding.profile(asked(what="profile"))
    printed = capsys.readouterr().out
    assert [row["row"] for row in found] == ["S = 1", "S = 8"]
    for row in found:
        assert len(row["operators"]) == 12
        assert all(name[:46] in printed and facts["calls"] > 0 for name, facts in row["operators"].items())
        assert 0 < sum(facts["self_us"] for facts in row["operators"].values()) <= row["self_us"]


def test_speed_runs_and_a_second_slice_leaves_the_first_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="transformers is not installed (extra `bench`)")
    small = ["--layers", 2, "--width", 32, "--vocab", 64, "--repeats", 1, "--length", 16]
    run(monkeypatch, "speed", "--json", tmp_path / "speed.json", *small, "--streams", 1, 4)
    first = records.read(tmp_path / "speed.json")
    calls = {row["row"]: row["calls"] for row in first}
    sure = {"transformers GPT-2, dynamic cache": 15, "transformers GPT-2, static cache": 15, "AR": 16}
    sure |= {"ARMD, S = 1": 16, "ARMD, S = 4": 7, "ARMD, S = 4, gate open": 7}
    assert sure.items() <= calls.items()
    # 15 calls of GPT-2: 2 layers and a head in float32, keys and values of 1 + 2 + ... + 15 slots of both layers
    assert first[0]["bytes"] == 15 * (2 * 12 * 32 * 32 + 32 * 64) * 4 + 2 * 120 * 2 * 32 * 4
    by_chance = {
        "ARMD, S = 4, verified",
        "ARMD, S = 4, heads verified",
        *(f"MDLM, {steps} steps" for steps in (16, 9, 7)),
    }
    assert calls.keys() - sure.keys() == {*by_chance, "block diffusion, blocks of 16 in 8 steps"}

    slice_of = ["--batch", 2, "--only", "ar", "armd", "--streams", 1, "--json", tmp_path / "speed.json"]
    command = [sys.executable, "-m", "armdlab.cli", "bench", "decoding", "speed", *small, *slice_of]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    both = records.read(tmp_path / "speed.json")
    assert both[: len(first)] == first
    assert [(row["row"], row["batch"]) for row in both[len(first) :]] == [("AR", 2), ("ARMD, S = 1", 2)]
    for row in both:
        assert (row["what"], row["length"], row["device"], row["threads"]) == ("speed", 16, "cpu", 1)
        assert min(row["seconds"], row["over_limit"], row["bytes"], row["operations"]) > 0


def test_quality_runs_and_says_what_was_drafted_and_kept(tmp_path, monkeypatch, capsys):
    small = ["--samples", 1, "--repeats", 1, "--ways", "ARMD", "verified"]
    run(monkeypatch, "quality", *small, "--json", tmp_path / "q.json", "--picture", tmp_path / "front.png")
    rows = {row["row"]: row for row in records.read(tmp_path / "q.json")}
    assert list(rows) == [f"ARMD, S = {S}" for S in (1, 2, 4, 8)] + [f"verified, S = {S}" for S in (2, 4, 8)]
    for name, row in rows.items():
        assert (row["length"], row["batch"], row["layers"], row["width"]) == (160, 1, 6, 128)  # of the shipped model
        assert (row["accepted"] is None) == name.startswith("ARMD")
        assert row["calls"] > 0
        assert row["tokens_per_call"] >= 1
    assert capsys.readouterr().out.count("% of judged drafts kept") == 3
    for name in ("front.png", "front_calls.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_layouts_are_of_a_processor(monkeypatch, capsys):
    monkeypatch.setattr("decoding.fastest_device", torch.device)
    with pytest.raises(SystemExit):
        run(monkeypatch, "layouts", "--device", "cuda")
    assert "--device cuda: layouts compares those that a CPU has; leave --device out" in capsys.readouterr().err


def test_quality_against_calls_joins_what_differs_in_its_last_number():
    ways = {
        "ARMD, S = 1": (0.97, 129),
        "ARMD, S = 8": (0.66, 27),
        "gated, S = 8, p >= 0.3": (0.82, 38),
        "AR": (0.9, 128),
    }
    picture = calls_figure.against_calls(ways, title="calls", y="share", errors={"AR": 0.05})
    assert "ARMD, S = 8: 0.66 in 27 calls; ARMD, S = 1: 0.97 in 129 calls; gated" in picture.alt
    assert picture.png.startswith(b"\x89PNG")
    kinds = {calls_figure.LAST_NUMBER.sub("n", name) for name in [*ways, "MDLM, 16 steps", "MDLM, 64 steps"]}
    assert kinds == {"AR", "ARMD, S = n", "gated, S = 8, p >= n", "MDLM, n steps"}


def test_nats_by_place_are_summed_at_the_seams_and_lose_none():
    nats = torch.zeros(2, 20)
    nats[:, 10] = 100.0  # the head of the second stream
    nats[:, 11:15], nats[:, 6:10], nats[:, 0] = 1.0, 2.0, 0.5
    assert seams.by_place(nats, 2) == {"heads": 100.0, "behind them": 4.0, "before them": 8.0, "elsewhere": 0.5}
    for streams, size in ((4, 5), (1, 20)):
        with pytest.raises(ValueError, match=f"streams={streams} of {size} tokens: two or more of 9 tokens or more"):
            seams.by_place(nats, streams)
