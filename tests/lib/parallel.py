"""Running every test by several threads at once: `pytest --parallel-threads=4`, of pytest-run-parallel.

Each thread is given fixtures of its own, so that a test stays what it is, and what the threads share is the library,
the interpreter and the process. What by its nature cannot be run so is listed here, with the reason; more is found by
the plugin itself, which reads the tests: calls of `gc.collect`, fixtures that patch or capture.
"""

import contextlib
import functools
import inspect
import types

import pytest

CHILDREN = "what it tests runs in child processes"
MAIN_THREAD = "signals are the main thread's"
COLLECTOR = "the collector shows it what others are making, and may run for them just then"
DESCRIPTOR = "loops of other threads have a wake descriptor, which can be written to whether they are closed or not"
PROCESS = "it changes or counts what belongs to the whole process"

# Fixtures of the plugin's own accord: tests that have one are run by one thread.
AUTOMATIC = {"capfd", "capsys", "monkeypatch", "recwarn"}

# {module: reason} or {module: {function: reason}}
ALONE = {
    "test_anyio_suite": CHILDREN,
    "test_api": {"test_nothing_starts_a_thread_while_channels_are_only_used_without_waiting": PROCESS},
    "test_awaitables": {
        "test_a_claim_that_ended_and_is_shown_by_the_collector_is_of_no_use": COLLECTOR,
        "test_a_timer_that_goes_off_after_the_end_does_not_hurt_the_next": COLLECTOR,
        "test_what_a_user_got_hold_of_is_not_used_again": COLLECTOR,
        "test_what_ended_and_is_shown_by_the_collector_is_of_no_use": COLLECTOR,
    },
    "test_bench_command": CHILDREN,
    "test_bytes_signals": MAIN_THREAD,
    "test_bytes_stress": {"test_no_traced_allocation_grows_with_the_number_of_messages": PROCESS},
    "test_c_api_page": CHILDREN,
    "test_c_core": CHILDREN,
    "test_claims": {
        "test_pitfall_43_the_interpreter_exits_with_claims_out_and_a_daemon_thread_waiting": CHILDREN,
    },
    "test_docs": CHILDREN,
    "test_examples": CHILDREN,
    "test_exit": CHILDREN,
    "test_faults_loops": {
        "test_a_real_loop_whose_descriptors_were_closed_behind_it": PROCESS,
        "test_a_thread_forks_while_another_waits": CHILDREN,
        "test_exit_handlers_send_receive_and_wake_a_daemon_thread": CHILDREN,
        "test_multiprocessing_spawn_refuses_endpoints_and_uses_its_own": CHILDREN,
        "test_the_package_is_imported_anew_while_channels_of_the_old_one_are_in_use": CHILDREN,
    },
    "test_faults_memory": CHILDREN,
    "test_fork": CHILDREN,
    "test_hostile": {
        "test_a_loop_may_have_futures_of_its_own": PROCESS,  # it counts in a class
        "test_ctrl_c_while_a_future_is_resolved_is_raised_by_the_caller": MAIN_THREAD,
    },
    "test_info": CHILDREN,
    "test_inside": CHILDREN,
    "test_leaks": CHILDREN,
    "test_lifecycle": {
        "test_pitfall_15_a_program_in_development_mode_hears_nothing_of_dropped_endpoints": CHILDREN,
        "test_pitfall_16_a_long_chain_of_channels_is_freed_without_overflowing_the_stack": CHILDREN,
        "test_pitfall_16_dropping_both_ends_frees_what_is_buffered_at_once": PROCESS,
    },
    "test_logging": PROCESS,  # its exit handlers, signals, excepthook and handlers by name
    "test_loops": {
        "test_a_loop_that_lies_where_a_dead_one_was_is_not_taken_for_it": PROCESS,  # whose memory is used again
        "test_descriptors_stay_flat_over_many_loops": CHILDREN,
        "test_pitfall_42_a_loop_that_closes_between_the_question_and_the_call_is_a_closed_loop": DESCRIPTOR,
        "test_loops_that_are_dropped_take_their_wake_descriptor_with_them": CHILDREN,
        "test_without_free_descriptors_waits_across_threads_still_work": CHILDREN,
    },
    "test_mux": CHILDREN,
    "test_mux_hostile": CHILDREN,
    "test_mux_storm": CHILDREN,
    "test_native": {"test_where_it_was_not_built_the_import_says_why": CHILDREN},
    "test_native_examples": CHILDREN,
    "test_native_exit": CHILDREN,
    "test_native_header": CHILDREN,
    "test_native_wakes": CHILDREN,
    "test_open_ends": PROCESS,  # the switch that has ends remembered
    "test_package": CHILDREN,
    "test_queue_face": {
        "test_a_forked_child_counts_on_whatever_other_threads_were_at": CHILDREN,
        "test_a_signal_handler_may_report_the_last_item_under_the_join_that_it_interrupts": MAIN_THREAD,
        "test_a_signal_handler_that_raises_ends_join_put_and_get_and_nothing_is_lost": MAIN_THREAD,
        "test_dict_config_takes_a_face": PROCESS,
        "test_no_memory_stays_behind": CHILDREN,
        "test_the_main_thread_may_end_while_others_wait_in_a_queue": CHILDREN,
    },
    "test_queue_suites": CHILDREN,
    "test_readme": CHILDREN,
    "test_reference": {"test_the_examples_of_a_docstring_run_as_printed": PROCESS},  # its standard output
    "test_reliability": CHILDREN,
    "test_results": {
        "test_a_debugger_that_sees_all_exceptions_sees_the_value": PROCESS,
        "test_none_is_left_over": COLLECTOR,
        "test_one_that_the_collector_shows_is_not_used_again": COLLECTOR,
    },
    "test_shared": {
        "test_a_capacity_beyond_any_memory_is_refused": PROCESS,
        "test_a_channel_of_many_lanes_gives_each_descriptor_back": PROCESS,
        "test_a_child_that_lives_on_keeps_nothing_of_its_parent_open": CHILDREN,
        "test_a_signal_handler_that_raises_ends_a_blocking_call": CHILDREN,
        "test_after_a_fork_the_ends_of_the_child_are_dead_and_the_parents_are_not": CHILDREN,
        "test_an_idle_channel_has_few_descriptors_and_closing_gives_them_back": PROCESS,
        "test_claims_and_their_views_in_a_forked_child_crash_nothing": CHILDREN,
        "test_forks_in_the_middle_of_traffic_disturb_nobody": CHILDREN,
        "test_many_channels_in_a_loop_leave_nothing_behind": CHILDREN,
        "test_memory_has_no_name_and_is_the_ring_and_a_page_or_two": CHILDREN,
        "test_memory_that_is_not_there_is_an_error_and_no_signal": CHILDREN,
        "test_the_interpreter_exits_with_everything_open": CHILDREN,
        "test_what_waited_leaves_no_descriptor": PROCESS,
        "test_without_descriptors_it_is_an_os_error_and_nothing_is_lost": CHILDREN,
    },
    "test_shared_native": CHILDREN,
    "test_shared_notifiers": CHILDREN,
    "test_shared_processes": CHILDREN,
    "test_signals": MAIN_THREAD,
    "test_soak": CHILDREN,
    "test_subinterpreters": CHILDREN,
    "test_threads": {
        "test_calls_make_no_system_call_when_nobody_waits": CHILDREN,
        "test_pitfall_10_a_blocked_wait_uses_no_processor_time": CHILDREN,
        "test_pitfall_20_a_blocking_call_that_need_not_wait_keeps_the_gil": PROCESS,
        "test_pitfall_20_a_try_call_beside_a_busy_thread_does_not_lose_the_gil": PROCESS,
        "test_timeouts_are_on_the_monotonic_clock": CHILDREN,
    },
    "test_trio": {"test_ctrl_c_at_any_moment_loses_no_item": CHILDREN},
    "test_typing": CHILDREN,
    "test_wakeups": {
        "test_a_burst_from_a_thread_over_many_channels_is_one_system_call": CHILDREN,
        "test_a_loop_blocked_in_its_selector_is_woken_from_a_signal_handler_on_its_own_thread": MAIN_THREAD,
        "test_a_loop_is_woken_from_a_handler_it_was_given_itself": MAIN_THREAD,
        "test_a_storm_of_timer_signals_that_send_is_received_whole": CHILDREN,
        "test_a_task_is_woken_from_a_collected_cycle": COLLECTOR,
        "test_blocking_waits_open_no_descriptor_and_start_no_thread": PROCESS,
        "test_no_descriptor_is_opened_for_wake_ups_from_callbacks_of_the_same_loop": CHILDREN,
        "test_nothing_is_made_until_somebody_waits_across_threads": CHILDREN,
        "test_one_loop_has_one_wake_descriptor_however_many_channels_it_waits_on": CHILDREN,
        "test_two_tasks_of_one_loop_wake_each_other_without_a_system_call_of_their_own": CHILDREN,
    },
}


