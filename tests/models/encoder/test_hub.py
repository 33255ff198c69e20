"""The encoder: frozen as asked, safe to load, told apart by its weights, and a tokenizer made from texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from sentiment_hybrid.config.schema import Encoder as EncoderConfig
from sentiment_hybrid.config.schema import ScratchEncoder
from sentiment_hybrid.errors import ConfigError, EncoderError, OutputError
from sentiment_hybrid.models.encoder import hub
from sentiment_hybrid.models.encoder.hub import build_scratch, load_encoder, load_encoder_dir, save_encoder
from sentiment_hybrid.models.encoder.module import Encoder, check_max_length, encoder_fingerprint
from sentiment_hybrid.models.tokenizer import train_tokenizer

TEXTS = ["good day, good film!", "not a bad day 😀", "bad film, bad food.", "what a day, what a film"] * 3
SCRATCH = ScratchEncoder(vocab_size=320, hidden_size=16, layers=3, attention_heads=2, intermediate_size=32, dropout=0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, SCRATCH, max_length=24)


@pytest.fixture
def scratch(tokenizer):
    torch.manual_seed(3)
    return build_scratch(SCRATCH, tokenizer=tokenizer, max_length=24)


@pytest.fixture
def local(tiny_encoder_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_dir, tmp_path / "mine"))


def named(name, **changes):
    return EncoderConfig(name=str(name), **{"max_length": 24, **changes})


def ids_of(tokenizer, text):
    row = torch.tensor([tokenizer(text)["input_ids"]])
    return row, torch.ones_like(row)


def bert(**changes):
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = BertConfig(**{**sizes, "intermediate_size": 16, "max_position_embeddings": 20, **changes})
    return BertModel(config, add_pooling_layer=False)


# --- what is frozen


def test_a_frozen_encoder_stays_in_eval_mode_and_gets_no_gradient(scratch, tokenizer):
    encoder = Encoder(scratch.model, 0).train()
    assert not any(module.training for module in encoder.model.modules())
    row = ids_of(tokenizer, "good day")
    states = encoder(*row)
    assert not states.requires_grad
    assert torch.equal(states, encoder(*row))
    assert encoder.frozen
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("architecture", ["roberta", "bert", "distilbert"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_only_the_last_layers_get_gradients_and_dropout(scratch, architecture, count):
    from transformers import DistilBertConfig, DistilBertModel

    distil = DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=16)
    model = {"roberta": lambda: scratch.model, "bert": bert, "distilbert": lambda: DistilBertModel(distil)}[
        architecture
    ]()
    encoder = Encoder(model, count)
    encoder.train()
    ids = torch.randint(5, 40, (2, 6))
    encoder(ids, torch.ones_like(ids)).square().mean().backward()
    trained = {name.split("layer.")[1][0] for name, value in encoder.named_parameters() if value.grad is not None}
    assert trained == {str(index) for index in range(3)[-count:]}
    assert all(".layer." in name for name, value in encoder.named_parameters() if value.requires_grad)
    working = {name.split("layer.")[1][0] for name, module in model.named_modules() if module.training}
    assert working == trained
    assert not any(module.training for module in encoder.eval().modules())


def test_all_layers_means_the_embeddings_too(scratch, tokenizer):
    encoder = Encoder(scratch.model, "all").train()
    encoder(*ids_of(tokenizer, "good day")).square().mean().backward()
    assert all(module.training for module in encoder.modules())
    assert [name for name, value in encoder.named_parameters() if value.grad is None] == []
    assert not encoder.frozen


def test_more_layers_than_there_are_is_a_config_error(scratch):
    with pytest.raises(ConfigError, match=r"trainable_layers is 4.* 3 layers") as caught:
        Encoder(scratch.model, 4)
    assert "0 to 3" in caught.value.hint


def test_layers_that_cannot_be_told_apart_are_an_encoder_error():
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)
    model = AlbertModel(config, add_pooling_layer=False)
    with pytest.raises(EncoderError, match="albert"):
        Encoder(model, 1)
    assert Encoder(model, 0).frozen
    assert all(value.requires_grad for value in Encoder(model, "all").parameters())


# --- how much it reads


def test_windows_longer_than_the_encoder_reads_are_a_config_error(scratch):
    check_max_length(scratch.model, 24, name="mine")
    with pytest.raises(ConfigError, match=r"max_length is 25.*mine.* 24 ") as caught:
        check_max_length(scratch.model, 25, name="mine")
    assert "24" in caught.value.hint


def test_a_bert_reads_as_many_tokens_as_it_has_positions():
    check_max_length(bert(), 20, name="mine")
    with pytest.raises(ConfigError, match="20"):
        check_max_length(bert(), 21, name="mine")


def test_the_longest_window_that_is_allowed_can_be_read(scratch):
    ids = torch.full((1, 24), 9)
    assert Encoder(scratch.model, 0)(ids, torch.ones_like(ids)).shape == (1, 24, 16)


def test_loading_checks_the_length_against_the_encoder(tiny_encoder_dir):
    with pytest.raises(ConfigError, match="33"):
        load_encoder(named(tiny_encoder_dir, max_length=33))


# --- save and load


def test_a_saved_encoder_loads_as_the_same(scratch, tokenizer, tmp_path: Path):
    save_encoder(scratch.model, tokenizer, tmp_path / "a" / "b")
    loaded = load_encoder(named(tmp_path / "a" / "b"))
    assert loaded.fingerprint == scratch.fingerprint == encoder_fingerprint(loaded.model)
    assert (loaded.source, scratch.source) == ("local", "scratch")
    row = ids_of(loaded.tokenizer, "not a bad 😀 film")
    assert torch.equal(row[0], ids_of(tokenizer, "not a bad 😀 film")[0])
    assert torch.equal(Encoder(loaded.model, 0)(*row), Encoder(scratch.model, 0)(*row))
    assert not list((tmp_path / "a" / "b").glob("*.bin"))


def test_half_precision_weights_load_as_float32_with_their_own_fingerprint(scratch, tokenizer, tmp_path: Path):
    scratch.model.half()
    save_encoder(scratch.model, tokenizer, tmp_path)
    loaded = load_encoder_dir(tmp_path)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.fingerprint == encoder_fingerprint(scratch.model) != scratch.fingerprint


def test_the_fingerprint_tells_apart_weights_and_architectures_but_no_pooler():
    from transformers import BertModel

    torch.manual_seed(0)
    first, second = bert(), bert()
    assert encoder_fingerprint(first) != encoder_fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert encoder_fingerprint(first) == encoder_fingerprint(second)
    pooled = BertModel(first.config)
    pooled.load_state_dict(first.state_dict(), strict=False)
    assert encoder_fingerprint(first) == encoder_fingerprint(pooled)
    more_heads = bert(num_attention_heads=4)
    more_heads.load_state_dict(first.state_dict())
    assert encoder_fingerprint(first) != encoder_fingerprint(more_heads)


def test_loading_shows_no_progress_and_no_warning(local, capfd):
    load_encoder_dir(local)
    assert capfd.readouterr() == ("", "")


def test_an_encoder_that_cannot_be_written_is_an_output_error(scratch, tokenizer, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        save_encoder(scratch.model, tokenizer, tmp_path / "file" / "encoder")


# --- what is refused


def test_a_pickle_is_refused(local):
    torch.save(load_file(local / "model.safetensors"), local / "pytorch_model.bin")
    (local / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"pickle \(pytorch_model.bin\)") as caught:
        load_encoder(named(local))
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "said"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_directory_that_lacks_something_says_what(local, file, said):
    (local / file).unlink()
    with pytest.raises(EncoderError, match=said) as caught:
        load_encoder(named(local))
    assert str(local) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\x00\xff" * 400], ids=["empty", "cut", "binary"])
def test_a_damaged_file_is_an_encoder_error(local, file, damage):
    (local / file).write_bytes(damage)
    with pytest.raises(EncoderError, match="mine"):
        load_encoder(named(local))


def test_a_checkpoint_without_all_weights_is_refused_and_not_filled_up_at_random(local):
    weights = load_file(local / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, local / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"1 are missing, such as encoder.layer.1.output.dense.weight"):
        load_encoder(named(local))


def test_a_checkpoint_of_other_sizes_is_refused(local):
    config = json.loads((local / "config.json").read_text())
    (local / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(named(local))


def test_a_tokenizer_of_another_model_is_refused(local, tmp_path: Path):
    words = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "qrstuvwxyz"] * 2
    other = train_tokenizer(words, ScratchEncoder(vocab_size=2000), max_length=24)
    assert len(other) > load_encoder_dir(local).model.config.vocab_size
    other.save_pretrained(local)
    with pytest.raises(EncoderError, match="do not match"):
        load_encoder(named(local))


def test_a_tokenizer_with_another_padding_id_is_refused(local):
    config = json.loads((local / "config.json").read_text())
    (local / "config.json").write_text(json.dumps({**config, "pad_token_id": 0}))
    with pytest.raises(EncoderError, match="pads with id 1, but its roberta encoder expects id 0"):
        load_encoder(named(local))


@pytest.mark.parametrize("family", ["deberta-v2", "mpnet"])
def test_a_family_without_sdpa_loads_with_eager_attention_and_gives_the_states_of_transformers(local, family):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    config = AutoConfig.for_model(
        family,
        vocab_size=400,
        max_position_embeddings=34,
        pad_token_id=1,
        **sizes,
        **(relative if "deb" in family else {}),
    )
    reference = AutoModel.from_config(config).eval()
    reference.save_pretrained(local)
    loaded = load_encoder(named(local))
    ids, mask = ids_of(loaded.tokenizer, "a good day")
    padded = torch.nn.functional.pad(ids, (0, 3), value=1), torch.nn.functional.pad(mask, (0, 3))
    with torch.no_grad():
        states = Encoder(loaded.model)(*padded)[:, : ids.shape[1]]
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.allclose(states, expected, atol=1e-5)


@pytest.fixture
def deberta_v3(tmp_path):
    """As the hub has it: weights and a SentencePiece model, no tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import DebertaV2Config, DebertaV2Model

    pieces = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    pieces |= {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    sentences = iter(["a good day", "a bad day, really", "not bad at all"] * 20)
    with (tmp_path / "spm.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=file, vocab_size=20, minloglevel=2, **pieces
        )
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    config = DebertaV2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, type_vocab_size=0, relative_attention=True, position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
    )  # fmt: skip
    DebertaV2Model(config).save_pretrained(tmp_path)
    return tmp_path


