"""The decoder as a Hugging Face model: importing this module registers `tamis_spark` with the Auto classes.

import tamis.spark.huggingface
model = AutoModelForCausalLM.from_pretrained(folder)      # safetensors; generate, Trainer, save_pretrained

dense = open_gemma2(folder)                                 # a dense Gemma-2 checkpoint in the dense arm, equal logits
spark = from_dense(dense, arrange(...))                     # a Spark model that starts from a dense one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from tamis.errors import InputError
from tamis.spark.checkpoint import complete, problems, shift_names, tensor_shapes
from tamis.spark.loss import next_token_loss
from tamis.spark.model import Decoder, RMSNorm, Threshold, Visible

SHARED_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_activation", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping",
    "attn_logit_softcapping", "pad_token_id", "eos_token_id", "bos_token_id",
)  # fmt: skip


class SparkConfig(PreTrainedConfig):
    """config.json of `tamis_spark`; `tamis.spark.presets.arrange` makes the keywords."""

    model_type = "tamis_spark"
    keys_to_ignore_at_inference = ("past_key_values",)

    vocab_size: int = 1024
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 768
    ffn: str = "spark"
    ffn_predictor_size: int | None = None
    """r; half of hidden_size unless given."""
    ffn_active: int | None = None
    """k; 8 % of intermediate_size unless given."""
    attention: str = "spark"
    attention_predictor_size: int | None = None
    attention_active: int = 256
    sliding_window: int = 4096
    layer_types: list[str] | None = None
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    query_pre_attn_scalar: int = 256
    max_position_embeddings: int = 8192
    hidden_activation: str = "gelu_pytorch_tanh"
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    # Ablations, see model.py; the engine refuses anything else than these.
    topk_method: str = "statistical"
    ffn_cut: str = "soft"
    theta_gradient: bool = True
    attention_gate: str = "softplus"
    theta_shift: str = "tracked"
    gate_rows: str = "free"
    """equal while training a new Spark model (`presets.arrange`); what has been trained keeps its rows."""

    def __post_init__(self, **kwargs: Any) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            given[name] = getattr(self, name)  # None turns a cap off
        for name, value in complete(given | {"model_type": self.model_type}).items():
            if name in self.__dataclass_fields__:
                setattr(self, name, value)
        super().__post_init__(**kwargs)


class SparkForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = SparkConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _no_split_modules = ["Layer"]  # noqa: RUF012 - as transformers declares it
    _supports_sdpa = False  # neither a soft-cap nor a threshold fits into it
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 - the projection reads embed_tokens itself

    def __init__(self, config: SparkConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        from transformers import initialization as init  # leaves alone what was loaded

        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, RMSNorm):
            init.zeros_(module.weight)
        elif isinstance(module, Threshold) and hasattr(module, "quantile_shift"):
            init.zeros_(module.quantile_shift)  # also where an older checkpoint has none

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **ignored: Any) -> Tensor | None:
        """`generate` would make masks of its own for a static cache; `forward` makes them from the padding alone."""
        return attention_mask

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        targets: Tensor | None = None,
        **ignored: Any,
    ) -> Any:
        """input_ids [B, T] -> logits [B, T, vocabulary], and the loss if there are labels (shifted here, -100 ignored).

        With targets [B, T], the tokens that follow each one, the loss alone, far cheaper (`tamis.spark.loss`).

        attention_mask [B, T with the cached tokens]: 0 where there is padding. Raises InputError past the context.
        """
        embedded = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        t = embedded.shape[1]
        if past_key_values is None and use_cache:
            past_key_values = DynamicCache(config=self.config)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if isinstance(past, int) and past + t > self.config.max_position_embeddings:
            raise InputError(
                f"{past + t} tokens were given to a model whose context is {self.config.max_position_embeddings}: "
                "shorten the prompt, or ask for fewer new tokens."
            )
        if position_ids is None:
            position_ids = (torch.arange(t, device=embedded.device) + past)[None]
        hidden = self.model(
            embedded,
            position_ids,
            _visibility(t, past, past_key_values, attention_mask, embedded.device),
            past_key_values,
        )
        if targets is not None:
            weight, cap = self.model.embed_tokens.weight, self.config.final_logit_softcapping
            return CausalLMOutputWithPast(
                loss=next_token_loss(hidden.flatten(0, 1), weight, targets.flatten(), cap)
            )
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, -logits_to_keep:]  # 0 keeps all
        else:
            hidden = hidden[:, logits_to_keep]
        logits = self.model.logits(hidden)
        loss = None if labels is None else _loss(logits, labels, num_items_in_batch)
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
        return output.to_tuple() if return_dict is False else output


def _visibility(
    new: int, past: Any, cache: Any, attention_mask: Tensor | None, device: torch.device
) -> Callable[[int, int | None], Visible]:
    """What `Decoder.forward` asks for: layer and window -> visible keys."""
    kept: dict[tuple[int, int, int | None], Visible] = {}
    padded = attention_mask is not None and not bool(attention_mask.all())

    def see(layer: int, window: int | None) -> Visible:
        # A cache may hold the last keys of a sliding layer only, or (static) room for later ones.
        keys, first = (new, 0) if cache is None else cache.get_mask_sizes(new, layer)
        if (keys, first, window) not in kept:
            real = None
            if padded and attention_mask is not None:
                real = attention_mask[:, first : first + keys].bool()
                real = F.pad(real, (0, keys - real.shape[1]))
            kept[keys, first, window] = Visible(new, keys, past - first, window, device, real)
        return kept[keys, first, window]

    return see


def _loss(logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Mean cross-entropy of the next token; over `items` tokens if transformers.Trainer says how many a step has."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    wanted = labels[:, 1:].reshape(-1).to(flat.device)
    if items is None:
        return F.cross_entropy(flat, wanted, ignore_index=-100)
    return F.cross_entropy(flat, wanted, ignore_index=-100, reduction="sum") / items


def open_gemma2(source: Path | Gemma2ForCausalLM) -> SparkForCausalLM:
    """A dense Gemma-2 of transformers, a folder or a model, as the dense arm: the same tensors, the same logits.

    Raises InputError when the folder holds another model, or one with what is not built here (biases, untied heads).
    """
    if not isinstance(source, Gemma2ForCausalLM):
        config = AutoConfig.from_pretrained(source)
        if not isinstance(config, Gemma2Config):
            raise InputError(f"{source} holds a {config.model_type!r} model; a dense 'gemma2' was expected.")
        source = Gemma2ForCausalLM.from_pretrained(source)
    config = source.config
    if config.attention_bias or getattr(config, "use_bidirectional_attention", None):
        raise InputError("This Gemma-2 has attention biases or looks ahead, which is not built.")
    if (config.rope_parameters or {}).get("rope_type", "default") != "default":
        raise InputError(f"The rotary embedding {config.rope_parameters} is not built, only the default one.")
    fields = {name: getattr(config, name) for name in SHARED_FIELDS}
    fields["rope_theta"] = (config.rope_parameters or {}).get("rope_theta", 10000.0)
    dense = SparkForCausalLM(SparkConfig(**fields, ffn="gated", attention="softmax"))
    state = {name: value for name, value in source.state_dict().items() if name != "lm_head.weight"}
    nn.Module.to(dense, source.dtype).load_state_dict(state)
    return dense.eval()


def from_dense(dense: SparkForCausalLM, config: Mapping[str, Any]) -> SparkForCausalLM:
    """A Spark model that starts from a dense one of the same width, to be trained on.

    Embeddings, norms and attention projections are taken over. A Spark FFN has other matrices: its first d_ff' neurons
    get the dense neurons' gate columns that see q[:r], the up columns that see q[r:], and their output; the rest start
    at random with an output of zero, and thresholds with the normal quantile. The result is a start and no equal: half of
    each neuron's inputs are gone.
    """
    spark = SparkForCausalLM(SparkConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    nn.Module.to(spark, dense.dtype)
    old, new = dense.state_dict(), spark.state_dict()
    for name, tensor in new.items():
        if name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
        elif ".mlp." not in name and not name.endswith(".quantile_shift"):
            raise InputError(
                f"{name} is {list(old[name].shape) if name in old else 'absent'} in the dense model and "
                f"{list(tensor.shape)} in the Spark one: both need the same width, depth, heads and vocabulary."
            )
    r = spark.config.ffn_predictor_size
    for i in range(spark.config.num_hidden_layers):
        layer = f"model.layers.{i}.mlp"
        if spark.config.ffn != "spark" or f"{layer}.gate_proj.weight" not in old:
            continue
        gate, up, down = (old[f"{layer}.{part}_proj.weight"] for part in ("gate", "up", "down"))
        n = min(len(gate), spark.config.intermediate_size)
        new[f"{layer}.predictor.weight"][:n] = gate[:n, :r]
        new[f"{layer}.up_proj.weight"][:n] = up[:n, r:]
        new[f"{layer}.down_proj.weight"][:, :n] = down[:, :n]
        new[f"{layer}.down_proj.weight"][:, n:] = 0
    return spark


def shapes_agree(model: SparkForCausalLM) -> list[str]:
    """Where the model's tensors differ from what `checkpoint.tensor_shapes` tells readers to expect; empty if nowhere."""
    config = model.config.to_dict()
    expected = tensor_shapes(complete(config)) | dict.fromkeys(shift_names(config), (1,))
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    names = expected.keys() | found.keys()
    return problems(config) + [name for name in sorted(names) if expected.get(name) != found.get(name)]


AutoConfig.register("tamis_spark", SparkConfig, exist_ok=True)
AutoModelForCausalLM.register(SparkConfig, SparkForCausalLM, exist_ok=True)