def make_parallel(item):
    """Mark a test that has to be run by one thread; let each thread that runs another make its own fixtures."""
    reason = ALONE.get(item.module.__name__, {})
    if not isinstance(reason, str):
        reason = reason.get(item.originalname)
    if reason is not None:
        item.add_marker(pytest.mark.thread_unsafe(reason=reason))
    elif not AUTOMATIC & set(item.fixturenames):
        for name in _own_fixtures(item, item._fixtureinfo.argnames):
            item.funcargs[name] = None  # then pytest does not make it
        item.obj = _with_own_fixtures(item, item.obj)


def _own_fixtures(item, names):
    """Those that `names` need and that each thread makes: ours, made for each test. {name: how it is made}"""
    own = {}
    for name in names:
        definitions = item._fixtureinfo.name2fixturedefs.get(name)
        if definitions and definitions[-1].scope == "function" and definitions[-1].baseid:
            own |= {name: definitions[-1]} | _own_fixtures(item, definitions[-1].argnames)
    return own


def _with_own_fixtures(item, test):
    made_here = _in_this_thread

    def run(**given):
        with made_here(item, given) as fixtures:
            test(**fixtures)

    # With the globals of the test: the plugin looks up in them what the test calls.
    run = types.FunctionType(run.__code__, test.__globals__, test.__name__, None, run.__closure__)
    return functools.wraps(test)(run)


@contextlib.contextmanager
def _in_this_thread(item, given):
    own = _own_fixtures(item, given)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    made = {}

    def get(name):
        if name not in own:
            return given[name] if name in given else item.funcargs[name]
        if name not in made:
            request = types.SimpleNamespace(param=parameters.get(name), node=item)
            value = own[name].func(**{need: request if need == "request" else get(need) for need in own[name].argnames})
            if inspect.isgenerator(value):
                finalisers.callback(next, value, None)
                value = next(value)
            made[name] = value
        return made[name]

    with contextlib.ExitStack() as finalisers:
        yield {name: get(name) for name in given}
