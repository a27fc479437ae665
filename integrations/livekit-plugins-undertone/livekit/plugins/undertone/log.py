"""The plug-in's logger."""

import logging

logger = logging.getLogger("livekit.plugins.undertone")
