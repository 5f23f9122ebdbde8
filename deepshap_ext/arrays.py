"""Plain tensors from whatever holds the numbers of an argument (tensors, numpy arrays, data frames), and arrays from tensors."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


def as_tensor(label: str, value: Any) -> Tensor:
    """The numbers of ``value`` in their own dtype, without gradient; ``label`` names the argument in messages."""
    if isinstance(value, Tensor):
        with torch._C.DisableTorchFunctionSubclass():
            return _from_tensor(label, value)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _from_numpy(label, _from_frame(label, value, pandas))
    if pandas is not None and isinstance(value, pandas.Series):
        raise TypeError(
            f"{label} must have shape [samples, ...], got a Series: for one row of a frame pass frame.iloc[[row]], for a column "
            f"series.to_numpy()"
        )
    if not isinstance(value, np.ndarray) and hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray):
        return _from_numpy(label, value)
    raise TypeError(
        f"{label} must be a torch tensor or a numpy array, got {type(value).__name__}{_advice(label, value)}"
    )


def as_array(tensor: Tensor) -> Array:
    """The tensor's numbers as a numpy array; bfloat16, which numpy does not have, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def all_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite."""
    # A finite sum proves it in one fast pass; the sum may also overflow, so without it every number is looked at.
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())


def wide(tensor: Tensor) -> Tensor:
    """The tensor, or as float32 where it has fewer than 32 bits: rules compute and sums are taken in that."""
    return tensor.float() if tensor.element_size() < 4 else tensor


def columns_of(value: Any) -> list[str] | None:
    """The names of a data frame's columns; None for what is no frame."""
    return list(map(str, value.columns)) if hasattr(value, "to_numpy") and hasattr(value, "columns") else None


def _from_tensor(label: str, tensor: Tensor) -> Tensor:
    """The tensor as a ``torch.Tensor`` and no subclass, without gradient and lazy signs."""
    kind = type(tensor)
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        # Such a tensor is made of others (DTensor, jagged) or of none (fake): it has no memory of its own to read.
        raise TypeError(
            f"{label} must be a plain tensor, got a {kind.__name__}, whose operations are its own: pass the tensor that it stands for, "
            f"such as full_tensor() of a DTensor or to_padded_tensor(0) of a nested one"
        )
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise TypeError(
            f"{label} must be a plain tensor, got one inside a transform of torch.func (vmap, grad, jacrev): explain outside of it"
        )
    if any(names := getattr(tensor, "names", ())):
        # torch before 2.13 has named tensors.
        raise TypeError(f"{label} must be a tensor without names, got {names}: pass {label}.rename(None)")
    if tensor.is_nested:
        raise TypeError(f"{label} must be a dense tensor, got a nested one: pass {label}.to_padded_tensor(0)")
    if tensor.is_quantized:
        raise TypeError(f"{label} must hold plain numbers, got {tensor.dtype}: pass {label}.dequantize()")
    if tensor.layout != torch.strided:
        raise TypeError(f"{label} must be a dense tensor, got layout {tensor.layout}: pass {label}.to_dense()")
    if tensor.device.type == "meta":
        raise ValueError(f"{label} is on the meta device and has no values")
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        raise TypeError(
            f"{label} is of dtype {tensor.dtype}, in which torch stores but does not compute: pass {label}.float()"
        )
    return tensor.detach().as_subclass(Tensor).resolve_conj().resolve_neg()


def _from_numpy(label: str, array: Array) -> Tensor:
    if np.ma.is_masked(array):
        first = np.argwhere(np.ma.getmaskarray(array))[0].tolist()
        raise ValueError(
            f"{label} must have a number everywhere, got {np.ma.getmaskarray(array).sum()} masked entries, the first at index {first}: "
            f"fill them with {label}.filled(number), or leave their samples out"
        )
    if array.dtype.kind == "c":
        raise TypeError(f"{label} must be real, got {array.dtype}")
    if array.dtype.kind not in "fiub":
        way = {
            "O": f": pass {label}.astype(float)",
            "V": ": pass numpy.lib.recfunctions.structured_to_unstructured of it",
        }
        raise TypeError(
            f"{label} must hold numbers, got a numpy array of dtype {array.dtype}{way.get(array.dtype.kind, '')}"
        )
    # torch has only the native byte order, and no longdouble.
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    with np.errstate(over="ignore"):
        # Read-only arrays are copied, because torch warns of memory that must not be written.
        return torch.from_numpy(np.require(np.asarray(array), dtype, ["C", "W"]))


def _from_frame(label: str, frame: Any, pandas: Any) -> Array:
    """The frame's numbers ``[rows, columns]`` in the columns' common dtype."""
    dtypes = []
    for position, (name, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True)):
        # Nullable and sparse dtypes have the dtype of what they hold as an attribute.
        held = dtype.subtype if isinstance(dtype, pandas.SparseDtype) else getattr(dtype, "numpy_dtype", dtype)
        if not isinstance(held, np.dtype) or held.kind not in "fiub":
            raise TypeError(
                f"{label} must hold numbers, got column {name!r} of dtype {dtype}: leave it out, or encode what it holds as numbers"
            )
        missing = frame.iloc[:, position].isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"{label} must have a number everywhere, got {missing.sum()} missing in column {name!r}, the first in row "
                f"{missing.argmax()}: fill them, or leave their rows out"
            )
        dtypes.append(held)
    return frame.to_numpy(dtype=np.result_type(*dtypes) if dtypes else np.float64)


def _advice(label: str, value: Any) -> str:
    """What to pass instead of a value that is often passed by mistake."""
    if isinstance(value, (list, tuple, int, float, np.generic)) and label.endswith("]"):
        argument = label.partition("[")[0]
        return f": a list holds a tensor for each of the model's inputs; numbers in lists become one by torch.tensor({argument})"
    if isinstance(value, Mapping):
        return (
            ": pass a list of tensors in the order of the model's arguments, or wrap the model in a module whose forward names them; what "
            "is not explained goes into kwargs or sample_kwargs"
        )
    if type(value).__name__ == "DenseData":
        return f": pass its centres, {label}.data, and its weights as weights"
    if type(value).__module__.startswith("shap.") and isinstance(getattr(value, "data", None), np.ndarray):
        return f": pass {label}.data"
    if isinstance(value, torch.utils.data.DataLoader):
        return ": pass its samples as one tensor, torch.cat of its batches' inputs"
    if isinstance(value, torch.utils.data.Dataset):
        return ": pass its samples as one tensor, torch.stack of its items' inputs"
    if type(value).__module__.startswith("scipy.sparse"):
        return f": pass {label}.toarray()"
    if isinstance(value, np.generic):
        return ""
    return f": pass numpy.asarray({label})" if hasattr(value, "__array__") else ""
