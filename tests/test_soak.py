"""Everything at once for a long time, in a process of its own: nothing lost, nothing grows, nobody hangs."""

from harness import SLOWNESS, STRESS, run_child, seeded, size, takes_long

SECONDS = size(12, 3600)


@takes_long(short=120, full=3 * 3600)
def test_soak_of_channels_threads_tasks_and_loops_together():
    """Stress: an hour of 200 channels, 32 threads and 2,000 tasks on 3 loops. Memory, threads, descriptors stay."""
    seed = seeded("soak").randrange(2**32)
    channels, threads, tasks = (200, 32, 1998) if STRESS else (60, 8, 300)
    script = f"import soak; soak.main({SECONDS}, {seed}, {channels}, {threads}, {tasks}, 3)"
    print(run_child(script, seconds=(3 * SECONDS + 100) / SLOWNESS if STRESS else 100))
