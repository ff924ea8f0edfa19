"""Beside other programs, products are split over the processors that are left."""

from corral.model_runtime.local.threads import Threads


class Machine:
    """Some free processors: a product over more threads waits for the one that has none."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.used: list[int] = []
        self.looks = 0
        self.time = 0.0

    def threads(self, most: int) -> Threads:
        return Threads(most, use=self.used.append, seconds=self.seconds, clock=lambda: self.time)

    def seconds(self, count: int) -> float:
        self.looks += 1
        return 0.00003 if count <= self.free else 0.0065


def look(machine: Machine, threads: Threads, seconds: float) -> None:
    for _ in range(round(seconds / 0.05)):
        machine.time += 0.05
        threads.adjust()


def test_all_are_used_where_nobody_else_wants_them():
    machine = Machine(free=4)
    threads = machine.threads(4)
    look(machine, threads, 10)
    assert threads.now == 4
    assert machine.used == []  # it isn't even told again


def test_the_processors_of_others_are_left_to_them_and_taken_back_when_they_are_done():
    machine = Machine(free=8)
    threads = machine.threads(8)
    machine.free = 5
    look(machine, threads, 0.5)
    assert threads.now == 5
    machine.free = 8
    look(machine, threads, 10)
    assert threads.now == 8


def test_one_is_left_where_all_are_taken_and_looking_costs_little():
    machine = Machine(free=0)
    threads = machine.threads(2)
    look(machine, threads, 1)
    assert threads.now == 1
    before = machine.looks
    look(machine, threads, 40)
    assert threads.now == 1
    assert (machine.looks - before) * 0.0065 < 0.01 * 40  # a hundredth of the time


def test_one_late_return_is_chance():
    machine = Machine(free=2)
    threads = machine.threads(2)
    late = iter([0.0065, 0.0001])
    threads._seconds = lambda count: next(late, 0.00003)  # type: ignore[method-assign]
    look(machine, threads, 1)
    assert threads.now == 2


def test_a_single_thread_is_never_looked_at():
    machine = Machine(free=0)
    threads = machine.threads(1)
    look(machine, threads, 1)
    assert threads.now == 1
    assert machine.looks == 0
