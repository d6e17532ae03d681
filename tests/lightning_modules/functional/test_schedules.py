from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.functional import trapezoid


def test_rises_stays_and_falls():
    factors = [trapezoid(step, total=20, warmup=4, decay=5) for step in range(21)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert factors[4:16] == [1] * 12
    assert factors[16:] == [0.8, 0.6, 0.4, 0.2, 0.0]


@given(st.integers(1, 500), st.integers(0, 300), st.integers(0, 300), st.integers(0, 600))
def test_stays_between_zero_and_one_and_every_step_of_the_run_learns(total, warmup, decay, step):
    factor = trapezoid(step, total, warmup, decay)
    assert 0 <= factor <= 1
    if step < total:
        assert factor > 0
