"""Measures what training has to know about the images: the mean image, and how colors vary. The sums are exact."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DECIMALS = 9  # of eigenvectors and deviations: beyond them, LAPACK's last bits differ between CPUs
BLOCK_PIXELS = 65536  # 255² times as many fit 32 bits


class Sums(NamedTuple):
    """Sums over the images of one batch, in integers."""

    images: int
    values: NDArray[np.uint32]  # H x W x C
    products: NDArray[np.int64]  # C x C, over all pixels

    @classmethod
    def of(cls, batch: NDArray[np.uint8]) -> "Sums":
        """Return the sums of a batch, N x H x W x C, of fewer than 2^24 images."""
        channels = batch.shape[-1]
        products = np.zeros((channels, channels), np.int64)
        pixels = batch.reshape(-1, channels)
        for start in range(0, len(pixels), BLOCK_PIXELS):
            block = pixels[start : start + BLOCK_PIXELS]
            planes = [block[:, channel].astype(np.uint16) for channel in range(channels)]
            for row in range(channels):
                for column in range(row, channels):
                    products[row, column] += (planes[row] * planes[column]).sum(dtype=np.uint32)
        lower = np.tril_indices(channels, -1)
        products[lower] = products.T[lower]
        return cls(len(batch), batch.sum(0, dtype=np.uint32), products)


class PixelStatistics:
    """Sums over all images, which are the same whatever the batches, their order and the machine."""

    def __init__(self, image_size: int, channels: int) -> None:
        self.images = 0
        self.sums = np.zeros((image_size, image_size, channels), np.int64)
        self.products = np.zeros((channels, channels), np.int64)

    def add(self, sums: Sums) -> None:
        self.images += sums.images
        self.sums += sums.values
        self.products += sums.products

    def mean_image(self) -> NDArray[np.float32]:
        """Return the mean at each pixel, H x W x C."""
        return (self.sums / self.images).astype(np.float32)

    def rgb_covariance(self) -> NDArray[np.float64]:
        """Return the 3 x 3 covariance of the pixels' colors; gray counts as R = G = B."""
        pixels = self.images * self.sums[..., 0].size
        sums = [int(total) for total in self.sums.sum((0, 1))]
        products = self.products.tolist()
        covariance = np.array(
            [
                [(pixels * product - row * column) / pixels**2 for column, product in zip(sums, line, strict=True)]
                for row, line in zip(sums, products, strict=True)
            ]
        )
        return np.array(np.broadcast_to(covariance, (3, 3)))

    def rgb_components(self) -> tuple[list[list[float]], list[float]]:
        """Return section 4.1's eigenvectors (columns, by falling eigenvalue) and the square roots of eigenvalues."""
        covariance = self.rgb_covariance()
        if len(self.products) == 1:  # two eigenvalues are 0, so that their vectors are ours to choose
            vectors = np.array([[1, 1, 1], [1, -1, 1], [1, 0, -2]]) / np.sqrt([3, 2, 6])
            values = np.array([covariance.trace(), 0, 0])
        else:
            values, vectors = np.linalg.eigh(covariance)
            values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        vectors = vectors.round(DECIMALS)
        leading = np.take_along_axis(vectors, (vectors != 0).argmax(0)[np.newaxis], 0)  # first that is not 0: 1 x 3
        return (vectors * np.sign(leading) + 0.0).tolist(), np.sqrt(values).round(DECIMALS).tolist()
