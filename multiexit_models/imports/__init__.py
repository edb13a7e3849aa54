"""Makes bundles of ONNX image classifiers, without the code that trained them.

Read ``run`` first (``import_model``: from file and images to a bundle). ``onnx_file`` reads the
file, ``interface`` says what it takes and gives, ``normal_form`` gives it the opset and the free
batch of a bundle's graphs, ``classifier`` adds ``preprocessing`` in front and logits at the end.
``cut`` finds the tensors where it can be cut and cuts it, ``macs`` counts what that costs,
``heads`` trains early exits on frozen features, and ``folder`` reads labels and images.
"""
