"""Ask a Prometheus for everything that the chart's dashboard and alerts ask for; part of prove_dashboard.sh."""

import http.client
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import yaml

from stack.tools.resolve import resolve_tools
from tests.deploy.helm import Helm, Json, only
from tests.deploy.prove_dashboard_picture import Series, draw

TESTS = Path(__file__).with_name("alerts.test.yaml")
EVERYTHING: Json = {
    "metrics": {"prometheusRule": {"enabled": True, "scrapedOtherwise": True}, "dashboard": {"enabled": True}}
}

STEP_SECONDS = 5
# Grafana's rule: four scrape intervals at the least.
VARIABLES = {"$namespace": "plattr-system", "$environment": ".*", "$__rate_interval": f"{4 * STEP_SECONDS}s"}

# Panel and refId: why it rightly stays empty in these minutes.
RIGHTLY_EMPTY = {
    ("Workflow tasks that failed", "A"): "only a defect in a workflow's code fails one",
}
# Alert: why what it selects is rightly not there.
RIGHTLY_UNSEEN = {"PlattrWorkflowTasksFail": "only a defect in a workflow's code fails a task"}


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    address: str

    def get(self, path: str, **parameters: object) -> Json:
        """Return the answer's data; an error or a warning ends the proof."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        query = "&".join(f"{name}={quote(str(value))}" for name, value in parameters.items())
        connection.request("GET", f"/api/v1/{path}?{query}")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        if answer["status"] != "success" or answer.get("warnings"):
            raise SystemExit(f"{parameters.get('query', path)}: {answer.get('error') or answer.get('warnings')}")
        return answer["data"]

    def range(self, expression: str, begin: float, end: float) -> list[Json]:
        """Return the series of an expression, a point for each step."""
        return self.get("query_range", query=expression, start=begin, end=end, step=STEP_SECONDS)["result"]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def unpack(work: Path) -> None:
    """Render the chart; leave the rules and the dashboard where Prometheus and promtool find them."""
    (binary,) = resolve_tools(["helm"], exclude=Path("/nowhere"), tell=say).values()
    objects = Helm(binary, work / "no-kubeconfig", work).render(EVERYTHING)
    rules = only(objects, "PrometheusRule")["spec"]
    (work / "alerts.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
    (work / "dashboard.json").write_text(only(objects, "ConfigMap", "dashboard")["data"]["plattr.json"])

    named = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    expected = [
        sample["labels"]
        for group in yaml.safe_load(TESTS.read_text())["tests"]
        for test in group["promql_expr_test"]
        for sample in test["exp_samples"]
    ]
    fired = {name for labels in expected for name in re.findall(r'^ALERTS\{alertname="(\w+)"', labels)}
    if fired != named:
        raise SystemExit(f"without a test that fires them, or no alerts at all: {sorted(fired ^ named)}")


def query(work: Path, url: str, picture: str) -> None:
    """Ask everything; draw the panels if a picture is wanted."""
    prometheus, end = Prometheus(urlsplit(url).netloc), time.time()
    begin = min(float(series["values"][0][0]) for series in prometheus.range("up", end - 3600, end))
    dashboard = json.loads((work / "dashboard.json").read_text())
    rules = [rule for group in yaml.safe_load((work / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]

    missing = ask_for_variables(prometheus, dashboard)
    drawn: dict[int, list[Series]] = {}
    asked = 0
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found = lines_of(prometheus, target, begin, end)
            drawn.setdefault(panel["id"], []).extend(found)
            asked += 1
            place = panel["title"], target["refId"]
            if not found and place in RIGHTLY_EMPTY:
                say(f"rightly empty: {panel['title']} {target['refId']}: {RIGHTLY_EMPTY[place]}")
            elif not any(series.points for series in found):
                missing.append(f"{panel['title']} {target['refId']}: {target['expr']}")
    say(f"ok: {asked} expressions of {len(drawn)} panels from {(end - begin):.0f} s of scrapes")

    missing += ask_for_alerts(prometheus, rules, begin, end)
    if picture:
        Path(picture).write_text(draw(dashboard["panels"], drawn, begin, end))
        say(f"drawn into {picture}")
    if missing:
        raise SystemExit("no data:\n" + "\n".join(missing))


def ask_for_variables(prometheus: Prometheus, dashboard: Json) -> list[str]:
    """Return the dashboard's variables that would have nothing to choose from."""
    missing = []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert asked is not None, variable
        metric, label = asked.groups()
        values = prometheus.get(f"label/{label}/values", **{"match[]": filled(metric)})
        say(f"ok: ${variable['name']} is one of {values}")
        if not values:
            missing.append(f"variable {variable['name']}")
    return missing


def ask_for_alerts(prometheus: Prometheus, rules: list[Json], begin: float, end: float) -> list[str]:
    """Return the alerts that select nothing at all, so could never fire."""
    missing = []
    for rule in rules:
        prometheus.range(rule["expr"], begin, end)
        for selector in re.findall(r"\w+\{[^}]*\}", rule["expr"]):
            if prometheus.range(selector, begin, end):
                continue
            if rule["alert"] in RIGHTLY_UNSEEN:
                say(f"rightly unseen: {rule['alert']}: {RIGHTLY_UNSEEN[rule['alert']]}")
            else:
                missing.append(f"{rule['alert']}: {selector}")
    loaded = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    missing += [f"{rule['name']}: {rule['lastError']}" for rule in loaded if rule["health"] != "ok"]
    states = {rule["name"]: rule["state"] for rule in loaded if rule["state"] != "inactive"}
    say(f"ok: {len(loaded)} alerts evaluated; not inactive at the end: {states}")
    return missing


def lines_of(prometheus: Prometheus, target: Json, begin: float, end: float) -> list[Series]:
    """Return a target's series under the names of its legend."""
    return [
        Series(
            legend(target["legendFormat"], result["metric"]),
            # NaN is a quantile of nothing; Grafana leaves it out.
            [(at, float(value)) for at, value in result["values"] if value not in {"NaN", "+Inf", "-Inf"}],
        )
        for result in prometheus.range(filled(target["expr"]), begin, end)
    ]


def legend(template: str, labels: dict[str, str]) -> str:
    """Put a series' labels into its name, as Grafana does."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), template)


def filled(expression: str) -> str:
    """Put the dashboard's variables in."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


if __name__ == "__main__":
    if sys.argv[1] == "unpack":
        unpack(Path(sys.argv[2]))
    else:
        query(Path(sys.argv[2]), *sys.argv[3:])
