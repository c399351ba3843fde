"""How fast is decoding, against what a user would pick instead, and against what this machine could do?

    python tests/benchmarks/decoding.py speed --length 256 --batch 1          # peers, ratios, the limit
    python tests/benchmarks/decoding.py speed --length 1024 --batch 8 --only armd ar gpt2
    python tests/benchmarks/decoding.py layouts                               # products of a layer, 1 to 32 rows
    python tests/benchmarks/decoding.py growth                                # seconds a step against the length
    python tests/benchmarks/decoding.py memory                                # peak against weights and cache
    python tests/benchmarks/decoding.py quality --picture front.png           # shipped tales models: errors and seconds
    python tests/benchmarks/decoding.py profile                               # where a step's time goes

Every row writes a whole text, logits, sampling and bookkeeping included. Rows take turns, the first turn is dropped,
and medians of the others count; ratios are medians of the ratios within a turn. Threads are fixed. Seconds are those
that the processor worked for this process: what other programs do meanwhile costs it its caches, but no seconds.
All models have the same layers, width, vocabulary and length. Their weights are rounded to half precision first, as a
shipped checkpoint's are; products are float32, or with `--precision half` what that means on this device, and then
transformers computes in bfloat16 too. `--json` adds to the rows of a file, so that a table can be made in slices.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from pathlib import Path

import torch

import armdlab
from armdlab import AR, ARMD, ARMDConfig, Engine, Gate, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.curriculum import seeded
from armdlab.packing import PackedLinear, best_dtype
from armdlab.samples import validity, write_tales
from armdlab.table_figures import front

STREAMS = (1, 2, 4, 8, 16)
clock = time.process_time


def models(args):
    """Every model of the comparison, at one size."""
    torch.manual_seed(0)
    config = ARMDConfig(args.vocab, args.length, n_layer=args.layers, n_head=8, d_model=args.width)
    made = {"armd": ARMD(config), "ar": AR(config), "mdlm": MDLM(config), "block": BlockDiffusion(config, 16)}
    return {name: model.half().float().eval() for name, model in made.items()}


def gpt2(args):
    """The same size in `transformers`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"vocab_size": args.vocab, "n_positions": args.length, "n_embd": args.width, "n_layer": args.layers}
    config = GPT2Config(**size, n_head=8, bos_token_id=0, eos_token_id=None, pad_token_id=0)
    peer = GPT2LMHeadModel(config).half().float().eval()
    return peer.bfloat16() if args.precision == "half" else peer


