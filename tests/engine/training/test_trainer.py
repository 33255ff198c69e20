"""The loop: steps mean what they say, and a fit that was stopped anywhere goes on bit for bit."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest
import torch

from sentiment_hybrid.config.schema import Train
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.training.checkpoints import load_trainable, trainable_state
from sentiment_hybrid.engine.training.events import EpochEvent, StepEvent
from sentiment_hybrid.engine.training.optim import build_optimizer
from sentiment_hybrid.engine.training.tasks import Classification, weights_of_classes
from sentiment_hybrid.engine.training.trainer import Trainer, one_ahead
from sentiment_hybrid.errors import TrainingError

from ..conftest import toy_texts


def make_trainer(session, *, rows=60, weights=None, layer_decay=None, **settings):
    texts, labels = toy_texts(rows)
    valid_texts, valid_labels = toy_texts(30, seed=1)
    return Trainer(
        session.classifier,
        Classification(
            session.dataset(texts, labels),
            session.dataset(valid_texts, valid_labels),
            class_weights=np.ones(2) if weights is None else np.asarray(weights),
            label_smoothing=settings.get("label_smoothing", 0.0),
        ),
        settings=Train(**{"batch_size": 8, "epochs": 2, "precision": "fp32", "learning_rate": 0.01, **settings}),
        seed=5,
        compute=session.compute,
        accelerator=device.accelerator(session.compute),
        layer_decay=layer_decay,
    )


def weights_of(session):
    return {name: value.detach().clone() for name, value in trainable_state(session.classifier).items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("model", ["lstm", "han", "linear"])
def test_training_learns_a_separable_task(make_session, model):
    session = make_session(model, trainable_layers="all")
    trainer = make_trainer(session, rows=240, epochs=10, encoder_learning_rate=0.005, patience=None)
    epochs = [facts for facts in trainer.events() if isinstance(facts, EpochEvent)]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert max(facts.valid["accuracy"] for facts in epochs) >= 0.9


@pytest.mark.parametrize("model", ["lstm", "han"])
@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_training_on_stored_states_is_training_on_the_live_encoder(make_session, tmp_path, model, trainable_layers):
    def train(**options):
        session = make_session(model, trainable_layers=trainable_layers, **options)
        trainer = make_trainer(session, encoder_learning_rate=0.001)
        epochs = [facts for facts in trainer.events() if isinstance(facts, EpochEvent)]
        return trainer, [(facts.train_loss, facts.valid["loss"]) for facts in epochs], weights_of(session)

    stored, losses, weights = train()
    live, live_losses, live_weights = train(cache=tmp_path / "full", max_gb=1e-7)
    assert stored.task.train.states is not None
    assert live.task.train.states is None
    np.testing.assert_allclose(losses, live_losses, atol=2e-3)  # float16 keeps 11 bits of a state
    moved = [name for name in weights if name.startswith("encoder.")]
    assert bool(moved) == (trainable_layers > 0)
    for name in weights:
        # AdamW makes whole steps of 0.01 of a gradient near zero, whose sign a rounding may turn: a few of 16 steps.
        torch.testing.assert_close(weights[name], live_weights[name], atol=4e-2, rtol=0)


@pytest.mark.parametrize(("model", "trainable_layers"), [("lstm", 0), ("han", 0), ("linear", 0), ("lstm", 1)])
@pytest.mark.parametrize("stop_after", [3, 9])  # within an epoch of 8 steps, and right after its validation
def test_a_fit_stopped_anywhere_and_resumed_equals_one_never_stopped(make_session, model, trainable_layers, stop_after):
    whole = make_session(model, trainable_layers=trainable_layers)
    expected = list(make_trainer(whole).events())
    first = make_trainer(make_session(model, trainable_layers=trainable_layers))
    seen = []
    for facts in first.events():
        seen.append(facts)
        if len(seen) == stop_after:
            state = first.state()
            break
    torch.manual_seed(999)  # a new process would not stand where the old one stood
    second_session = make_session(model, trainable_layers=trainable_layers)
    second = make_trainer(second_session)
    second.load(state)
    seen += list(second.events())
    assert_same(weights_of(whole), weights_of(second_session))
    losses = [(f.train_loss, f.valid["loss"]) for f in expected if isinstance(f, EpochEvent)]
    assert losses == [(f.train_loss, f.valid["loss"]) for f in seen if isinstance(f, EpochEvent)]
    assert len(seen) == len(expected)


def test_the_token_budget_changes_no_step(make_session):
    results = []
    for budget in (64, 100_000):
        session = make_session("lstm")
        session.classifier.head.eval()
        trainer = make_trainer(session, token_budget=budget, epochs=1)
        session.classifier.train = lambda mode=True, same=session.classifier: same  # dropout off: only the cut differs
        losses = [facts.loss for facts in trainer.events() if isinstance(facts, StepEvent)]
        results.append((losses, weights_of(session)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=1e-3, atol=1e-4)


def test_training_does_not_import_torchs_compiler(make_session, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import of it fails
    monkeypatch.delitem(vars(torch), "_dynamo", raising=False)
    trainer = make_trainer(make_session("linear", trainable_layers="all"), epochs=1)
    assert [type(facts) for facts in trainer.events()][-1] is EpochEvent
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())


def test_a_step_has_batch_size_times_accumulation_rows(make_session):
    trainer = make_trainer(make_session("linear"), rows=60, batch_size=8, accumulation=3, epochs=1)
    rows = [facts.rows for facts in trainer.events() if isinstance(facts, StepEvent)]
    assert sorted(rows, reverse=True) == [24, 24, 12]


def test_a_frozen_encoder_is_not_changed_by_training(make_session):
    session = make_session("han")
    before = {name: value.clone() for name, value in session.classifier.encoder.state_dict().items()}
    list(make_trainer(session).events())
    assert_same(before, session.classifier.encoder.state_dict())


def test_early_stopping_ends_when_no_epoch_is_better(make_session):
    trainer = make_trainer(make_session("linear"), epochs=50, patience=2, learning_rate=1e-12)
    epochs = [facts for facts in trainer.events() if isinstance(facts, EpochEvent)]
    assert len(epochs) == 3
    assert [facts.is_best for facts in epochs] == [True, False, False]
    assert epochs[-1].stop


def test_class_weights_shift_predictions_towards_the_heavier_class(make_session):
    def share_of_ones(weights):
        session = make_session("linear")
        trainer = make_trainer(session, weights=weights, epochs=3)
        list(trainer.events())
        probabilities = predict_probabilities(
            session.classifier,
            trainer.task.valid.tokenized,
            compute=session.compute,
            token_budget=1000,
            states=trainer.task.valid.states,
        )
        return probabilities[:, 1].mean()

    assert share_of_ones([1.0, 9.0]) > share_of_ones([9.0, 1.0]) + 0.2


def test_label_smoothing_shares_a_part_of_the_target_among_all_labels(make_session):
    session = make_session("linear")
    trainer = make_trainer(session, rows=60, batch_size=60, label_smoothing=0.4)
    for dropout in (module for module in session.classifier.modules() if isinstance(module, torch.nn.Dropout)):
        dropout.p = 0.0
    probabilities = predict_probabilities(
        session.classifier,
        trainer.task.train.tokenized,
        compute=session.compute,
        token_budget=1000,
        states=trainer.task.train.states,
    )
    surprise = -np.log(probabilities)  # (N, C)
    of_truth = surprise[np.arange(60), trainer.task.train.labels]
    first = next(facts for facts in trainer.events() if isinstance(facts, StepEvent))
    assert first.loss == pytest.approx((0.6 * of_truth + 0.4 * surprise.mean(axis=1)).mean(), abs=1e-5)
    assert first.loss != pytest.approx(of_truth.mean(), abs=1e-3)


@pytest.mark.parametrize("clip_norm", [1e-3, None])
def test_gradients_are_clipped_to_the_norm_that_is_set(make_session, monkeypatch, clip_norm):
    trainer = make_trainer(make_session("lstm"), clip_norm=clip_norm, epochs=1)
    norms, step = [], trainer.optimizer.step

    def measured():
        gradients = [value.grad for value in trainer.model.parameters() if value.grad is not None]
        divisor = getattr(trainer.optimizer.optimizer, "grad_scale", 1.0)  # of the gradients, within the step
        norms.append(float(torch.nn.utils.get_total_norm(gradients) / divisor))
        step()

    monkeypatch.setattr(trainer.optimizer, "step", measured)
    list(trainer.events())
    assert len(norms) == trainer.steps
    if clip_norm is None:
        assert min(norms) > 1e-3
    else:
        assert max(norms) <= clip_norm * 1.001


def test_a_clipped_step_is_that_of_clipped_gradients(make_session):
    trainer = make_trainer(make_session("linear"), clip_norm=1e-3, epochs=1)
    parameters = [value for value in trainer.model.parameters() if value.requires_grad]
    for value in parameters:
        value.grad = torch.ones_like(value)
    torch.nn.utils.clip_grad_norm_(parameters, 1e-3)
    clipped = [value.grad.clone() for value in parameters]
    for value in parameters:
        value.grad = torch.ones_like(value)
    trainer._update()
    for value, gradient in zip(parameters, clipped, strict=True):
        moment = trainer.optimizer.state[value]["exp_avg"]
        torch.testing.assert_close(moment, 0.1 * gradient, rtol=2e-3, atol=0)


def test_balanced_weights_are_inverse_frequencies_and_a_map_must_name_every_label():
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(weights_of_classes("balanced", labels, ("a", "b")), [4 / 6, 2.0])
    np.testing.assert_allclose(weights_of_classes({"a": 1, "b": 3}, labels, ("a", "b")), [1.0, 3.0])
    with pytest.raises(TrainingError, match="class_weights names a, c"):
        weights_of_classes({"a": 1, "c": 3}, labels, ("a", "b"))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_warms_up_and_decays_as_the_schedule_says(make_session, schedule):
    trainer = make_trainer(make_session("linear"), schedule=schedule, epochs=4, warmup_steps=4, patience=None)
    rates = [facts.learning_rate for facts in trainer.events() if isinstance(facts, StepEvent)]
    assert rates[0] < rates[1] < rates[2] < rates[3] < 0.01
    assert max(rates) == pytest.approx(0.01)
    if schedule == "constant":
        assert set(rates[4:]) == {0.01}
    else:
        assert rates[-1] < 0.001
        quarter = 4 + (len(rates) - 4) // 4
        assert rates[quarter] == pytest.approx(0.00854 if schedule == "cosine" else 0.0075, abs=3e-4)
        assert all(later <= earlier for earlier, later in itertools.pairwise(rates[4:]))


def rates_of(optimizer, classifier):
    names = {parameter: name for name, parameter in classifier.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_lower_encoder_layers_learn_slower_by_the_layer_decay(make_session):
    classifier = make_session("lstm", trainable_layers="all").classifier
    settings = Train(learning_rate=0.01, encoder_learning_rate=0.001)
    rates = rates_of(build_optimizer(classifier, settings, layer_decay=0.5), classifier)
    for name, rate in rates.items():
        place = {"encoder.model.encoder.layer.1": 0, "encoder.model.encoder.layer.0": 1, "encoder.model.embeddings": 2}
        depth = next((depth for prefix, depth in place.items() if name.startswith(prefix)), None)
        assert rate == pytest.approx(0.01 if name.startswith("head.") else 0.001 * 0.5**depth), name
    assert len(set(rates.values())) == 4


def test_without_layer_decay_every_encoder_layer_has_one_rate(make_session):
    classifier = make_session("lstm", trainable_layers="all").classifier
    rates = rates_of(build_optimizer(classifier, Train(learning_rate=0.01, encoder_learning_rate=0.001)), classifier)
    assert set(rates.values()) == {0.01, 0.001}


def test_layer_rates_follow_the_schedule_and_survive_resuming(make_session):
    def trainer_of(session):
        trainer = make_trainer(session, layer_decay=0.5, encoder_learning_rate=0.001, warmup_steps=4, schedule="linear")
        peaks = [group["lr"] for group in trainer.optimizer.param_groups]
        return trainer, peaks

    whole = make_session("linear", trainable_layers="all")
    trainer, peaks = trainer_of(whole)
    for number, _ in enumerate(trainer.events()):
        if number == 2:
            state = trainer.state()
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert len({round(rate / peak, 9) for rate, peak in zip(rates, peaks, strict=True)}) == 1
    second = make_session("linear", trainable_layers="all")
    resumed, _ = trainer_of(second)
    resumed.load(state)
    list(resumed.events())
    assert_same(weights_of(whole), weights_of(second))


def test_a_loss_that_is_no_number_stops_with_what_to_do(make_session):
    session = make_session("linear")
    with torch.no_grad():
        next(iter(trainable_state(session.classifier).values())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss became nan in epoch 1, step 1") as caught:
        list(make_trainer(session).events())
    assert "learning_rate" in caught.value.hint


@pytest.mark.parametrize("ends", ["steps", "snapshot"])
def test_where_losses_are_read_seldom_the_step_that_went_wrong_is_still_named(make_session, ends):
    session = make_session("linear")
    trainer = make_trainer(session, epochs=2)
    trainer._read_every = 1000  # as on a GPU, where reading waits for the device
    steps = trainer.events()
    for number, facts in enumerate(steps):
        assert np.isfinite(facts.loss)
        if number == 3:
            break
    with torch.no_grad():
        next(iter(trainable_state(session.classifier).values())).fill_(float("nan"))
    next(steps)  # the fifth: nobody has looked yet
    with pytest.raises(TrainingError, match="loss became nan in epoch 1, step 5"):
        list(steps) if ends == "steps" else trainer.state()


def test_losses_read_seldom_come_to_the_same_epoch(make_session):
    losses = []
    for every in (1, 5):
        trainer = make_trainer(make_session("lstm"))
        trainer._read_every = every
        torch.manual_seed(8)
        facts = list(trainer.events())
        losses.append([one.train_loss for one in facts if isinstance(one, EpochEvent)])
    assert losses[0] == losses[1]


def test_a_fit_with_the_optimiser_state_of_an_older_version_goes_on(make_session):
    trainer = make_trainer(make_session("linear"))
    next(trainer.events())
    state = trainer.state()
    assert {value.dtype for name, value in state.tensors.items() if name.endswith(".step")} == {torch.float32}
    other = make_trainer(make_session("linear"))
    other.load(state)
    assert len(list(other.events())) == 2 * trainer.steps + 2 - 1


def test_what_is_made_ahead_comes_in_order_with_its_failures():
    assert list(one_ahead(lambda number: number * 2, range(5))) == [0, 2, 4, 6, 8]
    made = []

    def make(number):
        made.append(number)
        return 1 // (2 - number)

    ahead = one_ahead(make, range(5))
    assert next(ahead) == 0
    with pytest.raises(ZeroDivisionError):
        list(ahead)
    assert made[:3] == [0, 1, 2]
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_the_optimiser_is_the_fused_one(make_session):
    assert make_trainer(make_session("linear")).optimizer.defaults["fused"] is True


def test_weights_of_another_shape_are_refused(make_session):
    with pytest.raises(TrainingError, match="another shape"):
        load_trainable(make_session("lstm").classifier, weights_of(make_session("han")))


@pytest.mark.processor(needs="bf16")
def test_bf16_training_runs_and_gives_float32_weights(make_session):
    session = make_session("lstm", trainable_layers="all", precision="bf16")
    epochs = [facts for facts in make_trainer(session, precision="bf16").events() if isinstance(facts, EpochEvent)]
    assert np.isfinite(epochs[-1].train_loss)
    assert {value.dtype for value in trainable_state(session.classifier).values()} == {torch.float32}
