from __future__ import annotations

import pytest
import torch
from torch import nn

from semi_med.ops import early_decay, ema_copy, ema_update


def normalised(*, weight, mean, variance, seen):
    """One batch norm with these numbers, all of one channel."""
    norm = nn.BatchNorm1d(1)
    with torch.no_grad():
        norm.weight.fill_(weight)
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(variance)
        norm.num_batches_tracked.fill_(seen)
    return norm


def numbers(norm):
    parts = norm.weight, norm.running_mean, norm.running_var, norm.num_batches_tracked
    return tuple(float(part.detach()) for part in parts)


@pytest.mark.parametrize(("decay", "expected"), [(0.0, 10.0), (0.5, 6.0), (0.75, 4.0), (1.0, 2.0)])
def test_the_average_of_one_weight_by_hand(decay, expected):
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    teacher.weight.data.fill_(2.0)
    student.weight.data.fill_(10.0)
    ema_update(teacher, student, decay)
    assert teacher.weight.item() == pytest.approx(expected)
    assert student.weight.item() == 10.0


@pytest.mark.parametrize(
    ("buffers", "expected"),
    [
        ("average", (4.0, 2.0, 4.0, 7.0)),
        ("copy", (4.0, 8.0, 10.0, 7.0)),
        ("own", (4.0, 0.0, 2.0, 3.0)),
    ],
)
def test_statistics_of_batch_norm_follow_the_policy_and_counts_are_copied(buffers, expected):
    teacher = normalised(weight=2.0, mean=0.0, variance=2.0, seen=3)
    student = normalised(weight=10.0, mean=8.0, variance=10.0, seen=7)
    ema_update(teacher, student, 0.75, buffers=buffers)
    assert numbers(teacher) == pytest.approx(expected)
    assert numbers(student) == (10.0, 8.0, 10.0, 7.0)


def test_the_average_over_many_updates_is_the_sum_of_all_students():
    """0.9 ** 3 * 5 + 0.1 * (0.9 ** 2 * 1 + 0.9 * 2 + 3)"""
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    teacher.weight.data.fill_(5.0)
    for value in (1.0, 2.0, 3.0):
        student.weight.data.fill_(value)
        ema_update(teacher, student, 0.9)
    assert teacher.weight.item() == pytest.approx(3.645 + 0.1 * (0.81 + 1.8 + 3.0))


def test_a_teacher_is_an_equal_copy_that_shares_nothing_and_gets_no_gradient():
    student = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    teacher = ema_copy(student)
    for a, b in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_an_update_after_a_backward_pass_keeps_the_students_gradient_and_needs_none_itself():
    student = nn.Linear(2, 1)
    teacher = ema_copy(student)
    student(torch.ones(1, 2)).sum().backward()
    gradient = student.weight.grad.clone()
    ema_update(teacher, student, 0.5)
    assert torch.equal(student.weight.grad, gradient)
    assert all(p.grad is None and p.grad_fn is None for p in teacher.parameters())


def test_networks_that_differ_are_refused():
    with pytest.raises((ValueError, RuntimeError)):
        ema_update(nn.Linear(2, 1), nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1)), 0.9)


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_the_network_inside_a_distributed_wrapper_is_copied_and_followed(process_group):
    network = nn.Linear(1, 1, bias=False)
    wrapped = nn.parallel.DistributedDataParallel(network)
    teacher = ema_copy(wrapped)
    assert type(teacher) is nn.Linear
    teacher.weight.data.fill_(2.0)
    network.weight.data.fill_(10.0)
    ema_update(teacher, wrapped, 0.5)
    assert teacher.weight.item() == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 0.0), (1, 0.5), (3, 0.75), (98, 98 / 99), (99, 0.99), (100, 0.99), (10**6, 0.99)]
)
def test_the_early_decay_is_one_minus_one_over_t_plus_one_until_it_reaches_the_decay(iteration, expected):
    assert early_decay(iteration, 0.99) == pytest.approx(expected)


def test_a_decay_of_zero_stays_zero():
    assert [early_decay(t, 0.0) for t in (0, 1, 100)] == [0.0, 0.0, 0.0]


def test_with_the_early_decay_the_teacher_is_the_mean_of_all_students_so_far():
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for t, value in enumerate((4.0, 1.0, 7.0)):
        student.weight.data.fill_(value)
        ema_update(teacher, student, early_decay(t, 0.99))
    assert teacher.weight.item() == pytest.approx(4.0)
