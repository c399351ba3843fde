"""How fast is decoding, against what a user would pick instead, and against what this machine could do?

    python tests/benchmarks/decoding.py speed --length 256 --batch 1          # peers, ratios, the limit
    python tests/benchmarks/decoding.py speed --length 1024 --batch 8 --only armd ar gpt2
    python tests/benchmarks/decoding.py layouts                               # products of a layer, 1 to 32 rows
    python tests/benchmarks/decoding.py growth                                # seconds a step against the length
    python tests/benchmarks/decoding.py memory                                # peak against weights and cache
    python tests/benchmarks/decoding.py quality --picture front.png           # shipped tales: errors, calls, seconds
    python tests/benchmarks/decoding.py profile                               # where a step's time goes

Every row writes a whole text, logits, sampling and bookkeeping included. Rows take turns, the first turn is dropped,
and medians of the others count; ratios are medians of the ratios within a turn. Threads are fixed. One thread of a CPU
is timed by what the processor worked for this process: what other programs do meanwhile costs it its caches, but no
seconds. With more threads, and on the accelerator of `--device`, seconds are those that pass until all is done.
All models have the same layers, width, vocabulary and length. Their weights are rounded to half precision first, as a
shipped checkpoint's are; products are float32, or with `--precision half` what that means on this device, and
transformers computes in the same. `--json` adds to the rows of a file, so that a table can be made in slices: a row
takes the place of the one of its name and settings.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from calls_figure import against_calls
from decoding_limit import Call, bytes_of_a_weight, one_by_one, watched, work
from records import add_to, settings
from timing import clock_of, machine, take_turns, times_as_fast
from torch.profiler import ProfilerActivity

import armdlab
from armdlab import AR, ARMD, ARMDConfig, Corrector, Engine, Gate, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.correcting import corrected_steps
from armdlab.figures.tables import front
from armdlab.orders import UNKNOWN
from armdlab.packing import PackedLinear, best_dtype
from armdlab.samples import validity, write_tales
from armdlab.sampling import REVEALING, Sampler, seeded
from armdlab.speculative import verified_steps
from armdlab.trained import fastest_device

STREAMS = (1, 2, 4, 8, 16)
PEER = "transformers GPT-2, dynamic cache"


def models(args):
    """Every model of the comparison, at one size."""
    torch.manual_seed(0)
    config = ARMDConfig(args.vocab, args.length, n_layer=args.layers, n_head=8, d_model=args.width)
    made = {"armd": ARMD(config), "ar": AR(config), "mdlm": MDLM(config), "block": BlockDiffusion(config, 16)}
    return {name: model.half().float().eval().to(args.device) for name, model in made.items()}


def gpt2(args, dtype):
    """The same size in `transformers`, with weights and products of a dtype."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"vocab_size": args.vocab, "n_positions": args.length, "n_embd": args.width, "n_layer": args.layers}
    config = GPT2Config(**size, n_head=8, bos_token_id=0, eos_token_id=None, pad_token_id=0)
    return GPT2LMHeadModel(config).half().float().eval().to(args.device, dtype)


@dataclass(frozen=True)
class Job:
    """What writes the texts of a row: a function, its network calls, and its numbers.

    Args:
        write: the whole batch, once.
        calls: that it makes.
        dtype: of products, and of keys and values in the cache.
        weight_bytes: that a weight takes.
    """

    write: Callable[[], object]
    calls: list[Call]
    dtype: torch.dtype
    weight_bytes: int


