"""Runs every expression of the dashboards and of the rules against a real Prometheus that scrapes a real daemon.

    FAASD=target/debug/faasd scripts/deploy-dashboards.py

Starts both on free ports, deploys a function that works and three that don't, calls them, and asks. An expression that Prometheus
refuses, or that finds nothing, is wrong; so is a metric that docs/metrics.md does not know. What can find nothing on one healthy
machine is listed here, with its reason, and must at least be understood.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A machine that runs other tests beside may take this long.
LIMIT_S = 90
# Metrics whose series begin with an event that this run does not cause.
UNCAUSED = {
    "faasd_worker_start_failures_total": "a sandbox that can't be started",
    "faasd_sandbox_forbidden_calls_total": "an attack on the kernel",
    "faasd_machine_pressure_seconds_total": "a kernel that keeps no account of pressure",
    "faasd_machine_cpu_steal_seconds_total": "a kernel that tells of no steal",
    "faasd_sandbox_refused_calls_total": "a kernel without the listener",
    "faasd_disk_given_back_bytes_total": "a disk that fills",
}
# And metrics that begin like this: one node that does both has nobody to share anything with.
OF_A_FLEET = "faasd_fleet_"
FUNCTIONS = {
    "works": "def handler(event, context):\n    return event\n",
    "raises": "def handler(event, context):\n    raise ValueError('as it should')\n",
    "exits": "import os\n\ndef handler(event, context):\n    os._exit(3)\n",
    "mounts": "import ctypes\n\ndef handler(event, context):\n    return ctypes.CDLL(None).mount(None, b'/', None, 0, None)\n",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url, key=None, data=None):
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    if key:
        request.add_header("x-api-key", key)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def wait_for(what, test):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        try:
            if found := test():
                return found
        except (OSError, urllib.error.URLError, ValueError, KeyError, IndexError):
            pass
        time.sleep(0.3)
    sys.exit(f"{what} did not happen within {LIMIT_S} s")


def expressions():
    """Every expression, with where it stands."""
    for path in sorted((ROOT / "observability/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        ids = [panel["id"] for panel in dashboard["panels"]]
        if len(ids) != len(set(ids)):
            sys.exit(f"{path.name}: two panels have the same id")
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "20s")
                yield f"{path.name}: {panel['title']}", re.sub(r"\$(instance|function)\b", ".*", text)


def known_metrics():
    return set(re.findall(r"^\| `(faasd_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M))


def metrics_of(expression):
    names = re.findall(r"\b(faasd_\w+)", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name.endswith(("_bucket", "_sum")) else name for name in names}


def call(url, key, name):
    try:
        get(f"{url}/run", key, json.dumps({"name": name, "inputData": 1}).encode())
        return True
    except urllib.error.HTTPError as error:
        return error.code < 500


def run(executable, work, started):
    port, web = free_port(), free_port()
    url, prometheus = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web}"
    data = work / "data"
    group = f"faasd-dashboards-{os.getpid()}"
    flags = ["--listen", f"127.0.0.1:{port}", "--data-dir", data, "--isolation", "auto"]
    flags += ["--set", "metrics.sample_ms=200", "--set", f"sandbox.cgroup_prefix={group}"]
    with open(work / "daemon.log", "w") as log:
        started.append(subprocess.Popen([executable, *flags], stdout=log, stderr=log, start_new_session=True))
    wait_for("the daemon's start", lambda: get(f"{url}/ready"))
    key = (data / "admin.key").read_text().strip()
    for name, code in FUNCTIONS.items():
        body = {"name": name, "runtime": "python", "code": {"inline": code}, "memoryMb": 128, "timeoutMs": 10000}
        get(f"{url}/functions", key, json.dumps(body).encode())

    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "config/alerts.yaml"), str(ROOT / "observability/rules.yaml")],
        "scrape_configs": [
            {"job_name": "faasd", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"group": "controllers"}}]}
        ],
    }
    (work / "prometheus.yaml").write_text(json.dumps(configuration))  # JSON is YAML.
    arguments = [f"--config.file={work}/prometheus.yaml", f"--storage.tsdb.path={work}/tsdb", f"--web.listen-address=127.0.0.1:{web}"]
    with open(work / "prometheus.log", "w") as log:
        started.append(subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log))
    wait_for("Prometheus's start", lambda: get(f"{prometheus}/-/ready"))

    def ask(expression):
        return json.loads(get(f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))["data"]["result"]

    # Rates need two scrapes with something between them; so each kind of call is made until its rate is seen.
    def busy():
        for name in FUNCTIONS:
            call(url, key, name)
        request = urllib.request.Request(f"{url}/run", data=json.dumps({"name": "works", "inputData": 1}).encode())
        for header, value in (("x-api-key", key), ("x-async", "true"), ("content-type", "application/json")):
            request.add_header(header, value)
        urllib.request.urlopen(request, timeout=30).read()
        call(url, key, "absent")
        seen = [f'rate(faasd_worker_invocations_total{{function="{name}"}}[20s]) > 0' for name in ("works", "raises", "exits")]
        seen += ["rate(faasd_worker_jobs_total[20s]) > 0", "rate(faasd_controller_rejected_total[20s]) > 0", "faasd:calls:rate5m > 0"]
        return all(ask(expression) for expression in seen)

    wait_for("every kind of call in Prometheus", busy)

    known, wrong, asked = known_metrics(), [], 0
    for place, expression in expressions():
        asked += 1
        names = metrics_of(expression)
        if unknown := names - known:
            wrong.append(f"{place}: docs/metrics.md does not know {sorted(unknown)}")
            continue
        try:
            found = ask(expression)
        except urllib.error.HTTPError as error:
            wrong.append(f"{place}: {json.loads(error.read())['error']}\n    {expression}")
            continue
        if not found and not names & UNCAUSED.keys() and not any(name.startswith(OF_A_FLEET) for name in names):
            wrong.append(f"{place}: finds nothing\n    {expression}")
    for group in json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"]:
        for rule in group["rules"]:
            asked += 1
            if rule["health"] != "ok":
                wrong.append(f"rule {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
            if unknown := metrics_of(rule["query"]) - known:
                wrong.append(f"rule {rule['name']}: docs/metrics.md does not know {sorted(unknown)}")
            if rule["type"] == "recording" and not ask(rule["name"]):
                wrong.append(f"rule {rule['name']}: records nothing")
    # So that this can fail: an expression without a metric of ours, and one that is none.
    if ask("faasd_no_such_metric"):
        wrong.append("a metric that does not exist was found")
    if asked < 60:
        wrong.append(f"only {asked} expressions were found: the check looks in the wrong place")
    print(f"{asked} expressions and rules asked")
    return wrong


def main():
    executable = Path(os.environ["FAASD"]).resolve()
    work, started = Path(tempfile.mkdtemp()), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wrong = run(executable, work, started)
        if wrong:
            sys.exit("\n".join(wrong))
    except BaseException:
        for log in ("daemon.log", "prometheus.log"):
            if (work / log).exists():
                print(f"--- {log}", "\n".join((work / log).read_text().splitlines()[-15:]), sep="\n", file=sys.stderr)
        raise
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
