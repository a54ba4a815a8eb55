"""The echo as functions-framework calls it."""

import json

from flask import Response


def echo(request):
    record = {"status": "SUCCESS", "startType": "WARM", "result": request.get_json()}
    return Response(json.dumps(record, separators=(",", ":")), mimetype="application/json")
