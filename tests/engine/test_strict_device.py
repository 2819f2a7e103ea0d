"""The test device that refuses what a GPU refuses: does it?"""

from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from hearback.engine.devices import choose_device, to_device, to_host
from tests.strict_device import STRICT, HostWaitError, MixedDevicesError, StrictDevice

ON_HOST = torch.arange(6.0).reshape(2, 3)


@pytest.fixture
def device() -> Iterator[StrictDevice]:
    with StrictDevice() as strict:
        yield strict


@pytest.fixture
def x(device: StrictDevice) -> Tensor:
    return to_device(ON_HOST, STRICT)


def test_it_can_be_chosen(device: StrictDevice) -> None:
    assert choose_device("cpu:1") == STRICT
    assert torch.arange(3, device=STRICT).device == STRICT


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + ON_HOST,
        lambda x: x @ ON_HOST.T,
        lambda x: torch.cat([x, ON_HOST]),
        lambda x: x.masked_fill(ON_HOST > 2, 0.0),
        lambda x: ON_HOST[x[0].long()],
        lambda x: x.numpy(),
    ],
)
def test_tensors_of_two_devices_do_not_mix(x: Tensor, mix: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(MixedDevicesError):
        mix(x)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0, 0].item(),
    "bool": lambda x: bool(x.sum() > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x + 1),
    "mask": lambda x: x[x > 2],
    "filled mask": lambda x: x.index_put((x > 2,), x.sum()),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 2),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x[0].repeat_interleave(x[1].long()),
    "index of the host": lambda x: x[:, [0, 2]],
    "copy to the device": lambda x: ON_HOST.to(x.device),
    "copy into the device's tensor": lambda x: x.copy_(ON_HOST),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_of_the_host_is_recorded_and_refused_in_a_loop(
    device: StrictDevice, x: Tensor, name: str, inference: bool
) -> None:
    with torch.inference_mode(inference):
        WAITS[name](x)
        assert len(device.waits) == 1
        with pytest.raises(HostWaitError), device.inner_loop():
            WAITS[name](x)


@pytest.mark.parametrize("inference", [False, True])
def test_what_needs_no_wait_is_allowed(device: StrictDevice, x: Tensor, inference: bool) -> None:
    with torch.inference_mode(inference), device.inner_loop() as waits:
        y = x[:, torch.ones(2, dtype=torch.long, device=STRICT)].masked_fill(x[:, :2] > 2, 0.0)
        y = torch.where(y > 0, y, 2.0) + torch.zeros(())  # a number of the host is no tensor there
        y.cumsum(1).sort(1).values.gather(1, torch.zeros(2, 1, dtype=torch.long, device=STRICT))
        assert waits == []
        first, second = to_host(x, y)
    (wait,) = waits
    assert wait.is_meant and torch.equal(first, ON_HOST)
    assert second.tolist() == [[1.0, 1.0], [2.0, 2.0]]


def test_results_gradients_and_updates_equal_the_cpu_s(device: StrictDevice) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 1))
    weights = []
    for where in (torch.device("cpu"), STRICT):
        trained = deepcopy(model).to(where)
        optimizer = torch.optim.AdamW(trained.parameters(), lr=0.1, fused=True)
        scaler = torch.amp.GradScaler(where.type)
        for _ in range(3):
            with torch.autocast(where.type, dtype=torch.float16):
                loss = trained(to_device(ON_HOST, where)).float().square().sum()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert all(parameter.device == where for parameter in trained.parameters())
        weights.append([parameter.detach().cpu() for parameter in trained.parameters()])
    assert all(map(torch.equal, *weights))
    assert {dtype for (_, dtype) in device.products} == {torch.float16}


def test_converted_and_copied_modules_hold_their_own_data(device: StrictDevice) -> None:
    model = nn.Linear(3, 2).to(STRICT)
    parameter = model.weight
    assert model.to(STRICT).weight is parameter  # as on any device: an optimizer may hold it
    copy = deepcopy(model)
    with torch.no_grad():
        model.weight.zero_()
    assert copy.weight.cpu().abs().sum() > 0
    assert copy.half().weight.cpu().dtype == torch.float16
