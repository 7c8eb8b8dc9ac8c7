"""One token through a dense or Spark Transformer, in plain NumPy and double precision: the definition.

    model = Reference.open(folder)
    state, logits = model.step(model.start(), token)

Everything else (PyTorch, the native engine) is tested against this. A decoder layer in the Gemma-2 manner, x [d_model]:

    x = x + norm(attention(norm(x)));  x = x + norm(ffn(norm(x)))          norm(x) = x / rms(x) * (1 + weight)

FFN, q = normalised x:

    gated   V (gelu(G q) * (U q))
    spark   V (gelu(soft_threshold(K1^T q[:r], k)) * (K2^T q[r:]))          K1^T = predictor, K2^T = up_proj, V = down_proj

Attention of one query head over its n visible keys (a window of W keys, the token's own included, on sliding layers):

    softmax  a = softmax(cap(q . K / sqrt(query_pre_attn_scalar)));         out = sum_j a_j v_j
    spark    a = softmax(cap(mask_below(q[:r] . K[:, :r] / sqrt(r), k)))    cap(s) = c tanh(s / c), on the survivors
             out = sum_j a_j softplus(q[r:] . K[j, r:] / sqrt(d_head - r)) v_j

Rotary embedding turns the pairs (i, i + m/2) of a vector of m dimensions; Spark attention turns each part (m = r and
m = d_head - r) separately. Query head h reads key-value head h // (heads / key-value heads). Embeddings are
multiplied by sqrt(d_model) and tied to the vocabulary projection, whose logits are capped. Each threshold has a shift
(`tamis.topk`), one a layer and kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.spark.checkpoint import complete, read_model, widen
from tamis.topk import mask_below, soft_threshold

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class State:
    """What the tokens so far left behind. `step` makes a new one and leaves the old as it was."""

    keys: tuple[Array, ...]
    """One [n, key-value heads, d_head] a layer, rotated."""
    values: tuple[Array, ...]
    active: tuple[int, ...] = ()
    """FFN neurons that were not zero for the last token, one number a layer."""
    attended: tuple[tuple[int, ...], ...] = ()
    """Keys with a weight for the last token, one number a query head, one tuple a layer."""

    @property
    def position(self) -> int:
        """Of the next token."""
        return len(self.keys[0])


class Reference:
    """A model in double precision. config as in config.json; tensors by name, of any float type."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = complete(dict(config))
        self.tensors = {name: widen(tensor).astype(np.float64) for name, tensor in tensors.items()}

    @classmethod
    def open(cls, folder: Path) -> Reference:
        """The model of a checkpoint folder. Raises InputError when it cannot be read."""
        return cls(*read_model(folder))

    def start(self) -> State:
        """The state before the first token."""
        layers = self.config["num_hidden_layers"]
        empty = np.zeros((0, self.config["num_key_value_heads"], self.config["head_dim"]))
        return State(keys=(empty,) * layers, values=(empty,) * layers)

    def step(self, state: State, token: int) -> tuple[State, Array]:
        """The state after `token`, and the logits [vocabulary] of the next one. Raises InputError."""
        c, w = self.config, self.tensors
        if not 0 <= token < c["vocab_size"]:
            raise InputError(f"Token {token} is outside the vocabulary of {c['vocab_size']}.")
        if state.position >= c["max_position_embeddings"]:
            raise InputError(f"The context is full: it holds {c['max_position_embeddings']} tokens.")
        embedding = w["model.embed_tokens.weight"]
        x = embedding[token] * math.sqrt(c["hidden_size"])
        keys, values, active, attended = [], [], [], []
        for i in range(c["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            q = self._norm(x, f"{layer}.input_layernorm")
            out, key, value, seen = self._attention(i, q, state)
            x = x + self._norm(out, f"{layer}.post_attention_layernorm")
            out, neurons = self._ffn(f"{layer}.mlp", self._norm(x, f"{layer}.pre_feedforward_layernorm"))
            x = x + self._norm(out, f"{layer}.post_feedforward_layernorm")
            keys.append(key)
            values.append(value)
            active.append(neurons)
            attended.append(seen)
        logits = _cap(embedding @ self._norm(x, "model.norm"), c["final_logit_softcapping"])
        return State(tuple(keys), tuple(values), tuple(active), tuple(attended)), logits

    def _norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt(np.mean(x * x) + self.config["rms_norm_eps"])
        return x / scale * (1 + self.tensors[f"{name}.weight"])

    def _ffn(self, name: str, q: Array) -> tuple[Array, int]:
        """V(...) [d_model], and how many neurons were active."""
        down, up = self.tensors[f"{name}.down_proj.weight"], self.tensors[f"{name}.up_proj.weight"]
        if self.config["ffn"] == "gated":
            gate = gelu(self.tensors[f"{name}.gate_proj.weight"] @ q)
            return down @ (gate * (up @ q)), len(gate)
        r = self.config["ffn_predictor_size"]
        scores = self.tensors[f"{name}.predictor.weight"] @ q[:r]
        gate = gelu(soft_threshold(scores, self.config["ffn_active"], shift=self._shift(name)))
        return down @ (gate * (up @ q[r:])), int(np.count_nonzero(gate))

    def _attention(self, i: int, x: Array, state: State) -> tuple[Array, Array, Array, tuple[int, ...]]:
        """Output [d_model], keys and values with the new ones, and how many keys each query head attended."""
        c, name = self.config, f"model.layers.{i}.self_attn"
        size, kv_heads, spark = c["head_dim"], c["num_key_value_heads"], c["attention"] == "spark"
        parts = (c["attention_predictor_size"], size) if spark else (size,)
        query: Array = (self.tensors[f"{name}.q_proj.weight"] @ x).reshape(-1, size)
        key: Array = (self.tensors[f"{name}.k_proj.weight"] @ x).reshape(kv_heads, size)
        value = (self.tensors[f"{name}.v_proj.weight"] @ x).reshape(kv_heads, size)
        query = rotate(query, state.position, parts, c["rope_theta"])
        key = rotate(key, state.position, parts, c["rope_theta"])
        keys = np.concatenate([state.keys[i], key[None]])
        values = np.concatenate([state.values[i], value[None]])
        first = max(0, len(keys) - c["sliding_window"]) if c["layer_types"][i] == "sliding_attention" else 0
        heads, attended = [], []
        for h, q in enumerate(query):
            g = h // (len(query) // kv_heads)
            seen_keys, seen_values = keys[first:, g], values[first:, g]
            if spark:
                weights = self._spark_weights(q, seen_keys, self._shift(name))
            else:
                scores = seen_keys @ q / math.sqrt(c["query_pre_attn_scalar"])
                weights = _softmax(_cap(scores, c["attn_logit_softcapping"]))
            heads.append(weights @ seen_values)
            attended.append(int(np.count_nonzero(weights)))
        out = self.tensors[f"{name}.o_proj.weight"] @ np.concatenate(heads)
        return out, keys, values, tuple(attended)

    def _shift(self, name: str) -> float:
        stored = self.tensors.get(f"{name}.quantile_shift")
        return 0.0 if stored is None else float(stored[0])

    def _spark_weights(self, q: Array, keys: Array, shift: float) -> Array:
        """softmax(...) * softplus(...) of one query head [d_head] over its visible keys [n, d_head]."""
        r = self.config["attention_predictor_size"]
        scores = keys[:, :r] @ q[:r] / math.sqrt(r)
        kept = mask_below(scores, self.config["attention_active"], shift=shift)
        attention = _softmax(_cap(kept, self.config["attn_logit_softcapping"]))
        gate = softplus(keys[:, r:] @ q[r:] / math.sqrt(len(q) - r))
        # 0 * inf would be NaN; a key that is not attended is never read.
        return np.where(np.isneginf(kept), 0.0, attention * gate)


def gelu(x: Array) -> Array:
    """The tanh approximation (Hendrycks & Gimpel 2016), as in Gemma 2."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(0.0, x)


def rotate(x: Array, position: int, ends: tuple[int, ...], theta: float) -> Array:
    """Rotary embedding of x [heads, d_head], separately in each of the parts that end at `ends`."""
    turned, start = [], 0
    for end in ends:
        part, half = x[:, start:end], (end - start) // 2
        angle = position * theta ** (-np.arange(half) / half)
        cos, sin = np.cos(angle), np.sin(angle)
        first, second = part[:, :half], part[:, half:]
        turned += [first * cos - second * sin, second * cos + first * sin]
        start = end
    return np.concatenate(turned, axis=1)


def _cap(x: Array, limit: float | None) -> Array:
    """limit * tanh(x / limit); -inf, which stands for a masked score, stays."""
    if limit is None:
        return x
    return np.where(np.isneginf(x), x, limit * np.tanh(x / limit))


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max())
    return weights / weights.sum()
