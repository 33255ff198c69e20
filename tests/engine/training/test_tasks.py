"""What a step minimises: the losses of several heads summed, and labels among which some only were compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config.schema import JOINT, Config, Train
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.inference.session import EncodedDataset, Session
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent
from sentiment_hybrid.engine.training.prepare import new_trainer, open_session
from sentiment_hybrid.engine.training.tasks import Classification, LabelledBatch
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.models.classifier import Classifier, JointClassifier
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.models.encoder.module import set_dropout

from ..conftest import toy_texts

CPU = torch.device("cpu")


# --- labels that were chosen among some only


def task_of(
    labels: list[int], compared: list[tuple[bool, ...]] | None = None, *, smoothing: float = 0.0
) -> Classification:
    """Texts of two tokens each, of three labels."""
    count = len(labels)
    tokenized = TokenizedTexts(np.zeros(2 * count, np.int32), np.arange(count + 1) * 2, np.arange(count + 1), 1, 0)
    mask = None if compared is None else np.array(compared)
    dataset = EncodedDataset(tokenized, np.array(labels, dtype=np.int64), compared=mask)
    return Classification(dataset, None, class_weights=np.array([0.5, 1.0, 7.0]), label_smoothing=smoothing)


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.tuples(*[st.floats(-8, 8)] * 3), min_size=1, max_size=6),
    smoothing=st.sampled_from([0.0, 0.3]),
    data=st.data(),
)
def test_the_loss_is_that_of_a_classifier_of_the_compared_labels_alone(
    logits: list[tuple[float, ...]], smoothing: float, data: st.DataObject
) -> None:
    among = st.sampled_from([(0, 1), (0, 2), (1, 2), (0, 1, 2)])
    rows = data.draw(st.lists(among, min_size=len(logits), max_size=len(logits)))
    labels = [data.draw(st.sampled_from(row)) for row in rows]
    task = task_of(labels, [tuple(label in row for label in range(3)) for row in rows], smoothing=smoothing)
    said = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    losses = task.row_losses(said, task.micro_batch(np.arange(len(labels)), 1))
    losses.sum().backward()
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        own = said[place, list(row)].detach()
        expected = F.cross_entropy(own, torch.tensor(row.index(label)), label_smoothing=smoothing)
        assert float(losses[place].detach()) == pytest.approx(float(expected), abs=1e-3)
        others = [other for other in range(3) if other not in row]
        assert said.grad is not None
        assert not said.grad[place, others].any()


def test_rows_that_all_labels_were_compared_for_cost_the_same_with_a_mask() -> None:
    logits = torch.tensor([[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]])
    plain, masked = (task_of([1, 2], mask, smoothing=0.1) for mask in (None, [(True,) * 3] * 2))
    losses = [task.row_losses(logits, task.micro_batch(np.arange(2), 1)) for task in (plain, masked)]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_partial_row_weighs_as_its_label_does_and_balance_is_of_the_others() -> None:
    task = task_of([0, 2, 2], [(True, True, True), (True, False, True), (True, True, True)])
    assert task.weight(np.arange(3), 1) == 14.5
    assert task.train.full_labels.tolist() == [0, 2]


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
        set_seed(3)
        session = open_session(
            config, JOINT, load_encoder(config.encoder), num_classes=2, compute=device.resolve("cpu", "fp32"),
            cache=tmp_path / "cache",
        )  # fmt: skip
        set_dropout(session.classifier, 0.0)
        return session

    return make


def joint_task(session: Session, **options: Any) -> Classification:
    texts, labels = toy_texts(24)
    valid_texts, valid_labels = toy_texts(30, seed=1)
    return Classification(
        session.dataset(texts, labels),
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
            losses = F.cross_entropy(output.logits, part.targets, reduction="none", label_smoothing=0.1)
            expected += float((losses * part.weights).sum())
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
    assert isinstance(trainer.task, Classification)
    epochs = [facts for facts in trainer.events() if isinstance(facts, EpochEvent)]
    assert epochs[-1].valid["accuracy"] > 0.85
    assert epochs[-1].train_loss < epochs[0].train_loss
