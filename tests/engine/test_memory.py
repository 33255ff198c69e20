"""Out of memory: the same rows in smaller batches, the same result, and a clear end where nothing can be cut."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment_hybrid.engine.inference.evaluate import predict_probabilities
from sentiment_hybrid.engine.memory import in_batches, ran_out, return_freed
from sentiment_hybrid.engine.training.events import BudgetEvent, EpochEvent, StepEvent
from sentiment_hybrid.errors import TrainingError

from .training.test_trainer import assert_same, make_trainer, weights_of


def let_fit(module, places):
    """Refuse what is larger, as a GPU of that size would."""

    def check(_, arguments):
        if arguments[0].shape[0] * arguments[0].shape[1] > places:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    return module.register_forward_pre_hook(check)


def without_dropout(head):
    """So that a batch may be cut anywhere and give the same."""
    head.dropout = head.lstm.dropout = 0.0
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_distinguished_from_other_failures(error, expected):
    assert ran_out(error) is expected


def test_torch_says_it_in_words_that_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


def test_a_step_without_memory_is_done_again_with_the_same_rows_under_a_lower_budget(make_session):
    plenty, scarce = make_session("lstm"), make_session("lstm")
    for session in (plenty, scarce):
        without_dropout(session.classifier.head)
    expected = [facts.loss for facts in make_trainer(plenty).events() if isinstance(facts, StepEvent)]
    let_fit(scarce.classifier.head, 120)
    facts = list(make_trainer(scarce).events())
    lowered = [one for one in facts if isinstance(one, BudgetEvent)]
    assert lowered
    assert lowered[0].before == 16_384
    assert lowered[-1].token_budget <= 120
    assert [one.before for one in lowered[1:]] == [one.token_budget for one in lowered[:-1]]
    losses = [one.loss for one in facts if isinstance(one, StepEvent)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert sum(isinstance(one, EpochEvent) for one in facts) == 2
    for name, value in weights_of(plenty).items():
        torch.testing.assert_close(weights_of(scarce)[name], value, rtol=1e-3, atol=1e-4)


def test_dropout_of_a_step_that_is_done_again_is_drawn_from_the_same_state(make_session):
    small, lowered = make_session("lstm"), make_session("lstm")
    without = make_trainer(small, epochs=1)
    without.budget.tokens = 80
    torch.manual_seed(4)
    list(without.events())
    hook = let_fit(lowered.classifier.head, 100)
    trainer = make_trainer(lowered, epochs=1)
    facts = trainer.events()
    torch.manual_seed(4)
    assert isinstance(next(facts), BudgetEvent)
    hook.remove()
    trainer.budget.tokens = 80
    list(facts)
    assert_same(weights_of(small), weights_of(lowered))


def test_a_text_that_does_not_fit_alone_ends_with_what_to_lower(make_session):
    session = make_session("han")
    let_fit(session.classifier.head, 1)
    with pytest.raises(TrainingError, match="out of memory: a single text") as caught:
        list(make_trainer(session).events())
    for setting in ("max_length", "hidden", "trainable_layers"):
        assert setting in caught.value.hint


def test_other_failures_of_a_step_go_through(make_session):
    session = make_session("linear")
    session.classifier.head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(make_trainer(session).events())


def test_an_optimiser_without_memory_ends_the_training(make_session, monkeypatch):
    trainer = make_trainer(make_session("linear"))

    def refuse():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer.optimizer, "step", refuse)
    with pytest.raises(TrainingError, match="the optimiser's moments do not fit"):
        list(trainer.events())


def test_predictions_are_the_same_and_in_order_where_batches_had_to_be_cut(make_session):
    session = make_session("lstm")
    dataset = make_trainer(session).task.train
    how = {"compute": session.compute, "token_budget": 1000, "states": dataset.states}
    expected = predict_probabilities(session.classifier, dataset.tokenized, **how)
    let_fit(session.classifier.head, 100)
    found = predict_probabilities(session.classifier, dataset.tokenized, **how)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_after_one_that_did_not_fit_are_small_from_the_start():
    lengths = np.full(40, 10)
    tried = []

    def work(rows):
        tried.append(len(rows))
        if len(rows) > 3:
            raise MemoryError
        return rows.sum()

    batches = np.split(np.arange(40), 4)
    done = list(in_batches(batches, lengths, work, token_budget=1000, device=torch.device("cpu")))
    assert np.concatenate([rows for rows, _ in done]).tolist() == list(range(40))
    assert [size for size in tried if size > 3] == [10, 5]


def test_a_single_text_without_memory_is_reported_with_its_length():
    def refuse(rows):
        raise MemoryError

    with pytest.raises(TrainingError, match="a single text of 10 tokens"):
        list(in_batches([np.arange(3)], np.full(3, 10), refuse, token_budget=100, device=torch.device("cpu")))


@pytest.mark.parametrize("said", [False, True])
def test_freed_memory_is_kept_for_the_next_step_unless_the_user_has_said_how(said):
    script = "from sentiment_hybrid.engine import memory; print(memory.keep_freed())"
    variables = {"MALLOC_TRIM_THRESHOLD_": "131072"} if said else {}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    # Only glibc can be asked to.
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc" and not said)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory by themselves")
@pytest.mark.parametrize("said", [False, True])
def test_gaps_between_blocks_in_use_are_returned_unless_the_user_has_said_otherwise(said, monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if said:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000000")
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes, library.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    size = 2**16  # below the smallest size that glibc maps on its own
    blocks = [library.malloc(size) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[::2]:
        library.free(block)
    before = resident()
    return_freed()
    returned = before - resident()
    for block in blocks[1::2]:
        library.free(block)
    assert returned > 400 * size if not said else returned < 40 * size


def resident():
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


#: A process whose memory has a real bound; what it trains would need several times that in one batch.
BOUNDED = """
import resource, sys
from types import SimpleNamespace
import numpy as np
import torch
from sentiment_hybrid.config.schema import Config, ScratchEncoder
from sentiment_hybrid.engine import device
from sentiment_hybrid.engine.batches import TokenizedTexts
from sentiment_hybrid.engine.inference.session import EncodedDataset
from sentiment_hybrid.engine.training.events import BudgetEvent, StepEvent
from sentiment_hybrid.engine.training.trainer import Trainer
from sentiment_hybrid.engine.training.tasks import Classification
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
torch.set_num_threads(1)
torch.autograd.set_multithreading_enabled(False)
config = Config.model_validate({"linear": {"train": {"batch_size": 512, "precision": "fp32", "epochs": 1}}})
settings = config.linear.train.model_copy(update={"token_budget": 10**9})
offsets = np.arange(513) * 64
texts = TokenizedTexts(np.ones(64 * 512, np.int32), offsets, np.arange(513), pad_id=0, truncated=0)
class Table(torch.nn.Module):
    frozen, hidden_size, model = False, 4096, SimpleNamespace(config=SimpleNamespace(num_hidden_layers=0))
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(4, 4096)
    def forward(self, ids, mask):
        return self.table(ids)
head = build_head("linear", config.linear.head, input_size=4096, num_classes=2)
compute = device.resolve("cpu", "fp32")
task = Classification(EncodedDataset(texts, np.arange(512) % 2), None, class_weights=np.ones(2))
trainer = Trainer(Classifier(Table(), head), task, settings=settings,
          seed=1, compute=compute, accelerator=device.accelerator(compute))
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
events = list(trainer.events())
print(sum(isinstance(one, BudgetEvent) for one in events), [one.rows for one in events if isinstance(one, StepEvent)])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a bound on a process's memory")
def test_a_process_that_really_runs_out_of_memory_goes_on():
    done = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lowered, rows = done.stdout.split(" ", 1)
    assert int(lowered) >= 1
    assert rows.strip() == "[512]"
