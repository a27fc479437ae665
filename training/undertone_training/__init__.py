"""Training of Undertone's streaming model.

Reading order: `labels` (vocabulary), `data` (features -> batches), `augment`, `model` (the network, whole and
streamed), `splits` (who is trained on, validated on, tested on), `metrics`, `learn` (one run), `protocol` (all
runs of one model), `export` (ONNX), `package` (manifest and card).
"""