def test_deberta_v3_loads_with_its_sentencepiece_tokenizer(deberta_v3):
    loaded = load_encoder(named(deberta_v3))
    ids, mask = ids_of(loaded.tokenizer, "not a bad day")
    assert "".join(loaded.tokenizer.convert_ids_to_tokens(ids[0].tolist())) == "[CLS]▁not▁a▁bad▁day[SEP]"
    padded = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    with torch.no_grad():
        states, more = Encoder(loaded.model)(ids, mask), Encoder(loaded.model)(*padded)
    assert torch.allclose(states, more[:, : ids.shape[1]], atol=1e-5)


def test_without_sentencepiece_one_sentence_says_what_to_install(deberta_v3, monkeypatch):
    from transformers import AutoTokenizer

    def fails(*_, **__):
        raise ValueError("`tiktoken` is required to read a `tiktoken` file.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fails)
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="is a SentencePiece model, which needs one more package") as caught:
        load_encoder(named(deberta_v3))
    assert '".[sentencepiece]"' in caught.value.hint


def test_the_fingerprint_tells_how_deberta_attends_to_positions():
    from transformers import DebertaV2Config, DebertaV2Model

    def fingerprint(**changes):
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        torch.manual_seed(0)
        config = DebertaV2Config(vocab_size=50, relative_attention=True, position_buckets=8, **sizes, **changes)
        return encoder_fingerprint(DebertaV2Model(config))

    options = {"share_att_key": True}  # so that both have the same weights
    assert fingerprint(pos_att_type=["p2c"], **options) != fingerprint(pos_att_type=["c2p"], **options)