def rows(args):
    """Name -> its `Job`."""
    N, B = args.length, args.batch
    found, by_name = {}, models(args)
    if "gpt2" in args.only:
        dtype = best_dtype(by_name["ar"], args.precision)
        peer, start = gpt2(args, dtype), torch.zeros(B, 1, dtype=torch.int64, device=args.device)
        needs = one_by_one(N - 1, args.layers, B), dtype, dtype.itemsize
        how = {
            "attention_mask": torch.ones_like(start),
            "max_new_tokens": N - 1,
            "min_new_tokens": N - 1,
            "do_sample": True,
            "top_k": 0,
        }
        static = how | {"cache_implementation": "static", "disable_compile": True}
        found[PEER] = Job(lambda: peer.generate(start, **how), *needs)
        found["transformers GPT-2, static cache"] = Job(lambda: peer.generate(start, **static), *needs)

    def row(name, label, **how):
        engine = Engine.of(by_name[name], args.precision)

        def write():
            return generate(engine, length=N, batch_size=B, seed=0, **how)

        found[label] = Job(write, watched(engine, write), engine.dtype, bytes_of_a_weight(engine))

    if "ar" in args.only:
        row("ar", "AR")
    if "armd" in args.only:
        for S in (s for s in STREAMS if s in args.streams):
            row("armd", f"ARMD, S = {S}", streams=S)
    # of a model that was not taught, drafts nearly all pass: this is the most that verifying can win
    ways = {"heads": ("heads verified", {"verify": "heads"}), "verified": ("verified", {"verify": True})}
    for only, (label, way) in {**ways, "gated": ("gate open", {"gate": Gate(0.0)})}.items():
        for S in (s for s in (2, 4, 8, 16) if only in args.only and s in args.streams and (only, s) != ("heads", 2)):
            row("armd", f"ARMD, S = {S}, {label}", streams=S, **way)
    if "mdlm" in args.only:
        for steps in (S + N // S - 1 for S in (16, 8, 4)):
            order = GenerationOrder.masking_process(N, steps, generator=seeded(0))
            row("mdlm", f"MDLM, {steps} steps", order=order)
    if "block" in args.only:
        orders = [GenerationOrder.masking_process(16, 8, generator=seeded(i)) for i in range(N // 16)]
        positions = torch.cat([order.positions + 16 * i for i, order in enumerate(orders)])
        counts = torch.cat([torch.bincount(order.blocks) for order in orders])
        order = GenerationOrder(positions, torch.arange(len(counts)).repeat_interleave(counts))
        row("block", "block diffusion, blocks of 16 in 8 steps", order=order)
    return found


def speed(args):
    """Tokens a second of every row, and how far it is from the limit.

    The limit is the time that weights and caches need at the bandwidth of this machine, or products at its peak,
    whichever is longer (see `decoding_limit`).
    """
    jobs = rows(args)
    seconds = take_turns({name: job.write for name, job in jobs.items()}, args.repeats, clock(args))
    print(f"\nN = {args.length}, batch {args.batch}, {args.layers} layers, width {args.width}, V = {args.vocab}")
    print(
        f"{'':42}{'calls':>7}{'ms/text':>10}{'us/call':>9}{'tokens/s':>10}{'x GPT-2':>9}{'x own S=1':>10}{'x limit':>9}"
    )
    found = []
    for name, job in jobs.items():
        taken, n_calls = statistics.median(seconds[name]), len(job.calls)
        sizes = {"weight_bytes": job.weight_bytes, "cache_bytes": job.dtype.itemsize}
        n_bytes, n_operations = work(job.calls, width=args.width, vocab=args.vocab, **sizes)
        stream, peak = machine(args.device, args.threads, job.dtype)
        facts = {
            "row": name,
            "calls": n_calls,
            "seconds": taken,
            "tokens_per_second": args.length * args.batch / taken,
            "over_gpt2": times_as_fast(seconds, name, PEER),
            "over_own_sequential": times_as_fast(seconds, name, "ARMD, S = 1") if name.startswith("ARMD") else None,
            "bytes": n_bytes,
            "operations": n_operations,
            "over_limit": taken / max(n_bytes / stream, n_operations / peak),
        }
        found.append(facts)
        shown = [f"{v:.2f}" if v else "" for v in (facts["over_gpt2"], facts["over_own_sequential"])]
        print(
            f"{name:42}{n_calls:7d}{1000 * taken:10.1f}{1e6 * taken / n_calls:9.0f}"
            f"{facts['tokens_per_second']:10.0f}{shown[0]:>9}{shown[1]:>10}{facts['over_limit']:9.1f}",
            flush=True,
        )
    return found


def clock(args):
    """What tells seconds on the device and threads that were asked for."""
    return clock_of(args.device, args.threads)


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
        turns = take_turns(jobs, 20 * args.repeats, clock(args))
    taken = {kind: statistics.median(seconds) / 6 for kind, seconds in turns.items()}
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
    per_slot, now = {}, clock(args)
    for S in (1, 8):
        marks, last = {}, now()
        for number, _ in enumerate(decode_steps(engine, length=4096, streams=S, batch_size=args.batch, seed=0)):
            marks.setdefault(number * S // 256, []).append(now() - last)
            last = now()
        points = [(256 * (i + 0.5), 1000 * statistics.median(v)) for i, v in marks.items() if len(v) > 8]
        n = torch.tensor([p[0] for p in points], dtype=torch.float64)
        t = torch.tensor([p[1] for p in points], dtype=torch.float64)
        design = torch.stack([torch.ones_like(n), n], 1)
        start, slope = torch.linalg.lstsq(design, t.unsqueeze(1)).solution.flatten().tolist()
        left = float((t - design @ torch.tensor([start, slope], dtype=torch.float64)).abs().max())
        per_slot[S] = {"start_ms": start, "us_per_slot": 1000 * slope, "largest_residual_ms": left, "points": points}
        bandwidth = machine(args.device, args.threads, engine.dtype)[0]
        least = 1e6 * args.batch * args.layers * 2 * args.width * engine.dtype.itemsize / bandwidth
        print(
            f"S = {S}: {start:.2f} ms + {1000 * slope:.3f} us x slots; reading keys and values: {least:.3f} us a slot"
        )
    return [{"row": f"S = {S}", **facts} for S, facts in per_slot.items()]


def memory(args):
    """Peak of the process, or of the GPU, over what it held before, against packed weights and cache."""
    args.length, args.batch = 4096, 8
    model = models(args)["armd"]
    n_weights = model.n_parameters
    engine = Engine.of(model, args.precision)
    model.to("meta")  # gives up its own weights
    weights = n_weights * bytes_of_a_weight(engine)
    cache = engine.new_cache(args.batch, args.length)
    held = cache.n_bytes
    del cache
    start_anew, now, at_most = _meters(args.device)
    start_anew()
    before = now()
    generate(engine, length=args.length, streams=16, batch_size=args.batch, seed=0)
    peak = at_most() - before
    ratio = (peak + weights) / (held + weights)
    print(f"cache {held / 2**20:.0f} MiB, peak above weights {peak / 2**20:.0f} MiB: {ratio:.2f} of weights + cache")
    return [{"row": "memory", "cache_bytes": held, "peak_bytes": peak, "weight_bytes": weights, "ratio": ratio}]


def _meters(device):
    """Of memory: what starts the peak anew, what tells the bytes that are held now, and what tells the peak."""
    if device.type == "cuda":
        meters = torch.cuda.reset_peak_memory_stats, torch.cuda.memory_allocated, torch.cuda.max_memory_allocated
        return [functools.partial(meter, device) for meter in meters]
    clear = Path("/proc/self/clear_refs")  # Linux
    return lambda: clear.write_text("5", encoding="ascii"), lambda: _status("VmRSS"), lambda: _status("VmHWM")


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
    again = {"correct": Corrector(above=5.0)}  # a name among sixty is 4.1 nats dearer first, without fault
    for S in (2, 4, 8):
        ways[f"corrected, S = {S}"] = ("corrected", "tales", {"streams": S, **again})
    for S in (4, 8):
        ways[f"corrected verified, S = {S}"] = ("corrected", "tales", {"streams": S, "verify": True, **again})
    ways["gated, S = 4, p >= 0.3"] = ("gated", "tales", {"streams": 4, "gate": Gate(min_probability=0.3)})
    for p in (0.3, 0.6, 0.9):
        ways[f"gated, S = 8, p >= {p}"] = ("gated", "tales", {"streams": 8, "gate": Gate(min_probability=p)})
    for h in (0.5, 0.05):
        ways[f"gated, S = 8, H <= {h}"] = ("gated", "tales", {"streams": 8, "gate": Gate(max_entropy=h)})
    for steps in (16, 64, 160):
        ways[f"MDLM, {steps} steps"] = ("MDLM", "tales_mdlm", {"steps": steps})
    return ways


def quality(args):
    """Seconds, calls and consistent tales, one tale at a time: AR, MDLM, plain, gated, verified and corrected ARMD."""
    labs = {name: armdlab.load(name, device=args.device) for name in ("tales", "tales_ar", "tales_mdlm")}
    engines = {name: Engine.of(lab.model, args.precision) for name, lab in labs.items()}
    ways, found, n = ways_to_tell(), [], min(10, args.samples)
    ways = {label: way for label, way in ways.items() if way[0] in args.ways}
    jobs = {
        label: lambda name=name, how=how: write_tales(engines[name], labs[name].tokenizer, n, batch_size=1, **how)
        for label, (_, name, how) in ways.items()
    }
    turns = take_turns(jobs, args.repeats, clock(args))
    for label, (kind, name, how) in ways.items():
        end, taken = labs[name].tokenizer.end_of_text, statistics.median(turns[label]) / n
        counts = counted(engines[name], n, end=end, **how)
        share = validity(write_tales(engines[name], labs[name].tokenizer, args.samples, **how)).is_consistent
        facts = {"row": label, "way": kind, **counts, "seconds": taken}
        found.append({**facts, "consistent": share.value, "error": share.standard_error})
        kept = "" if counts["accepted"] is None else f"   {100 * counts['accepted']:.1f} % of judged drafts kept"
        made = f"{counts['calls']:8.1f} calls{counts['tokens_per_call']:6.2f} tokens each"
        print(f"{label:28}{made}{1000 * taken:9.1f} ms   consistent {share}{kept}", flush=True)
    config = labs["tales"].model.config  # of the settings, these are what the shipped models have
    args.length, args.batch, args.vocab = config.max_length, 1, config.vocab_size
    args.layers, args.width = config.n_layer, config.d_model
    return found


def counted(engine, n, *, end, streams=1, steps=None, verify=False, gate=None, correct=None):
    """Network calls a text, tokens a call, and the share of judged drafts that were kept (None without drafts).

    A verified call judges its drafts one after another, up to the first that it refuses; what stands behind that is
    drafted anew for a later call. To correct a text takes calls, too, and makes no token more.
    """
    N, n_made, n_calls, judged = engine.config.max_length, 0, 0, []
    for seed in range(n):
        blank = torch.full((1, N), UNKNOWN)
        if verify:
            order, choose = GenerationOrder.strided(N, streams), Sampler(seed=seed, device=engine.device)
            made = verified_steps(engine, blank, order, choose, end, streams, judged.append)
        elif steps:
            order = GenerationOrder.masking_process(N, steps, generator=seeded(seed, REVEALING))
            made = decode_steps(engine, length=N, order=order, seed=seed, end=end)
        else:
            made = decode_steps(engine, length=N, streams=streams, gate=gate, seed=seed, end=end)
        if correct:
            made = corrected_steps(engine, made, blank, GenerationOrder.left_to_right(N), correct, end, seed=seed)
        for step in made:
            n_made, n_calls = n_made + (0 if step.is_reading else step.tokens.shape[1]), n_calls + step.calls
    n_kept = [int(call.n_passed) for call in judged]
    n_refused = sum(kept < int(call.is_inside[:, :-1].sum()) for call, kept in zip(judged, n_kept, strict=True))
    accepted = sum(n_kept) / (sum(n_kept) + n_refused) if judged else None
    return {"calls": n_calls / n, "tokens_per_call": n_made / n_calls, "accepted": accepted}


def profile(args):
    """The operators of a batch of texts, by the time that they take themselves."""
    engine, found = Engine.of(models(args)["armd"], args.precision), []
    on_gpu = args.device.type == "cuda"
    for S in (1, 8):
        how = {"length": args.length, "streams": S, "batch_size": args.batch, "seed": 0}
        generate(engine, **how)
        with torch.profiler.profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        ) as seen:
            generate(engine, **how)
        operators = {
            event.key: {
                "calls": event.count,
                "self_us": event.self_device_time_total if on_gpu else event.self_cpu_time_total,
            }
            for event in seen.key_averages()
        }
        whole = sum(facts["self_us"] for facts in operators.values())
        first = sorted(operators.items(), key=lambda operator: -operator[1]["self_us"])[:12]
        found.append({"row": f"S = {S}", "self_us": whole, "operators": dict(first)})
        print(f"S = {S}, {whole / 1000:.1f} ms\n{'':48}{'calls':>8}{'ms':>9}{'share':>9}")
        for name, facts in first:
            part = facts["self_us"]
            print(f"{name[:46]:48}{facts['calls']:8d}{part / 1000:9.2f}{100 * part / whole:7.1f} %")
    return found


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
    parser.add_argument("--device", default="cpu", help="where models are: cpu, cuda, mps")
    parser.add_argument("--samples", type=int, default=200, help="tales judged for each row of quality; 10 are timed")
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "half"])
    parser.add_argument(
        "--only", nargs="+", default=["gpt2", "ar", "armd", "heads", "verified", "gated", "mdlm", "block"]
    )
    parser.add_argument(
        "--ways", nargs="+", default=["AR", "ARMD", "verified", "corrected", "gated", "MDLM"], help="of quality"
    )
    parser.add_argument("--json", type=Path, help="a file that takes in the figures")
    parser.add_argument("--picture", type=Path, help="where to draw quality against seconds; against calls beside it")
    args = parser.parse_args()
    args.device = fastest_device(args.device)
    if args.what == "layouts" and args.device.type != "cpu":
        parser.error(f"--device {args.device}: layouts compares those that a CPU has; leave --device out")
    torch.set_num_threads(args.threads)
    found = WHAT[args.what](args)
    found = [{"row": facts["row"], **settings(args), **facts} for facts in found]
    if args.json:
        found = add_to(args.json, found)
    if args.picture:
        draw(args, found)


def draw(args, found):
    """Quality against seconds, and against network calls, which are the same on every machine."""
    where = f"{args.threads} threads" if args.threads > 1 else "one core"
    how = {"y": "share of valid, consistent tales", "errors": {point["row"]: point["error"] for point in found}}
    how["title"] = f"Quality against time, one tale at a time, {where if args.device.type == 'cpu' else args.device}"
    front({point["row"]: (point["consistent"], point["seconds"]) for point in found}, **how).save(args.picture)
    how["title"] = "Quality against network calls"
    by_calls = against_calls({point["row"]: (point["consistent"], point["calls"]) for point in found}, **how)
    by_calls.save(args.picture.with_stem(f"{args.picture.stem}_calls"))


if __name__ == "__main__":
    main()
