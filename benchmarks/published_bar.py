"""Public implementations on the bar's task, each measured once: what ours are read beside.

The authors' own code, unchanged, on 20,000 Fashion-MNIST images with a tenth of the labels wrong, the same ResNet and
recipe as `bar_world`, forget sets drawn alike but not the same, three retrains; epochs cut to suit ten of training,
else the authors' rates and rules; one thread. One run each, so that their spread is not known.
"""

from dataclasses import dataclass

SETTINGS = {
    "fine-tune": "RUM's code: SGD 0.01, momentum 0.9, 2 epochs",
    "NegGrad+": "RUM's code: alpha 0.97, SGD 0.01, 2 epochs",
    "SCRUB": "RUM's code: rate 5e-3, 3 epochs, max step in the first two",
    "SalUn": "mask 0.5, rate 0.013, 2 epochs",
    "SFRon": "defaults of the class, 314 steps instead of 1,500",
    "nabla-tau": "their alpha rule, number of forget epochs and rate",
}


@dataclass(frozen=True)
class Published:
    """One row: loss gap (95th percentile, median, nats), AUC gap, test accuracy, CPU over a retrain's."""

    model: str
    p95: float
    median: float
    auc: float
    accuracy: float
    cost: float


RETRAIN = "retrain, each of 3 against the others"
FIGURES: dict[str, tuple[Published, ...]] = {
    "10 random": (
        Published(RETRAIN, 1.04, 0.129, 0.0, 0.880, 1.0),
        Published("do nothing", 2.39, 0.200, 0.127, 0.883, 0.0),
        Published("NegGrad+", 19.14, 13.370, -0.311, 0.855, 0.210),
        Published("SCRUB", 2.27, 0.204, 0.066, 0.880, 0.368),
        Published("SFRon", 57.51, 42.468, -0.346, 0.840, 0.344),
        Published("SalUn", 2.28, 0.351, -0.166, 0.873, 0.202),
        Published("fine-tune", 2.32, 0.205, 0.096, 0.870, 0.198),
        Published("nabla-tau", 2.34, 0.295, 0.147, 0.878, 0.998),
    ),
    "1 % random": (
        Published(RETRAIN, 1.33, 0.090, 0.0, 0.883, 1.0),
        Published("do nothing", 2.54, 0.073, 0.072, 0.883, 0.0),
        Published("NegGrad+", 1.89, 0.112, 0.027, 0.873, 0.341),
        Published("SCRUB", 2.41, 0.100, 0.075, 0.881, 0.372),
        Published("SFRon", 10.17, 4.865, -0.341, 0.804, 0.367),
        Published("SalUn", 2.10, 0.104, 0.019, 0.874, 0.207),
        Published("fine-tune", 2.42, 0.091, 0.058, 0.872, 0.191),
        Published("nabla-tau", 2.47, 0.112, 0.071, 0.875, 1.236),
    ),
    "10 % random": (
        Published(RETRAIN, 1.34, 0.079, 0.0, 0.882, 1.0),
        Published("do nothing", 2.71, 0.066, 0.073, 0.883, 0.0),
        Published("NegGrad+", 2.39, 0.079, 0.060, 0.877, 0.383),
        Published("SCRUB", 2.64, 0.070, 0.069, 0.882, 0.413),
        Published("SFRon", 2.00, 0.317, -0.048, 0.847, 0.439),
        Published("SalUn", 1.64, 0.089, 0.015, 0.871, 0.243),
        Published("fine-tune", 2.34, 0.077, 0.062, 0.879, 0.190),
        Published("nabla-tau", 2.50, 0.080, 0.067, 0.876, 0.743),
    ),
    "100 mislabelled": (
        Published(RETRAIN, 2.65, 0.722, 0.0, 0.884, 1.0),
        Published("do nothing", 4.56, 1.991, 0.041, 0.883, 0.0),
        Published("NegGrad+", 3.87, 1.517, 0.002, 0.877, 0.284),
        Published("SCRUB", 4.33, 1.919, 0.042, 0.880, 0.388),
        Published("SFRon", 36.12, 26.456, -0.011, 0.844, 0.387),
        Published("SalUn", 4.70, 1.983, 0.037, 0.879, 0.219),
        Published("fine-tune", 4.49, 1.679, 0.041, 0.878, 0.197),
        Published("nabla-tau", 4.44, 1.548, 0.045, 0.877, 1.138),
    ),
}