def rows(args):
    """Name -> (a function that writes texts, network calls of it)."""
    N, B = args.length, args.batch
    found, by_name = {}, models(args)
    if "gpt2" in args.only:
        peer, start = gpt2(args), torch.zeros(B, 1, dtype=torch.int64)
        how = {
            "attention_mask": torch.ones_like(start),
            "max_new_tokens": N - 1,
            "min_new_tokens": N - 1,
            "do_sample": True,
            "top_k": 0,
        }
        found["transformers GPT-2, dynamic cache"] = (lambda: peer.generate(start, **how), N - 1)
        static = how | {"cache_implementation": "static", "disable_compile": True}
        found["transformers GPT-2, static cache"] = (lambda: peer.generate(start, **static), N - 1)

    def row(name, label, n_calls, **how):
        engine = Engine.of(by_name[name], args.precision)
        found[label] = (lambda: generate(engine, length=N, batch_size=B, seed=0, **how), n_calls)

    if "ar" in args.only:
        row("ar", "AR", N)
    if "armd" in args.only:
        for S in (s for s in STREAMS if s in args.streams):
            row("armd", f"ARMD, S = {S}", S + N // S - 1, streams=S)
    # of a model that was not taught, drafts nearly all pass: this is the most that verifying can win
    for only, label, way in (("verified", "verified", {"verify": True}), ("gated", "gate open", {"gate": Gate(0.0)})):
        for S in (s for s in (2, 4, 8, 16) if only in args.only and s in args.streams):
            n_calls = sum(1 for _ in decode_steps(by_name["armd"], length=N, batch_size=B, seed=0, streams=S, **way))
            row("armd", f"ARMD, S = {S}, {label}", n_calls, streams=S, **way)
    if "mdlm" in args.only:
        for steps in (S + N // S - 1 for S in (16, 8, 4)):
            order = GenerationOrder.masking_process(N, steps, generator=seeded(0))
            row("mdlm", f"MDLM, {steps} steps", order.n_blocks, order=order)
    if "block" in args.only:
        orders = [GenerationOrder.masking_process(16, 8, generator=seeded(i)) for i in range(N // 16)]
        positions = torch.cat([order.positions + 16 * i for i, order in enumerate(orders)])
        counts = torch.cat([torch.bincount(order.blocks) for order in orders])
        order = GenerationOrder(positions, torch.arange(len(counts)).repeat_interleave(counts))
        row("block", "block diffusion, blocks of 16 in 8 steps", order.n_blocks, order=order)
    return found


def take_turns(jobs, repeats):
    """Seconds of every job in every turn; a turn before them warms up."""
    seconds = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            started = clock()
            job()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def times_as_fast(seconds, name, base):
    """Median over the turns of how often job `name` is done in the time of `base`; None without it."""
    if base not in seconds:
        return None
    return statistics.median(b / t for b, t in zip(seconds[base], seconds[name], strict=True))


@functools.cache
def machine(dtype=torch.float32):
    """Bytes a second that a product with one row streams, and operations a second of a large product of a dtype."""
    many, row = torch.randn(64 * 2**20 // 4096, 1024), torch.randn(1024)
    large = torch.randn(1024, 1024, dtype=dtype)
    taken = take_turns({"stream": lambda: many @ row, "peak": lambda: large @ large}, 9)
    return many.numel() * 4 / min(taken["stream"]), 2 * 1024**3 / min(taken["peak"])


def limit(args, name, n_calls):
    """Seconds that weights, caches and products of a row need at the least.

    Weights are read once a call (2 bytes each: half precision), keys and values up to the present one; a product of R
    rows with P weights takes 2 R P operations. Whichever takes longer counts.
    """
    stream, peak = machine(best_dtype(AR(ARMDConfig(1, 1)), args.precision))
    N, B, L, D = args.length, args.batch, args.layers, args.width
    layer, head = 12 * D * D, D * args.vocab
    if name.startswith("ARMD"):
        two = max(1, L // 2)
        rows_of_layers = (
            2 * (two - 1) + 1 + 1 / 3 + (L - two)
        ) * N  # X of the last two-stream layer: keys, values only
        cached = n_calls * B * L * 2 * D * 4 * N / 2
    elif name.startswith(("MDLM", "block")):
        rows_of_layers = L * n_calls * (N if name.startswith("MDLM") else 16)
        cached = n_calls * B * L * 2 * D * 4 * (N if name.startswith("MDLM") else N / 2)
    else:
        rows_of_layers, cached = L * N, n_calls * B * L * 2 * D * 4 * N / 2
    bytes_read = n_calls * (L * layer + head) * 2 + cached
    operations = 2 * B * (rows_of_layers * layer + N * head)
    return max(bytes_read / stream, operations / peak)


def speed(args):
    """Tokens a second of every row, and how far it is from the limit."""
    jobs = rows(args)
    seconds = take_turns({name: job for name, (job, _) in jobs.items()}, args.repeats)
    print(f"\nN = {args.length}, batch {args.batch}, {args.layers} layers, width {args.width}, V = {args.vocab}")
    print(
        f"{'':42}{'calls':>7}{'ms/text':>10}{'us/call':>9}{'tokens/s':>10}{'x GPT-2':>9}{'x own S=1':>10}{'x limit':>9}"
    )
    found = []
    for name, (_, n_calls) in jobs.items():
        taken = statistics.median(seconds[name])
        facts = {
            "row": name,
            "calls": n_calls,
            "seconds": taken,
            "tokens_per_second": args.length * args.batch / taken,
            "over_gpt2": times_as_fast(seconds, name, "transformers GPT-2, dynamic cache"),
            "over_own_sequential": times_as_fast(seconds, name, "ARMD, S = 1") if name.startswith("ARMD") else None,
            "over_limit": taken / limit(args, name, n_calls),
        }
        found.append(facts)
        shown = [f"{v:.2f}" if v else "" for v in (facts["over_gpt2"], facts["over_own_sequential"])]
        print(
            f"{name:42}{n_calls:7d}{1000 * taken:10.1f}{1e6 * taken / n_calls:9.0f}"
            f"{facts['tokens_per_second']:10.0f}{shown[0]:>9}{shown[1]:>10}{facts['over_limit']:9.1f}",
            flush=True,
        )
    return found


def layouts(args):
    """Microseconds of the four products of a layer in every layout of weights, by the number of rows."""
    D, found = args.width, []
    shapes = ((3 * D, D), (D, D), (4 * D, D), (D, 4 * D))
    counts, kinds = (
        (1, 2, 4, 8, 16, 32),
        [(torch.float32, "plain"), (torch.float32, "blocked"), (torch.float32, "half")],
    )
    kinds += [(torch.bfloat16, "plain"), (torch.bfloat16, "blocked")]
    jobs = {}
    for dtype, layout in kinds:
        # as many layers as the model has, so that weights come from where they come from in a step
        packed = [[PackedLinear(torch.randn(shape), dtype=dtype, layout=layout) for shape in shapes] for _ in range(6)]
        for n in counts:
            x = [torch.randn(1, n, shape[1]).to(dtype) for shape in shapes]
            jobs[dtype, layout, n] = lambda packed=packed, x=x: [
                w(y) for layer in packed for w, y in zip(layer, x, strict=True)
            ]
    with torch.no_grad():
        taken = {kind: statistics.median(seconds) / 6 for kind, seconds in take_turns(jobs, 20 * args.repeats).items()}
    print(f"{'us of a layer, by rows':28}" + "".join(f"{n:8d}" for n in counts))
    for dtype, layout in kinds:
        row = {"row": f"{str(dtype)[6:]}, {layout}", **{str(n): 1e6 * taken[dtype, layout, n] for n in counts}}
        found.append(row)
        print(f"{row['row']:28}" + "".join(f"{row[str(n)]:8.0f}" for n in counts))
    return found


def growth(args):
    """Milliseconds a step at a cache of n slots: a straight line, and the slope that reading the cache alone has."""
    args.length = 4096
    engine, points = Engine.of(models(args)["armd"], args.precision), []
    per_slot = {}
    for S in (1, 8):
        marks, last = {}, clock()
        for number, _ in enumerate(decode_steps(engine, length=4096, streams=S, seed=0)):
            marks.setdefault(number * S // 256, []).append(clock() - last)
            last = clock()
        points = [(256 * (i + 0.5), 1000 * statistics.median(v)) for i, v in marks.items() if len(v) > 8]
        n = torch.tensor([p[0] for p in points], dtype=torch.float64)
        t = torch.tensor([p[1] for p in points], dtype=torch.float64)
        design = torch.stack([torch.ones_like(n), n], 1)
        start, slope = torch.linalg.lstsq(design, t.unsqueeze(1)).solution.flatten().tolist()
        left = float((t - design @ torch.tensor([start, slope], dtype=torch.float64)).abs().max())
        per_slot[S] = {"start_ms": start, "us_per_slot": 1000 * slope, "largest_residual_ms": left, "points": points}
        bandwidth = machine()[0]
        least = 1e6 * args.layers * 2 * args.width * 4 / bandwidth
        print(
            f"S = {S}: {start:.2f} ms + {1000 * slope:.3f} us x slots; reading keys and values: {least:.3f} us a slot"
        )
    return [{"row": f"S = {S}", **facts} for S, facts in per_slot.items()]


def memory(args):
    """Peak of the process over what it held before, against packed weights and cache."""
    args.length, args.batch = 4096, 8
    model = models(args)["armd"]
    weights = sum(weight.numel() for weight in model.parameters()) * 2
    engine = Engine.of(model, args.precision, release=True)
    cache = engine.new_cache(args.batch, args.length)
    held = cache.n_bytes
    del cache
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew (Linux)
    before = _status("VmRSS")
    generate(engine, length=args.length, streams=16, batch_size=args.batch, seed=0)
    peak = _status("VmHWM") - before
    ratio = (peak + weights) / (held + weights)
    print(f"cache {held / 2**20:.0f} MiB, peak above weights {peak / 2**20:.0f} MiB: {ratio:.2f} of weights + cache")
    return [{"row": "memory", "cache_bytes": held, "peak_bytes": peak, "weight_bytes": weights, "ratio": ratio}]


def _status(name):
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def ways_to_tell():
    """Label -> (kind of mark, model, arguments of `write_tales`)."""
    ways = {"AR": ("AR", "tales_ar", {})}
    for S in (1, 2, 4, 8):
        ways[f"ARMD, S = {S}"] = ("ARMD", "tales", {"streams": S})
    for S in (2, 4, 8):
        ways[f"verified, S = {S}"] = ("verified", "tales", {"streams": S, "verify": True})
    for p in (0.3, 0.6, 0.9):
        ways[f"gated, S = 8, p >= {p}"] = ("gated", "tales", {"streams": 8, "gate": Gate(min_probability=p)})
    for h in (0.5, 0.05):
        ways[f"gated, S = 8, H <= {h}"] = ("gated", "tales", {"streams": 8, "gate": Gate(max_entropy=h)})
    for steps in (16, 64, 160):
        ways[f"MDLM, {steps} steps"] = ("MDLM", "tales_mdlm", {"steps": steps})
    return ways


def quality(args):
    """Seconds a tale and share of consistent tales, one tale at a time: AR, MDLM, plain, gated and verified ARMD."""
    labs = {name: armdlab.load(name) for name in ("tales", "tales_ar", "tales_mdlm")}
    engines = {name: Engine.of(lab.model, args.precision) for name, lab in labs.items()}
    ways, found, calls = ways_to_tell(), [], {}
    ways = {label: way for label, way in ways.items() if way[0] in args.ways}
    jobs = {
        label: lambda name=name, how=how: write_tales(engines[name], labs[name].tokenizer, 10, batch_size=1, **how)
        for label, (_, name, how) in ways.items()
    }
    seconds = {label: statistics.median(taken) / 10 for label, taken in take_turns(jobs, args.repeats).items()}
    for label, (kind, name, how) in ways.items():
        lab = labs[name]
        N, end, steps = lab.model.config.max_length, lab.tokenizer.end_of_text, how.get("steps")
        calls[label] = steps
        if steps is None:
            texts = [decode_steps(engines[name], length=N, seed=seed, end=end, **how) for seed in range(10)]
            calls[label] = sum(sum(1 for _ in text) for text in texts) / 10
        share = validity(write_tales(engines[name], lab.tokenizer, args.samples, **how)).is_consistent
        facts = {"row": label, "way": kind, "calls": calls[label], "seconds": seconds[label]}
        found.append({**facts, "consistent": share.value, "error": share.standard_error})
        print(f"{label:28}{calls[label]:8.1f} calls{1000 * seconds[label]:9.1f} ms   consistent {share}", flush=True)
    return found


def profile(args):
    """The operators of one text, by the time that they take themselves."""
    engine = Engine.of(models(args)["armd"], args.precision)
    for S in (1, 8):
        generate(engine, length=args.length, streams=S, seed=0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            generate(engine, length=args.length, streams=S, seed=0)
        print(f"S = {S}")
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))
    return []


WHAT = {
    "speed": speed,
    "layouts": layouts,
    "growth": growth,
    "memory": memory,
    "quality": quality,
    "profile": profile,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=200, help="tales written for each row of quality")
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "half"])
    parser.add_argument("--only", nargs="+", default=["gpt2", "ar", "armd", "verified", "gated", "mdlm", "block"])
    parser.add_argument("--ways", nargs="+", default=["AR", "ARMD", "verified", "gated", "MDLM"], help="of quality")
    parser.add_argument("--json", type=Path, help="a file that takes in the figures")
    parser.add_argument("--picture", type=Path, help="where to draw quality against seconds")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = WHAT[args.what](args)
    if args.json:
        found = add_to(args.json, args, found)
    if args.picture:
        ways = {point["row"]: (point["consistent"], point["seconds"]) for point in found}
        errors = {point["row"]: point["error"] for point in found}
        title = "Quality against time, one tale at a time, one core"
        front(ways, title=title, y="share of valid, consistent tales", errors=errors).save(args.picture)


def add_to(path, args, found):
    """Put rows into a file, in the place of those of the same name; return all that it holds."""
    settings = {key: value for key, value in vars(args).items() if key not in ("json", "picture", "only", "ways")}
    held = json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else []
    by_name = {row["row"]: row for row in [*held, *found]}
    facts = {
        "torch": torch.__version__,
        "processor": processor(),
        "settings": settings,
        "found": list(by_name.values()),
    }
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts["found"]


def processor():
    """What this machine calls its processor (Linux), else what Python knows."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
