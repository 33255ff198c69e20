"""A small project of real files: a CSV of toy texts, a config, a prepared database, a tiny encoder."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.engine.batches import collate
from sentiment_hybrid.engine.inference.model_directory import save_model
from sentiment_hybrid.engine.tokenization import tokenize
from sentiment_hybrid.models import build_head
from sentiment_hybrid.models.classifier import Classifier
from sentiment_hybrid.models.encoder.hub import load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder

from ..conftest import model_info

WORDS = {
    "positive": ["good", "great", "lovely", "fine"],
    "negative": ["bad", "awful", "nasty", "poor"],
    "neutral": ["blue", "round", "early", "wooden"],
}
TWO = ("negative", "positive")
FILLER = "the day was it and so then we all saw that film with my old friend".split()  # noqa: SIM905
TEXTS = ["good film", 'bad, "very" bad', "", "ça 😀 food", "not\tgood", "what a day"]


def write_toy_csv(
    path: Path,
    rows: int = 240,
    *,
    seed: int = 0,
    header: tuple[str, str] = ("text", "label"),
    labels: tuple[str, ...] = TWO,
) -> Path:
    """Distinct texts that one word decides."""
    random = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(rows):
            label = labels[number % len(labels)]
            words = [str(word) for word in random.choice(FILLER, size=int(random.integers(2, 9)))]
            words.insert(int(random.integers(0, len(words))), str(random.choice(WORDS[label])))
            writer.writerow([f"{' '.join(words)} n{seed}x{number}", label])
    return path


@dataclass
class Project:
    """A config file in a folder of its own; ``config()`` loads it, with changes."""

    folder: Path
    file: Path

    def config(self, *overrides: str) -> Config:
        return load_config(self.file, overrides)


def project_paths(folder: Path) -> dict[str, str]:
    """The section `paths` of a project in this folder."""
    places = {"data_db": folder / "data" / "tweets.db", "cache_dir": folder / "cache"}
    places |= {"models_dir": folder / "models", "results_dir": folder / "results"}
    return {name: str(path) for name, path in places.items()}


def made_project(folder: Path, encoder: Path, rows: int, prepare: bool, labels: tuple[str, ...]) -> Project:
    """A project in a new folder; the paths in its config are absolute."""
    folder.mkdir()
    source = write_toy_csv(folder / "texts.csv", rows, labels=labels)
    small: dict[str, Any] = {"batch_size": 16, "epochs": 2, "learning_rate": 0.01, "precision": "fp32"}
    document = {
        "paths": project_paths(folder),
        "data": {"source": str(source)},
        "encoder": {"name": str(encoder), "max_length": 16},
        "lstm": {"head": {"hidden": 8, "layers": 1}, "train": small},
        "han": {"head": {"hidden": 8}, "train": small},
        "linear": {"train": small},
        "test": {"resamples": 100},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    project = Project(folder, file)
    if prepare:
        from sentiment_hybrid.commands import data

        data.run(project.config())
    return project


@pytest.fixture
def make_project(tmp_path: Path, tiny_encoder_dir: Path) -> Callable[..., Project]:
    """Build a project with ``make_project(name="p", rows=240, prepare=True)``."""
    import torch

    torch.set_num_threads(1)

    def make(name: str = "project", *, rows: int = 240, prepare: bool = True, labels: tuple[str, ...] = TWO) -> Project:
        return made_project(tmp_path / name, tiny_encoder_dir, rows, prepare, labels)

    return make


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Project:
    """A prepared project with a published ``linear`` model; for `trained` to copy."""
    import torch

    from sentiment_hybrid.commands import train

    torch.set_num_threads(1)
    project = made_project(tmp_path_factory.mktemp("trained") / "project", tiny_encoder_dir, 240, True, TWO)
    train.run(project.config(), "linear", test=False)
    return project


@pytest.fixture
def trained(trained_once: Project, tmp_path: Path) -> Project:
    """A prepared project with a published ``linear`` model, trained once and copied."""
    before, folder = trained_once.folder, tmp_path / "project"
    shutil.copytree(before, folder)
    file = folder / "config.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(str(before), str(folder)), encoding="utf-8")
    return Project(folder, file)


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """A prepared project."""
    return make_project()


@pytest.fixture(scope="session")
def model_dir(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear model of random weights that gives both labels to `TEXTS`."""
    torch.manual_seed(4)
    encoder = load_encoder_dir(tiny_encoder_dir)
    section = Config().linear.head
    head = build_head("linear", section, input_size=encoder.model.config.hidden_size, num_classes=2)
    classifier = Classifier(Encoder(encoder.model, 0), head).eval()
    texts = [text for text in TEXTS if text]
    tokenized = tokenize(texts, encoder.tokenizer, max_length=32, max_windows=2)
    with torch.no_grad():
        head.output.weight.mul_(50.0)
        logits = classifier(**collate(tokenized, np.arange(len(texts))).inputs(torch.device("cpu"))).logits
        # Random weights would give all texts one label; in the middle of their logits, both occur.
        head.output.bias.sub_(logits.mean(dim=0))
    info = model_info(encoder, "linear", head_config=section.model_dump(mode="json"), max_windows=2)
    place = tmp_path_factory.mktemp("models") / "linear_roberta_model_final"
    save_model(place, classifier=classifier, encoder=encoder, info=info, bundle=True)
    return place
