"""Error against year and against multiply-adds, here and as published."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.claims.results import Results
from pipeline.report.figures.style import HERE, PAPER, SMALLEST, WIDTH, Drawn, log_x
from pipeline.report.lineage import MILLION, fact, members, test_error

INCHES = 6.4


def lineage(results: Results) -> Drawn:
    """Draw four panels: this scale above, ImageNet below; by year on the left, by multiply-adds on the right."""
    nets = members(results)
    errors = {net.title: test_error(results, net.tuned) for net in nets}
    if all(error.mean is None for error in errors.values()):
        return "no run of its nets has a result"
    figure = Figure(figsize=(WIDTH, INCHES), layout="constrained")
    (years, works), (old_years, old_works) = figure.subplots(2, 2, width_ratios=(6, 5))
    for place, net in enumerate(nets):
        error, work = errors[net.title], fact(results, net.tuned, "multiply_adds")
        if error.mean is not None and work is not None:
            half = error.half_width or 0.0
            for panel, x in ((years, place), (works, work / MILLION)):
                panel.errorbar(x, error.mean, yerr=half, fmt="o", color=HERE, capsize=3)
            _name(works, work / MILLION, error.mean + half, net.title)
        if net.published_top5 is not None:
            old_work = net.published_multiply_adds / MILLION
            for panel, x in ((old_years, place), (old_works, old_work)):
                panel.plot(x, net.published_top5, "s", color=PAPER)
            _name(old_works, old_work, net.published_top5, _published(net.title))
    for panel, titles in ((years, [net.title for net in nets]), (old_years, [_published(net.title) for net in nets])):
        names = [f"{title}\n{net.year}" for title, net in zip(titles, nets, strict=True)]
        panel.set_xticks(range(len(nets)), names, fontsize=SMALLEST)
        panel.set_xlim(-0.5, len(nets) - 0.5)
        panel.set_xlabel("year")
        panel.margins(y=0.2)
    for panel in (works, old_works):
        log_x(panel, "multiply-adds of one image, million")
        panel.margins(x=0.3, y=0.2)
    years.set_ylabel("top-1 test error here, %")
    old_years.set_ylabel("published top-5 error, ten crops, %")
    return figure, (
        "Above: the nets of this scale, each at the rate that suits it, mean over the seeds with its 95 % interval. "
        "Below: ILSVRC-2012 validation images, as published (ResNet-50 for ResNet-18; of LeNet-5 there is no figure). "
        "The rows are about different images, nets and budgets, and only their order can be compared."
    )


def _published(title: str) -> str:
    return title.replace("ResNet-18", "ResNet-50")


def _name(panel: Axes, x: float, y: float, text: str) -> None:
    panel.annotate(text, (x, y), (0, 5), textcoords="offset points", ha="center", va="bottom", fontsize=SMALLEST)
