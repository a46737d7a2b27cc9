"""The programs behind `python -m nexus_channels`. They use the channels as any program would; no channel uses them."""
