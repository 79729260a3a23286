"""Sharing out tasks: every worker begins with a share of its own, and then helps the others.

Cores differ in speed, by design or because other programs need them too, and so do tasks: who is
done early takes over what another has not come to. But not everybody just takes the next task. In
one kernel after another the tasks are the same rows of the same arrays, and a core finds in its
caches what it wrote there before. Numbers that another core wrote come more slowly, and where that
one is on another chip (large processors have several), as slowly as from main memory.

Who takes a task changes no bit of its result.
"""

from __future__ import annotations

from typing import Any

from minillm.jit import intrinsic, jit


@jit(borrows=True)
def next_task(tickets, worker, tasks):
    """The task of so many that a worker takes next, and the end of the share that it is of.

    (-1, -1) if none is left. tickets (workers,): zeros at first, the tasks taken of each share.
    """
    workers = len(tickets)
    for turn in range(workers):
        owner = (worker + turn) % workers
        first, last = tasks * owner // workers, tasks * (owner + 1) // workers
        task = first + draw(tickets, owner)
        if task < last:
            return task, last
    return -1, -1


def _draw_plain(tickets, i):
    tickets[i] += 1
    return tickets[i] - 1


@intrinsic(plain=_draw_plain)
def draw(typing, tickets, i):
    """tickets[i], which is one more for the next thread: 0, 1, 2, .., each drawn once.

    What a thread wrote before is seen by those who draw, or look by `drawn`, after it.
    """
    from numba.core import types

    return types.int64(tickets, types.intp), _write_draw


def _write_draw(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instruction of `draw`: read, add one and write, with no other thread in between."""
    one = context.get_constant(signature.return_type, 1)
    place = _place_of_ticket(context, builder, signature, arguments)
    return builder.atomic_rmw("add", place, one, "acq_rel")


def _drawn_plain(tickets, i):
    return tickets[i]


@intrinsic(plain=_drawn_plain)
def drawn(typing, tickets, i):
    """How many have been drawn from tickets[i]."""
    from numba.core import types

    return types.int64(tickets, types.intp), _write_drawn


def _write_drawn(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instruction of `drawn`: to read, and only then to go on."""
    place = _place_of_ticket(context, builder, signature, arguments)
    return builder.load_atomic(place, "acquire", 8)


def _place_of_ticket(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The address of tickets[i], of a contiguous array."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])
