"""How many checkpoints there will be, against what the callback's rules leave of a series of saves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimates.checkpoints import Retention, kept
from run_store import UserError
from run_store.retention import RetentionRules

SAVED = (200, 400, 491, 600, 800, 982, 1000, 1200, 1400, 1473)
VALIDATED = (491, 982, 1473)
METRICS = ("train/fvu", "val/fvu")


def rules(**settings):
    return Retention(RetentionRules(**settings), deletes=True)


def test_the_main_job_ends_with_two_checkpoints_and_never_has_more_than_four():
    found = kept(SAVED, VALIDATED, 10, rules(keep_last=2, keep_best=1, metric="val/fvu"), METRICS)
    # the last is the best if training gets on; else two last, the best, and the one in the making
    assert found == (2, 4, 20, 40)


def test_each_member_of_a_sweep_may_have_a_best_of_its_own():
    retention = rules(keep_last=1, keep_best=1, metric="val/fvu")
    members = ("val/fvu", *(f"k{k}/val/fvu" for k in range(3)))
    saved = tuple(range(10, 200, 10))
    found = kept(saved, saved, 1, retention, members)
    assert found.at_the_end == 1
    assert found.at_most == 4 + 1 + 1


def test_without_rules_or_without_deletion_all_stay():
    assert kept(SAVED, VALIDATED, 10, None)[:2] == (10, 10)
    assert kept(SAVED, VALIDATED, 10, Retention(RetentionRules(1), deletes=False)).bytes == 100
    assert kept((), (), 10, None).most_bytes == 0


def test_milestones_pile_up():
    assert kept(tuple(range(100, 1001, 100)), (), 1, rules(milestone_every=300)).at_the_end == 4


def test_a_budget_for_less_than_two_is_refused():
    with pytest.raises(UserError, match="smaller than two checkpoints"):
        kept(SAVED, VALIDATED, 100, rules(budget=150))


@given(
    st.lists(st.integers(1, 500), unique=True, min_size=1, max_size=40).map(sorted),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_at_most_holds_for_either_course_of_a_metric(saved, last, best):
    retention = rules(keep_last=last, keep_best=best, metric="val/fvu" if best else None)
    found = kept(saved, saved, 7, retention, METRICS)
    assert found.at_the_end <= found.at_most <= min(len(saved), last + best + 1)
    assert found.bytes == 7 * found.at_the_end
    rest = kept(saved[1:], saved, 7, retention, METRICS)
    assert rest.at_the_end <= found.at_the_end
