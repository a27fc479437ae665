from dataclasses import replace

import numpy as np
import pytest
import torch

from undertone_training import augment, data, learn, metrics, splits
from undertone_training.labels import ABSENT, CORPORA, LABELS
from undertone_training.model import Shape

MILD = augment.Strength(0.1, 0.1, warp=0.0, level_db=0.5, channel_db=0.0, hot_start=0.0, noise=0.0, reverberation=0.0, telephone=0.0)
TINY = Shape(units=16, hidden=16, dropout=0.1)
SMALL = learn.Recipe(epochs=5, clips_per_epoch=512, batch=32, average=0.9, shape=TINY, strength=MILD)


@pytest.fixture(scope="module")
def taught(corpora):
    learn.seeded(1, threads=1)
    parts = splits.split(corpora, "fold:0", seed=1)
    model, history = learn.train(corpora, parts, SMALL, seed=1)
    return model, history, parts


def test_it_learns_what_can_be_learnt(corpora, taught):
    model, history, parts = taught
    heard = learn.hear(model, corpora, parts.test)
    assert learn.assess(corpora, heard)["crema-d_ua"] > 0.7
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_same_seed_gives_the_same_weights(corpora, taught):
    model, _, parts = taught
    again, _ = learn.train(corpora, parts, SMALL, seed=1)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name


def test_normalisation_is_of_the_training_clips(corpora, taught):
    model, _, parts = taught
    hops = np.concatenate([corpora.clip(clip) for clip in parts.train])
    np.testing.assert_allclose(model.mean.numpy(), hops.mean(0)[:20], rtol=1e-3, atol=1e-3)


def test_each_clip_is_heard_by_itself(corpora, taught):
    model, _, parts = taught
    clips = parts.test[:30]
    together = {one.clip: one.logits for one in learn.hear(model, corpora, clips)}
    for clip in clips[:5]:
        alone = learn.hear(model, corpora, np.array([clip]))[0].logits
        np.testing.assert_allclose(alone, together[int(clip)], atol=1e-5)


def test_a_label_that_a_corpus_lacks_is_not_pushed_down_when_masked():
    logits = torch.zeros(1, 2, len(LABELS), requires_grad=True)
    crema = torch.tensor([CORPORA.index("crema-d")])
    for penalty, pushed in ((1e4, False), (0.0, True)):
        logits.grad = None
        absent = learn.penalty_table(penalty)[crema]
        learn.utterance_loss(logits, torch.tensor([2]), absent, torch.tensor([2]), learn.Recipe()).backward()
        for label in ABSENT["crema-d"]:
            assert (logits.grad[..., LABELS.index(label)].abs().max() > 1e-6) == pushed


def test_penalties_fall_on_absent_labels_alone():
    table = learn.penalty_table(2.0)
    for row, corpus in enumerate(CORPORA):
        assert {LABELS[i] for i in torch.nonzero(table[row]).flatten().tolist()} == set(ABSENT[corpus])


def test_step_weights_sum_to_one_and_leave_padding_alone():
    recipe = learn.Recipe(end_share=0.5, first_step=1)
    weights = learn.step_weights(torch.tensor([1, 2, 4]), 4, recipe)
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1 / 6, 1 / 6, 1 / 6 + 0.5]]
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)


def test_padding_does_not_reach_the_loss():
    torch.manual_seed(0)
    logits, target, absent = torch.randn(2, 4, 8), torch.tensor([0, 3]), torch.zeros(2, 8)
    steps, recipe = torch.tensor([2, 4]), learn.Recipe()
    before = learn.utterance_loss(logits, target, absent, steps, recipe)
    logits[0, 2:] += 50.0
    assert learn.utterance_loss(logits, target, absent, steps, recipe) == before


def test_draws_are_balanced_as_the_recipe_says(corpora):
    draw = learn.Draw(corpora, np.arange(len(corpora)), SMALL)
    share = np.bincount(corpora.corpus, weights=draw.weight, minlength=len(CORPORA))
    np.testing.assert_allclose(share, np.array(SMALL.shares) / sum(SMALL.shares), rtol=1e-6)


def test_corpora_that_are_left_out_leave_the_others_their_proportions(corpora):
    some = corpora.restricted_to(("crema-d", "savee"))
    draw = learn.Draw(some, np.arange(len(some)), replace(SMALL, shares=(0.6, 0.2, 0.2, 0.0)))
    share = np.bincount(some.corpus, weights=draw.weight, minlength=len(CORPORA))
    np.testing.assert_allclose(share, [0.75, 0.0, 0.25, 0.0], rtol=1e-6)


