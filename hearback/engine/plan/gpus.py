"""Hours on GPUs that are not here, computed from their peak rate."""

from collections.abc import Mapping

# Peak rates in bf16 with sums in float32, dense, in FLOP/s, from NVIDIA's data sheets: "NVIDIA Ada
# GPU Architecture" (2022), "A100 Tensor Core GPU" (SXM), "H100 Tensor Core GPU" (SXM).
PEAKS: Mapping[str, float] = {"RTX 4090": 165.2e12, "A100": 312e12, "H100": 989.4e12}
# The share of the peak that a training is assumed to reach. Nothing has measured it.
ASSUMED_SHARE = 0.3


def computed_seconds(flops: float) -> dict[str, float]:
    """Return the seconds that operations take on each GPU, at the assumed share of its peak."""
    return {name: flops / (ASSUMED_SHARE * peak) for name, peak in PEAKS.items()}
