"""Training's running errors, against torchmetrics'."""

import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy

from pipeline.training.module import RunningMetrics

CLASSES = 12


def test_the_tally_of_unequal_batches_is_what_torchmetrics_counts() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, CLASSES), torch.randint(CLASSES, (50,))
    logits[torch.arange(50), labels] += 1.5
    tally = RunningMetrics()
    for part in (slice(0, 32), slice(32, 50)):
        tally.add(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    means = tally.means()
    for k in (1, 5):
        accuracy = MulticlassAccuracy(CLASSES, top_k=k, average="micro")(logits, labels)
        assert 0 < means[f"error_top{k}"] < 90
        torch.testing.assert_close(means[f"error_top{k}"], 100 - 100 * float(accuracy), rtol=1e-5, atol=0)
    torch.testing.assert_close(means["loss"], float(F.cross_entropy(logits, labels)), rtol=1e-5, atol=0)


def test_a_net_that_says_nothing_is_wrong() -> None:
    labels = torch.arange(CLASSES)
    for logits in (torch.zeros(CLASSES, CLASSES), torch.full((CLASSES, CLASSES), torch.nan)):
        tally = RunningMetrics()
        tally.add(F.cross_entropy(logits, labels), logits, labels)
        assert (tally.means()["error_top1"], tally.means()["error_top5"]) == (100, 100)
