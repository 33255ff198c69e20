"""What `test_processes` lets one process do, and two that torchrun started: python together.py ENCODER FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from safetensors.torch import save_file

from sentiment_hybrid import distributed
from sentiment_hybrid.config.schema import Config, Train
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.session import Session
from sentiment_hybrid.engine.training import prepare as sessions
from sentiment_hybrid.engine.training.checkpoints import TrainerState, trainable_state
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent
from sentiment_hybrid.engine.training.prepare import open_session
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.errors import ConfigError, SenthyError
from sentiment_hybrid.models.encoder.hub import load_encoder

#: Trainings of 20 steps or more without dropout, whose figures must not depend on the number of processes.
CASES: dict[str, dict[str, Any]] = {
    "lstm on stored states": {"model": "lstm"},
    "han on stored states": {"model": "han"},
    "a trained encoder, weighted classes, unequal micro-batches": {
        "model": "lstm",
        "trainable_layers": 1,
        "weights": [1.0, 3.0],
        "accumulation": 2,
        "epochs": 4,
        "token_budget": 64,
        "encoder_learning_rate": 0.001,
    },
    "memory runs out on the second process alone": {"model": "han", "scarce": 110},
    "steps with fewer rows than processes": {"model": "lstm", "rows": 10, "batch_size": 1},
}

#: The case that two processes begin and one goes on with.
GOES_ON = "lstm on stored states"


def texts_of(rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    random = np.random.default_rng(seed)
    words = np.array(["the", "day", "was", "it", "and", "so", "then", "we", "all"])
    labels = np.arange(rows) % 2
    texts = []
    for number, label in enumerate(labels):
        filler = random.choice(words, size=random.integers(1, 12))
        texts.append(" ".join([*filler, ("good", "bad")[label], str(number)]))
    return texts, labels.astype(np.int64)


def session_of(encoder: Path, cache: Path, model: str, trainable_layers: int, dropout: float) -> Session:
    config = Config.model_validate(
        {
            "encoder": {"name": str(encoder), "max_length": 16, "trainable_layers": trainable_layers},
            model: {"head": {"hidden": 8, "layers": 1, "dropout": dropout}},
        }
    )
    set_seed(3)
    loaded = load_encoder(config.encoder)
    # The tiny encoder's own dropout too.
    loaded.model.config.hidden_dropout_prob = loaded.model.config.attention_probs_dropout_prob = dropout
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "dropout", None), float):  # of attention
            module.dropout = dropout  # type: ignore[assignment]
    return open_session(config, model, loaded, num_classes=2, compute=device.resolve("cpu", "fp32"), cache=cache)


def trainer_of(
    encoder: Path,
    cache: Path,
    *,
    model: str,
    trainable_layers: int = 0,
    dropout: float = 0.0,
    rows: int = 80,
    weights: list[float] | None = None,
    **settings: Any,
) -> tuple[Trainer, Session]:
    session = session_of(encoder, cache, model, trainable_layers, dropout)
    trainer = Trainer(
        session.classifier,
        Classification(
            session.dataset(*texts_of(rows, 0)),
            session.dataset(*texts_of(30, 1)),
            class_weights=np.asarray(weights or [1.0, 1.0]),
            label_smoothing=settings.get("label_smoothing", 0.0),
        ),
        settings=Train(**{"batch_size": 8, "epochs": 2, "precision": "fp32", "learning_rate": 0.01, **settings}),
        seed=5,
        compute=session.compute,
        accelerator=device.accelerator(session.compute),
    )
    return trainer, session


def trained(encoder: Path, cache: Path, case: dict[str, Any], state: TrainerState | None = None) -> dict[str, Any]:
    """Loss of each step, validation of each epoch, and the logits of the texts at the end; goes on with ``state``."""
    scarce = case.get("scarce")
    trainer, session = trainer_of(encoder, cache, **{key: value for key, value in case.items() if key != "scarce"})
    if scarce and distributed.rank() == 1:
        head = trainer.bare.head
        head.register_forward_pre_hook(lambda _, inputs: refuse_more(inputs[0], scarce) if head.training else None)
    if state is not None:
        trainer.load(state)
    losses, valid, before = [], [], trainer.progress.loss_sum
    for facts in trainer.events():
        if isinstance(facts, StepEvent):
            losses.append(trainer.progress.loss_sum - (before if facts.step > 1 else 0.0))
            before = trainer.progress.loss_sum
        if isinstance(facts, EpochEvent):
            valid.append([facts.valid["loss"], facts.valid["macro_f1"]])
    dataset = trainer.task.train
    probabilities = predict_probabilities(
        trainer.bare, dataset.tokenized, compute=trainer.compute, token_budget=1000, states=dataset.states
    )
    passes = 0 if session.states is None else session.states.passes
    logits = np.log(probabilities[:, 1] / probabilities[:, 0])
    return {
        "losses": losses,
        "valid": valid,
        "logits": logits.tolist(),
        "passes": passes,
        "token_budget": trainer.token_budget,
    }


def refuse_more(states: torch.Tensor, places: int) -> None:
    """As a GPU would that has room for so many places."""
    if states.shape[0] * states.shape[1] > places:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")


def digest(trainer: Trainer) -> list[float]:
    return [float(value.double().sum()) for value in trainable_state(trainer.bare).values()]


def resumed(encoder: Path, cache: Path) -> dict[str, Any]:
    """Weights after a training with dropout that never stopped, and after one that was stopped within an epoch."""
    case = {"model": "lstm", "dropout": 0.3}
    whole, _ = trainer_of(encoder, cache, **case)
    list(whole.events())
    first, _ = trainer_of(encoder, cache, **case)
    for facts in first.events():
        if isinstance(facts, StepEvent) and facts.step == 7:
            break
    state = distributed.from_main(first.state)
    torch.manual_seed(99)
    second, _ = trainer_of(encoder, cache, **case)
    second.load(state)
    list(second.events())
    second._seed_step()
    return {"whole": digest(whole), "resumed": digest(second), "draw": float(torch.rand(()))}


def stopped(encoder: Path, cache: Path, folder: Path) -> None:
    """Keep the state of a training that two processes began."""
    trainer, _ = trainer_of(encoder, cache, **CASES[GOES_ON])
    for facts in trainer.events():
        if isinstance(facts, StepEvent) and facts.step == 7:
            break
    if distributed.is_main():
        state = trainer.state()
        save_file(state.tensors, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps(state.progress), encoding="utf-8")


def stored_here_alone(encoder: Path, cache: Path) -> dict[str, Any]:
    """As on two machines, the second without room: whether each has states of its own, and goes on with them."""
    said: list[str] = []
    sessions.log.warning = lambda text, *values: said.append(text % values)  # type: ignore[method-assign]
    session = session_of(encoder, cache / str(distributed.rank()), "lstm", 0, 0.0)
    assert session.states is not None
    session.states.max_bytes = 1.0 if distributed.rank() == 1 else None
    dataset = session.dataset(*texts_of(20, 7))
    session.states.max_bytes = None
    assert session.dataset(*texts_of(6, 8)).states is not None  # as of the validation split: there is room for that
    agreed = sessions.agree_on_states(session, dataset)
    return {"own": dataset.states is not None, "agreed": agreed.states is not None, "said": said}


def told(work: Any) -> list[object]:
    try:
        work()
    except SenthyError as error:
        return [type(error).__name__, error.message, error.exit_code, distributed.reports(error)]
    return []


def refuse() -> None:
    raise ConfigError("no such thing", hint="do not")


def refuse_on_second() -> None:
    if distributed.rank() == 1:
        raise MemoryError("too much")


def agreements() -> dict[str, Any]:
    rank = distributed.rank()
    return {
        "gathered": distributed.gather(rank),
        "agreed": [distributed.any_process(rank == 1), distributed.any_process(False)],
        "from main": distributed.from_main(lambda: rank),
        "all fail": told(lambda: distributed.together(refuse)),
        "main fails": told(lambda: distributed.from_main(refuse)),
        "the other fails": told(lambda: distributed.together(refuse_on_second)),
        "differ": told(lambda: distributed.check_same(rank, "a number")),
    }


def main(encoder: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    cache = folder / "cache"
    report: dict[str, Any] = {name: trained(encoder, cache / name, case) for name, case in CASES.items()}
    report |= {"resumed": resumed(encoder, cache / "resumed"), **agreements()}
    report["room on one"] = stored_here_alone(encoder, cache / "room")
    stopped(encoder, cache / GOES_ON, folder)
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(report), encoding="utf-8")
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
