"""A call of every operation that has a rule or a decomposition, next to the same on units: ``"name"`` or ``"name: variant"``."""

from rules import linear_samples

from deepshap_ext.rules.linear import FACTORS
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

from . import elementwise, losses, matrices, maxima, norms, order, products, recurrent, sampling, softmax, special
from .sample import Sample, linear

SAMPLES: dict[str, Sample] = {}
for _family in (elementwise, special, softmax, norms, products, matrices, maxima, order, sampling, recurrent, losses):
    SAMPLES |= _family.samples()
for _name, _sample in linear_samples.SAMPLES.items():
    # A product with a constant is not taken apart.
    if _name not in SAMPLES and (_name in RULES or (_name in DECOMPOSITIONS and _name not in FACTORS)):
        SAMPLES[_name] = linear(_sample.shape, lambda x, sample=_sample: sample.back(sample.op(x)))
