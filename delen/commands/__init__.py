"""The commands of ``delen``: each module has ``add_arguments`` and ``run``."""
