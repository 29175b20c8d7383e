"""Error against year and against multiply-adds, here and as published."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from pipeline.claims.results import Results
from pipeline.report.figures.style import HERE, PAPER, SMALLEST, WIDTH, Drawn, log_x
from pipeline.report.lineage import fact, members, test_error

INCHES = 6.4
FIRST_YEAR, LAST_YEAR = 1996, 2020


def lineage(results: Results) -> Drawn:
    """Draw four panels: this scale above, ImageNet below; by year on the left, by multiply-adds on the right."""
    nets = members(results)
    errors = {net.title: test_error(results, net.tuned) for net in nets}
    if all(error.mean is None for error in errors.values()):
        return "no run of its nets has a result"
    figure = Figure(figsize=(WIDTH, INCHES), layout="constrained")
    (years, works), (old_years, old_works) = figure.subplots(2, 2)
    for net in nets:
        error, work = errors[net.title], fact(results, net.tuned, "multiply_adds")
        if error.mean is not None and work is not None:
            for panel, x in ((years, net.year), (works, work / 1e6)):
                panel.errorbar(x, error.mean, yerr=error.half_width or 0.0, fmt="o", color=HERE, capsize=3)
                _name(panel, x, error.mean, net.title)
        if net.published_top5 is not None:
            for panel, x in ((old_years, net.year), (old_works, net.published_multiply_adds / 1e6)):
                panel.plot(x, net.published_top5, "s", color=PAPER)
                _name(panel, x, net.published_top5, net.title.replace("ResNet-18", "ResNet-50"))
    for panel in (works, old_works):
        log_x(panel, "multiply-adds of one image, million")
    for panel in (years, old_years):
        panel.set_xlim(FIRST_YEAR, LAST_YEAR)
        panel.xaxis.set_major_locator(MultipleLocator(5))
        panel.set_xlabel("year")
    for panel in figure.axes:
        panel.margins(x=0.3, y=0.2)
    years.set_ylabel("top-1 test error here, %")
    old_years.set_ylabel("published top-5 error, ten crops, %")
    return figure, (
        "Above: the nets of this scale, each at the rate that suits it, mean over the seeds with its 95 % interval. "
        "Below: ILSVRC-2012 validation images, as published (ResNet-50 for ResNet-18; of LeNet-5 there is no figure). "
        "The rows are about different images, nets and budgets, and only their order can be compared."
    )


def _name(panel: Axes, x: float, y: float, text: str) -> None:
    panel.annotate(text, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=SMALLEST)
