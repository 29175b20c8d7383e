"""How many times as long one arm takes as the other, where some runs end before they get there.

Leaving such runs out would favor the slower arm, so their length stands for them as a bound: at least that many
epochs. A mean of bounds is a bound of the mean, and so is its interval's end on that side; the other end is open.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.claims.effects import Censored, Effect, Interval, exponential, mean_interval


def censored_ratio(
    treatment: pd.Series, control: pd.Series, *, treatment_censored: pd.Series, control_censored: pd.Series
) -> Effect:
    """Control / treatment of the epochs that each took, averaged as logarithms. All are indexed by seed.

    Where `*_censored` is true the run had not got there after that many epochs. NaN: no result. The mean is that of the
    bounds.
    """
    pairs = pd.DataFrame({"treatment": treatment, "control": control})
    complete = pairs.dropna()
    late_treatment, late_control = (
        late.reindex(complete.index, fill_value=False).to_numpy(bool) for late in (treatment_censored, control_censored)
    )
    says = ~(late_treatment & late_control)
    censored = Censored(
        treatment=int((late_treatment & says).sum()),
        control=int((late_control & says).sum()),
        both=int((~says).sum()),
    )
    logarithms = np.log(complete["control"]) - np.log(complete["treatment"])
    bounds = mean_interval(logarithms[says])
    return Effect(
        interval=exponential(_opened(bounds, censored)),
        sd=bounds.sd,
        left_out=len(pairs) - len(complete),
        censored=censored,
    )


def _opened(bounds: Interval, censored: Censored) -> Interval:
    """A late control may have taken any number of epochs more, a late treatment too."""
    if bounds.low is None:
        return bounds
    return replace(
        bounds,
        low=-math.inf if censored.treatment else bounds.low,
        high=math.inf if censored.control else bounds.high,
    )
