import numpy as np
import pytest

from undertone_training import augment, data


def test_load_refuses_features_that_do_not_fit_their_csv(features, tmp_path):
    (tmp_path / "features.npz").write_bytes(features.read_bytes())
    lines = features.with_suffix(".csv").read_text().splitlines(keepends=True)
    (tmp_path / "features.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="rows in the CSV"):
        data.load(tmp_path / "features.npz")


def test_padding_is_the_floor_and_a_started_last_step_is_left_away():
    ramp = lambda hops: np.arange(hops * 40, dtype=np.float32).reshape(hops, 40)
    batch, steps = data.pad([ramp(5), ramp(50)])
    assert batch.shape == (2, 48, 40) and steps.tolist() == [1, 3]
    assert (batch[0, :5] == ramp(5)).all() and (batch[0, 5:] == data.FLOOR).all()
    assert (batch[1] == ramp(50)[:48]).all()


def test_a_clip_without_a_whole_step_of_speech_counts_from_end_to_end(corpora):
    before = corpora.segments
    try:
        corpora.segments = np.array([[0, 1, 10], [1, 0, 16], [1, 18, 20]])
        found = data.utterances(corpora, np.array([0, 1]))
    finally:
        corpora.segments = before
    whole = int(corpora.offsets[1])
    assert found == [[data.Item(0, 0, whole)], [data.Item(1, 0, 16)]]


def test_statistics_are_those_of_the_named_clips_only(corpora):
    clips = np.array([3, 7, 11])
    hops = np.concatenate([corpora.clip(clip) for clip in clips])
    mean, deviation = data.statistics(corpora, clips)
    np.testing.assert_allclose(mean, hops.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(deviation, hops.std(0), rtol=1e-4)


def test_no_warp_leaves_cepstra_alone():
    np.testing.assert_allclose(augment.warp_matrix(1.0), np.eye(40), atol=1e-6)


def test_warp_moves_a_resonance_to_its_factor():
    bands = np.arange(data.MEL_BANDS)
    resonance = np.exp(-((bands - 60.0) ** 2) / 50.0)
    warped = (augment.dct() @ resonance) @ augment.warp_matrix(1.1) @ augment.dct()
    mel = np.linspace(0.0, augment.slaney_mel(np.array(8000.0)), data.MEL_BANDS + 2)[1:-1]
    heard = augment.slaney_hz(mel[warped.argmax()]) / augment.slaney_hz(mel[60])
    assert abs(heard - 1.1) < 0.02


def test_a_variation_never_exceeds_its_longest_and_stays_finite(corpora):
    vary = augment.Augmenter(augment.Strength(), np.zeros(40, np.float32), np.ones(40, np.float32))
    rng = np.random.default_rng(0)
    for clip in range(40):
        for source in (corpora.clip(clip), corpora.clip(clip)[:1]):
            variation = vary(source, rng, longest=48)
            assert 1 <= len(variation) <= 48 and np.isfinite(variation).all() and variation.dtype == np.float32


def test_a_variation_does_not_write_into_the_features(corpora):
    before = corpora.mfcc.copy()
    vary = augment.Augmenter(augment.Strength(pace=0.0, warp=0.0), np.zeros(40, np.float32), np.ones(40, np.float32))
    for clip in range(20):
        vary(corpora.clip(clip), np.random.default_rng(clip), longest=256)
    assert (corpora.mfcc == before).all()
