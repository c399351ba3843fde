"""Where must prefix aggregation start, so that the model learns? (ablation of eq. 6 on two corpora)

Each variant trains for the same steps, left to right only, from the same seed, on the same batches; printed are exact
held-out nats per token. Results and what follows from them stand in README.md beside this file.

    python tests/benchmarks/prefix_kernel.py --corpus manual --seeds 0 1
    python tests/benchmarks/prefix_kernel.py --corpus kjv --length 256 --variants AR waves "base 10" random
"""

import argparse
import statistics
from dataclasses import replace

import torch
from torch import nn

from armdlab import AR, ARMD, ARMDConfig, corpora
from armdlab.baselines import TableARMD
from armdlab.curriculum import Curriculum
from armdlab.evaluation import likelihood
from armdlab.positions import frequencies
from armdlab.rows import Text
from armdlab.tokenization import Tokenizer
from armdlab.training import Plan, Training


class UpToPi(ARMD):
    """Waves down to two tokens, the shortest that there are."""

    def __init__(self, config):
        super().__init__(config)
        w = 2 * frequencies(config.d_position)
        angles = torch.outer(torch.arange(config.max_length + 1), w)
        self.waves = torch.cat([angles.sin(), angles.cos()], -1)
        with torch.no_grad():
            self.amplitudes.copy_(as_long(torch.where((w >= 1 / config.position_base) & (w <= 1), 1 / w, 1e-3).sqrt()))


class Exponential(ARMD):
    """<PE_n, PE_i> starts as exp(-|n - i| / reach), a moving average of what came before."""

    def __init__(self, config, reach):
        super().__init__(config)
        with torch.no_grad():
            self.amplitudes.copy_(as_long((1 + (reach * frequencies(config.d_position)) ** 2).rsqrt()))


def as_long(amplitudes):
    """The same, as long as ARMD's."""
    return 0.3 * amplitudes / amplitudes.norm()


class RandomStart(TableARMD):
    """Position embeddings start as noise, as any other embedding does."""

    def __init__(self, config):
        super().__init__(config)
        nn.init.normal_(self.position, std=0.02)


class Scaled(TableARMD):
    """Position embeddings of another length: Adam then turns the kernel faster (short) or slower (long)."""

    def __init__(self, config, length):
        super().__init__(config)
        with torch.no_grad():
            self.position.mul_(length / self.position[0].norm())


class ByCount(TableARMD):
    """G^0 divided by the root of the number of tokens seen, in the place of a norm."""

    def first_targets(self, x, x_at, g_at, masks):
        kernel = masks.target_to_evidence.apply(self.position[g_at] @ self.position[x_at].mT)
        seen = torch.arange(1, kernel.shape[-2] + 1).sqrt().unsqueeze(-1)
        return kernel @ x / seen, g_at


class Heads(TableARMD):
    """Four kernels of `d_position` each, on a quarter of the features each."""

    def __init__(self, config):
        super().__init__(config)
        self.position = nn.Parameter(self.position.detach().repeat(1, 4))

    def first_targets(self, x, x_at, g_at, masks):
        triples = zip(self.position[x_at].chunk(4, -1), self.position[g_at].chunk(4, -1), x.chunk(4, -1), strict=True)
        heads = [masks.target_to_evidence.apply(g_pe @ x_pe.mT) @ part for x_pe, g_pe, part in triples]
        return self.prefix_norm(torch.cat(heads, -1)), g_at


class Constant(TableARMD):
    """A learned constant added to G^0."""

    def __init__(self, config):
        super().__init__(config)
        self.constant = nn.Parameter(torch.zeros(config.d_model))

    def first_targets(self, *rows):
        g, g_at = super().first_targets(*rows)
        return g + self.constant, g_at


class Projected(TableARMD):
    """Values of the sum go through a matrix of their own."""

    def __init__(self, config):
        super().__init__(config)
        self.value = nn.Linear(config.d_model, config.d_model, bias=False)

    def first_targets(self, x, *rows):
        return super().first_targets(self.value(x), *rows)


def table(kind=TableARMD, **settings):
    """A model with a table of positions, 64 wide and of base 10 where nothing else is said."""
    return lambda config: kind(replace(config, **{"d_position": 64, "position_base": 10.0, **settings}))


VARIANTS = {
    "AR": AR,
    "waves": ARMD,
    **{f"waves, base {base}": lambda c, b=base: ARMD(replace(c, position_base=float(b))) for base in (100, 10)},
    **{f"waves, d_pe {d}": lambda c, d=d: ARMD(replace(c, d_position=d)) for d in (32, 64, 128, 256)},
    "waves up to pi": UpToPi,
    **{f"waves, exponential {reach}": lambda c, r=reach: Exponential(c, r) for reach in (2, 10)},
    "waves, L2s = 1": lambda c: ARMD(replace(c, n_two_stream=1)),
    "waves, L2s = L": lambda c: ARMD(replace(c, n_two_stream=c.n_layer)),
    "random": table(RandomStart),
    **{f"base {base}": table(position_base=float(base)) for base in (10_000, 100, 30, 10, 5)},
    **{f"d_pe {d}": table(d_position=d) for d in (32, 128, 256)},
    "d_pe 128, base 30": table(d_position=128, position_base=30.0),
    **{f"length {length}": table(lambda c, length=length: Scaled(c, length)) for length in (3.0, 1.0, 0.1)},
    "no norm": table(ByCount),
    "4 heads": table(Heads),
    "constant": table(Constant),
    "projected": table(Projected),
}


def train(build, config, text, steps, seed):
    """Train one variant and return it."""
    torch.manual_seed(seed)
    model = build(config)
    never = Curriculum(config.max_length, steps, steps, steps, rho=0)
    for _ in Training(model, text, Plan(steps, never, batch_size=2048 // config.max_length, seed=seed)).run():
        pass
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="manual")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    a = parser.parse_args()

    splits = corpora.load(a.corpus)
    tokenizer = Tokenizer.train(splits["train"]["text"], 1024)
    text = Text.encode(splits["train"]["text"], tokenizer)
    held_out = Text.encode(splits["validation"]["text"], tokenizer, at_most=20_000)
    config = ARMDConfig(tokenizer.vocab_size, a.length, n_layer=4, n_head=4, d_model=128)
    print(f"{a.corpus}: 4 layers, width 128, rows of {a.length}, {a.steps} steps of 2,048 tokens, seeds {a.seeds}")
    for name in a.variants:
        models = [train(VARIANTS[name], config, text, a.steps, seed) for seed in a.seeds]
        nats = [likelihood(model, held_out, a.length).nats_per_token for model in models]
        each = " ".join(f"{value:.3f}" for value in nats)
        print(f"{name:20} {statistics.mean(nats):.3f} nats a token   ({each})", flush=True)


if __name__ == "__main__":
    main()
