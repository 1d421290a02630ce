"""Native libraries have one thread during a look, and as many as before after it, whoever else is looking."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from gatewatch.collector.runtime.native_threads import single_threaded_blas

assert np.ones((2, 2)) @ np.ones(2) is not None  # so that BLAS is there


def blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_it_is_one_inside_and_what_it_was_outside():
    with threadpool_limits(2, user_api="blas"):
        with single_threaded_blas():
            assert blas() == {1}
        assert blas() == {2}


def test_it_may_be_used_inside_itself():
    with threadpool_limits(2, user_api="blas"):
        with single_threaded_blas(), single_threaded_blas():
            assert blas() == {1}
        assert blas() == {2}


def test_threads_that_overlap_leave_it_as_it_was():
    def other():
        for _ in range(200):
            with single_threaded_blas():
                time.sleep(0.0005)

    with threadpool_limits(2, user_api="blas"):
        threads = [threading.Thread(target=other) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert blas() == {2}


def test_a_fork_in_the_middle_of_another_threads_look_has_what_it_was():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with single_threaded_blas():
            inside.set()
            leave.wait(10)

    with threadpool_limits(2, user_api="blas"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        child = os.fork()
        if child == 0:
            os._exit(0 if blas() == {2} else 1)
        leave.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
