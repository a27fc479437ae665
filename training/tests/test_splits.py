import numpy as np
import pytest

from undertone_training import splits


@pytest.mark.parametrize("fold", range(splits.FOLDS))
def test_no_speaker_is_on_both_sides_of_a_fold_split(corpora, fold):
    parts = splits.split(corpora, f"fold:{fold}", seed=1)
    assert not set(corpora.speaker[parts.train]) & set(corpora.speaker[parts.test])
    assert set(corpora.fold[parts.test]) == {fold}
    assert len(parts.train) + len(parts.test) == len(corpora) and not len(parts.validation)


@pytest.mark.parametrize("fold", range(splits.FOLDS))
def test_a_recipe_is_developed_on_the_speakers_of_its_fold_alone(corpora, fold):
    parts, tested = splits.split(corpora, f"develop:{fold}", seed=1), splits.split(corpora, f"fold:{fold}", seed=1)
    assert (parts.train == tested.train).all() and (parts.validation == tested.test).all() and not len(parts.test)


def test_some_folds_are_never_developed_on():
    assert set(splits.DEVELOPED) < set(range(splits.FOLDS))


def test_random_split_is_80_to_20_and_complete(corpora):
    parts = splits.split(corpora, "random", seed=1)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything) == list(range(len(corpora)))
    assert abs(len(parts.test) / len(corpora) - 0.2) < 0.03


def test_the_same_seed_gives_the_same_split_and_another_gives_another(corpora):
    first, again, other = (splits.split(corpora, "random", seed) for seed in (1, 1, 2))
    assert (first.test == again.test).all()
    assert len(first.test) != len(other.test) or (first.test != other.test).any()


def test_all_tests_on_nothing(corpora):
    parts = splits.split(corpora, "all", seed=1)
    assert len(parts.train) == len(corpora) and not len(parts.validation) and not len(parts.test)


def test_an_unknown_split_is_refused_by_name(corpora):
    with pytest.raises(ValueError, match="fold:9"):
        splits.split(corpora, "fold:9", seed=1)
