"""The six classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..attribution import Attribution
from ..explainer import Explainer
from .arguments import (
    as_tuple,
    combination,
    each_samples_own,
    explained_output,
    like,
    only_output,
    raised_as_in_captum,
    shared_by_all,
    tensors,
)
from .bases import GradientAttribution, LayerAttribution, NeuronAttribution
from .neuron import UpTo, neuron

Custom = Callable[..., tuple[Tensor, ...]] | None


def _public(attribute: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which captum's own code calls as ``attribute.__wrapped__``."""

    @wraps(attribute)
    def call(*args: Any, **kwargs: Any) -> Any:
        return attribute(*args, **kwargs)

    return call


class _DeepLift(GradientAttribution):
    """What the classes for inputs, layers and neurons have in common."""

    #: Whether each sample is compared with all baselines, and not with one.
    _all_baselines = False

    def __init__(self, model: nn.Module, multiply_by_inputs: bool) -> None:
        GradientAttribution.__init__(self, model)
        self.model = model
        self._multiply_by_inputs = multiply_by_inputs

    @property
    def multiplies_by_inputs(self) -> bool:
        return self._multiply_by_inputs

    def _explain(
        self,
        explainer: Explainer,
        inputs: Any,
        baselines: Any,
        target: Any,
        args: Any,
        custom: Custom,
        delta: bool = False,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The values of each explained tensor, and the delta of each sample or pair."""
        given = tensors("inputs", inputs)
        theirs = shared_by_all(baselines, inputs) if self._all_baselines else each_samples_own(baselines, given)
        multipliers = custom is None and not self._multiply_by_inputs
        pairs = delta and self._all_baselines
        wanted = {"multipliers": multipliers, "combine": combination(custom), "per_baseline": pairs}
        found = _attribute(explainer, given, theirs, target, args, **wanted)
        values = found.multipliers if multipliers else found.values
        return tuple(one.mean(1) for one in values) if pairs else values, found.convergence_delta.flatten()


class DeepLift(_DeepLift):
    """DeepLIFT values of the model's inputs against one baseline, or each sample's own; as ``captum.attr.DeepLift``."""

    def __init__(self, model: nn.Module, multiply_by_inputs: bool = True, eps: float = 1e-10, **options: Any) -> None:
        super().__init__(model, multiply_by_inputs)
        self._explainer = Explainer(model, **options)

    @_public
    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Custom = None,
    ) -> Any:
        """Values of the inputs' shapes and dtypes, and on request the deltas: ``[N]``, for :class:`DeepLiftShap` ``[N * R]``, a sample's
        ``R`` one behind the other."""
        delta, custom = return_convergence_delta, custom_attribution_func
        found = self._explain(self._explainer, inputs, baselines, target, additional_forward_args, custom, delta)
        values = like(inputs, found[0])
        return (values, found[1]) if delta else values

    def has_convergence_delta(self) -> bool:
        return True

    def compute_convergence_delta(
        self,
        attributions: Any,
        start_point: Any,
        end_point: Any,
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """``[N]``: the sums of ``attributions`` less what the outputs for ``end_point`` and for the baselines ``start_point`` differ by.

        Takes as long as explaining them.
        """
        values, inputs = tensors("attributions", attributions), tensors("end_point", end_point)
        if any(len(one) != len(inputs[0]) for one in values):
            raise AssertionError(
                f"attributions must have {len(inputs[0])} rows as end_point, got {[*map(len, values)]}"
            )
        baselines = each_samples_own(start_point, inputs)
        found = _attribute(self._explainer, inputs, baselines, target, additional_forward_args)
        sums = torch.stack([one.detach().double().reshape(len(one), -1).sum(1) for one in values]).sum(0)
        return (sums - (found.output.double() - found.expected_value.double())).to(found.output.dtype)

    def attribute_future(self) -> None:
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")


class DeepLiftShap(DeepLift):
    """DeepSHAP values of the model's inputs: means over baselines that all samples share; as ``captum.attr.DeepLiftShap``."""

    _all_baselines = True

    def __init__(self, model: nn.Module, multiply_by_inputs: bool = True, **options: Any) -> None:
        super().__init__(model, multiply_by_inputs, **options)

    @_public
    def attribute(
        self,
        inputs: Any,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        custom_attribution_func: Custom = None,
    ) -> Any:
        delta, custom = return_convergence_delta, custom_attribution_func
        return super().attribute(inputs, baselines, target, additional_forward_args, delta, custom)


class LayerDeepLift(DeepLift, LayerAttribution):
    """DeepLIFT values of the tensors that a layer returns or is given; as ``captum.attr.LayerDeepLift``."""

    def __init__(self, model: nn.Module, layer: nn.Module, multiply_by_inputs: bool = True, **options: Any) -> None:
        _DeepLift.__init__(self, model, multiply_by_inputs)
        self.layer = layer
        self._explainer = Explainer((model, layer), at="output", **options)
        self._of_its_inputs = Explainer((model, layer), at="input", **options)

    @_public
    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: Custom = None,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Values of the layer's tensor, or a tuple of those of its tensors, and on request the deltas as for inputs."""
        delta, custom = return_convergence_delta, custom_attribution_func
        explainer = self._of_its_inputs if attribute_to_layer_input else self._explainer
        found = self._explain(explainer, inputs, baselines, target, additional_forward_args, custom, delta)
        values = found[0] if len(found[0]) > 1 else found[0][0]
        return (values, found[1]) if delta else values


class LayerDeepLiftShap(LayerDeepLift, DeepLiftShap):
    """DeepSHAP values of the tensors that a layer returns or is given; as ``captum.attr.LayerDeepLiftShap``."""

    @_public
    def attribute(
        self,
        inputs: Any,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        custom_attribution_func: Custom = None,
    ) -> Any:
        delta, at, custom = return_convergence_delta, attribute_to_layer_input, custom_attribution_func
        return super().attribute(inputs, baselines, target, additional_forward_args, delta, at, custom)


class NeuronDeepLift(_DeepLift, NeuronAttribution):
    """DeepLIFT values of the model's inputs for a neuron in place of the output; as ``captum.attr.NeuronDeepLift``."""

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module,
        multiply_by_inputs: bool = True,
        *,
        call: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, multiply_by_inputs)
        self.layer = layer
        self._networks = {at: UpTo(model, layer, at, call) for at in ("input", "output")}
        self._options = options
        #: The last neuron and its explainer, which knows the network by now.
        self._last: tuple[Any, Explainer] | None = None

    @_public
    def attribute(
        self,
        inputs: Any,
        neuron_selector: Any,
        baselines: Any = None,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: Custom = None,
    ) -> Any:
        """Values of the inputs' shapes and dtypes.

        ``neuron_selector``: an index into a row of the layer's tensor, an integer or a tuple; with slices, the sum of what they select. Or
        a function from the tensor ``[rows, ...]``, a tuple where the layer has several, to the neuron ``[rows]``.
        """
        at = "input" if attribute_to_neuron_input else "output"
        key = (at, neuron_selector)
        if self._last is None or self._last[0] != key:
            select = neuron_selector if callable(neuron_selector) else neuron(as_tuple(neuron_selector))
            self._last = key, Explainer(self._networks[at], output=select, **self._options)
        only = only_output("neuron_selector must select one number a row, got numbers of shape {}")
        further, custom = additional_forward_args, custom_attribution_func
        return like(inputs, self._explain(self._last[1], inputs, baselines, only, further, custom)[0])


class NeuronDeepLiftShap(NeuronDeepLift):
    """DeepSHAP values of the model's inputs for a neuron in place of the output; as ``captum.attr.NeuronDeepLiftShap``."""

    _all_baselines = True

    @_public
    def attribute(
        self,
        inputs: Any,
        neuron_selector: Any,
        baselines: Any,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        custom_attribution_func: Custom = None,
    ) -> Any:
        further, at, custom = additional_forward_args, attribute_to_neuron_input, custom_attribution_func
        return super().attribute(inputs, neuron_selector, baselines, further, at, custom)


def _attribute(
    explainer: Explainer, inputs: tuple[Tensor, ...], baselines: list[Tensor], target: Any, args: Any, **wanted: Any
) -> Attribution:
    with raised_as_in_captum():
        return explainer.attribute(
            list(inputs),
            explained_output(target),
            baselines=baselines,
            args=() if args is None else as_tuple(args),
            check_additivity=False,
            **wanted,
        )
