"""Greets somebody, and shows what a handler can see of its call."""

import os

GREETING = os.environ.get("GREETING", "Hello")
calls = 0  # lives as long as the sandbox: it counts the warm calls


def handler(event, context):
    global calls
    calls += 1
    name = event.get("name", "world") if isinstance(event, dict) else str(event)
    print(f"call {calls} of {context.function_name}, {context.get_remaining_time_in_millis()} ms left")
    return {"message": f"{GREETING}, {name}!", "runtime": "python", "call": calls, "requestId": context.request_id}
