"""Which models is a table of the paper made of, on a laptop and at the paper's own size?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from armdlab.recipes import Recipe

# The One Billion Word benchmark as files; billion-word-benchmark/lm1b is a script, which `datasets` from 4 on refuses.
LM1B = "dvruette/lm1b"


@dataclass(frozen=True)
class Budget:
    """Which runs a table is made of, and what they are measured on.

    Args:
        name: "laptop" or "gpu".
        recipes: name of a run -> how it is trained. "armd_0", "armd_1" are seeds of one recipe.
        test: corpus of Table 3; its validation split is scored.
        zero_shot: corpora of Table 1, none of which was trained on.
        writers: runs whose samples Table 2 judges, with the numbers of streams or of denoising steps.
        corrected: runs whose samples it also judges after they were read again (`correcting.Corrector`), with the
            numbers of streams.
        judge: the run that judges, in rows as long as the longest text; a name of the Hub is no run, and is named by
            what it was trained on.
        n_samples: samples of each writer.
        n_orders: random orders of MDLM's log-mean-exp.
        n_rows: rows that it is measured on, for it takes N network calls for each order.
    """

    name: str
    recipes: Mapping[str, Recipe]
    test: str
    zero_shot: tuple[str, ...]
    writers: Mapping[str, tuple[int, ...]]
    corrected: Mapping[str, tuple[int, ...]]
    judge: str
    n_samples: int
    n_orders: int
    n_rows: int


def _laptop() -> Budget:
    # As much as one core learns in an hour, three seeds of what is compared most closely; all by the same optimisers,
    # at a rate that ends at 0
    how = {"learning_rate": 4e-3, "muon": 0.02, "cool_down": 0.0, "bf16": True}
    small = Recipe(corpus="kjv", dropout=0.0, **how)
    seeds = range(3)
    # The more streams, the harder to learn, and the more often they are drawn (tests/benchmarks/README.md)
    tuned = replace(small, steps=288, streams=(1, 2, 2, 4, 4, 8, 8, 8))
    recipes = {f"armd_{seed}": replace(tuned, seed=seed) for seed in seeds}
    recipes |= {f"ar_{seed}": replace(small, model="ar", steps=240, seed=seed) for seed in seeds}
    recipes["mdlm_0"] = replace(small, model="mdlm", steps=2400)
    recipes["block_0"] = replace(small, model="block", steps=240)
    recipes["armd_512"] = replace(tuned, length=512, batch_size=8)
    # Rows as long as the texts of armd_512, so half as many: as many tokens a step as the others
    larger = {"n_layer": 6, "d_model": 192, "length": 512, "batch_size": 8}
    recipes["judge"] = replace(small, model="ar", steps=500, seed=1000, **larger)
    writers = {"ar_0": (1,), "mdlm_0": (128, 67), "armd_0": (1, 2, 4, 8), "armd_512": (1, 2, 4, 8)}
    corrected = {"armd_0": (4, 8), "armd_512": (4, 8)}
    return Budget("laptop", recipes, "kjv", ("manual", "tales"), writers, corrected, "judge", 256, 8, 16)


def _gpu() -> Budget:
    """The paper's settings: 125M parameters, OpenWebText, GPT-2's tokenizer, batches of 512 x 1,024 tokens.

    Its learning rate is not stated; 3e-4 is MDLM's. Its LM1B runs use another tokenizer (bert-base-uncased), so
    perplexities there do not compare with ours; ratios do.
    """
    size = {"n_layer": 12, "n_head": 12, "d_model": 768, "vocab_size": "openai-community/gpt2", "dropout": 0.0}
    size["tie_weights"] = True  # as GPT-2 does: 124 M, where two tables would make it 162 M
    web = Recipe(
        corpus="Skylion007/openwebtext",
        length=1024,
        batch_size=512,
        micro_batch_size=16,
        learning_rate=3e-4,
        bf16=True,
        **size,
    )
    news = replace(web, corpus=LM1B, length=128, micro_batch_size=128, layout="running")
    marks = (9_000, 48_000, 180_000)
    recipes = {
        "armd_0": replace(web, steps=260_000, marks=marks, rho=32, streams=(1, 2, 4)),
        "ar_0": replace(web, model="ar", steps=180_000),
        "mdlm_0": replace(web, model="mdlm", steps=400_000),
        "block_0": replace(web, model="block", steps=400_000),
        "judge": replace(web, model="ar", steps=300_000, n_layer=24, n_head=16, d_model=1024, seed=1000),
        "armd_news": replace(news, steps=1_050_000, marks=(100_000, 300_000, 1_000_000), rho=8, streams=(1, 2, 4)),
        "ar_news": replace(news, model="ar", steps=1_000_000),
        "mdlm_news": replace(news, model="mdlm", steps=1_000_000),
        "block_news": replace(news, model="block", steps=1_000_000),
    }
    zero_shot = ("EleutherAI/lambada_openai", "Salesforce/wikitext:wikitext-2-raw-v1", "ptb-text-only/ptb_text_only")
    zero_shot += ("Salesforce/wikitext:wikitext-103-raw-v1", LM1B)
    writers = {"ar_0": (1,), "mdlm_0": (1024, 512), "armd_0": (1, 2, 4, 8)}
    corrected = {"armd_0": (4, 8)}
    return Budget("gpu", recipes, LM1B, zero_shot, writers, corrected, "judge", 1024, 8, 64)


BUDGETS = {"laptop": _laptop(), "gpu": _gpu()}
