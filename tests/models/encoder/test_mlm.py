"""An encoder under RoBERTa's output layer: what transformers computes, with an output layer that can be kept."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.mlm import HEAD_FILE, MaskedLanguageModel, head_weights
from sentiment_hybrid.models.encoder.module import set_dropout


def hidden_of(mask: torch.Tensor) -> torch.Tensor:
    """Every third real place of the flattened batch."""
    return mask.flatten().nonzero().squeeze(1)[::3]


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([9, 4, 7])
    mask = torch.arange(9) < lengths.unsqueeze(1)
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 1)
    return ids, mask, hidden_of(mask)


@pytest.fixture
def model(tiny_encoder_dir: Path) -> MaskedLanguageModel:
    torch.manual_seed(4)
    made = MaskedLanguageModel(load_encoder_dir(tiny_encoder_dir).model)
    with torch.no_grad():
        for value in (made.bias, made.norm.weight, made.dense.bias):
            value.normal_()
    return made.eval()


def as_transformers_saves_it(family: str, folder: Path, tokenizer_of: Path) -> Any:
    """A model of transformers for masked language modelling, saved with a tokenizer as a hub repository has it."""
    import transformers

    sizes = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 1}
    torch.manual_seed(6)
    kind = {"roberta": "Roberta", "bert": "Bert"}[family]
    reference = getattr(transformers, f"{kind}ForMaskedLM")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    with torch.no_grad():
        for name, value in reference.named_parameters():
            if "bias" in name or "LayerNorm" in name or "layer_norm" in name:
                value.add_(torch.randn_like(value) * 0.3)
    reference.save_pretrained(folder)
    for file in tokenizer_of.glob("*token*.json"):
        shutil.copy(file, folder / file.name)
    return reference


@pytest.mark.parametrize("family", ["roberta", "bert"])
def test_a_checkpoint_of_transformers_gives_its_logits(family: str, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    reference = as_transformers_saves_it(family, tmp_path / "hub", tiny_encoder_dir)
    model = MaskedLanguageModel(load_encoder_dir(tmp_path / "hub").model).eval()
    assert model.load_head(head_weights(tmp_path / "hub"))
    ids, mask, hidden = batch()
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask.long()).logits.flatten(0, 1)[hidden]
        torch.testing.assert_close(model(ids, mask, hidden), expected, atol=1e-4, rtol=1e-4)


def test_names_of_old_checkpoints_are_understood(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    as_transformers_saves_it("bert", tmp_path / "hub", tiny_encoder_dir)
    file = tmp_path / "hub" / "model.safetensors"
    kept = load_file(file)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    save_file(
        {functools.reduce(lambda name, pair: name.replace(*pair), old.items(), key): kept[key] for key in kept}, file
    )
    model = MaskedLanguageModel(load_encoder_dir(tmp_path / "hub").model)
    assert model.load_head(head_weights(tmp_path / "hub"))
    torch.testing.assert_close(model.norm.weight, kept["cls.predictions.transform.LayerNorm.weight"])


def test_embeddings_narrower_than_the_states_are_predicted_in_their_own_width() -> None:
    from transformers import AlbertConfig, AlbertModel

    sizes = {"vocab_size": 50, "embedding_size": 8, "hidden_size": 16, "num_attention_heads": 2}
    encoder = AlbertModel(AlbertConfig(**sizes, intermediate_size=16, num_hidden_layers=1))
    model = MaskedLanguageModel(encoder).eval()
    ids, mask, hidden = batch()
    logits = model(ids % 50, mask, hidden)
    assert logits.shape == (len(hidden), 50)
    logits.sum().backward()
    assert model.dense.weight.grad is not None


def test_an_output_layer_that_is_kept_beside_the_encoder_is_the_same_when_it_is_loaded(
    model: MaskedLanguageModel, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    loaded = load_encoder_dir(tiny_encoder_dir)
    save_encoder(loaded.model, loaded.tokenizer, tmp_path)
    model.save_head(tmp_path)
    assert (tmp_path / HEAD_FILE).is_file()
    again = MaskedLanguageModel(load_encoder_dir(tmp_path).model).eval()
    assert again.load_head(head_weights(tmp_path))
    with torch.no_grad():
        assert torch.equal(again(*batch()), model(*batch()))


def test_an_encoder_without_an_output_layer_leaves_the_fresh_one_as_it_is(
    model: MaskedLanguageModel, tiny_encoder_dir: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert head_weights(tiny_encoder_dir) == {}
    assert not model.load_head(head_weights(tiny_encoder_dir))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_output_layer_of_another_size_or_with_a_part_missing_is_not_taken(
    model: MaskedLanguageModel, tmp_path: Path
) -> None:
    tmp_path.mkdir(exist_ok=True)
    model.save_head(tmp_path)
    kept = head_weights(tmp_path)
    before = model.bias.clone()
    other = {**kept, "bias": torch.ones(len(before) + 1)}
    assert not model.load_head(other)
    assert not model.load_head({name: value for name, value in kept.items() if name != "norm.weight"})
    assert torch.equal(model.bias, before)
    assert model.load_head({**kept, "bias": torch.ones(len(before), dtype=torch.float16)})
    assert torch.equal(model.bias, torch.ones(len(before)))
    assert model.bias.dtype == torch.float32


def test_only_the_places_asked_for_are_computed_and_padding_changes_none(model: MaskedLanguageModel) -> None:
    ids, mask, hidden = batch()
    with torch.no_grad():
        found = model(ids, mask, hidden)
        wider = torch.nn.functional.pad(ids, (0, 3), value=1), torch.nn.functional.pad(mask, (0, 3))
        rows, columns = hidden // 9, hidden % 9
        moved = model(*wider, rows * 12 + columns)
    assert found.shape == (len(hidden), model.bias.shape[0])
    torch.testing.assert_close(found, moved, atol=1e-5, rtol=1e-5)


def test_nothing_hidden_gives_no_logits_and_a_loss_of_nothing(model: MaskedLanguageModel) -> None:
    ids, mask, _ = batch()
    assert model(ids, mask, torch.empty(0, dtype=torch.int64)).shape == (0, model.bias.shape[0])


def test_the_word_embeddings_learn_as_the_output_layer_too(model: MaskedLanguageModel) -> None:
    ids, mask, hidden = batch()
    model(ids, mask, hidden)[:, 70].sum().backward()
    table = model.encoder.model.get_input_embeddings().weight
    assert 70 not in ids
    assert table.grad is not None
    assert table.grad[70].abs().sum() > 0
    assert "decoder" not in " ".join(dict(model.named_parameters())), "one table"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_dropout_can_be_set_of_every_part_attention_too(model: MaskedLanguageModel, share: float) -> None:
    set_dropout(model, share)
    model.train()
    first, second = (model(*batch()) for _ in range(2))
    assert torch.equal(first, second) == (share == 0.0)
    shares = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    shares += [module.dropout for module in model.modules() if isinstance(getattr(module, "dropout", None), float)]
    assert set(shares) == {share}
    assert len(shares) >= 3


def test_the_output_layer_follows_a_vocabulary_that_grows(model: MaskedLanguageModel) -> None:
    ids, mask, hidden = batch()
    with torch.no_grad():
        before = model(ids, mask, hidden)
        model.encoder.model.grow_vocabulary(before.shape[1] + 2, {before.shape[1]: [7, 9]})
        model.grow_bias({before.shape[1]: [7, 9]})
        after = model(ids, mask, hidden)
    torch.testing.assert_close(after[:, :-2], before)
    torch.testing.assert_close(after[:, -2], before[:, [7, 9]].mean(1))
