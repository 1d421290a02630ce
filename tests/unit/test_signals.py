"""Ctrl-C at any moment: held back while it must wait, never lost, and its handler as it was."""

# ruff: noqa: PT012 - the order of what happens inside is what is tested

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint


@pytest.fixture(autouse=True)
def handler():
    """Python's own, and the same one afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    now = signal.signal(signal.SIGINT, before)
    assert now is signal.default_int_handler


def test_an_interrupt_waits_for_the_end_and_comes_once():
    done = []
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
    with defer_sigint():
        pass


def test_an_error_inside_gives_way_to_the_interrupt_that_it_is_the_context_of():
    with pytest.raises(KeyboardInterrupt) as caught, defer_sigint():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(ValueError, match="mine"), defer_sigint():
        raise ValueError("mine")


def test_nested_ones_wait_for_the_outermost():
    done = []
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        with defer_sigint():
            signal.raise_signal(signal.SIGINT)
        done.append("inner")
        with defer_sigint():
            pass
        done.append("outer")
    assert done == ["inner", "outer"]


def test_what_may_be_interrupted_is_at_once_and_what_is_put_back_afterwards_is_not():
    done = []
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        try:
            with allow_sigint():
                signal.raise_signal(signal.SIGINT)
                done.append("not reached")
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("put back")
    assert done == ["put back"]


def test_one_that_was_held_back_comes_before_what_may_be_interrupted():
    done = []
    with pytest.raises(KeyboardInterrupt), defer_sigint():
        signal.raise_signal(signal.SIGINT)
        with allow_sigint():
            done.append("not reached")
    assert done == []
    with allow_sigint():  # by itself it does nothing
        pass


def test_a_handler_of_the_users_is_called_and_one_that_is_set_meanwhile_stays():
    called, later = [], []
    signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    with defer_sigint():
        signal.raise_signal(signal.SIGINT)
        assert called == []
    assert called == [signal.SIGINT]
    with defer_sigint(), allow_sigint():
        signal.signal(signal.SIGINT, lambda number, frame: later.append(number))
    signal.raise_signal(signal.SIGINT)
    with defer_sigint():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert (called, later) == ([signal.SIGINT], [signal.SIGINT])


@pytest.mark.parametrize("ignoring", [signal.SIG_IGN, signal.SIG_DFL])
def test_where_python_handles_none_nothing_is_changed(ignoring):
    signal.signal(signal.SIGINT, ignoring)
    with defer_sigint():
        assert signal.getsignal(signal.SIGINT) is ignoring
        with allow_sigint():
            assert signal.getsignal(signal.SIGINT) is ignoring
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_left_alone():
    done = []

    def work():
        with defer_sigint(), allow_sigint():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]


def test_at_whatever_moment_it_comes_what_was_changed_is_put_back():
    """Against the clock: a timer interrupts each round a little later than the one before."""
    state, interrupted, begin = [], 0, time.perf_counter()

    def round_of_work():
        with defer_sigint():
            state.append("changed")
            try:
                with allow_sigint():
                    sum(range(500))
            finally:
                state.clear()

    fired = threading.Event()  # a signal that another thread is given reaches Python a little later

    def interrupt(number, frame):
        fired.set()
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(3000):
            fired.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + n % 300 * 1e-7)
                round_of_work()
                while not fired.is_set():
                    pass
            except KeyboardInterrupt:
                interrupted += 1
            assert state == []
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if time.perf_counter() - begin > 5:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 100


def exit_code_of_a_fork(check):
    child = os.fork()
    if child == 0:
        os._exit(1 if check() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_that_another_thread_forks_meanwhile_can_be_interrupted():
    def is_default():
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler

    codes = []
    with defer_sigint(), defer_sigint():
        thread = threading.Thread(target=lambda: codes.append(exit_code_of_a_fork(is_default)))
        thread.start()
        thread.join()
        assert not is_default()
    assert codes == [1]


def test_a_child_that_is_forked_inside_still_defers():
    def defers_and_restores():
        deferred = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        signal.raise_signal(signal.SIGINT)
        return deferred

    with defer_sigint():
        assert exit_code_of_a_fork(defers_and_restores) == 1
