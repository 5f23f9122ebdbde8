"""captum's DeepLIFT classes over :class:`deepshap_ext.Explainer`: the same arguments, forms of results, and exceptions.

``from deepshap_ext.captum import DeepLift`` in place of ``from captum.attr import DeepLift`` is all that changes. Where captum is installed
the classes extend its ``GradientAttribution``, so that its ``NoiseTunnel`` takes them; they need no captum. Their constructors also take
the options of :class:`deepshap_ext.Explainer` by name: ``softmax=``, ``rules=``, ``on_unsupported=``, ``max_memory=``.

What differs:

* Every operation has a rule, not only modules that are used once. What cannot be explained rightly is an error,
  :class:`deepshap_ext.ExplanationError`; values that do not add up are a warning, as captum returns them too.
* The model is explained in eval mode. ``eps`` and ``grad_kwargs`` are ignored: limits are exact, and what is not used has zeros.
* Values carry no gradient. Integer inputs are codes that the model looks up: they have contributions, but no multipliers.
* Deltas are those of contributions, whatever else is returned, and ``custom_attribution_func`` is given some of the pairs at a time.
"""

from .classes import DeepLift, DeepLiftShap, LayerDeepLift, LayerDeepLiftShap, NeuronDeepLift, NeuronDeepLiftShap

__all__ = ["DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap", "NeuronDeepLift", "NeuronDeepLiftShap"]
