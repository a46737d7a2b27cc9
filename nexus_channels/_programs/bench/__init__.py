"""`python -m nexus_channels bench`: how fast the channels are here, beside the queues that are installed.

The suite in bench/ is built on these modules; what needs a compiler, a bare floor or a plot lies there.
"""