def test_listeners_count_where_they_were_asked():
    logits = torch.zeros(2, 3, len(LABELS))
    votes = torch.zeros(2, len(LABELS))
    votes[0, :2] = 0.5
    loss = learn.listeners_loss(logits, votes[:, None], torch.tensor([3, 3]), learn.Recipe())
    assert loss.item() == pytest.approx(np.log(len(LABELS)) / 2)


def test_what_listeners_say_is_learnt_beside_the_labels(corpora):
    parts = splits.split(corpora, "fold:0", seed=1)
    # Listeners who take every emotion for the next one.
    heard = replace(corpora, votes=np.eye(len(LABELS), dtype=np.float32)[(corpora.emotion + 1) % len(LABELS)])
    model, _ = learn.train(heard, parts, replace(SMALL, votes=0.5), seed=1)
    mfcc, steps = data.pad([corpora.clip(clip) for clip in parts.test])
    with torch.no_grad():
        meant, said = (
            logits[np.arange(len(steps)), steps - 1].argmax(1).numpy() for logits in model.with_listeners(torch.from_numpy(mfcc))
        )
    truth = corpora.emotion[parts.test]
    # One in eight would be chance.
    assert (meant == truth).mean() > 0.6 and (said == (truth + 1) % len(LABELS)).mean() > 0.3


def test_bad_conditions_become_frequent_over_the_first_epochs(corpora, monkeypatch):
    seen = []
    batches = learn.Draw.batches
    monkeypatch.setattr(learn.Draw, "batches", lambda self, vary, rng: seen.append(vary.hardness) or batches(self, vary, rng))
    recipe = replace(SMALL, epochs=4, clips_per_epoch=32, ramp=0.5)
    learn.train(corpora, splits.split(corpora, "fold:0", seed=1), recipe, seed=1)
    assert seen == [0.5, 1.0, 1.0, 1.0]


def test_figures_are_among_the_labels_that_a_corpus_has(corpora):
    clips = np.flatnonzero(corpora.corpus == CORPORA.index("crema-d"))[:60]
    logits = np.zeros((len(clips), len(LABELS)))
    logits[np.arange(len(clips)), corpora.emotion[clips]] = 1.0
    logits[:, LABELS.index("calm")] = 2.0
    row = learn.assess(corpora, [learn.Heard(int(clip), one, one[None]) for clip, one in zip(clips, logits)])
    assert row["crema-d_ua"] == 1.0 and row["crema-d_open"] == 0.0
    expected = np.log(np.e + 5) - 1
    assert row["crema-d_nll"] == pytest.approx(expected)


def test_a_model_of_one_corpus_never_says_what_that_lacks(corpora):
    recipe = replace(SMALL, corpora=("crema-d",), epochs=1)
    alone = corpora.restricted_to(recipe.corpora)
    model, _ = learn.train(alone, splits.split(alone, "fold:0", seed=1), recipe, seed=1)
    logits = np.stack([one.logits for one in learn.hear(model, alone, np.arange(20))])
    for label in ABSENT["crema-d"]:
        assert (metrics.softmax(logits)[:, LABELS.index(label)] < 1e-6).all()


def test_clips_are_mixed_in_the_drawn_shares():
    mfcc = np.stack([np.zeros((4, 2)), np.ones((4, 2)), np.full((4, 2), 2.0)]).astype(np.float32)
    mixture = learn.mixed(mfcc, np.array([2, 0, 1]), 0.75)
    assert mixture.dtype == np.float32
    np.testing.assert_allclose(mixture[:, 0, 0], [0.5, 0.75, 1.75])
    assert learn.mixed(mfcc, np.array([2, 0, 1]), 1.0) is mfcc


def test_mixing_clips_learns_too_and_repeats(corpora):
    parts = splits.split(corpora, "fold:0", seed=1)
    recipe = replace(SMALL, mixup=0.3)
    (model, history), (again, _) = (learn.train(corpora, parts, recipe, seed=1) for _ in range(2))
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name
    assert history[-1]["loss"] < history[0]["loss"]
    assert learn.assess(corpora, learn.hear(model, corpora, parts.test))["crema-d_ua"] > 0.6
