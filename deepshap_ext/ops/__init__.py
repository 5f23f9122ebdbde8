"""The native operations: one file an op, with its wrapper, its fake and its batching rule side by side."""

from .loading import load_libraries

load_libraries()  # the modules below look their ops up

from .contribution import contribution as contribution  # noqa: E402
from .maxpool import maxpool as maxpool  # noqa: E402
from .midpoint import midpoint as midpoint  # noqa: E402
from .norm import norm as norm  # noqa: E402
from .product import product as product  # noqa: E402
from .recurrence import recurrence as recurrence  # noqa: E402
from .rescale import rescale as rescale  # noqa: E402
from .shapley_max import shapley_max as shapley_max  # noqa: E402
from .softmax import softmax as softmax  # noqa: E402

__all__ = ["contribution", "maxpool", "midpoint", "norm", "product", "recurrence", "rescale", "shapley_max", "softmax"]
