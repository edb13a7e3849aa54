"""The chain of segments against one graph with the same heads, at batch 1, 8 and 32: processor
time, so that other programs do not count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import compose, utils

from benchmarks.common import Figure, report
from delen.bundle.manifest import Bundle, load_bundle
from delen.daemon.build_model import SHIPPED_BUNDLES
from delen.engine.backends.onnx import OnnxBackend

BATCHES = (1, 8, 32)
ROUNDS = 21
ROUND_SECONDS = 0.25


def monolith(bundle: Bundle) -> bytes:
    """All the segments and heads of ``bundle`` as one ONNX graph, in which no rows are chosen."""
    merged: onnx.ModelProto | None = None
    for segment in range(len(bundle.exits)):
        graph = onnx.load_from_string(bundle.graph(segment))
        if segment:
            _take_all_rows(graph.graph)
        graph = compose.add_prefix(graph, f"s{segment}_")
        if merged is None:
            merged = graph
            continue
        link = (f"s{segment - 1}_features_out", f"s{segment}_features")
        outputs = [output.name for output in merged.graph.output if output.name != link[0]]
        outputs += [output.name for output in graph.graph.output]
        merged = compose.merge_models(merged, graph, io_map=[link], outputs=outputs)
    assert merged is not None
    contents: bytes = merged.SerializeToString()
    return contents


def plain_classifier(bundle: Bundle, exit: int | None = None) -> onnx.ModelProto:
    """The network of ``bundle`` that ends in ``exit``, or in its last one, as one graph without the
    others."""
    whole = onnx.load_from_string(monolith(bundle))
    last = len(bundle.exits) - 1 if exit is None else exit
    model: onnx.ModelProto = utils.Extractor(whole).extract_model(["s0_input"], [f"s{last}_logits"])
    return model


def _take_all_rows(graph: onnx.GraphProto) -> None:
    """Feed ``features`` as they are to what takes the rows that were chosen of them."""
    choice = next(node for node in graph.node if "features" in node.input)
    shaping = [node for node in graph.node if "rows" in node.input]
    for node in {id(node): node for node in [choice, *shaping]}.values():
        graph.node.remove(node)
    graph.input.remove(next(value for value in graph.input if value.name == "rows"))
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in graph.node:
        node.input[:] = ["features" if name == choice.output[0] else name for name in node.input]


def bound_monolith(bundle: Bundle, images: Any, threads: int) -> Callable[[], None]:
    """A run of the whole graph with its buffers bound once, as the chain has them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(monolith(bundle), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_input(
        session.get_inputs()[0].name, "cpu", 0, images.dtype, images.shape, images.ctypes.data
    )
    keep = []
    for output in session.get_outputs():
        shape = (len(images), *output.shape[1:])
        array = np.empty(shape, np.float32)
        binding.bind_output(output.name, "cpu", 0, np.float32, shape, array.ctypes.data)
        keep.append(array)

    def run(buffers: list[Any] = keep) -> None:
        session.run_with_iobinding(binding)

    return run


def runs_per_second(run: Callable[[], None]) -> float:
    """Of the processor."""
    runs, began = 0, time.process_time()
    while time.process_time() - began < ROUND_SECONDS:
        run()
        runs += 1
    return runs / (time.process_time() - began)


def main(threads: int = 1) -> list[Figure]:
    bundle = load_bundle(SHIPPED_BUNDLES / "cifar10-resnet")
    network = OnnxBackend("cpu", threads).load(bundle)
    generator = np.random.default_rng(0)
    figures = []
    for batch in BATCHES:
        images = generator.integers(0, 256, (batch, *bundle.manifest.input.shape), np.uint8)
        samples = list(images)

        def chain(samples: list[Any] = samples) -> None:
            features: Any = samples
            for segment in range(len(bundle.exits)):
                features = network.run(segment, features).features

        whole = bound_monolith(bundle, images, threads)
        runs_per_second(chain), runs_per_second(whole)
        ratios = [runs_per_second(whole) / runs_per_second(chain) for _ in range(ROUNDS)]
        figures.append(Figure(f"chain / monolith, time, batch {batch}", tuple(ratios), "x", 1.05))
    return report("Segment chain against one graph with the same heads", figures)


if __name__ == "__main__":
    main()
