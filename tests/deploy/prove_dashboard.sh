#!/usr/bin/env bash
# Prove the chart's alerts and dashboard on a real Prometheus, beside a local platform of its own.
#
#     apt-get install --no-install-recommends prometheus && tests/deploy/prove_dashboard.sh [docs/dashboard.svg]
#
# promtool runs the alerts' unit tests (tests/deploy/alerts.test.yaml). Then Prometheus scrapes a worker and a watcher
# for three minutes, while applications come, change, fail and go, and S3, Temporal and the API server are away for some
# seconds each. Every expression of the dashboard and of the alerts is asked for through its HTTP API: none may err, and
# every panel must have data, but for those that tests/deploy/prove_dashboard.py names with a reason. With an argument
# the panels are drawn into that file. Takes five minutes and 1 GB in a folder it removes. `rules` as the only argument
# ends after promtool.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "FAILED: $1" >&2; exit 1; }
passed() { echo "ok: $1"; }
python() { uv run --frozen python "$@"; }
plattr() { uv run --frozen plattr "$@"; }
prove() { python -m tests.deploy.prove_dashboard "$@"; }

for program in promtool prometheus; do
    command -v $program >/dev/null || fail "there is no $program: apt-get install --no-install-recommends prometheus"
done

# Not /tmp, which may be in memory; open to the account that PostgreSQL runs as.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/plattr-dashboard.XXXXXX")
chmod 755 "$work"
# Always a platform of its own: this one is destroyed at the end.
export PLATTR_STATE="$work/dev"
unset KUBECONFIG TEMPORAL_ADDRESS
prometheus_pid=
finish() {
    # Left there only when a line of the load has failed.
    if [ -f "$work/load.log" ]; then tail -20 "$work/load.log" >&2; fi
    if [ -n "$prometheus_pid" ]; then kill "$prometheus_pid" 2>/dev/null && wait "$prometheus_pid" || true; fi
    if [ -d "$PLATTR_STATE" ]; then plattr infra destroy --yes >/dev/null || true; fi
    rm -rf --one-file-system "$work"
}
trap finish EXIT

# What the operator, and Grafana's sidecar, would be given.
prove unpack "$work"
promtool check rules "$work/alerts.yaml" >"$work/promtool.log" || { cat "$work/promtool.log" >&2; fail "promtool check"; }
cp tests/deploy/alerts.test.yaml "$work"
promtool test rules "$work/alerts.test.yaml" >"$work/promtool.log" 2>&1 ||
    { cat "$work/promtool.log" >&2; fail "promtool test"; }
passed "$(promtool --version | sed -n 's/^promtool, \(version [^ ]*\).*/\1/p') of promtool: each alert fires, and only when it should"
if [ "${1:-}" = rules ]; then exit; fi

plattr dev --detach >"$work/dev.log" 2>&1 || { tail -20 "$work/dev.log" >&2; fail "plattr dev"; }
port_of() { plattr infra environment "$1" | sed -n 's/^export METRICS_PORT=//p'; }
# Labels as the operator makes them of the ServiceMonitors; honor_labels stays false, as theirs.
cat >"$work/prometheus.yaml" <<CONFIGURATION
global: {scrape_interval: 5s, evaluation_interval: 5s}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: plattr-worker
    static_configs:
      - targets: ["127.0.0.1:$(port_of worker)"]
        labels: {namespace: plattr-system, pod: plattr-worker-0, service: plattr-worker, container: worker, endpoint: metrics}
  - job_name: plattr-watcher
    static_configs:
      - targets: ["127.0.0.1:$(port_of watcher)"]
        labels: {namespace: plattr-system, pod: plattr-watcher-0, service: plattr-watcher, container: watcher, endpoint: metrics}
CONFIGURATION
address=127.0.0.1:$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/tsdb" --web.listen-address="$address" \
    >"$work/prometheus.log" 2>&1 &
prometheus_pid=$!
passed "the local platform runs, and Prometheus scrapes its worker and watcher every 5 s"
began=$SECONDS
sleep 10

application() {
    # $1 name, $2 environment, $3 the last lines of the spec
    plattr apply - <<MANIFEST
{apiVersion: platform.internal/v1alpha1, kind: Application, metadata: {name: $1, namespace: demo},
 spec: {repository: "https://git.example.test/$1", framework: docker, environment: $2, $3}}
MANIFEST
}
{
    plattr apply deploy/examples/my-app.yaml --wait
    plattr apply deploy/examples/minimal.yaml --wait
    plattr apply deploy/examples/preview.yaml
    application broken staging 'imageRef: "registry.example.test/app:sim-crashloop"'
    # Refused: the host is my-app's. Two, for a counter that appears with its first count has not risen yet.
    application rival production 'domain: my-app.platform.localhost'
    application shop staging 'database: {enabled: true}, storage: {enabled: true, buckets: [{name: files}]}'
    sleep 10
    application rival-2 production 'domain: my-app.platform.localhost'
    application shop staging 'storage: {enabled: true, buckets: [{name: files}]}, redis: {enabled: true}'
    sleep 10
    application shop staging 'storage: {enabled: true, buckets: [{name: files}]}, search: {enabled: true}'
    sleep 10
    # One comes and all three go, while S3 is away.
    plattr infra stop s3
    application late staging 'storage: {enabled: true, buckets: [{name: files}]}'
    settings=$(plattr infra environment cli)
    (eval "$settings" && kubectl delete --wait=false -n demo application/minimal application/shop)
    sleep 15
    # Its run still waits: that one goes on as its cleanup.
    (eval "$settings" && kubectl delete --wait=false -n demo application/late)
    sleep 5
    plattr infra start s3
    plattr infra stop temporal
    application cache uat 'redis: {enabled: true}'
    sleep 10
    plattr infra start temporal
    plattr infra stop kubernetes
    sleep 10
    plattr infra start kubernetes
} >"$work/load.log" 2>&1
rm "$work/load.log"
# Three minutes, so that a picture shows some of the quiet as well.
remaining=$((190 - (SECONDS - began)))
if [ $remaining -gt 0 ]; then sleep $remaining; fi

prove query "$work" "http://$address" "${1:-}" || { grep -E 'level=(warn|error)' "$work/prometheus.log" >&2; fail "the queries"; }
