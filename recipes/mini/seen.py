"""Write the pack's filter of seen texts: those of every database and file that the encoder or a head has read.

python recipes/mini/seen.py PACK --databases human.db tweets.db
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sentiment_hybrid import paths
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.evaluation.seen import SeenTexts


def main() -> None:
    """Of a database, the training and validation rows; test rows are what models are measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--databases", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    keys, made_by = [], []
    for path in arguments.databases:
        with open_store(path) as store:
            keys += [store.key_hashes("train"), store.key_hashes("valid")]
            made_by.append(store.split_keys)
    if any(other != made_by[0] for other in made_by):
        parser.error("the databases have different split keys (data.split_seed, data.split_key_version)")
    seen = SeenTexts.of(np.concatenate(keys), **made_by[0])
    seen.save(arguments.pack / paths.SEEN_TEXTS)
    print(f"{seen.count:,} texts, {(arguments.pack / paths.SEEN_TEXTS).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
