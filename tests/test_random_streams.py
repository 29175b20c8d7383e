from itertools import combinations

import numpy as np
import pytest

from pipeline.runtime.random_streams import PURPOSES, generator, seed_of

NUMBERS = [(), (5,), (5, 0), (5, 0, 0), (0, 5), (0,), (0, 0), (1,), (6, 0)]


def test_no_two_purposes_and_no_two_numbers_share_a_stream() -> None:
    keys = [(purpose, numbers) for purpose in PURPOSES for numbers in NUMBERS]
    streams = {key: tuple(generator(key[0], *key[1]).integers(0, 2**63, 4)) for key in keys}
    for one, other in combinations(keys, 2):
        assert not set(streams[one]) & set(streams[other]), (one, other)
    assert len({seed_of(purpose, *numbers) for purpose, numbers in keys}) == len(keys)


def test_a_stream_is_the_same_each_time() -> None:
    assert seed_of("dropout", 3, 1, 4) == seed_of("dropout", 3, 1, 4)
    np.testing.assert_array_equal(generator("tuning", 2).random(5), generator("tuning", 2).random(5))


def test_an_unknown_purpose_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        generator("luck", 1)
