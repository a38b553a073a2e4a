"""The paper's network in Keras, timed: the baseline that bench_throughput.py runs in an environment of its own.

    python -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0
    make bench ARGS="--keras-python tf/bin/python"

Prints one JSON line. Written from the paper's description and published_results; float32, as the
authors ran it.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers as L


def encoder(x, filters, name):
    """Convolution, ReLU, BatchNorm blocks; pooled after the first two. Returns the end and the ReLU outputs."""
    outputs = []
    for i, n in enumerate(filters):
        x = L.Conv2D(n, 3, padding="same", activation="relu", name=f"{name}{i + 1}")(x)
        outputs.append(x)
        x = L.BatchNormalization()(x)
        if i < 2:
            x = L.MaxPooling2D()(x)
    return x, outputs


def network():
    cell, markers = keras.Input((64, 64, 2)), keras.Input((64, 64, 1))
    source, outputs = encoder(cell, (96, 256, 384, 384, 256), "conv")
    target, _ = encoder(markers, (16, 32, 32), "marker")
    x = L.Concatenate()([source, target])
    for i, n in enumerate((256, 384, 384, 256, 96)):
        if i >= 3:
            x = L.UpSampling2D()(x)
        x = L.Conv2D(n, 3, padding="same", activation="relu")(x)
    model = keras.Model([cell, markers], L.Conv2D(1, 1)(x))
    model.compile(keras.optimizers.Adam(1e-4, beta_1=0.5), "mse")
    return model, keras.Model(cell, L.GlobalMaxPooling2D()(outputs[3]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    cells = rng.random((64, 64, 64, 2), np.float32)
    model, conv4 = network()
    batch = ([cells, cells[..., 1:]], cells[..., :1])
    model.train_on_batch(*batch)  # traces the graph
    began = time.perf_counter()
    for _ in range(options.steps):
        model.train_on_batch(*batch)
    training = 64 * options.steps / (time.perf_counter() - began)
    rates = {}
    for size, repeats in ((64, options.steps), (1, 8 * options.steps)):
        conv4.predict_on_batch(cells[:size])
        began = time.perf_counter()
        for _ in range(repeats):
            conv4.predict_on_batch(cells[:size])
        rates[size] = size * repeats / (time.perf_counter() - began)
    # the authors' script calls predict() cell by cell
    conv4.predict(cells[:1], batch_size=1, verbose=0)
    began = time.perf_counter()
    for i in range(4 * options.steps):
        conv4.predict(cells[i % 64 : i % 64 + 1], batch_size=1, verbose=0)
    single = 4 * options.steps / (time.perf_counter() - began)
    found = {"training": training, "conv4_64": rates[64], "conv4_1": rates[1], "conv4_1_predict": single}
    print(json.dumps({**found, "tensorflow": tf.__version__, "tf_keras": keras.__version__}))


main()
