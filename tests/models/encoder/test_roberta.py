"""Our own RoBERTa and BERT: the same states as transformers', from the same files, and no padding computed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.module import Encoder, encoder_fingerprint
from sentiment_hybrid.models.encoder.roberta import Architecture, Ragged, Roberta, is_supported
from sentiment_hybrid.models.tokenizer import Tokenizer

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
STRANGE = [
    "",
    " ",
    "a",
    "</s> and <s>",
    "naïve café 😀😀",
    "#tag @user http",
    "a  b\tc\n",
    "x" * 300,
    "İ ﬁ \u200b",
    "don't",
]


def theirs(family: str, **changes):
    """A transformers model with weights, norms and biases that all differ from where they start."""
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(5)
    positions = {"max_position_embeddings": 20} if family == "bert" else {"max_position_embeddings": 22}
    config_class, model_class = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[family]
    model = model_class(config_class(**{**SIZES, **positions, **changes}), add_pooling_layer=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def ours(model) -> Roberta:
    own = Roberta(Architecture(model.config.to_dict()))
    own.load_state_dict(model.state_dict())
    return own.eval()


def batch(lengths: list[int], width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(width or max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)), mask


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_states_and_gradients_are_those_of_transformers(family, act):
    reference = theirs(family, hidden_act=act)
    own = ours(reference)
    ids, mask = batch([7, 3, 18, 3, 1])
    ids = ids.masked_fill(~mask, reference.config.pad_token_id)
    wanted = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    got = own(ids, mask)[mask]
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
    wanted.square().sum().backward()
    got.square().sum().backward()
    gradients = {name: value.grad for name, value in own.named_parameters()}
    for name, value in reference.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad, atol=1e-3, rtol=1e-3)


def test_long_windows_take_the_fused_kernel_and_stay_the_same():
    reference = theirs("roberta", max_position_embeddings=200)
    ids, mask = batch([190, 130, 4])
    ids = ids.masked_fill(~mask, reference.config.pad_token_id)
    wanted = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
    torch.testing.assert_close(ours(reference)(ids, mask)[mask], wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_padded_way_of_other_devices_gives_the_same_states(family):
    own = ours(theirs(family))
    ids, mask = batch([7, 3, 18, 3, 1])
    position = torch.arange(18).expand_as(ids)
    padded = own._padded(own.embeddings(ids, position), mask, own.encoder.layer)
    torch.testing.assert_close(padded[mask], own(ids, mask)[mask], atol=2e-5, rtol=1e-4)


def test_an_empty_window_is_no_nan():
    own = ours(theirs("roberta"))
    ids, mask = batch([4, 0])
    assert torch.isfinite(own(ids, mask)).all()
    position = torch.arange(4).expand_as(ids)
    assert torch.isfinite(own._padded(own.embeddings(ids, position), mask, own.encoder.layer)).all()
    assert own(ids[1:], mask[1:]).abs().sum() == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 3))
def test_tokens_in_a_row_go_back_to_where_they_came_from(lengths, more):
    mask = torch.arange(max(1, *lengths, 1) + more)[None, :] < torch.tensor(lengths)[:, None]
    values = torch.randn(*mask.shape, 2)
    ragged = Ragged.of(mask)
    assert len(ragged.index) == int(mask.sum()) == sum(windows * length for windows, length in ragged.groups)
    back = ragged.put(ragged.take(values), mask)
    assert torch.equal(back, values * mask.unsqueeze(-1))
    assert torch.equal(ragged.position, ragged.index % mask.shape[1])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_below_and_above_together_are_the_whole(layers):
    encoder = Encoder(ours(theirs("roberta")), layers).eval()
    ids, mask = batch([7, 3, 18])
    below = encoder.below(ids, mask)
    assert encoder.stored_layer == 3 - layers
    assert not below.requires_grad
    assert encoder.above(below, mask).requires_grad == (layers > 0)
    assert torch.equal(encoder.above(below, mask), encoder(ids, mask))


def test_an_encoder_trained_whole_or_of_an_unknown_kind_has_nothing_to_store():
    from transformers import DistilBertConfig, DistilBertModel

    assert Encoder(ours(theirs("bert")), "all").stored_layer is None
    distil = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=16))
    assert Encoder(distil, 1).stored_layer is None
    assert Encoder(distil, 0).stored_layer == 3


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_files_go_both_ways_with_one_fingerprint(family, tiny_encoder_dir: Path, tmp_path: Path):
    from transformers import AutoModel

    tokenizer = Tokenizer.load(tiny_encoder_dir)
    reference = theirs(family, vocab_size=400, pad_token_id=tokenizer.pad_token_id)
    own = ours(reference)
    assert encoder_fingerprint(own) == encoder_fingerprint(reference)
    save_encoder(own, tokenizer, tmp_path / "own")
    back = AutoModel.from_pretrained(tmp_path / "own", add_pooling_layer=False)
    assert encoder_fingerprint(back) == encoder_fingerprint(own)
    reference.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    loaded = load_encoder_dir(tmp_path / "theirs")
    assert isinstance(loaded.model, Roberta)
    assert loaded.fingerprint == encoder_fingerprint(reference)


def test_other_weights_beside_those_of_the_model_are_not_loaded(tiny_encoder_dir: Path, tmp_path: Path):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_dir, folder)
    expected = load_encoder_dir(folder).fingerprint
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "model_old.safetensors")
    assert load_encoder_dir(folder).fingerprint == expected


def test_the_encoder_inside_a_task_model_is_found_by_its_prefix(tiny_encoder_dir: Path, tmp_path: Path):
    from transformers import AutoConfig, AutoModelForMaskedLM

    config = AutoConfig.from_pretrained(tiny_encoder_dir)
    task = AutoModelForMaskedLM.from_config(config)
    task.save_pretrained(tmp_path / "task")
    Tokenizer.load(tiny_encoder_dir).save_pretrained(tmp_path / "task")
    loaded = load_encoder_dir(tmp_path / "task")
    assert loaded.fingerprint == encoder_fingerprint(task.base_model)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "distilbert"},
        {"hidden_act": "silu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
    ],
)
def test_what_is_not_computed_here_is_left_to_transformers(change):
    assert is_supported({"model_type": "roberta"})
    assert not is_supported({"model_type": "roberta", **change})


def test_the_tokenizer_is_that_of_transformers(shared: Path):
    from transformers import AutoTokenizer

    directory = shared / "encoders" / "roberta-base-tokenizer"
    reference = AutoTokenizer.from_pretrained(directory)
    reference.split_special_tokens = True
    reference.backend_tokenizer.encode_special_tokens = True
    own = Tokenizer.load(directory, pad_token_id=1)
    assert own(STRANGE)["input_ids"] == reference(STRANGE)["input_ids"]
    assert (
        own(STRANGE, add_special_tokens=False)["input_ids"] == reference(STRANGE, add_special_tokens=False)["input_ids"]
    )
    assert (own.pad_token_id, len(own)) == (reference.pad_token_id, len(reference))


def test_a_saved_tokenizer_is_read_by_transformers_too(tiny_encoder_dir: Path):
    from transformers import AutoTokenizer

    reference, own = AutoTokenizer.from_pretrained(tiny_encoder_dir), Tokenizer.load(tiny_encoder_dir)
    for text in ("good day", "not a 😀 film!"):
        assert own(text)["input_ids"] == reference(text)["input_ids"]
    assert reference.mask_token_id == own.mask_token_id


def test_loading_a_roberta_imports_no_transformers(tiny_encoder_dir: Path):
    code = (
        "import sys; from pathlib import Path; from sentiment_hybrid.models.encoder.hub import load_encoder_dir; "
        f"load_encoder_dir(Path({str(tiny_encoder_dir)!r})); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_positions_that_are_added_repeat_those_there_and_transformers_reads_them(family, tmp_path):
    from transformers import AutoModel

    own = ours(theirs(family))
    ids, mask = batch([18, 7])
    with torch.no_grad():
        before = own(ids, mask)
        own.grow_positions(50)
        assert torch.equal(own(ids, mask), before)
        longer, its_mask = batch([50])
        own.save_pretrained(tmp_path)
        expected = AutoModel.from_pretrained(tmp_path)(input_ids=longer).last_hidden_state
        torch.testing.assert_close(own(longer, its_mask), expected, atol=2e-5, rtol=1e-4)
    table = own.embeddings.position_embeddings.weight[own.embeddings.first_position :]
    assert torch.equal(table[20:40], table[:20])
    assert torch.equal(table[40:50], table[:10])
    assert own.config.max_position_embeddings == own.config.document["max_position_embeddings"]
    assert own.embeddings.position_embeddings.num_embeddings == own.config.max_position_embeddings


def test_rows_that_are_added_start_as_the_mean_of_those_they_replace():
    own = ours(theirs("roberta"))
    table = own.get_input_embeddings().weight.detach().clone()
    own.grow_vocabulary(63, {60: [7, 9, 9], 61: [5], 62: [8, 6]})
    grown = own.get_input_embeddings().weight
    assert torch.equal(grown[:60], table)
    torch.testing.assert_close(grown[60:], torch.stack([table[[7, 9, 9]].mean(0), table[5], table[[8, 6]].mean(0)]))
    assert grown.requires_grad
    assert own.config.vocab_size == own.config.document["vocab_size"] == 63


def test_rows_a_table_has_beyond_its_tokens_are_used_before_it_grows():
    own = ours(theirs("roberta"))
    own.grow_vocabulary(50, {49: [5]})
    grown = own.get_input_embeddings().weight
    assert len(grown) == 60
    assert torch.equal(grown[49], grown[5])
