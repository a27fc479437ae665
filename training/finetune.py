"""Fine-tunes an encoder that others trained (Whisper, WavLM, wav2vec 2.0, HuBERT), or takes over a ready classifier,
and packages it for the service. Everything comes from folders on this disk; nothing is downloaded.

    python training/finetune.py train --encoder wavlm-base --corpora corpora --fold 0 --out models/wavlm-base-four
    python training/finetune.py import --from some-classifier --out models/some-classifier

A run that was interrupted goes on when the same command is given again. See training/FINETUNING.md.
"""

from __future__ import annotations

import os

# Before NumPy is imported: its BLAS otherwise spins a thread per core beside PyTorch's own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import hashlib
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from undertone_finetune import clips, export, folder, learn, network, package, ready, scores
from undertone_finetune.folder import BAD_USAGE, Refused
from undertone_finetune.head import POOLINGS, Head
from undertone_finetune.package import NOT_STATED, Description, Source
from undertone_training.labels import LABELS

HERE = Path(__file__).resolve().parent
# Clips on which a quantised file is compared with the whole one.
QUANTISED_CLIPS = 64


def arguments(typed: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recipe = learn.Recipe()

    train = commands.add_parser("train", help="fine-tune an encoder on corpora")
    add = train.add_argument
    add("--encoder", type=Path, required=True, metavar="DIR", help="Hugging Face folder: config.json and weights")
    add("--corpora", type=Path, required=True, metavar="DIR", help="folder with manifest.csv")
    add("--only", metavar="CORPORA", help="corpora to use, such as ravdess,tess (default: all with audio)")
    add("--fold", type=int, default=0, metavar="K", help="held out for the report (default: %(default)s)")
    add("--freeze", choices=learn.FREEZES, default=recipe.freeze, help="what stays as it is (default: %(default)s)")
    add("--mix-layers", action="store_true", help="weighted sum of all layers; always on with --freeze encoder")
    add("--last-layer", action="store_true", help="the last layer alone, with --freeze encoder too")
    add("--pooling", choices=POOLINGS, default=recipe.pooling, help="over time (default: %(default)s)")
    add("--hidden", type=int, default=recipe.hidden, help="width of the head (default: %(default)s)")
    add("--epochs", type=int, default=recipe.epochs, help="(default: %(default)s)")
    add("--batch", type=int, default=recipe.batch, help="(default: %(default)s)")
    add("--accumulate", type=int, default=recipe.accumulate, help="batches per step (default: %(default)s)")
    add("--encoder-rate", type=float, default=recipe.encoder_rate, help="learning rate (default: %(default)s)")
    add("--head-rate", type=float, default=recipe.head_rate, help="learning rate (default: %(default)s)")
    add("--warm-up", type=float, default=recipe.warm_up, help="share of all steps (default: %(default)s)")
    add("--partial", type=float, default=recipe.partial, help="share of clips cut short (default: %(default)s)")
    add("--seed", type=int, default=recipe.seed, help="(default: %(default)s)")
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: bfloat16 on a GPU that has it",
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--run-folder", type=Path, help="checkpoints (default: training/runs/<name of --out>)")
    add("--encoder-licence", default=NOT_STATED, help="licence of the encoder's weights, such as MIT")
    add("--encoder-name", help="its name for the card (default: the folder's)")

    take = commands.add_parser("import", help="package a ready classifier or regressor")
    take.add_argument("--from", type=Path, required=True, dest="source", metavar="DIR", help="Hugging Face folder")
    take.add_argument("--labels", help='what outputs mean whose names are not known: "0=angry,1=happy,other=-"')
    take.add_argument("--model-licence", default=NOT_STATED, help="licence of its weights")
    take.add_argument("--trained-on", help="corpora it was trained on, with --licences")
    take.add_argument("--threads", type=int, default=1)

    for command, context in ((train, "window"), (take, "full")):
        add = command.add_argument
        add("--out", type=Path, required=True, metavar="DIR", help="the model's folder")
        add("--version", default="0.1.0", help="for the manifest")
        add("--window", type=float, default=5.0, metavar="SECONDS", help="(default: %(default)s)")
        add("--stride", type=float, default=0.512, metavar="SECONDS", help="between two windows (default: %(default)s)")
        add(
            "--context",
            choices=("window", "full"),
            default=context,
            help="Whisper: the window alone, or filled up to 30 s (default: %(default)s)",
        )
        add(
            "--normalise",
            choices=("folder", "yes", "no"),
            default="folder",
            help="samples; default: as the folder says",
        )
        add("--quantise", action="store_true", help="8-bit weights: smaller, not quite equal")
        add("--licences", help='of corpora: "mine=CC BY 4.0,other=MIT"')
    train.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args(typed)


def pairs(told: str | None, option: str) -> dict[str, str]:
    found = {}
    for item in filter(None, (part.strip() for part in (told or "").split(","))):
        name, equals, value = item.partition("=")
        if not equals or not value.strip():
            raise Refused(f"{option}: {item!r} is not of the form name=value", BAD_USAGE)
        found[name.strip()] = value.strip()
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fine_tune(given: argparse.Namespace) -> None:
    recipe = learn.Recipe(
        given.freeze,
        (given.mix_layers or given.freeze == "encoder") and not given.last_layer,
        given.pooling,
        given.hidden,
        given.epochs,
        given.batch,
        given.accumulate,
        given.encoder_rate,
        given.head_rate,
        given.warm_up,
        partial=given.partial,
        seed=given.seed,
    )
    for option in ("epochs", "batch", "accumulate", "hidden"):
        if getattr(given, option) < 1:
            raise Refused(f"--{option} is {getattr(given, option)}; it must be at least 1", BAD_USAGE)
    told = pairs(given.licences, "--licences")
    stride = network.stride_hops(given.stride)
    encoder = folder.encoder(given.encoder)
    states = network.states_of(encoder, given.encoder, given.context, given.normalise)
    window = network.window_samples(given.window, states)
    found, silent = clips.read(given.corpora, given.only.split(",") if given.only else None)
    for corpus, count in sorted(silent.items()):
        print(f"left out: {count} clips of {corpus} without audio")
    split = clips.split(found, given.fold, given.seed)
    labels = [label for label in LABELS if any(clip.emotion == label for clip in split.train)]
    split.validation = [clip for clip in split.validation if clip.emotion in labels]
    print(
        f"{len(split.train)} clips train, {len(split.validation)} validate, {len(split.test)} of fold {given.fold} are "
        f"held out; {', '.join(clips.names(found))}; {len(labels)} labels"
    )
    torch.manual_seed(given.seed)
    head = Head(states.width, states.layers, len(labels), given.hidden, given.pooling, recipe.mix)
    whole = network.Network(states, head)
    device = torch.device(given.device)
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    about = {
        "encoder": digest(given.encoder / "config.json"),
        "context": given.context,
        "normalise": given.normalise,
        "manifest": digest(given.corpora / "manifest.csv"),
        "only": given.only,
        "fold": given.fold,
    }
    place = given.run_folder or HERE / "runs" / given.out.resolve().name
    half = given.precision == "bfloat16" or (given.precision == "auto" and able)
    course = learn.train(
        whole, split, labels, recipe, window, place, about, device, half, lambda line: print(line, flush=True)
    )
    measured = [f"Epoch {course.best_epoch} of {recipe.epochs}, the one with the best UA on validation speakers.\n"]
    measured += ["Held-out speakers:\n", package.table(course.test) if course.test else "the fold has no clip of them."]
    measured += [
        "\nValidation speakers (which chose epoch and temperature, so this flatters):\n",
        package.table(course.validation),
    ]
    print("\n".join(measured))
    name = given.encoder_name or given.encoder.resolve().name
    held = [clip for clip in split.test or split.validation if clip.emotion in labels][:QUANTISED_CLIPS]
    finish(
        given,
        whole,
        window,
        stride,
        Description(
            package.name_of(given.out),
            given.version,
            f"{name} ({encoder.config.model_type}), tuned to {len(labels)} emotions on {', '.join(clips.names(found))}",
            window,
            stride,
            labels,
            None,
            [Source(f"encoder {name}", given.encoder_licence)]
            + [package.corpus_source(corpus, told) for corpus in clips.names(split.train)],
            f"unseen speakers, fold {given.fold} alone, one seed; the last window of each clip; the shipped weights "
            f"are those that were tested{', before they were quantised to 8 bits' if given.quantise else ''}",
            course.temperature,
            {
                f"{figure}_{corpus.replace('-', '_')}": row[figure]
                for corpus, row in course.test.items()
                for figure in ("ua", "wa", "nll")
            },
            made=made_of(recipe, name, encoder.config.model_type, given, course),
            measured="\n".join(measured),
            limits=f"- Trained on {len(split.train)} clips of {len({clip.speaker for clip in split.train})} speakers. "
            "One fold and one seed: other voices, or another seed, give other figures. Look at several folds before you "
            "rely on it.\n"
            "- Clips of the corpora were heard as they are; the service cuts utterances by its own voice detector.",
        ),
        held,
    )


def made_of(recipe: learn.Recipe, name: str, kind: str, given: argparse.Namespace, course: learn.Course) -> str:
    frozen = {"encoder": "all of it frozen", "features": "its convolutions frozen", "none": "none of it frozen"}[
        recipe.freeze
    ]
    layers = "a weighted sum of all layers" if recipe.mix else "the last layer"
    context = f" Context: {given.context}." if kind == "whisper" else ""
    return (
        f"Encoder {name} ({kind}), {frozen}; {layers}, a projection to {recipe.hidden}, {recipe.pooling} pooling over what "
        f"was heard, logits.{context} {recipe.epochs} epochs, batch {recipe.batch} x {recipe.accumulate}, AdamW at "
        f"{recipe.encoder_rate:g} (encoder) and {recipe.head_rate:g} (head), warm-up {recipe.warm_up:g}, labels "
        f"smoothed {recipe.smoothing:g}, {recipe.partial:g} of the clips cut short, seed {recipe.seed}; "
        f"{course.seconds / 60:.1f} minutes."
    )


def take_over(given: argparse.Namespace) -> None:
    told = pairs(given.licences, "--licences")
    stride = network.stride_hops(given.stride)
    taken = ready.ready(given.source, given.labels, given.context, given.normalise)
    window = network.window_samples(given.window, taken.network.states)
    name, kind = given.source.resolve().name, folder.config(given.source).model_type
    print(f"{name} ({kind}): {', '.join(taken.theirs)} -> {', '.join(taken.labels or taken.dimensions)}")
    trained_on = [corpus.strip() for corpus in (given.trained_on or "").split(",") if corpus.strip()]
    context = f", context {given.context}" if kind == "whisper" else ""
    finish(
        given,
        taken.network,
        window,
        stride,
        Description(
            package.name_of(given.out),
            given.version,
            f"{name} ({kind}), taken over as it is",
            window,
            stride,
            taken.labels,
            taken.dimensions,
            [Source(f"model {name}", given.model_licence)]
            + [package.corpus_source(corpus, told) for corpus in trained_on],
            "not measured here",
            made=f"Weights of {name} as they are{context}. Its outputs: {', '.join(taken.theirs)}.",
            measured="None: nothing was measured here. `undertone analyze` on recordings of your own tells more than a "
            "published figure.",
            limits="- What it was trained on is only known as far as stated above.\n- It was trained on whole clips; here "
            "it also hears the first part of an utterance.",
        ),
        [],
    )


def finish(
    given: argparse.Namespace, whole: network.Network, window: int, stride: int, description: Description, held: list
) -> None:
    """Exports, proves and packages."""
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "model.onnx"
    export.onto(whole, window, description.output, path, given.quantise)
    proof = export.proven(whole, path, window, given.quantise)
    quantised = ""
    if given.quantise:
        quantised = "Matrix products are in 8 bits, so the two are not equal."
        if held:
            pieces = [clips.last_window(clip, window) for clip in held]
            theirs = export.logits_of(path, pieces, window)
            ours = np.concatenate([export.outputs(whole, clips.stacked([piece], window)) for piece in pieces])
            truth = learn.truth_of(held, description.labels)
            agree = float((ours.argmax(1) == theirs.argmax(1)).mean())
            before, after = (scores.figures(truth, one / description.temperature) for one in (ours, theirs))
            quantised += (
                f" On {len(held)} clips of speakers that were not trained on, the top label agrees on {100 * agree:.1f} %, "
                f"logits differ by at most {np.abs(ours - theirs).max():.2g}; UA {100 * before['ua']:.1f} % before, "
                f"{100 * after['ua']:.1f} % after."
            )
        print(quantised)
    package.write(description, given.out, proof, quantised)
    print(
        f"{given.out}: model.onnx ({proof.bytes / 1e6:.1f} MB), model.toml, MODEL_CARD.md; ONNX Runtime and PyTorch "
        f"differ by {proof.disparity:.1g}; {proof.ms_per_window:.1f} ms of CPU per window of {window / 16_000:g} s every "
        f"{16 * stride} ms"
    )


def main(typed: list[str] | None = None) -> int:
    given = arguments(typed)
    torch.set_num_threads(given.threads)
    # Ended by `kill` or by a job runner as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        (fine_tune if given.command == "train" else take_over)(given)
    except Refused as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on behind the last whole epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