def test_a_model_that_brings_its_own_code_is_refused(local):
    config = json.loads((local / "config.json").read_text())
    (local / "evil.py").write_text("raise SystemExit('code from a model was run')")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (local / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError):
        load_encoder(named(local))


@pytest.mark.parametrize("name", ["roberta-base", "owner/no-such-encoder"])
def test_offline_a_hub_name_says_what_was_looked_for_and_the_ways_out(name):
    with pytest.raises(EncoderError, match=name) as caught:
        load_encoder(named(name, revision="v1"), offline=True)
    assert "revision v1" in caught.value.message
    for way in ("senthy fetch", "local directory", "encoder.name=mini"):
        assert way in caught.value.hint


def test_a_directory_that_is_not_there_is_not_looked_for_on_the_hub():
    with pytest.raises(EncoderError, match=r"\./models/mine/encoder is neither a directory"):
        load_encoder(named("./models/mine/encoder"))


# --- the hub, as its cache and its answers look


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tiny_encoder_dir: Path, tmp_path: Path, monkeypatch) -> Path:
    """A hub cache that holds the tiny encoder as owner/tiny, at one commit of main."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(tiny_encoder_dir, repository / "snapshots" / COMMIT))


@pytest.fixture
def answers(monkeypatch):
    """Lets a test say what the hub answers, or raises."""
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def set_answer(answer):
        def model_info(name, *, revision, timeout):
            if isinstance(answer, Exception):
                raise answer
            return SimpleNamespace(sha=answer)

        monkeypatch.setattr("huggingface_hub.model_info", model_info)

    return set_answer


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_offline_a_cached_hub_encoder_loads_and_names_its_commit(hub_cache, tiny_encoder_dir, revision):
    loaded = load_encoder(named("owner/tiny", revision=revision), offline=True)
    assert (loaded.name, loaded.source, loaded.revision) == ("owner/tiny", "hub", COMMIT)
    assert loaded.fingerprint == load_encoder_dir(tiny_encoder_dir).fingerprint


def test_without_a_network_the_cache_is_used(hub_cache, answers):
    answers(ConnectionError("no route"))
    assert load_encoder(named("owner/tiny")).revision == COMMIT


def test_without_a_network_and_without_a_copy_the_error_says_so(hub_cache, answers):
    answers(ConnectionError("no route"))
    with pytest.raises(EncoderError, match="owner/other is not in the local Hugging Face cache"):
        load_encoder(named("owner/other"))


def test_a_name_that_the_hub_does_not_know_is_not_called_offline(hub_cache, answers):
    answers(ValueError("no such repository"))
    with pytest.raises(EncoderError, match="owner/other cannot be loaded from the Hugging Face hub: no such"):
        load_encoder(named("owner/other"))


def test_the_commit_that_the_hub_names_is_the_one_loaded(hub_cache, answers):
    answers(COMMIT)
    (hub_cache.parents[1] / "refs" / "main").write_text("f" * 40)
    assert load_encoder(named("owner/tiny")).revision == COMMIT


def test_a_pinned_commit_in_the_cache_needs_no_answer_from_the_hub(hub_cache, answers):
    answers(AssertionError("the hub was asked"))
    assert load_encoder(named("owner/tiny", revision=COMMIT)).revision == COMMIT


# --- the tokenizer of a scratch encoder


def test_the_special_tokens_have_the_ids_of_roberta(tokenizer):
    assert [tokenizer.get_vocab()[token] for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [0, 1, 2, 3, 4]
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id) == (
        0,
        1,
        2,
        4,
    )
    ids = tokenizer("good day")["input_ids"]
    assert (ids[0], ids[-1]) == (0, 2)


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer(iter(TEXTS), SCRATCH, max_length=24)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_every_text_survives_the_tokenizer(tokenizer):
    for text in ("good day", "日本 🤷 ünïcode", "tabs\tand\nlines"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text


def test_the_first_word_is_the_token_that_it_is_in_the_middle(tokenizer):
    first, middle = tokenizer("film day")["input_ids"], tokenizer("day film")["input_ids"]
    assert sorted(first) == sorted(middle)


def test_special_tokens_that_a_user_types_are_plain_text(tokenizer, local):
    for one in (tokenizer, load_encoder_dir(local).tokenizer):
        for ids in (one("a </s> <pad> b")["input_ids"], one.backend_tokenizer.encode("a </s> <pad> b").ids):
            assert set(ids[1:-1]).isdisjoint(range(5))


def test_a_vocabulary_is_no_larger_than_asked_for(tokenizer):
    assert 256 + 5 < len(tokenizer) <= SCRATCH.vocab_size


def test_few_texts_give_a_small_vocabulary_that_still_works():
    small = train_tokenizer(["a"], ScratchEncoder(vocab_size=8000), max_length=8)
    scratch = build_scratch(ScratchEncoder(hidden_size=8, attention_heads=2), tokenizer=small, max_length=8)
    assert scratch.model.get_input_embeddings().num_embeddings == len(small) < 300
    assert Encoder(scratch.model, 0)(*ids_of(small, "xyz")).isfinite().all()


def test_scratch_weights_follow_the_seed(tokenizer, scratch):
    torch.manual_seed(3)
    assert build_scratch(SCRATCH, tokenizer=tokenizer, max_length=24).fingerprint == scratch.fingerprint
    assert build_scratch(SCRATCH, tokenizer=tokenizer, max_length=24).fingerprint != scratch.fingerprint


def test_scratch_is_not_a_name_to_load():
    with pytest.raises(ValueError, match="build_scratch"):
        load_encoder(named("scratch", trainable_layers="all"))
