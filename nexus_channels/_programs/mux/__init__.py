"""`python -m nexus_channels mux`: many logs into one archive.

Lines go from `files` (reading) through `job` (the channel) into `archive`; `watch` wakes the readers, `lines` finds
where lines end, `names` names the sources, `summary` and `command` tell how it went.
"""
