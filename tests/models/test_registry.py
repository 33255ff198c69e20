"""A head is a file, a line of HEADS, a config section and a display name; what was forgotten is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

from sentiment_hybrid.config.schema import MODEL_NAMES, Config, Section
from sentiment_hybrid.errors import ConfigError, ModelError
from sentiment_hybrid.heads import HEADS, display_name, encoder_family
from sentiment_hybrid.models import head_class, head_config


def test_every_head_has_all_its_parts():
    sections = {
        name for name, field in Config.model_fields.items() if "head" in getattr(field.annotation, "model_fields", {})
    }
    places = {
        "models.HEADS": set(HEADS),
        "config.schema.MODEL_NAMES": set(MODEL_NAMES),
        "a section of config.schema.Config": sections,
        "HEADS": set(HEADS),
    }
    everywhere = set().union(*places.values())
    forgotten = [f"{name} is missing from {place}" for place, names in places.items() for name in everywhere - names]
    assert forgotten == []


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_registered_head_can_be_imported_and_has_a_config(name):
    assert issubclass(head_class(name), nn.Module)
    assert isinstance(Config().model(name).head, Section)
    assert head_class(name).__doc__


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        ("roberta-base", "HANRoBERTa"),
        ("FacebookAI/xlm-roberta-base", "HANRoBERTa"),
        ("mini", "HANRoBERTa"),
        ("scratch", "HANRoBERTa"),
        ("sentence-transformers/all-MiniLM-L6-v2", "HAN-MiniLM"),
        ("sentence-transformers/all-mpnet-base-v2", "HAN-MPNet"),
        ("microsoft/deberta-v3-small", "HAN-DeBERTa"),
        ("distilbert-base-uncased", "HAN-DistilBERT"),
        ("google-bert/bert-base-uncased", "HAN-BERT"),
        ("acme/tweets", "HAN-tweets"),
    ],
)
def test_a_display_name_follows_the_family_of_the_encoder(encoder, name):
    assert display_name("han", encoder_family(encoder)) == name


@pytest.mark.parametrize(
    ("folder", "architecture", "family"),
    [
        ("encoder", "roberta", "RoBERTa"),
        ("mini-lm", "roberta", "RoBERTa"),
        ("all-MiniLM-L6-v2", "bert", "MiniLM"),
        ("my-roberta", "bert", "BERT"),
        ("encoder", "deberta-v2", "DeBERTa"),
        ("encoder", "nomic", "nomic"),
    ],
)
def test_the_family_of_a_directory_is_that_of_its_architecture(tmp_path, folder, architecture, family):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text(f'{{"model_type": "{architecture}"}}', encoding="utf-8")
    assert encoder_family(str(tmp_path / folder)) == family


def test_an_unknown_head_is_answered_with_the_near_one():
    with pytest.raises(ConfigError) as caught:
        head_class("lstmm")
    assert "lstmm" in caught.value.message
    assert "Did you mean `lstm`" in caught.value.hint
    assert "linear" in caught.value.hint


def test_stored_settings_become_the_section_that_they_were(head_name):
    section = Config().model(head_name).head
    assert head_config(head_name, section.model_dump(mode="json")) == section


def test_stored_settings_that_do_not_fit_are_named():
    with pytest.raises(ModelError, match=r"attention_heads \(5\) must divide 2 x hidden"):
        head_config("lstm", {"hidden": 8, "attention_heads": 5})
    with pytest.raises(ModelError, match="wings"):
        head_config("han", {"wings": 2})


def test_the_registry_imports_nothing_heavy():
    code = "import sys, sentiment_hybrid.models; print({'torch', 'transformers', 'numpy'} & set(sys.modules) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
