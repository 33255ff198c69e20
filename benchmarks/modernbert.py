"""ModernBERT beside RoBERTa with as many weights in its layers: time per token, by senthy and by transformers.

    python benchmarks/modernbert.py FILE.csv.gz [--size middle|base] [--precision bf16] [--threads 1] [--json]

Random weights; windows of random tokens, as long as real tweets are. A layer of ModernBERT has fewer weights than one
of RoBERTa of the same width, so it has more layers here: 17 beside 12 (`base`). Contestants take turns; ratios are the
median of the turns' ratios, of wall time and of processor time (see `mini_speed.py`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import CLOCKS, as_json, both, limited, machine, machine_lines, ratios, table, timed, turns

from sentiment_hybrid.engine import device as devices
from sentiment_hybrid.engine.batches import make_batches
from sentiment_hybrid.models.encoder.cpu_inference import CpuEncoder
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.models.encoder.roberta import Architecture, Roberta

MOST = 1.2
OURS, RIVAL, ROBERTA = "ModernBERT, senthy", "ModernBERT, transformers", "RoBERTa, senthy"
#: Width, heads; layers and inner width of RoBERTa and of ModernBERT.
SIZES = {"middle": (384, 6, (6, 1536), (9, 512)), "base": (768, 12, (12, 3072), (17, 1152))}
_TOKENS = 2048  # of a batch
_WORDS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="csv or csv.gz with a column text")
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report = measured(options)
    print(as_json(report) if options.json else shown(report))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    compute = devices.choose("cpu", options.precision)
    width, heads, *sizes = SIZES[options.size]
    roberta, modern = (
        Encoder(roberta_of(width, heads, *sizes[0]), 0),
        Encoder(modernbert_of(width, heads, *sizes[1]), 0),
    )
    batches = batches_of(options.file, options.rows)
    tokens = sum(int(mask.sum()) for _, mask in batches)
    works = {
        ROBERTA: passes(roberta, compute, batches, laid_out=True),
        OURS: passes(modern, compute, batches, laid_out=True),
        RIVAL: passes(modern, compute, batches, laid_out=False),
    }
    for work in works.values():  # what a first call alone does
        work()
    taken = turns({name: timed(work) for name, work in works.items()}, options.repeats)
    return {
        "what": "modernbert",
        "size": options.size,
        "precision": compute.precision,
        "weights_of_layers": {"RoBERTa": weights(roberta), "ModernBERT": weights(modern)},
        "tokens": tokens,
        "contestants": [
            {"": name, **{f"{clock} per 1,000 tokens": 1000 * statistics.median(run[clock] for run in runs) / tokens
                          for clock in CLOCKS}}
            for name, runs in taken.items()
        ],
        "ratios": {f"{name} / {ROBERTA}": ratios(taken, name, ROBERTA) for name in (OURS, RIVAL)},
        "at_most": MOST,
        "limited_by": limited(),
        "machine": machine(),
    }  # fmt: skip


def roberta_of(width: int, heads: int, layers: int, inner: int) -> Roberta:
    sizes = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
    }
    return Roberta(Architecture({"model_type": "roberta", "vocab_size": _WORDS, **sizes})).eval()


def modernbert_of(width: int, heads: int, layers: int, inner: int) -> Any:
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=_WORDS, hidden_size=width, num_attention_heads=heads, num_hidden_layers=layers,
        intermediate_size=inner, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2,
        attn_implementation="sdpa",
    )  # fmt: skip
    return ModernBertModel(config).eval()


def weights(encoder: Encoder) -> int:
    return sum(values.numel() for name, values in encoder.named_parameters() if "embeddings" not in name)


def batches_of(file: Path, rows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and masks of windows as long as the first tweets, which have about a token per five characters."""
    import pandas as pd

    texts = pd.read_csv(file, usecols=["text"], dtype=str, nrows=rows, keep_default_na=False)["text"]
    lengths = np.clip(texts.str.len().to_numpy() // 5 + 2, 3, 128)
    draw = np.random.default_rng(0)
    found = []
    for batch in make_batches(lengths, np.arange(len(lengths)), _TOKENS):
        mask = np.arange(lengths[batch].max()) < lengths[batch][:, None]
        found.append((torch.from_numpy(draw.integers(5, _WORDS, mask.shape)), torch.from_numpy(mask)))
    return found


def passes(encoder: Encoder, compute: devices.Compute, batches: list[Any], *, laid_out: bool) -> Callable[[], None]:
    encoder.eval()
    layers = encoder.model.config.num_hidden_layers
    states = CpuEncoder(encoder.model, compute.precision, layers=layers) if laid_out else encoder

    def run() -> None:
        with torch.inference_mode(), compute.autocast():
            for ids, mask in batches:
                states(ids, mask)

    return run


def shown(report: dict[str, Any]) -> str:
    title = f"{report['size']}, {report['precision']}, {report['tokens']:,} tokens; {report['weights_of_layers']}"
    lines = [table(report["contestants"], title=title)]
    lines += [f"{name}: {both(found)}" for name, found in report["ratios"].items()]
    return "\n".join([*lines, f"wanted: at most {report['at_most']}", machine_lines(report["machine"])])


if __name__ == "__main__":
    main()
