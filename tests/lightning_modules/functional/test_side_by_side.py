from functools import partial
from threading import Barrier, Thread, get_ident

import pytest
import torch

from lightning_modules.functional import Deferred, deferred_together, side_by_side
from lightning_modules.functional.side_by_side import parts_worth_sharing, shared_out


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def modes():
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast


def test_pieces_run_at_once_and_answer_in_their_order():
    met = Barrier(3, timeout=20)  # or nobody would come by

    def piece(number):
        met.wait()
        return number, get_ident()

    numbers, threads = zip(*side_by_side([partial(piece, number) for number in range(3)]), strict=True)
    assert numbers == (0, 1, 2)
    assert len({*threads, get_ident()}) == 4


def test_more_pieces_than_threads_and_none_and_one():
    assert side_by_side([partial(int, number) for number in range(20)]) == list(range(20))
    assert side_by_side([]) == []
    assert side_by_side([get_ident]) == [get_ident()]


@pytest.mark.parametrize("pieces", [2, 3])
def test_each_has_its_share_of_the_threads_and_everybody_else_all_of_them(pieces):
    torch.set_num_threads(6)
    assert side_by_side([torch.get_num_threads] * pieces) == [6 // pieces] * pieces
    assert torch.get_num_threads() == 6
    seen = []
    other = Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [6]


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
        partial(torch.autocast, "cpu", torch.float16),
        partial(torch.autocast, "cpu", torch.bfloat16, cache_enabled=False),
    ],
)
def test_they_find_the_modes_of_the_caller(mode):
    with mode():
        assert side_by_side([modes, modes]) == [modes(), modes()]
    assert side_by_side([modes, modes]) == [modes(), modes()]


def test_the_first_that_failed_is_told_once_all_have_ended():
    ended = []

    def fails(text):
        raise ValueError(text)

    with pytest.raises(ValueError, match="first"):
        side_by_side([partial(fails, "first"), partial(fails, "second"), partial(ended.append, 1)])
    assert ended == [1]


def test_gradients_that_are_made_side_by_side_are_those_of_each():
    parameters = [torch.arange(4.0, requires_grad=True), torch.arange(3.0, requires_grad=True)]
    met = Barrier(2, timeout=20)

    def gradients(parameter, grad):
        met.wait()
        with torch.enable_grad():
            return torch.autograd.grad((parameter**3).sum(), [parameter], grad)

    one, other = deferred_together([Deferred((p**3).sum().detach(), partial(gradients, p), [p]) for p in parameters])
    (2 * one + 5 * other).backward()
    for parameter, factor in zip(parameters, (2, 5), strict=True):
        torch.testing.assert_close(parameter.grad, factor * 3 * parameter.detach() ** 2)


def test_a_failure_of_one_adds_nothing_to_any_gradient():
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)]

    def fails(grad):
        raise MemoryError("no memory")

    losses = deferred_together(
        [
            Deferred(torch.tensor(1.0), lambda grad: [torch.ones(2)], parameters[:1]),
            Deferred(torch.tensor(1.0), fails, parameters[1:]),
        ]
    )
    with pytest.raises(MemoryError):
        sum(losses).backward()
    assert all(parameter.grad is None for parameter in parameters)


def test_who_has_nothing_left_to_do_takes_parts_from_the_end_in_the_modes_of_their_owner():
    met = Barrier(2, timeout=20)  # a worker alone would not get past it

    def part(number):
        met.wait()
        return number, get_ident(), modes()

    def long():
        with torch.inference_mode():
            return get_ident(), modes(), shared_out([partial(part, number) for number in range(2)])

    _, (owner, its_modes, parts) = side_by_side([get_ident, long])
    assert [number for number, _, _ in parts] == [0, 1]
    assert parts[0][1] == owner != parts[1][1]
    assert [found for _, _, found in parts] == [its_modes] * 2


def test_elsewhere_nobody_takes_parts_and_they_are_plain_calls():
    assert parts_worth_sharing() == 1
    assert shared_out([get_ident, get_ident]) == [get_ident()] * 2
    assert all(parts > 1 for parts in side_by_side([parts_worth_sharing] * 2))
    assert parts_worth_sharing() == 1


def test_whatever_is_shared_comes_back_to_who_asked_in_its_order():
    def part(piece, number):
        return sum(shared_out([partial(int, piece + number)] * 3))

    def piece(number):
        return shared_out([partial(part, number, other) for other in range(number)])

    made = side_by_side([partial(piece, number) for number in range(40)])
    assert made == [[3 * (number + other) for other in range(number)] for number in range(40)]


def test_a_part_that_fails_fails_its_piece_alone_once_no_other_part_is_at_work():
    met, at_work = Barrier(2, timeout=20), []

    def fails():
        met.wait()
        raise ValueError("first")

    def other():
        at_work.append(True)
        met.wait()
        at_work.pop()

    def shares():
        with pytest.raises(ValueError, match="first"):
            shared_out([fails, other])
        return list(at_work)

    assert side_by_side([shares, partial(int, 1)]) == [[], 1]
