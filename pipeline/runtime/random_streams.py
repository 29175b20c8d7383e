"""Random numbers by purpose: the streams of two purposes are independent, even for the same seed and epoch."""

import numpy as np

PURPOSES = ("initialization", "dropout", "augmentation", "sampled dropout nets", "permuted kernels", "tuning")


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """Return a generator for one purpose and, say, (seed, epoch). Numbers are not negative.

    Their count belongs to the stream, since numpy takes (5,), (5, 0) and (5, 0, 0) for the same entropy.
    """
    return np.random.default_rng([PURPOSES.index(purpose), len(numbers), *numbers])


def seed_of(purpose: str, *numbers: int) -> int:
    """Return a 32-bit seed for another library's generator."""
    return int(generator(purpose, *numbers).bit_generator.seed_seq.generate_state(1)[0])
