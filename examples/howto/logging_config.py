"""Configure logging through a channel by a plain dictionary, as a framework would read it from a file."""

import logging.config

CONFIG = {
    "version": 1,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "channel": {
            "class": "nexus_channels.logging.ChannelHandler",
            "targets": ["console", "errors"],
            "policy": "block",
            "timeout": 0.5,
        },
        "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"},
        "errors": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "level": "ERROR"},
    },
    "root": {"handlers": ["channel"], "level": "INFO"},
}

logging.config.dictConfig(CONFIG)
log = logging.getLogger("shop")
log.info("%d orders", 3)
log.error("no paper")
