"""The tests that take most of the time: `python -m pytest -m "not slow"` leaves them out.

`conftest.py` gives each test that is listed here the marker `slow`. Whole modules are listed where most of their tests
are slow. `python -m pytest --durations=30` shows what else should be listed.
"""

BUILDS = "it builds something with a C compiler"
CHILDREN = "it starts processes of its own"
MANY = "it repeats many rounds"
MEMORY = "it measures memory over many rounds"
MUX = "it runs the log multiplexer in processes of its own"
MYPY = "it runs mypy"
ORDERS = "it goes through every order of events"
RANDOM = "it makes many random calls"
REAL = "it measures real time"
TIMES = "it runs the benchmarks"
TRAFFIC = "it sends much traffic"

# {module: reason} or {module: {function: reason}}
SLOW = {
    "test_anyio": {
        "test_every_short_program_of_streams_is_accounted_for_exactly": ORDERS,
        "test_it_works_where_trio_and_sniffio_are_not_installed": CHILDREN,
        "test_the_package_does_not_import_anyio": CHILDREN,
        "test_without_anyio_the_import_says_what_to_install": CHILDREN,
    },
    "test_anyio_suite": CHILDREN,
    "test_bench_command": CHILDREN,
    "test_bench_smoke": TIMES,
    "test_bytes_fuzz": {
        "test_random_calls_do_what_the_model_does": RANDOM,
    },
    "test_bytes_signals": {
        "test_faulthandler_looks_at_threads_and_tasks_in_the_middle_of_everything": MANY,
        "test_pitfall_21_ctrl_c_ends_a_loop_in_each_await": MANY,
    },
    "test_bytes_sizes": {
        "test_pitfall_30_every_size_at_every_offset_is_accepted_and_read_back_intact": MANY,
    },
    "test_bytes_stress": TRAFFIC,
    "test_bytes_waiting": {
        "test_a_thread_that_gives_up_lets_the_small_ones_behind_it_in": ORDERS,
        "test_every_order_of_events_in_one_tick_is_accounted_for_exactly": ORDERS,
    },
    "test_c_api_page": BUILDS,
    "test_c_core": BUILDS,
    "test_cancellation": {
        "test_random_cancellations_and_timeouts_between_tasks_and_threads_lose_nothing": RANDOM,
        "test_random_cancellations_and_timeouts_on_a_stepped_loop_lose_nothing": RANDOM,
    },
    "test_claims": {
        "test_a_view_taken_while_another_thread_commits_never_writes_into_a_sent_message": MANY,
        "test_a_thread_that_waits_in_line_waits_on_while_the_receiver_is_lent": MANY,
        "test_pitfall_43_the_interpreter_exits_with_claims_out_and_a_daemon_thread_waiting": MANY,
    },
    "test_coroutine_faces": {
        "test_a_deep_chain_of_awaitables_is_freed": MANY,
    },
    "test_docs": CHILDREN,
    "test_examples": CHILDREN,
    "test_exit": CHILDREN,
    "test_fairness": {
        "test_a_thread_in_line_needs_one_receive_to_get_in_whatever_others_try": MANY,
    },
    "test_faults_loops": {
        "test_a_thread_forks_while_another_waits": MANY,
        "test_exit_handlers_send_receive_and_wake_a_daemon_thread": MANY,
        "test_the_package_is_imported_anew_while_channels_of_the_old_one_are_in_use": MANY,
    },
    "test_faults_memory": CHILDREN,
    "test_fork": CHILDREN,
    "test_info": {
        "test_a_reader_of_the_output_may_go_away": CHILDREN,
        "test_wrong_arguments_are_answered_by_the_usage": CHILDREN,
    },
    "test_inside": CHILDREN,
    "test_interleavings": ORDERS,
    "test_interruptions": {
        "test_each_ctrl_c_is_heard_while_the_main_thread_feeds_a_task_of_another_thread": MANY,
    },
    "test_leaks": MEMORY,
    "test_lifecycle": {
        "test_pitfall_16_a_long_chain_of_channels_is_freed_without_overflowing_the_stack": MANY,
    },
    "test_listen": CHILDREN,
    "test_logging": {
        "test_a_child_that_ends_like_any_program_does_not_wait": CHILDREN,
        "test_a_forked_child_drops_and_counts_and_writes_nothing_twice": CHILDREN,
        "test_a_forked_child_that_reopens_has_a_listener_of_its_own": CHILDREN,
        "test_a_handler_can_reopen_in_every_fork_by_itself": CHILDREN,
        "test_at_exit_a_listener_of_ones_own_is_waited_for": CHILDREN,
        "test_at_exit_a_target_that_does_not_return_is_left_after_the_deadline": CHILDREN,
        "test_at_exit_everything_is_written": CHILDREN,
        "test_at_exit_the_listener_of_a_handler_that_is_gone_is_waited_for": CHILDREN,
        "test_at_exit_the_loss_is_told": CHILDREN,
        "test_daemon_threads_that_log_while_the_interpreter_ends": CHILDREN,
        "test_drops_of_many_threads_are_counted_exactly": TRAFFIC,
        "test_flush_is_a_barrier_among_producers": TRAFFIC,
        "test_forks_in_the_midst_of_logging_wedge_nobody": CHILDREN,
        "test_nothing_is_lost_under_block": TRAFFIC,
        "test_the_listener_of_the_parent_cannot_be_started_in_a_child": CHILDREN,
        "test_what_other_exit_handlers_log_is_written": CHILDREN,
    },
    "test_loops": {
        "test_a_loop_closed_while_senders_hammer_it": MANY,
        "test_descriptors_stay_flat_over_many_loops": MANY,
    },
    "test_model_machines": RANDOM,
    "test_mux": MUX,
    "test_mux_hostile": MUX,
    "test_mux_storm": MUX,
    "test_native_examples": BUILDS,
    "test_native_exit": CHILDREN,
    "test_native_header": {
        "test_a_users_own_cffi_module_includes_the_door": BUILDS,
    },
    "test_native_stress": TRAFFIC,
    "test_native_wakes": TRAFFIC,
    "test_orders": ORDERS,
    "test_package": BUILDS,
    "test_queue_face": {
        "test_a_forked_child_counts_on_whatever_other_threads_were_at": CHILDREN,
        "test_every_order_of_events_in_one_tick_is_accounted_for": ORDERS,
        "test_every_short_program_does_what_the_model_does": ORDERS,
        "test_many_producers_and_consumers_in_threads_and_loops_lose_nothing": TRAFFIC,
        "test_no_memory_stays_behind": MEMORY,
        "test_random_cancellations_and_timeouts_lose_nothing": RANDOM,
    },
    "test_queue_suites": CHILDREN,
    "test_reliability": CHILDREN,
    "test_shared": {
        "test_a_child_that_lives_on_keeps_nothing_of_its_parent_open": CHILDREN,
        "test_a_signal_handler_that_raises_ends_a_blocking_call": CHILDREN,
        "test_after_a_fork_the_ends_of_the_child_are_dead_and_the_parents_are_not": CHILDREN,
        "test_claims_and_their_views_in_a_forked_child_crash_nothing": CHILDREN,
        "test_forks_in_the_middle_of_traffic_disturb_nobody": CHILDREN,
        "test_many_channels_in_a_loop_leave_nothing_behind": CHILDREN,
        "test_memory_has_no_name_and_is_the_ring_and_a_page_or_two": CHILDREN,
        "test_memory_that_is_not_there_is_an_error_and_no_signal": CHILDREN,
        "test_the_interpreter_exits_with_everything_open": CHILDREN,
        "test_without_descriptors_it_is_an_os_error_and_nothing_is_lost": CHILDREN,
    },
    "test_shared_native": {
        "test_a_native_sender_that_waits_is_told_when_the_receiver_is_killed": CHILDREN,
        "test_a_process_that_ends_under_its_native_threads_ends_in_good_order": CHILDREN,
        "test_all_that_a_killed_native_sender_had_sent_is_received_and_then_the_end": CHILDREN,
        "test_forks_in_the_middle_of_native_traffic_disturb_nobody": CHILDREN,
        "test_native_threads_and_others_of_another_process_lose_nothing": CHILDREN,
        "test_native_threads_tasks_and_threads_share_the_end_of_each_of_several_processes": CHILDREN,
    },
    "test_shared_notifiers": {
        "test_a_selector_receives_all_that_processes_send": CHILDREN,
        "test_a_selector_sends_all_that_a_process_receives": CHILDREN,
        "test_the_death_of_the_other_process_signals": CHILDREN,
    },
    "test_shared_processes": CHILDREN,
    "test_signals": {
        "test_a_storm_of_signals_neither_shortens_nor_lengthens_a_timeout": MANY,
        "test_pitfall_21_ctrl_c_ends_a_running_loop_whose_tasks_wait": MANY,
        "test_pitfall_22_a_handler_may_close_either_end_under_the_interrupted_call": MANY,
    },
    "test_soak": TRAFFIC,
    "test_stress": TRAFFIC,
    "test_subinterpreters": CHILDREN,
    "test_subprocess_tickets": CHILDREN,
    "test_threads": {
        "test_a_blocked_wait_lets_other_threads_run": REAL,
        "test_calls_make_no_system_call_when_nobody_waits": REAL,
        "test_pitfall_10_a_blocked_wait_uses_no_processor_time": REAL,
        "test_pitfall_10_timeouts_are_fractions_of_seconds_and_not_rounded": REAL,
    },
    "test_traps": {
        "test_the_right_way_runs_as_printed": MANY,
    },
    "test_turns": {
        "test_a_consumer_of_native_messages_yields": REAL,
        "test_a_generator_that_never_ends_does_not_hold_the_loop": REAL,
        "test_a_heartbeat_goes_on_beside_a_consumer_that_never_has_to_wait": REAL,
        "test_a_heartbeat_goes_on_beside_consumers_of_any_pace": REAL,
        "test_each_of_two_greedy_tasks_has_its_turns": REAL,
    },
    "test_typing": MYPY,
    "test_wakeups": {
        "test_a_burst_from_a_thread_over_many_channels_is_one_system_call": MANY,
        "test_a_loop_blocked_in_its_selector_is_woken_from_a_signal_handler_on_its_own_thread": MANY,
        "test_a_loop_is_woken_from_a_handler_it_was_given_itself": MANY,
        "test_a_storm_of_timer_signals_that_send_is_received_whole": MANY,
        "test_no_descriptor_is_opened_for_wake_ups_from_callbacks_of_the_same_loop": MANY,
        "test_nothing_is_made_until_somebody_waits_across_threads": MANY,
        "test_one_loop_has_one_wake_descriptor_however_many_channels_it_waits_on": MANY,
        "test_one_way_traffic_at_small_capacity_loses_no_wake_up": MANY,
        "test_pitfall_02_round_trips_at_capacity_1_lose_no_wake_up": MANY,
        "test_pitfall_09_a_flood_of_wake_ups_for_a_loop_that_does_not_run_neither_blocks_nor_gets_lost": MANY,
        "test_pitfall_09_a_wake_up_meets_each_state_of_the_mailbox": MANY,
        "test_round_trips_between_tasks_of_one_loop_lose_no_wake_up": MANY,
        "test_two_tasks_of_one_loop_wake_each_other_without_a_system_call_of_their_own": MANY,
    },
}


def reason(module, function):
    """Why the test is listed, or None."""
    listed = SLOW.get(module, {})
    return listed if isinstance(listed, str) else listed.get(function)
