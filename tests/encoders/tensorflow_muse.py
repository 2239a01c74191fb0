"""Run in TensorFlow: build mUSE's graph with its variables, save it, and encode texts with it.

    python tensorflow_muse.py TENSORS.npz SENTENCEPIECE TEXTS.json OUTPUT

OUTPUT gets ``saved_model``, a TensorFlow 1 checkpoint ``old/model.ckpt``, and ``vectors.npy``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

CHUNKS = 17
BRANCHES = ((2, 0), (3, 1), (5, 2))
Tensors = dict[str, np.ndarray]


def variables(tensors: Tensors) -> dict[str, np.ndarray]:
    """Return the values under the names that Google's model has for them."""
    found = {
        "CNN_layers/LayerNorm/gamma": tensors["token_gain"],
        "CNN_layers/LayerNorm/beta": tensors["token_bias"],
        "CNN_layers/dense/kernel": tensors["token_linear"],
        "CNN_layers/dense/bias": tensors["token_linear_bias"],
        "DNN/ResidualHidden_1/AdjustDepth/projection/kernel": tensors["shortcut_1"],
        "DNN/ResidualHidden_3/AdjustDepth/projection/kernel": tensors["shortcut_3"],
    }
    for layer in range(4):
        found[f"DNN/ResidualHidden_{layer}/dense/kernel"] = tensors[f"hidden_{layer}"]
    for index, (size, _) in enumerate(BRANCHES):
        own = slice(index * 256, (index + 1) * 256)
        branch = f"CNN_layers/ngram_order_{size}"
        found[f"{branch}/input_size_projection/dense/kernel"] = tensors["projection"][:, own]
        found[f"{branch}/input_size_projection/dense/bias"] = tensors["projection_bias"][own]
        found[f"{branch}/LayerNorm/gamma"] = tensors["branch_gain"][own]
        found[f"{branch}/LayerNorm/beta"] = tensors["branch_bias"][own]
        for layer, suffix in ((1, ""), (2, "_1")):
            name = f"{branch}/Ngram-{size}-Conv{suffix}"
            found[f"{name}/weights"] = tensors[f"convolution_{layer}_window_{size}"]
            found[f"{name}/bias"] = tensors[f"convolution_bias_{layer}"][own].reshape(1, 256)
    rows = -(-tensors["embedding"].shape[0] // CHUNKS) * CHUNKS
    table = np.zeros((rows, tensors["embedding"].shape[1]), np.float32)
    table[: tensors["embedding"].shape[0]] = tensors["embedding"]
    for chunk in range(CHUNKS):
        found[f"Embeddings/sharded_{chunk}"] = table[chunk::CHUNKS]
    return {f"EncoderDNN/{name}": value.astype(np.float32) for name, value in found.items()}


class Muse(tf.Module):  # type: ignore[misc]
    """Texts in, unit vectors out."""

    def __init__(self, values: dict[str, np.ndarray], pieces: bytes) -> None:
        super().__init__()
        self.tokenizer = tensorflow_text.SentencepieceTokenizer(pieces, add_bos=True, add_eos=True)
        self.held = [tf.Variable(value, name=name) for name, value in values.items()]
        self.extra = tf.Variable(tf.zeros([3, 3]), name="global_step_of_nothing")
        self.places = {name: place for place, name in enumerate(values)}

    def get(self, name: str) -> Any:
        return self.held[self.places[f"EncoderDNN/{name}"]]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])  # type: ignore[untyped-decorator]
    def __call__(self, texts: Any) -> Any:
        tokens = self.tokenizer.tokenize(texts)
        mask = tf.cast(tf.sequence_mask(tokens.row_lengths()), tf.float32)[:, :, None]
        ids = tokens.to_tensor()
        chunks = [self.get(f"Embeddings/sharded_{chunk}") for chunk in range(CHUNKS)]
        embedded = tf.nn.embedding_lookup(tf.stack(chunks, 1), ids // CHUNKS)
        embedded = tf.gather(embedded, ids % CHUNKS, axis=2, batch_dims=2) * mask
        branches = [self.branch(size, left, embedded, mask) for size, left in BRANCHES]
        token = self.normal(tf.concat([embedded, *branches], 2), "CNN_layers")
        token = token @ self.get("CNN_layers/dense/kernel") + self.get("CNN_layers/dense/bias")
        text = tf.reduce_sum(token * mask, 1) / tf.sqrt(tf.reduce_sum(mask, 1))
        hidden = "DNN/ResidualHidden"
        first = tf.nn.relu(text @ self.get(f"{hidden}_0/dense/kernel"))
        second = tf.nn.relu(
            text @ self.get(f"{hidden}_1/AdjustDepth/projection/kernel")
            + first @ self.get(f"{hidden}_1/dense/kernel")
        )
        third = tf.nn.relu(second @ self.get(f"{hidden}_2/dense/kernel"))
        fourth = tf.tanh(
            second @ self.get(f"{hidden}_3/AdjustDepth/projection/kernel")
            + third @ self.get(f"{hidden}_3/dense/kernel")
        )
        return {"outputs": tf.nn.l2_normalize(fourth, 1)}

    def branch(self, size: int, left: int, embedded: Any, mask: Any) -> Any:
        name = f"CNN_layers/ngram_order_{size}"
        kernel = self.get(f"{name}/input_size_projection/dense/kernel")
        found = embedded @ kernel + self.get(f"{name}/input_size_projection/dense/bias")
        found = self.normal(found, name) * mask
        for suffix in ("", "_1"):
            convolution = f"{name}/Ngram-{size}-Conv{suffix}"
            padded = tf.pad(found, [[0, 0], [left, size - 1 - left], [0, 0]])
            convolved = tf.nn.conv1d(padded, self.get(f"{convolution}/weights"), 1, "VALID")
            found = (tf.nn.relu(convolved + self.get(f"{convolution}/bias")) + found) * mask
        return found

    def normal(self, values: Any, name: str) -> Any:
        mean, variance = tf.nn.moments(values, [2], keepdims=True)
        gain, bias = self.get(f"{name}/LayerNorm/gamma"), self.get(f"{name}/LayerNorm/beta")
        return tf.nn.batch_normalization(values, mean, variance, bias, gain, 1e-12)


def main(tensors: str, pieces: str, texts: str, output: str) -> None:
    """Build, save and run."""
    folder = Path(output)
    values = variables(dict(np.load(tensors)))
    module = Muse(values, Path(pieces).read_bytes())
    found = module(tf.constant(json.loads(Path(texts).read_text("utf-8"))))["outputs"]
    np.save(folder / "vectors.npy", found.numpy())
    tf.saved_model.save(module, str(folder / "saved_model"))
    (folder / "old").mkdir()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        held = [
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(held).save(session, str(folder / "old" / "model.ckpt"))


if __name__ == "__main__":
    main(*sys.argv[1:])
