"""Transfer learning: encoders that others trained on much speech, as models that the service serves.

Reading order: `folder` (a Hugging Face folder on this disk -> a loaded encoder), `frontend` (samples -> what an encoder
takes), `encoder` (samples -> hidden states and which of them were heard), `head` (hidden states -> logits), `network`
(the whole), `vocabulary` (others' label names -> our emotions), `clips` (manifest -> audio, splits, batches), `scores`
(figures), `learn` (fine-tuning), `ready` (classifiers that others trained), `export` (ONNX, and the proof that it is the
same network), `package` (manifest and card).

Nothing is ever downloaded: the two variables below are read by `huggingface_hub` and `transformers` when they are
imported, so they are set before anything of this package can import them.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# A notice about PyTorch extensions that are not needed here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
