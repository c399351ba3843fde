"""How much dearer is a training step of ARMD than one of an AR transformer of the same size?

Both learn the same batch, in turn, in one process; quoted are medians and the median of the pairwise ratios. Theory: a
forward pass computes X and G in L2s - 1 of L layers, so about 1.3 times the work of one stream. The share of the
machine's matrix peak, that of one large product in the same precision, counts the matrix products that PyTorch's own
counter sees: attention in a fused kernel is not among them, so the true share is a little larger.

    python tests/benchmarks/training.py            # 6 layers, width 256, 16 rows of 256 tokens
    python tests/benchmarks/training.py --d-model 512 --n-head 8 --precision float32
    python tests/benchmarks/training.py --json
"""

import argparse
import json
import platform
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder
from armdlab.objectives import nll


def step(model, optimizer, tokens, order, bf16):
    """Seconds of one optimiser step."""
    started = time.perf_counter()
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
        loss = nll(model, tokens, order)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if tokens.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def matrix_peak(device, bf16):
    """Operations a second of a product of two large matrices, the best of five."""
    large = torch.randn(2048, 2048, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        large @ large
        if device != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("n-layer", 6),
        ("d-model", 256),
        ("n-head", 4),
        ("length", 256),
        ("batch-size", 16),
        ("vocab-size", 1024),
        ("repeats", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=["float32", "bf16"], nargs="+", default=["float32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()

    config = ARMDConfig(a.vocab_size, a.length, n_layer=a.n_layer, n_head=a.n_head, d_model=a.d_model)
    tokens = torch.randint(a.vocab_size, (a.batch_size, a.length), device=a.device)
    orders = {
        "AR, left to right": (AR, GenerationOrder.left_to_right(a.length)),
        "ARMD, left to right": (ARMD, GenerationOrder.left_to_right(a.length)),
        "ARMD, shuffled rows": (ARMD, GenerationOrder.shuffled(a.length, a.length // 32, batch_size=a.batch_size)),
        "ARMD, 4 streams": (ARMD, GenerationOrder.strided(a.length, 4)),
    }
    results = []
    for precision in a.precision:
        bf16 = precision == "bf16"
        peak, models = matrix_peak(a.device, bf16), {}
        for cls in (AR, ARMD):
            model = cls(config).to(a.device)
            models[cls] = (model, torch.optim.AdamW(model.parameters(), fused=True))
        seconds, operations = {name: [] for name in orders}, {}
        for name, (cls, order) in orders.items():
            with FlopCounterMode(display=False) as counter:
                step(*models[cls], tokens, order.to(a.device), bf16)
            operations[name] = counter.get_total_flops()
        for _ in range(a.repeats):  # warm by the counting
            for name, (cls, order) in orders.items():
                seconds[name].append(step(*models[cls], tokens, order.to(a.device), bf16))
        baseline = seconds["AR, left to right"]
        for name, taken in seconds.items():
            ratio = statistics.median(t / b for t, b in zip(taken, baseline, strict=True))
            results.append(
                {
                    "precision": precision,
                    "model": name,
                    "ratio": ratio,
                    "seconds": statistics.median(taken),
                    "tokens_per_second": tokens.numel() / statistics.median(taken),
                    "share_of_peak": operations[name] / statistics.median(taken) / peak,
                }
            )
    facts = {
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "device": a.device,
        "threads": torch.get_num_threads(),
        **vars(a),
        "results": results,
    }
    if a.json:
        print(json.dumps(facts, indent=2))
        return
    print(
        f"{a.n_layer} layers, width {a.d_model}, {a.batch_size} rows of {a.length}; {a.device}, "
        f"{facts['threads']} threads, torch {torch.__version__}"
    )
    for row in results:
        print(
            f"{row['precision']:8}  {row['model']:20}  {row['seconds']:7.3f} s a step  "
            f"{row['tokens_per_second']:8,.0f} tokens/s  {row['ratio']:5.2f} x AR  "
            f"{100 * row['share_of_peak']:3.0f} % of the matrix peak"
        )


if __name__ == "__main__":
    main()
