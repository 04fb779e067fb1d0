"""The observation view: what learners see of raw observations, and back. The only place that knows it."""

import torch
from torch import Tensor, nn

#: Added to variances before the root, as SB3's `VecNormalize` does by default.
EPSILON = 1e-8
#: Bounds of standardised pixels: on their magnitude, and from below on the deviation, in units of 255.
PIXEL_CLIP, PIXEL_MIN_STD = 5.0, 0.02
#: Numbers that a CPU's cache holds with all that one pass makes of them.
_CHUNK = 2**17


class ObservationView(nn.Module):
    """Images in [0, 1], then ``clip((obs - mean) / std) · scale + shift``, all of it frozen.

    Args:
        mean: Mean of observations, shape ``obs_shape`` (of images in units of 255); ``None`` for no
            statistics.
        var: Their variance, likewise, at least 0; given exactly when ``mean`` is.
        clip: Bound on the magnitude after the statistics, above 0; ``None`` for none.
        scale: Factor after the clip, ``obs_shape``, above 0; ``None`` for 1.
        shift: What is added last, ``obs_shape``; ``None`` for 0. Fresh networks whose biases are 0 are odd
            functions, or have a kink at 0; away from 0, and beside a small scale, they are nearly linear.
        images: Whether observations are images of bytes.

    >>> view = ObservationView(torch.tensor([1.0]), torch.tensor([4.0]), clip=2.0)
    >>> view(torch.tensor([[3.0], [99.0]]))
    tensor([[1.],
            [2.]])
    >>> view.invert(torch.tensor([[1.0]]))
    tensor([[3.]])
    """

    mean: Tensor | None
    var: Tensor | None
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        mean: Tensor | None = None,
        var: Tensor | None = None,
        *,
        clip: float | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        images: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("var", var)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.clip = float("inf") if clip is None else float(clip)
        self.epsilon = EPSILON
        self.unit = 255.0 if images else 1.0

    @classmethod
    def of_images(cls, images: Tensor) -> "ObservationView":
        """Standardise every pixel by its mean and standard deviation over some images.

        Much of a game's screen never changes; what moves is a few pixels, which are then seen the better.

        Args:
            images: Bytes, ``(n, C, H, W)``.
        """
        scaled = images / 255.0
        var = scaled.std(0).clamp_min(PIXEL_MIN_STD).square()
        return cls(scaled.mean(0), var, clip=PIXEL_CLIP, images=True)

    @property
    def is_identity(self) -> bool:
        """Whether observations pass as they are."""
        return self.mean is None and self.scale is None and self.shift is None and self.unit == 1

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the largest that learners see, ``obs_shape`` or 0-d; infinite without a clip."""
        bound = torch.tensor(self.clip, dtype=torch.float32)
        return self._placed(-bound), self._placed(bound)

    def forward(self, obs: Tensor) -> Tensor:
        """Show raw observations ``(..., *obs_shape)`` as learners see them; of the same shape."""
        mean, var = self.mean, self.var  # TorchScript narrows the types of locals alone
        if mean is not None and var is not None:
            std = torch.sqrt(var + self.epsilon)
            if self.unit == 1.0:
                obs = ((obs - mean) / std).clamp(-self.clip, self.clip)
            else:
                obs = self._pixels(obs, -mean / std, 1 / (self.unit * std))
        elif self.unit != 1.0:
            obs = obs / self.unit
        return self._placed(obs)

    def _placed(self, obs: Tensor) -> Tensor:
        scale, shift = self.scale, self.shift
        if scale is not None:
            obs = obs * scale
        if shift is not None:
            obs = obs + shift
        return obs

    def in_chunks(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Show images as `forward` does, a few at a time.

        They stay in a CPU's cache from the first operation to the last.

        Args:
            images: Bytes, ``(..., C, H, W)``.
            dtype: Of the result; it is computed in float32.
        """
        if self.mean is None or self.var is None or images.device.type != "cpu":
            return self(images).to(dtype)
        std = torch.sqrt(self.var + self.epsilon)
        shift, factor = -self.mean / std, 1 / (self.unit * std)
        flat = images.reshape(-1, *self.mean.shape)
        out = torch.empty(flat.shape, dtype=dtype)
        n = max(1, _CHUNK // self.mean.numel())
        for source, target in zip(flat.split(n), out.split(n), strict=True):
            target.copy_(self._pixels(source, shift, factor))
        out = out.view(images.shape)
        return self._placed(out)

    def _pixels(self, images: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
        return torch.addcmul(shift, images.to(shift.dtype), factor).clamp_(-self.clip, self.clip)

    def invert(self, seen: Tensor) -> Tensor:
        """Return the raw observations ``(..., *obs_shape)`` that are seen as these, where none is clipped."""
        obs = seen if self.shift is None else seen - self.shift
        obs = obs if self.scale is None else obs / self.scale
        if self.mean is not None and self.var is not None:
            obs = obs * torch.sqrt(self.var + self.epsilon) + self.mean
        return obs * self.unit if self.unit != 1.0 else obs
