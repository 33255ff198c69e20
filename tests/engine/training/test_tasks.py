"""What a step minimises: the losses of several heads summed, and the same for every label where none is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import JOINT, Config, Train
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.evaluate import EncodedDataset, predict_probabilities
from sentiment_hybrid.engine.training.session import Session, new_trainer, open_session, set_seeds
from sentiment_hybrid.engine.training.tasks import Classification, JointClassification, LabelledBatch
from sentiment_hybrid.engine.training.trainer import EpochEvent, StepEvent, Trainer, weights_of_classes
from sentiment_hybrid.models.classifier import Classifier, JointClassifier
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.models.encoder.module import set_dropout

from ..conftest import toy_texts

CPU = torch.device("cpu")


# --- texts of which nothing can be known


def task_of(labels: list[int], *, weights: tuple[float, ...] = (1.0, 1.0), smoothing: float = 0.0) -> Classification:
    """Texts of two tokens each."""
    count = len(labels)
    tokenized = TokenizedTexts(np.zeros(2 * count, np.int32), np.arange(count + 1) * 2, np.arange(count + 1), 1, 0)
    dataset = EncodedDataset(tokenized, np.array(labels, dtype=np.int64))
    return Classification(dataset, None, class_weights=np.array(weights), label_smoothing=smoothing)


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.tuples(*[st.floats(-8, 8)] * 3), min_size=1, max_size=6), smoothing=st.sampled_from([0.0, 0.3]),
    data=st.data(),
)  # fmt: skip
def test_a_text_without_a_label_costs_the_distance_from_the_same_for_all(
    logits: list[tuple[float, ...]], smoothing: float, data: st.DataObject
) -> None:
    labels = data.draw(st.lists(st.integers(-1, 2), min_size=len(logits), max_size=len(logits)))
    task = task_of(labels, weights=(1.0, 1.0, 1.0), smoothing=smoothing)
    said = torch.tensor(logits, dtype=torch.float64)
    losses = task.per_row(said, task.micro_batch(np.arange(len(labels)), 1), CPU)
    probabilities = said.softmax(-1)
    for row, label in enumerate(labels):
        surprise = -probabilities[row].log()
        expected = surprise.mean() if label < 0 else (1 - smoothing) * surprise[label] + smoothing * surprise.mean()
        assert float(losses[row]) == pytest.approx(float(expected), abs=1e-3)


def test_it_is_least_where_every_label_is_as_likely() -> None:
    task = task_of([-1])
    logits = torch.tensor([[0.4, 0.4]], requires_grad=True)
    loss = task.per_row(logits, task.micro_batch(np.arange(1), 1), CPU)
    loss.sum().backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert torch.allclose(logits.grad, torch.zeros(1, 2), atol=1e-6)


def test_it_weighs_as_one_text_whatever_classes_weigh() -> None:
    task = task_of([0, -1, 1, -1], weights=(0.5, 7.0))
    part = task.micro_batch(np.arange(4), 1)
    assert part.weights.tolist() == [0.5, 1.0, 7.0, 1.0]
    assert task.weight(np.arange(4), 1) == 9.5


def test_balanced_classes_do_not_count_it() -> None:
    labels = np.array([0, 0, 0, 1, -1, -1, -1])
    np.testing.assert_allclose(weights_of_classes("balanced", labels, ("a", "b")), [4 / 6, 4 / 2])


def test_training_on_such_texts_makes_a_model_unsure_of_them_and_of_no_other(
    make_session: Callable[..., Session],
) -> None:
    session = make_session("lstm", trainable_layers="all")
    texts, labels = toy_texts(60)
    odd = ["zzz qqq 77", "81 9 xx", "qx zv", "##"] * 10
    train = session.dataset([*texts, *odd], np.concatenate([labels, np.full(len(odd), -1)]))
    trainer = new_trainer(
        session, train, session.dataset(texts, labels),
        settings=Train(
            batch_size=10, epochs=40, patience=None, precision="fp32", learning_rate=0.01, encoder_learning_rate=0.003
        ),
        labels=("n", "p"), seed=1,
    )  # fmt: skip
    list(trainer.events())

    def surest(some: list[str]) -> np.ndarray:
        found = predict_probabilities(
            session.classifier, session.tokenize(some), compute=session.compute, token_budget=1000
        )
        return found.max(axis=1)

    assert surest(odd[:4]).max() < 0.7
    assert surest(texts).mean() > surest(odd[:4]).mean() + 0.15


# --- several heads


@pytest.fixture
def make_joint(small_config: Config, tmp_path: Path) -> Callable[..., Session]:
    """A session whose classifier has an lstm and a linear head on one encoder, all without dropout."""

    def make(*, trainable_layers: int | str = "all") -> Session:
        settings = small_config.model_dump(mode="json")
        settings["encoder"]["trainable_layers"] = trainable_layers
        settings["lstm"]["head"]["dropout"] = settings["linear"]["head"]["dropout"] = 0.0
        settings["joint"]["models"] = ["lstm", "linear"]
        config = Config.model_validate(settings)
        set_seeds(3)
        session = open_session(
            config, JOINT, load_encoder(config.encoder), num_classes=2, compute=device.resolve("cpu", "fp32"),
            cache=tmp_path / "cache",
        )  # fmt: skip
        set_dropout(session.classifier, 0.0)
        return session

    return make


def joint_task(session: Session, **options: Any) -> JointClassification:
    texts, labels = toy_texts(24)
    valid_texts, valid_labels = toy_texts(30, seed=1)
    return JointClassification(
        session.dataset(texts, np.where(np.arange(24) < 3, -1, labels)),
        session.dataset(valid_texts, valid_labels),
        **{"class_weights": np.array([1.0, 3.0]), "label_smoothing": 0.1, **options},
    )


def joint_of(session: Session) -> JointClassifier:
    assert isinstance(session.classifier, JointClassifier)
    return session.classifier


def loss_of(model: torch.nn.Module, task: Classification, part: LabelledBatch, session: Session) -> torch.Tensor:
    loss: torch.Tensor = task.summed_loss(model, part, CPU, device.accelerator(session.compute))
    return loss


def test_each_head_says_what_it_would_say_alone(make_joint: Callable[..., Session]) -> None:
    session = make_joint()
    joint = joint_of(session).eval()
    inputs = joint_task(session).micro_batch(np.arange(24), 1).batch.inputs(CPU)
    together = joint(**inputs)
    assert len(together) == len(joint.heads) == 2
    for name, output in zip(joint.heads, together, strict=True):
        torch.testing.assert_close(output.logits, joint.classifier(name)(**inputs).logits)


def test_the_losses_of_the_heads_are_summed_and_so_are_their_gradients_in_the_encoder(
    make_joint: Callable[..., Session],
) -> None:
    session = make_joint()
    joint, task = joint_of(session).train(), joint_task(session)
    part = task.micro_batch(np.arange(24), 1)
    total = loss_of(joint, task, part, session)
    total.backward()
    found = {name: value.grad.clone() for name, value in joint.named_parameters()}
    single = Classification(task.train, None, class_weights=np.array([1.0, 3.0]), label_smoothing=0.1)
    losses, alone = 0.0, {name: torch.zeros_like(value) for name, value in found.items()}
    for name in joint.heads:
        joint.zero_grad()
        loss = loss_of(joint.classifier(name), single, part, session)
        loss.backward()
        losses += float(loss.detach())
        for place, value in joint.named_parameters():
            alone[place] += 0.0 if value.grad is None else value.grad
    assert float(total.detach()) == pytest.approx(losses, rel=1e-5)
    for name, value in found.items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-4)


def test_a_step_reports_the_sum_of_the_losses_over_the_weight_of_its_rows(make_joint: Callable[..., Session]) -> None:
    session = make_joint()
    task = joint_task(session)
    part = task.micro_batch(np.arange(24), 1)
    expected = 0.0
    with torch.no_grad():
        for output in joint_of(session).train()(**part.batch.inputs(CPU)):
            known = F.cross_entropy(output.logits, part.targets.clamp(min=0), reduction="none", label_smoothing=0.1)
            unsure = -output.logits.log_softmax(-1).mean(-1)
            expected += float((torch.where(part.targets < 0, unsure, known) * part.weights).sum())
    trainer = Trainer(
        session.classifier, task, settings=Train(batch_size=24, epochs=1, precision="fp32"), seed=5,
        compute=session.compute, accelerator=device.accelerator(session.compute),
    )  # fmt: skip
    first = next(facts for facts in trainer.events() if isinstance(facts, StepEvent))
    assert first.loss == pytest.approx(expected / float(part.weights.sum()), rel=1e-4)


@pytest.mark.parametrize("trainable_layers", [0, 1, "all"])
def test_validation_is_the_mean_over_the_heads_and_training_goes_on_afterwards(
    make_joint: Callable[..., Session], trainable_layers: int | str
) -> None:
    session = make_joint(trainable_layers=trainable_layers)
    joint, task = joint_of(session).train(), joint_task(session)
    found = task.validate(
        joint, compute=session.compute, token_budget=500, accelerator=device.accelerator(session.compute)
    )
    assert joint.training
    assert all(head.training for head in joint.heads.values())
    assert joint.encoder.training
    assert task.valid is not None
    figures = []
    for name in joint.heads:
        said = predict_probabilities(
            joint.classifier(name), task.valid.tokenized, compute=session.compute, token_budget=500,
            states=task.valid.states,
        )  # fmt: skip
        figures.append(metrics.quick(task.valid.labels, said))
    for name, value in found.items():
        assert value == pytest.approx(np.mean([one[name] for one in figures]), abs=1e-6)


def test_a_head_on_its_own_shares_the_weights(make_joint: Callable[..., Session]) -> None:
    joint = joint_of(make_joint())
    one = joint.classifier("linear")
    assert isinstance(one, Classifier)
    assert one.encoder is joint.encoder
    assert one.head is joint.heads["linear"]


def test_heads_learn_together(make_joint: Callable[..., Session]) -> None:
    session = make_joint()
    texts, labels = toy_texts(60)
    trainer = new_trainer(
        session, session.dataset(texts, labels), session.dataset(*toy_texts(30, seed=1)),
        settings=Train(batch_size=8, epochs=8, precision="fp32", learning_rate=0.02, encoder_learning_rate=0.005),
        labels=("n", "p"), seed=5,
    )  # fmt: skip
    assert isinstance(trainer.task, JointClassification)
    epochs = [facts for facts in trainer.events() if isinstance(facts, EpochEvent)]
    assert epochs[-1].valid_accuracy > 0.85
    assert epochs[-1].train_loss < epochs[0].train_loss
