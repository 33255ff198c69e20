"""``senthy pretrain``: trains an encoder on texts without labels, from scratch or an existing encoder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sentiment_hybrid import console, distributed, paths
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, progress
from sentiment_hybrid.data.normalizers import get_normalizer
from sentiment_hybrid.data.sources import open_source
from sentiment_hybrid.data.store import check_ours, open_store
from sentiment_hybrid.data.unlabelled import read_unlabelled
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.device import Compute, resolve
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.engine.training.fingerprint import encoder_files
from sentiment_hybrid.engine.training.mlm import MaskedLanguage, Masking, count_masked_held_out, perplexity
from sentiment_hybrid.engine.training.prepare import compute_for, read_at_most
from sentiment_hybrid.engine.training.publish import draw_curves
from sentiment_hybrid.engine.training.runner import fit, load_last
from sentiment_hybrid.engine.training.runs import FREE_TO_CHANGE, Run, now, versions
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import DatabaseError, DataError, UsageError, count
from sentiment_hybrid.files import atomic_dir, check_replaceable, check_writable, digest_of, write_json, written
from sentiment_hybrid.heads import encoder_family
from sentiment_hybrid.models.encoder import hub
from sentiment_hybrid.models.encoder.hub import LoadedEncoder
from sentiment_hybrid.models.encoder.mlm import MaskedLanguageModel, head_weights
from sentiment_hybrid.models.encoder.module import encoder_fingerprint, max_positions, set_dropout
from sentiment_hybrid.models.tokenizer import read_added_tokens, train_tokenizer
from sentiment_hybrid.runtime import Runtime

#: Name of its runs.
RUN_NAME = "pretrain"
#: With fewer texts, an encoder only memorizes them.
_LEAST_TEXTS = 100


@dataclass(frozen=True)
class PretrainResult:
    """The pretrained encoder; perplexities are those of held-out texts (``before`` is None from scratch)."""

    encoder_dir: Path
    run_dir: Path
    base: str
    texts: int
    tokens: int
    held_out_texts: int
    epochs: int
    best_epoch: int
    perplexity: float
    perplexity_before: float | None
    accuracy: float
    seconds: float
    resumed: bool


@dataclass(frozen=True)
class _Texts:
    name: str
    train: Sequence[str]
    valid: Sequence[str]
    normalizer: str
    fingerprint: str
    added_tokens: tuple[str, ...]


def run(config: Config, runtime: Runtime = Runtime()) -> PretrainResult:
    """Train an encoder by masked language modelling and write it as a directory for ``encoder.name``.

    "From scratch" also learns a tokenizer from the texts; continuing from an encoder that was trained on other texts
    is domain adaptation (Gururangan et al. 2020). When started by torchrun or accelerate launch, all processes train
    one encoder together.

    Raises:
        DataError: too few distinct texts, or too few for the vocabulary size.
        EncoderError: the base encoder cannot be loaded, or has no mask token.
        SenthyError: other failures; see `sentiment_hybrid.errors`.
    """
    base = _base(config)
    if encoder_family(base) == paths.STATIC:
        raise UsageError(
            f"{base} is a table of token vectors, without layers that could be pretrained",
            hint=f"Pretrain another encoder (--set pretrain.base={config.encoder.static.base}), and set "
            "encoder.static.base to the result.",
        )
    distributed.join(resolve(runtime.device).device.type)
    output = config.pretrain.output_dir
    distributed.from_main(check_replaceable, output, lambda: (output / paths.PRETRAINED_JSON).is_file())
    hint = "Choose another directory: --output DIR, --set paths.results_dir=..."
    distributed.from_main(check_writable, output.parent, config.paths.results_dir, hint=hint)
    started = time.perf_counter()
    texts = distributed.together(_read, config, offline=runtime.offline)
    fingerprint = distributed.together(_fingerprint, config, texts)
    distributed.check_same(fingerprint, "settings, texts or an encoder")
    with Run.opened(config, RUN_NAME, fingerprint, runtime, data_fingerprint=texts.fingerprint) as run:
        result = _run_one(config, run, texts, runtime)
        run.finish()
    return replace(result, seconds=time.perf_counter() - started)


def _run_one(config: Config, run: Run, texts: _Texts, runtime: Runtime) -> PretrainResult:
    compute = compute_for(run, device=runtime.device, precision=config.pretrain.precision)
    if runtime.resume:
        before = run.resumed_config(config, "paths")
        own = config.pretrain
        config = before.changed({"pretrain.output_dir": own.output_dir, "pretrain.added_tokens": own.added_tokens})
    encoder, trainer = distributed.together(_prepare, config, texts, compute, offline=runtime.offline)
    run.settle(compute.describe(), encoder=encoder.fingerprint)
    resumed = load_last(trainer, run)
    if not resumed and encoder.source != "scratch":
        before_training = trainer.task.validate(
            trainer.bare, compute=compute, token_budget=trainer.token_budget, accelerator=trainer.accelerator
        )
        if before_training and distributed.is_main():
            run.note(perplexity_before=perplexity(before_training["loss"]))
    fit(trainer, run)
    return distributed.from_main(_publish, config, run, texts, encoder, trainer, resumed=resumed)


def _read(config: Config, *, offline: bool) -> _Texts:
    """The texts of a source, or the training rows of the prepared database, and the tokens to add."""
    settings = config.pretrain
    added = read_added_tokens(settings.added_tokens) if settings.added_tokens else ()
    if settings.source is None:
        try:
            with open_store(config.paths.data_db) as store:
                held_out = read_at_most(store, "valid", settings.valid_sample_size)
                train = store.read("train", settings.sample_size)
                name = str(config.paths.data_db)
                texts = _Texts(name, train.texts, held_out.texts, store.normalizer, store.fingerprint, added)
        except DatabaseError as error:
            raise DatabaseError(error.message, hint=f"{error.hint} Or use texts of your own: --data FILE.") from error
        return _checked(texts, setting="data.valid_size")
    _check_not_prepared(settings.source)
    normalizer = get_normalizer(config.data.normalizer)
    normalizer.prepare(config.paths.cache, offline=offline)
    source = open_source(settings.source, config.data, offline=offline)
    read = read_unlabelled(source, config.data, normalizer=normalizer, valid_size=settings.valid_size)
    # Of the texts rather than the file: encoding, quoting, table and so on change how a file is read.
    fingerprint = hashlib.sha256("\0".join([normalizer.id, *read.train, "", *read.valid]).encode()).hexdigest()
    if (wanted := settings.sample_size) is not None and wanted > len(read.train):
        raise DataError(
            f"the sample size is {wanted:,}, but {source.name} has only {count(len(read.train), 'text')} to train on",
            hint=f"Set pretrain.sample_size to at most {len(read.train)}, or to null for all.",
        )
    texts = _Texts(
        source.name,
        read.train[: settings.sample_size],
        read.valid[: settings.valid_sample_size],
        normalizer.id,
        fingerprint,
        added,
    )
    return _checked(texts, read.dropped, setting="pretrain.valid_size")


def _check_not_prepared(source: str) -> None:
    """Raises UsageError for a prepared database: as a source, all of its splits would be read."""
    try:
        check_ours(Path(source).expanduser(), must_exist=True)
    except DatabaseError:
        return
    raise UsageError(
        f"{source} is a database prepared by senthy, which includes validation and test rows",
        hint=f"Replace --data with --set paths.data_db={source}; then only the training split is read.",
    )


def _checked(texts: _Texts, dropped: dict[str, int] | None = None, *, setting: str) -> _Texts:
    """Raises DataError if there are too few texts to train on, or none to validate on."""
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in (dropped or {}).items())
    if len(set(texts.train)) < _LEAST_TEXTS:
        raise DataError(
            f"{texts.name} has {count(len(set(texts.train)), 'distinct text')} to train on"
            + (f" (left out: {left_out})" if left_out else "")
            + f"; pretraining needs at least {_LEAST_TEXTS}, and thousands to be useful",
            hint="Use a larger file (--data FILE), or an existing encoder.",
        )
    if not texts.valid:
        raise DataError(
            f"no text of {texts.name} is held out, so perplexity cannot be measured", hint=f"Raise {setting}."
        )
    return texts


def _fingerprint(config: Config, texts: _Texts) -> str:
    base = _base(config)
    free = {*FREE_TO_CHANGE, "output_dir", "source", "base", "added_tokens"}
    facts = {
        "added_tokens": texts.added_tokens,
        "format": 1,
        "pretrain": config.pretrain.model_dump(mode="json", exclude=free),
        "base": base,
        "base_files": encoder_files(base),
        "scratch": config.encoder.scratch.model_dump(mode="json") if base == "scratch" else None,
        "revision": _revision(config),
        "window": [config.encoder.max_length, config.encoder.max_windows],
        "seed": config.project.seed,
        "data": texts.fingerprint,
    }
    return digest_of(facts)


def _base(config: Config) -> str:
    return config.pretrain.base or config.encoder.name


def _revision(config: Config) -> str | None:
    """The revision of the base encoder; ``encoder.revision`` applies to ``encoder.name`` only."""
    return config.encoder.revision if _base(config) == config.encoder.name else None


def _prepare(config: Config, texts: _Texts, compute: Compute, *, offline: bool) -> tuple[LoadedEncoder, Trainer]:
    settings, base = config.pretrain, _base(config)
    from accelerate.utils import set_seed

    set_seed(config.project.seed)
    encoder = _start(config, texts, offline=offline)
    model = MaskedLanguageModel(encoder.model)
    if base != paths.SCRATCH:
        directory = hub.directory_of(base, encoder.revision)
        if directory is None or not model.load_head(head_weights(directory)):
            note(f"{base} comes without its LM head; a new one is trained")
        encoder = _extended(encoder, model, texts, max_length=config.encoder.max_length)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    masking = Masking(encoder.tokenizer, probability=settings.mask_probability, seed=config.project.seed)
    with progress("tokenizing", total=len(texts.train) + len(texts.valid), unit="texts") as bar:
        sizes = {"max_length": config.encoder.max_length, "max_windows": config.encoder.max_windows}
        train, valid = (
            tokenize(part, encoder.tokenizer, **sizes, progress=bar.advance) for part in (texts.train, texts.valid)
        )
    if not count_masked_held_out(valid, masking):
        raise DataError(
            f"too few tokens in {count(len(texts.valid), 'held-out text')}: none is masked, so perplexity cannot be "
            "measured",
            hint="Raise pretrain.valid_size, or use more texts.",
        )
    task = MaskedLanguage(train, valid, masking)
    trainer = Trainer(
        model.to(compute.device),
        task,
        settings=settings.as_train(),
        seed=config.project.seed,
        compute=compute,
        accelerator=device.accelerator(compute),
    )
    return encoder, trainer


def _start(config: Config, texts: _Texts, *, offline: bool) -> LoadedEncoder:
    """The encoder before any training: loaded, or with random weights and a tokenizer learned from the texts."""
    base, sizes, window = _base(config), config.encoder.scratch, config.encoder.max_length
    if base != paths.SCRATCH:
        settings = config.encoder.changed({"name": base, "revision": _revision(config)})
        return hub.load_encoder(settings, offline=offline, check_length=False)
    tokenizer = train_tokenizer(texts.train, sizes, max_length=window, added_tokens=texts.added_tokens)
    found = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    if found < sizes.vocab_size:
        raise DataError(
            f"{len(texts.train):,} texts give a vocabulary of only {found:,} tokens that occur at least twice, but "
            f"encoder.scratch.vocab_size is {sizes.vocab_size:,}",
            hint=f"Use --set encoder.scratch.vocab_size={found} or less, or more texts.",
        )
    return hub.build_scratch(sizes, tokenizer=tokenizer, max_length=window)


def _extended(encoder: LoadedEncoder, model: MaskedLanguageModel, texts: _Texts, *, max_length: int) -> LoadedEncoder:
    """The encoder with missing tokens and positions added, also to its output layer."""
    before = max_positions(encoder.model)
    former = hub.extend(encoder, added_tokens=texts.added_tokens, max_length=max_length)
    after = max_positions(encoder.model)
    if former:
        model.grow_bias(former)
        note(f"{len(former)} tokens are added to those of {encoder.name}")
    if before != after:
        note(f"{encoder.name} reads {before} tokens at once; positions for {after} are added (encoder.max_length)")
    changed = former or before != after
    return replace(encoder, fingerprint=encoder_fingerprint(encoder.model)) if changed else encoder


def _publish(
    config: Config, run: Run, texts: _Texts, encoder: LoadedEncoder, trainer: Trainer, *, resumed: bool
) -> PretrainResult:
    """Write the encoder and LM head of the best epoch, and how they were made."""
    model = trainer.bare
    assert isinstance(model, MaskedLanguageModel)
    run.load_best(model)
    best, valid = run.best_epoch()
    epochs, before = run.epochs(), run.meta().get("perplexity_before")
    result = PretrainResult(
        encoder_dir=config.pretrain.output_dir,
        run_dir=run.folder,
        base=_base(config),
        texts=len(texts.train),
        tokens=int(trainer.task.tokenized.ids.size),
        held_out_texts=len(texts.valid),
        epochs=len(epochs),
        best_epoch=best["epoch"],
        perplexity=perplexity(valid["loss"]),
        perplexity_before=before,
        accuracy=valid["accuracy"],
        seconds=0.0,
        resumed=resumed,
    )
    with written(config.pretrain.output_dir), atomic_dir(config.pretrain.output_dir) as aside:
        hub.save_encoder(encoder.model, encoder.tokenizer, aside)
        model.save_head(aside)
        document = {
            "base": result.base,
            "base_revision": encoder.revision,
            "encoder_fingerprint": encoder_fingerprint(encoder.model),
            "texts": {"name": texts.name, "train": result.texts, "held_out": result.held_out_texts},
            "tokens": result.tokens,
            "data_fingerprint": texts.fingerprint,
            "normalizer": texts.normalizer,
            "held_out": {"perplexity": result.perplexity, "before": before, "accuracy": result.accuracy},
            "training_seconds": round(sum(facts["seconds"] for facts in epochs), 1),
            "epochs": epochs,
            "seed": config.project.seed,
            "added_tokens": len(texts.added_tokens),
            "settings": config.pretrain.model_dump(mode="json"),
            "compute": run.meta().get("compute"),
            "run": run.id,
            "created": now(),
            "versions": versions(),
        }
        write_json(aside / paths.PRETRAINED_JSON, document)
    draw_curves(config, run, "Pretraining", data=texts.name, train_rows=result.texts, encoder=result.base)
    return result


def show(result: PretrainResult) -> None:
    """Show the location of the pretrained encoder, its training data, and the next command."""
    changed = f"{result.perplexity_before:,.2f} -> " if result.perplexity_before is not None else ""
    rows = [
        ("encoder", result.encoder_dir),
        ("from", result.base),
        ("texts", f"{result.texts:,} ({result.tokens:,} tokens), {result.held_out_texts:,} held out"),
        ("best epoch", f"{result.best_epoch} of {result.epochs}"),
        ("held-out perplexity", f"{changed}{result.perplexity:,.2f}"),
        ("masked-token accuracy", f"{100 * result.accuracy:.2f} %"),
        ("time", console.duration(result.seconds)),
    ]
    console.table("Pretrained", ("", ""), rows, left=2)
    console.say(f"use it: senthy train --set encoder.name={result.encoder_dir}")
