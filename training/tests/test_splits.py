import numpy as np
import pytest

from undertone_training import splits
from undertone_training.labels import CORPORA


@pytest.mark.parametrize("fold", range(splits.FOLDS))
def test_no_speaker_is_on_both_sides_of_a_fold_split(corpora, fold):
    parts = splits.split(corpora, f"fold:{fold}", seed=1)
    assert not set(corpora.speaker[parts.train]) & set(corpora.speaker[parts.test])
    assert set(corpora.fold[parts.test]) == {fold}
    assert len(parts.train) + len(parts.test) == len(corpora) and not len(parts.validation)


@pytest.mark.parametrize("fold", range(splits.FOLDS))
def test_a_recipe_is_developed_without_the_folds_speakers_and_validated_on_unseen_ones(corpora, fold):
    parts = splits.split(corpora, f"develop:{fold}", seed=1)
    train, validation = (set(corpora.speaker[part]) for part in (parts.train, parts.validation))
    assert train and validation and not train & validation and not len(parts.test)
    assert not (train | validation) & set(corpora.speaker[corpora.fold == fold])


def test_corpora_with_few_speakers_are_not_spared_for_validation(corpora):
    held = splits.split(corpora, "develop:0", seed=1).validation
    assert {CORPORA[index] for index in corpora.corpus[held]} == {"crema-d", "ravdess"}


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
