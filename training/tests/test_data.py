import dataclasses

import numpy as np
import pytest
from conftest import invent

from undertone_training import augment, cepstra, data, pitch
from undertone_training.labels import CORPORA, LABELS


def test_load_refuses_features_that_do_not_fit_their_csv(features, tmp_path):
    (tmp_path / "features.npz").write_bytes(features.read_bytes())
    lines = features.with_suffix(".csv").read_text().splitlines(keepends=True)
    (tmp_path / "features.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="rows in the CSV"):
        data.load(tmp_path / "features.npz")


def test_padding_is_the_floor_and_a_started_last_step_is_left_away():
    ramp = lambda hops: np.arange(hops * 64, dtype=np.float32).reshape(hops, 64)
    batch, steps = data.pad([ramp(5), ramp(50)])
    assert batch.shape == (2, 48, 64) and steps.tolist() == [1, 3]
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


def test_votes_beside_the_features_become_shares(tmp_path):
    path = invent(tmp_path, takes=1)
    assert data.load(path).votes is None
    (tmp_path / "votes.csv").write_text("clip,angry,neutral\ncrema-d-0-happy-0,3,1\nunknown,1,1\n")
    corpora = data.load(path, ("crema-d",))
    row = list(corpora.clip_names).index("crema-d-0-happy-0")
    assert corpora.votes[row, LABELS.index("angry")] == 0.75 and corpora.votes[row, LABELS.index("neutral")] == 0.25
    assert corpora.votes.sum() == 1.0


def test_a_corpus_alone_keeps_its_clips_as_they_were(corpora):
    alone = corpora.restricted_to(["savee", "tess"])
    assert set(alone.corpus) == {CORPORA.index("savee"), CORPORA.index("tess")}
    before = {name: index for index, name in enumerate(corpora.clip_names)}
    for clip, (name, items) in enumerate(zip(alone.clip_names, data.utterances(alone, np.arange(len(alone))))):
        old = before[name]
        assert (alone.clip(clip) == corpora.clip(old)).all() and alone.emotion[clip] == corpora.emotion[old]
        (same,) = data.utterances(corpora, np.array([old]))
        assert [(item.start, item.end) for item in items] == [(item.start, item.end) for item in same]
    assert corpora.restricted_to(CORPORA) is corpora


def test_no_warp_leaves_cepstra_alone():
    np.testing.assert_allclose(cepstra.warp(1.0, 64), np.eye(64), atol=1e-6)


def test_warp_moves_a_resonance_to_its_factor():
    bands = np.arange(cepstra.MEL_BANDS)
    resonance = np.exp(-((bands - 60.0) ** 2) / 50.0)
    transform = cepstra.dct(64)
    warped = (transform @ resonance) @ cepstra.warp(1.1, 64) @ transform
    heard = cepstra.BAND_CENTRES_HZ[warped.argmax()] / cepstra.BAND_CENTRES_HZ[60]
    assert abs(heard - 1.1) < 0.02


def test_cepstra_and_bands_are_each_others_transform():
    np.testing.assert_allclose(cepstra.dct(128) @ cepstra.dct(128).T, np.eye(128), atol=1e-9)


ALL_OF_IT = augment.Strength(hot_start=1.0, noise=1.0, reverberation=1.0, telephone=1.0)


def test_a_variation_never_exceeds_its_longest_and_stays_finite(corpora):
    vary = augment.Augmenter(ALL_OF_IT, np.zeros(64, np.float32))
    rng = np.random.default_rng(0)
    for clip in range(40):
        for source in (corpora.clip(clip), corpora.clip(clip)[:1]):
            variation = vary(source, rng, longest=48)
            assert 1 <= len(variation) <= 48 and np.isfinite(variation).all() and variation.dtype == np.float32


def test_a_variation_does_not_write_into_the_features(corpora):
    before = corpora.mfcc.copy()
    vary = augment.Augmenter(augment.Strength(pace=0.0, warp=0.0), np.zeros(64, np.float32))
    for clip in range(20):
        vary(corpora.clip(clip), np.random.default_rng(clip), longest=256)
    assert (corpora.mfcc == before).all()


def still(strength: dict) -> augment.Augmenter:
    """Does what `strength` says and nothing else."""
    none = dict.fromkeys((field.name for field in dataclasses.fields(augment.Strength)), 0.0) | {"mask_hops": 0, "snr_db": (20.0, 20.0)}
    return augment.Augmenter(augment.Strength(**none | strength), np.zeros(64, np.float32))


def flat(levels_db: list[float]) -> np.ndarray:
    """Hops whose bands all stand at these levels."""
    hops = np.zeros((len(levels_db), 64), np.float32)
    hops[:, 0] = np.array(levels_db, np.float32) * augment.DB
    return hops


def test_reverberation_rings_on_and_falls():
    before = flat([-80.0] * 5 + [0.0] + [-80.0] * 40)
    after = still({"reverberation": 1.0})(before, np.random.default_rng(2), 100)[:, 0] / augment.DB
    assert after[6] > -40.0 and (np.diff(after[6:20]) < 0.0).all()


def test_noise_fills_the_pauses_and_spares_the_voice():
    before = flat([0.0] * 20 + [-80.0] * 20)
    after = still({"noise": 1.0})(before, np.random.default_rng(2), 100)
    assert (after[20:, 0] > before[20:, 0] + augment.DB).all()
    assert abs(after[:20, 0].mean() / augment.DB) < 2.0


def test_the_signal_to_noise_ratio_is_what_it_says():
    rng = np.random.default_rng(0)
    power = np.where(np.arange(400)[:, None] < 200, 1.0, 1e-8) * np.ones((1, 128))
    noisy = augment.with_noise(power, -3.0 * augment.OCTAVES_FROM_500_HZ, 10.0, np.ones_like(power))
    per_hop = (noisy - power) @ cepstra.BAND_WIDTHS_HZ
    np.testing.assert_allclose(10 * np.log10(power[0] @ cepstra.BAND_WIDTHS_HZ / per_hop), 10.0, atol=1e-3)


def test_a_telephone_leaves_300_to_3400_hz_and_nothing_above_4_khz():
    hz = cepstra.BAND_CENTRES_HZ
    after = 10 * np.log10(augment.on_the_telephone(np.ones((5, 128)), 300.0, 3400.0, 38.0) + 1e-12)
    assert abs(after[:, (hz > 500) & (hz < 2900)]).max() < 0.3
    assert after[:, hz < 100].max() < -30.0 and (after[:, hz > 4000] == after.min()).all()
    varied = still({"telephone": 1.0})(flat([0.0] * 30), np.random.default_rng(0), 100) @ cepstra.dct(64)
    assert varied[:, (hz > 600) & (hz < 2500)].min() > varied[:, hz > 5000].max() + 60.0


def test_levels_are_relative_to_a_reference_that_sinks_by_one_decibel_a_second():
    bands = np.repeat([[-10.0], [-30.0]], [1, 63], axis=0) * np.ones((1, 128), np.float32)
    seen = augment.relative(bands.astype(np.float32))
    assert seen[0, 0] == 0.0
    np.testing.assert_allclose(seen[63, 0], -20.0 + 63 * 0.016, atol=1e-3)
    assert augment.relative(bands.astype(np.float32), hot_db=6.0)[0, 0] == pytest.approx(-6.0)


def test_pitch_is_found_in_cepstra_of_a_voice():
    """Combs of harmonics 30 dB above the floor between them, under an envelope that falls by 12 dB per octave."""
    for hertz in (90.0, 130.0, 210.0, 330.0):
        bands = np.full(cepstra.MEL_BANDS, -50.0)
        for harmonic in range(1, int(4000 / hertz)):
            place = np.interp(cepstra.slaney_mel(np.array(harmonic * hertz)), cepstra.BAND_CENTRES_MEL, np.arange(128))
            ridge = -20.0 * np.exp(-0.5 * ((np.arange(128) - place) / 0.8) ** 2)
            bands = np.maximum(bands, -50.0 - 1.5 * ridge)
        bands -= 12.0 * np.log2(np.maximum(cepstra.BAND_CENTRES_HZ, 200.0) / 200.0) / 2.0
        score = cepstra.dct(64) @ bands @ pitch.templates(64)
        found = pitch.candidates_hz()[score.argmax()]
        assert abs(12 * np.log2(found / hertz)) < 1.0, (hertz, found)
        assert score.max() > pitch.HALF_VOICED
    smooth = cepstra.dct(64) @ np.linspace(0.0, -40.0, 128) @ pitch.templates(64)
    assert smooth.max() < pitch.HALF_VOICED
