"""captum's DeepLIFT classes: for inputs, layers and neurons, each against one baseline (DeepLift) or several (DeepLiftShap)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..arguments import flag, shown
from ..attribution import Attribution
from ..explainer import Explainer
from .arguments import (
    as_tuple,
    asked,
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
from .neuron import ONE_NUMBER, OfRows, Summed, UpTo, one_tensor, position

Custom = Callable[..., tuple[Tensor, ...]] | None


def _public(attribute: Callable[..., Any]) -> Callable[..., Any]:
    """The method in a wrapper, because captum's own code calls ``attribute.__wrapped__``."""

    @wraps(attribute)
    def call(*args: Any, **kwargs: Any) -> Any:
        return attribute(*args, **kwargs)

    return call


class _DeepLift(GradientAttribution):
    """What the classes for inputs, layers and neurons have in common."""

    #: Whether each sample is compared with all baselines, and not with one.
    _all_baselines = False

    def __init__(self, model: nn.Module, multiply_by_inputs: bool) -> None:
        flag("multiply_by_inputs", multiply_by_inputs)
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
        """The values of each explained tensor, ``[N, *features]``, and the deltas: ``[N]``, or ``[N * R]`` if ``delta`` asks for them and
        each sample is compared with all baselines."""
        given = tensors("inputs", inputs)
        theirs = shared_by_all(baselines, inputs) if self._all_baselines else each_samples_own(baselines, given)
        multipliers = custom is None and not self._multiply_by_inputs
        pairs = delta and self._all_baselines
        wanted = {"multipliers": multipliers, "combine": combination(custom), "per_baseline": pairs}
        found = _attribute(explainer, given, theirs, target, args, **wanted)
        values = found.multipliers if multipliers else found.values
        return tuple(one.mean(1) for one in values) if pairs else values, found.convergence_delta.flatten()


class DeepLift(_DeepLift):
    """DeepLIFT values (arXiv 1704.02685) of the model's inputs against one baseline, or each sample's own; as ``captum.attr.DeepLift``.

    Args:
        model: a ``torch.nn.Module``, called as ``model(*inputs, *additional_forward_args)``.
        multiply_by_inputs: whether values are contributions, multipliers times the inputs' difference from the baselines; False: the
            multipliers.
        eps: ignored: limits are exact.
        options: of :class:`deepshap_ext.Explainer`.
    """

    def __init__(self, model: nn.Module, multiply_by_inputs: bool = True, eps: float = 1e-10, **options: Any) -> None:
        super().__init__(model, multiply_by_inputs)
        self._of_inputs = Explainer(model, **options)

    @property
    def _explainer(self) -> Explainer:
        return self._of_inputs

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
        """Values of the inputs.

        Args:
            inputs: a tensor ``[N, *features]``, or a tuple of such.
            baselines: for each input one row for all samples, ``[1, *features]``, a row a sample, ``[N, *features]``, or a number for all
                its elements; None for zeros. For :class:`DeepLiftShap` tensors ``[R, *features]`` that all samples are compared with, or
                a function of the inputs, or of nothing, that returns them.
            target: one output for all samples, an integer or a tuple of integers, or one a sample, a list or a tensor ``[N]``; None where
                there is only one output.
            additional_forward_args: further arguments of the model, one or a tuple; tensors have a row a sample.
            return_convergence_delta: also return how far contributions are from adding up.
            custom_attribution_func: from multipliers, inputs and baselines, tuples of tensors ``[pairs, *features]`` (or from the first one
                or two of these), to what is returned in place of the contributions.

        Returns:
            A tensor or a tuple as the inputs are, of their shapes and dtypes; with ``return_convergence_delta`` the pair of this and the
            deltas: ``[N]``, for :class:`DeepLiftShap` ``[N * R]``, a sample's ``R`` one behind the other.

        Raises:
            AssertionError: an argument breaks its contract.
            deepshap_ext.ExplanationError: the model cannot be explained; its subclasses say why.
        """
        delta, custom = asked("return_convergence_delta", return_convergence_delta), custom_attribution_func
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
        """How far attributions are from adding up; takes as long as explaining them.

        Args:
            attributions: of the inputs, ``[N, *features]`` or a tuple of such.
            start_point: the baselines, as :meth:`attribute` takes them.
            end_point: the inputs.
            target, additional_forward_args: as :meth:`attribute` takes them.

        Returns:
            ``[N]``: the sums of ``attributions`` less what the outputs for the inputs and for the baselines differ by.
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
    """DeepSHAP values (arXiv 1705.07874, section 4.2) of the model's inputs: means over baselines that all samples share; as
    ``captum.attr.DeepLiftShap``. Arguments are those of :class:`DeepLift`."""

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
    """DeepLIFT values of the tensors that a layer returns or is given; as ``captum.attr.LayerDeepLift``.

    Args:
        model: as :class:`DeepLift` takes it.
        layer: a module of the model.
        multiply_by_inputs: as :class:`DeepLift` takes it.
        options: of :class:`deepshap_ext.Explainer`; ``call=`` which run of a layer that runs more than once in a forward pass.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, multiply_by_inputs: bool = True, **options: Any) -> None:
        _DeepLift.__init__(self, model, multiply_by_inputs)
        #: May be set to another one, as captum's ``TCAV`` does, which begins with None.
        self.layer = layer
        self._options = options
        self._explainers: dict[tuple[nn.Module | str, str], Explainer] = {}
        if layer is not None:
            self._of("output")

    @property
    def _explainer(self) -> Explainer:
        return self._of("output")

    def _of(self, at: Literal["input", "output"]) -> Explainer:
        """The explainer of what the layer is given or returns."""
        if not isinstance(self.layer, (nn.Module, str)):
            raise AssertionError(f"layer must be a module of the model, or its name, got {shown(self.layer)}")
        key = self.layer, at
        if key not in self._explainers:
            self._explainers[key] = Explainer((self.model, self.layer), at=at, **self._options)
        return self._explainers[key]

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
        """Values of the layer's tensor, or a tuple of those of its tensors, and on request the deltas as for inputs.

        Args:
            inputs, baselines, target, additional_forward_args, return_convergence_delta, custom_attribution_func: as those of
                :meth:`DeepLift.attribute`, with multipliers, inputs and baselines of the layer's tensors.
            attribute_to_layer_input: whether the values are of what the layer is given, and not of what it returns.
            grad_kwargs: ignored: what is not used has zeros.
        """
        delta, custom = asked("return_convergence_delta", return_convergence_delta), custom_attribution_func
        explainer = self._of("input" if asked("attribute_to_layer_input", attribute_to_layer_input) else "output")
        found = self._explain(explainer, inputs, baselines, target, additional_forward_args, custom, delta)
        values = found[0] if len(found[0]) > 1 else found[0][0]
        return (values, found[1]) if delta else values


