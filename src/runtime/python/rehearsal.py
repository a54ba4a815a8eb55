"""What the shim loads and calls before there is a function: see `rehearse` in shim.py."""


def handler(event, context):
    return event
