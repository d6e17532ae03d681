import io

import pytest
import torch

from lightning_modules.schedules import WarmupDecay, steps_of


def scheduled(run_length, **settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupDecay(optimizer, **settings)
    schedule.set_run_length(run_length)
    return optimizer, schedule


def rates(optimizer, schedule, steps):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_shares_and_steps_give_the_same_schedule():
    assert rates(*scheduled(20, warmup=0.2, decay=0.25), 20) == rates(*scheduled(20, warmup=4, decay=5), 20)


def test_rates_rise_stay_and_fall():
    seen = rates(*scheduled(20, warmup=4, decay=5), 20)
    assert seen == pytest.approx([0.5, 1, 1.5] + [2] * 13 + [1.6, 1.2, 0.8, 0.4])


def test_a_resumed_schedule_goes_on_and_decays_at_the_new_end():
    optimizer, schedule = scheduled(20, warmup=4, decay=5)
    rates(optimizer, schedule, 10)
    state = schedule.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    other, longer = scheduled(40, warmup=4, decay=5)
    longer.load_state_dict(torch.load(buffer, weights_only=True))
    longer.set_run_length(40)
    assert rates(other, longer, 30) == pytest.approx([2] * 26 + [1.6, 1.2, 0.8, 0.4])


@pytest.mark.parametrize(("share", "steps"), [(0, 0), (0.05, 5), (0.999, 100), (1, 1), (30, 30)])
def test_below_one_is_a_share_of_the_run(share, steps):
    assert steps_of(share, 100) == steps
