"""Convolutions as linear maps of images: normalization by their norms, and spectra of periodic ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.normalization.power_iteration import EPS, fp32_precisions, full_precision
from gan.normalization.singular import leading_eigenvector
from gan.normalization.spectral import SpectralNorm, is_a
from gan.normalization.stable_rank import StableRankNorm

ACCURACY = 1e-5
"""Residual of exact norms, relative to their square; their relative error is at most half as large."""
ROUGH_ACCURACY = 1e-3
"""The same at the start of a training, and for norms in logs."""


class ConvolutionMap(NamedTuple):
    """A convolution without its bias, as a linear map of images (1, in, *input_size) to (1, out, *output_size).

    frame, mode: arguments of torch.nn.functional.pad, for padding that the convolution itself cannot add: of other
        modes than zeros, and different at both ends ("same" with kernels of even size).
    stride, padding, dilation, output_padding, groups, transposed: see torch.nn.ConvTranspose2d.
    """

    in_channels: int
    input_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: bool
    frame: tuple[int, ...]
    mode: str

    @classmethod
    def of(cls, layer: nn.Module, input_size: int | Sequence[int]) -> "ConvolutionMap":
        """Returns the map of a convolution, of those in `NORMALIZED_LAYERS`.

        Raises:
            ValueError: input_size is neither a positive whole number nor one for each dimension, or too small.
        """
        found: Any = layer
        size = _whole_sides(input_size, dims := len(found.kernel_size))
        framed = found.padding_mode != "zeros" or isinstance(found.padding, str)
        convolution = cls(
            found.in_channels,
            size,
            found.stride,
            (0,) * dims if framed else found.padding,
            found.dilation,
            found.output_padding,
            found.groups,
            found.transposed,
            tuple(found._reversed_padding_repeated_twice) if framed else (),
            "constant" if found.padding_mode == "zeros" else found.padding_mode,
        )
        rows, columns = (found.in_channels, found.out_channels)[:: 1 if found.transposed else -1]
        kernel = rows, columns // found.groups, *found.kernel_size
        try:  # on the meta device, which computes shapes only
            weight, x = (torch.empty(shape, device="meta") for shape in (kernel, (1, found.in_channels, *size)))
            convolution.image(weight, x)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"input_size {size}: the convolution fails on inputs of this size: {error}") from None
        return convolution

    def image(self, weight: Tensor, x: Tensor) -> Tensor:
        """Returns conv(x, W), (1, out, *output_size)."""
        padded = F.pad(x, self.frame, self.mode) if self.frame else x
        return torch.convolution(padded, weight, None, *self._geometry())

    def adjoint(self, weight: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Returns the image of y under the adjoint map, (1, in, *input_size); of x only the shape matters."""
        if not self.frame:
            return self._backward(y, x, weight, 0)
        with torch.inference_mode(False), torch.enable_grad():  # the adjoint of padding is its gradient
            inside = torch.zeros_like(x, requires_grad=True)
            padded = F.pad(inside, self.frame, self.mode)
            (result,) = torch.autograd.grad(padded, inside, self._backward(y, padded.detach(), weight, 0))
        return result

    def slope(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Returns the gradient G of <y, conv(x, W)> in W, so that it is <G, W>; of W only the shape matters."""
        padded = F.pad(x, self.frame, self.mode) if self.frame else x
        return self._backward(y, padded, weight, 1)

    def _geometry(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups

    def _backward(self, y: Tensor, x: Tensor, weight: Tensor, place: int) -> Tensor:
        wanted = [place == 0, place == 1, False]
        found: Tensor = torch.ops.aten.convolution_backward(y, x, weight, None, *self._geometry(), wanted)[place]
        return found

    def iterate_(self, weight: Tensor, x: Tensor, y: Tensor, steps: int, eps: float = EPS) -> None:
        """Runs power iterations in place: x <- conv^T(y) / |.|, y <- conv(x) / |.|; requires torch.no_grad()."""
        for _ in range(steps):
            x.copy_(_unit(self.adjoint(weight, y, x), eps))
            y.copy_(_unit(self.image(weight, x), eps))

    @torch.no_grad()
    def first_pair(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and y, in the type of the weight, such that the norm is exact up to a relative 5e-4.

        Raises:
            ValueError: the map is zero.
        """
        x = weight.new_zeros(1, self.in_channels, *self.input_size)
        y = torch.zeros_like(self.image(weight, x))
        self.exact_pair_(weight, x, y, ROUGH_ACCURACY)
        if not all(0.99 < float(torch.linalg.vector_norm(vector)) < 1.01 for vector in (x, y)):
            raise ValueError(
                f"the convolution is zero on inputs of size {self.input_size}, so it cannot be divided by its norm: "
                "leave the layer out by exclude=... in normalize"
            )
        return x, y

    @torch.no_grad()
    def exact_pair_(self, weight: Tensor, x: Tensor, y: Tensor, accuracy: float = ACCURACY) -> None:
        """Sets x and y to leading singular vectors, by Lanczos iteration in the type of the weight.

        Args:
            accuracy: residual of the squared norm <y, conv(x)>^2, relative to it.
        """
        with float32_convolutions(weight):
            scale = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
            scaled = weight / scale
            on_inputs = x.numel() <= y.numel()
            start = x if on_inputs else y

            def twice(flat: Tensor) -> Tensor:
                vector = flat.view(start.shape)
                if on_inputs:
                    return self.adjoint(scaled, self.image(scaled, vector), x).reshape(-1)
                return self.image(scaled, self.adjoint(scaled, vector, x)).reshape(-1)

            noise = torch.randn(start.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            # Noise, lest the start lies in the span of other singular vectors.
            first = start.reshape(-1) + 0.1 * F.normalize(noise, dim=0).to(start)
            found = leading_eigenvector(twice, F.normalize(first, dim=0), accuracy)[0].view(start.shape)
            if not on_inputs:
                found = _unit(self.adjoint(scaled, found, x), 0)
            image = self.image(scaled, found)
            x.copy_(found)
            y.copy_(_unit(image, 0))

    def norm(self, weight: Tensor, x: Tensor | None = None, accuracy: float = ACCURACY) -> float:
        """Returns the operator norm, computed in float32 or wider, up to a relative accuracy / 2.

        Args:
            x: start of the iteration, near the leading singular vector (1, in, *input_size); None: noise.
        """
        weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        if not weight.any():
            return 0.0
        with torch.no_grad(), float32_convolutions(weight):
            x = weight.new_zeros(1, self.in_channels, *self.input_size) if x is None else x.clone()
            y = self.image(weight, x)
            self.exact_pair_(weight, x, _unit(y, EPS), accuracy)
            return float(torch.linalg.vector_norm(self.image(weight, x)))


def _whole_sides(input_size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Returns a size of so many dimensions; raises ValueError unless all are positive whole numbers."""
    size = tuple(input_size) if isinstance(input_size, Sequence) else (input_size,) * dims
    if len(size) != dims or not all(is_a(side, Integral) and side > 0 for side in size):
        raise ValueError(f"input_size: got {input_size!r}, expected a positive whole number, or {dims} of them")
    return size


def _unit(vector: Tensor, eps: float) -> Tensor:
    return vector / torch.linalg.vector_norm(vector).clamp_min(eps)


@contextmanager
def float32_convolutions(weight: Tensor) -> Iterator[None]:
    """Context manager without autocast and without TF32, whose 10 bits of mantissa are too few for power iteration."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    with full_precision(weight), fp32_precisions(*([(convolutions, "ieee")] if weight.is_cuda else [])):
        yield


@torch.no_grad()
def convolution_spectrum(weight: Tensor, input_size: int | Sequence[int], *, groups: int = 1) -> Tensor:
    """Returns all singular values of a periodic convolution of stride 1, descending, float64.

    There are min(in, out) per position: the singular values of the matrices F(W)[:, :, f] (out, in) of all frequencies
    f, where F is the Fourier transform of W on the grid of the input. Sedghi, Gupta, Long 2019. Convolutions with zero
    padding have others, none of which exceeds the largest one on an infinitely large grid.

    Args:
        weight: (out, in / groups, *kernel_size), of nn.Conv1d, nn.Conv2d or nn.Conv3d.
        input_size: number of positions per dimension; a number for equally many in all dimensions.
        groups: number of groups of channels.

    Raises:
        ValueError: a weight of another number of dimensions, not divisible into groups, or not finite; or a wrong
            input size.
    """
    dims = weight.ndim - 2
    if not 1 <= dims <= 3 or groups < 1 or len(weight) % groups:
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)} and {groups} groups, expected a convolution's weight"
        )
    size = _whole_sides(input_size, dims)
    kernel = weight.double()
    if not kernel.isfinite().all():
        raise ValueError("weight: got entries that are not finite, expected finite ones")
    for place, side in enumerate(size, 2):  # a kernel larger than the input wraps around it
        missing = -kernel.shape[place] % side
        kernel = F.pad(kernel, [0, 0] * (weight.ndim - 1 - place) + [0, missing])
        kernel = kernel.unflatten(place, (-1, side)).sum(place)
    spectrum = torch.fft.rfftn(kernel, dim=list(range(2, weight.ndim)))
    matrices = spectrum.unflatten(0, (groups, -1)).movedim((0, 1, 2), (-3, -2, -1))  # (*frequencies, groups, out, in)
    values = torch.linalg.svdvals(matrices)
    # The other half of the last dimension's frequencies has the conjugate matrices.
    mirrored = values.narrow(dims - 1, 1, (size[-1] - 1) // 2)
    return torch.cat([values.flatten(), mirrored.flatten()]).sort(descending=True).values


class ConvolutionSpectralNorm(SpectralNorm):
    """Divides W by the norm of its convolution as a linear map of images: W -> scale * W / <y, conv(x, W)>.

    x (1, in, *input_size) and y (1, out, *output_size) are the map's leading singular vectors, found by power iteration
    through the convolution and its adjoint, with the layer's stride, padding, dilation and groups. They are constants
    in the gradient. Gouk et al. 2018, Farnia et al. 2019; SN_Conv of Lin et al. 2021. With zero padding, the norm is at
    most sqrt(kh * kw) times the spectral norm of the reshaped weight.

    <y, conv(x, W)> = <G, W> is linear in W, so its gradient G is computed once per update, and a forward pass costs one
    scalar product. G is a buffer that is not saved, but computed from x and y.

    u and v stay those of the reshaped weight, as in `SpectralNorm`, so that its checkpoints load with strict=False;
    `refresh_` is then needed.

    Args:
        convolution: the map; its input size belongs to the state, as the shape of x.
        weight, settings: see `SpectralNorm`; its scale is that of the convolution's norm.

    Raises:
        ValueError: see `SpectralNorm`; or the convolution is zero on this input size.
    """

    _x: Tensor
    _y: Tensor
    _g: Tensor

    def __init__(self, weight: Tensor, *, convolution: ConvolutionMap, **settings: Any) -> None:
        super().__init__(weight, **settings)
        self.convolution = convolution
        reshaped = self._before(weight)
        x, y = convolution.first_pair(reshaped)
        self.register_buffer("_x", x)
        self.register_buffer("_y", y)
        self.register_buffer("_g", torch.empty_like(reshaped), persistent=False)
        self._set_slope()

    @torch.no_grad()
    def _before(self, weight: Tensor) -> Tensor:
        """Returns the weight that is divided by the norm of its convolution, in the type of u and v."""
        with float32_convolutions(weight):
            return super().normalized(weight.detach().to(self._u.dtype))

    @torch.no_grad()
    def _set_slope(self) -> None:
        """Computes G from x and y; in place if it can be, because a CUDA graph holds its address."""
        with float32_convolutions(self._x):
            slope = self.convolution.slope(self._x, self._y, self._g.to(self._x))
        if (slope.device, slope.dtype) == (self._g.device, self._g.dtype):
            self._g.copy_(slope)
        else:
            self._g = slope

    @torch.no_grad()
    def update_(self, weight: Tensor) -> None:
        """Runs `n_power_iterations` power iterations on u and v, and on x and y, in place."""
        super().update_(weight)
        with float32_convolutions(weight):
            self.convolution.iterate_(self._before(weight), self._x, self._y, self.n_power_iterations, self.eps)
        self._set_slope()

    @torch.no_grad()
    def refresh_(self, weight: Tensor) -> None:
        """Sets u, v, x and y to exact leading singular vectors, in place."""
        super().refresh_(weight)
        self.convolution.exact_pair_(self._before(weight), self._x, self._y)
        self._set_slope()

    def mirror_(self) -> None:
        """Computes G again, after other code has changed x and y."""
        super().mirror_()
        self._set_slope()

    def normalized(self, weight: Tensor) -> Tensor:
        """Normalizes W, given in the type of u and v, by the current vectors."""
        before = super().normalized(weight)
        order = sorted(range(before.ndim), key=before.stride, reverse=True)
        flat, slope = (tensor.permute(order).reshape(-1) for tensor in (before, self._g.clone()))
        norm = torch.dot(flat, slope)
        return before / (norm if self.scale == 1 else norm / self.scale)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.mirror_()

    def _apply(self, *arguments: Any, **settings: Any) -> "ConvolutionSpectralNorm":
        """Moves and casts as `SpectralNorm`; then G is computed again, so that it depends on x and y alone."""
        super()._apply(*arguments, **settings)
        if not self._x.is_meta:
            self._set_slope()
        return self

    def extra_repr(self) -> str:
        return f"input_size={self.convolution.input_size}, {super().extra_repr()}"


class ConvolutionStableRankNorm(ConvolutionSpectralNorm, StableRankNorm):
    """Bounds the stable rank of W by Algorithm 2, and divides the result by the norm of its convolution.

    The stable rank is that of the reshaped weight, as in `StableRankNorm`; dividing by a number does not change it.

    Arguments and errors: see `ConvolutionSpectralNorm` and `StableRankNorm`.
    """