class LayerDeepLiftShap(LayerDeepLift, DeepLiftShap):
    """DeepSHAP values of the tensors that a layer returns or is given; as ``captum.attr.LayerDeepLiftShap``. Arguments are those of
    :class:`LayerDeepLift`."""

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
    """DeepLIFT values of the model's inputs for a neuron in place of the output; as ``captum.attr.NeuronDeepLift``.

    Args:
        model, layer, multiply_by_inputs: as those of :class:`LayerDeepLift`.
        call: which run of a layer that runs more than once in a forward pass.
        options: of :class:`deepshap_ext.Explainer`.
    """

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
        #: By side of the layer: the explainer for neurons that are given by an index, and for others with the last of their selectors.
        self._by_index: dict[str, Explainer] = {}
        self._by_selector: dict[str, tuple[Any, Explainer]] = {}

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

        Args:
            inputs, baselines, additional_forward_args, custom_attribution_func: as those of :meth:`DeepLift.attribute`.
            neuron_selector: an index into a row of the layer's tensor, an integer or a tuple; with slices, the sum of what they select. Or
                a function from the tensor ``[rows, ...]``, a tuple where the layer has several, to the neuron ``[rows]``.
            attribute_to_neuron_input: whether the neuron is one of what the layer is given, and not of what it returns.
        """
        at = "input" if asked("attribute_to_neuron_input", attribute_to_neuron_input) else "output"
        explainer, target = self._neuron(at, neuron_selector)
        further, custom = additional_forward_args, custom_attribution_func
        return like(inputs, self._explain(explainer, inputs, baselines, target, further, custom)[0])

    def _neuron(self, at: str, selector: Any) -> tuple[Explainer, Callable[[Tensor], Tensor]]:
        """The explainer and the target for a neuron. One explainer, which keeps what it knows of the network, serves all neurons that are
        given by an index without slices; another selector has an explainer of its own, which is kept until the next such selector."""
        index = as_tuple(selector)
        if not callable(selector) and not any(isinstance(one, slice) for one in index):
            if at not in self._by_index:
                self._by_index[at] = Explainer(self._networks[at], output=one_tensor, **self._options)
            return self._by_index[at], position(index)
        if at not in self._by_selector or self._by_selector[at][0] != selector:
            select = OfRows(selector) if callable(selector) else Summed(index)
            self._by_selector[at] = selector, Explainer(self._networks[at], output=select, **self._options)
        return self._by_selector[at][1], only_output(ONE_NUMBER)


class NeuronDeepLiftShap(NeuronDeepLift):
    """DeepSHAP values of the model's inputs for a neuron in place of the output; as ``captum.attr.NeuronDeepLiftShap``. Arguments are
    those of :class:`NeuronDeepLift`."""

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
    """What the explainer returns for captum's target and further arguments; ``wanted`` are options of its ``attribute``."""
    with raised_as_in_captum():
        return explainer.attribute(
            list(inputs),
            explained_output(target),
            baselines=baselines,
            args=() if args is None else as_tuple(args),
            check_additivity=False,
            **wanted,
        )
