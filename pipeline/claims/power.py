"""How many more seeds, or test images, an effect of a given size takes to be seen."""

from scipy import stats

from pipeline.claims.margins import LEVEL, half_width

NEARLY = 1 - 1e-6  # of a size, what the images may take up while a countable number of seeds fits into the rest


def pairs_needed(sd: float, size: float, image_variance: float = 0.0) -> int | None:
    """The smallest number of pairs whose interval, at this spread over seeds, has a half-width below `size`.

    `image_variance`, of the mean over the test images, does not shrink with seeds. None: no number of pairs will do.
    """
    if images_factor(size, image_variance) >= NEARLY:
        return None

    def suffices(n: int) -> bool:
        return half_width(n, sd, image_variance) < size

    low, high = 1, 2
    while not suffices(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def images_factor(size: float, image_variance: float) -> float:
    """How many times as many test images it takes, with seeds without end, for a half-width of `size`."""
    return float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2 * image_variance / size**2
