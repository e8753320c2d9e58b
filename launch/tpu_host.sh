#!/usr/bin/env bash
# What each host of a TPU pod does; tpu_pod.sh copies this file there and calls it. Leaves everything in ~/sami_run:
# log, lock (held by what runs, for as long as it does), pid (its number), status (the exit status of what has ended).
set -euo pipefail

readonly STATE="$HOME/sami_run"
readonly MOUNT=/mnt/sami

# install PACKAGE PYTHON BUCKET NFS: a wheel's name in the home folder, or git+URL@REVISION. Doing it again does no harm.
install() {
  local package=$1 python=$2 bucket=$3 nfs=$4 source
  case $package in
    *.whl) source="file://$HOME/$package" ;;
    *) source=$package ;;
  esac
  # The runtimes' own Python is older than what sami_jax needs: uv brings one.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  "$HOME/.local/bin/uv" venv --quiet --allow-existing --python "$python" "$HOME/sami"
  "$HOME/.local/bin/uv" pip install --quiet --python "$HOME/sami/bin/python" --reinstall-package sami_jax \
    "sami_jax[tpu] @ $source"
  mountpoint -q "$MOUNT" || mount_storage "$bucket" "$nfs"
  status
}

mount_storage() {
  local bucket=$1 nfs=$2
  sudo mkdir -p "$MOUNT"
  if [[ -n $nfs ]]; then
    apt_install nfs-common
    sudo mount -t nfs "$nfs" "$MOUNT"
    return
  fi
  command -v gcsfuse >/dev/null || install_gcsfuse
  sudo chown "$(id -u):$(id -g)" "$MOUNT"
  # Hosts must see each other's files at once, also those that were not there before; models are written beside and then
  # renamed, folders and all.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 --rename-dir-limit=100000 \
    "$bucket" "$MOUNT"
}

install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc apt=https://packages.cloud.google.com/apt
  curl -fsSL "$apt/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -c -s) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  apt_install gcsfuse
}

# A fresh host may still be updating itself, so wait for its lock.
apt_install() {
  sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
  sudo apt-get -o DPkg::Lock::Timeout=600 install -qq -y "$1"
}

# run [NAME=VALUE...] WORD...: starts `sami WORD...` with these variables, which goes on when the connection ends. Where it runs
# already, it is left alone.
run() {
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"
  if flock --timeout 2 9; then # longer than `status` holds it
    if held_by_another; then # a second program on a TPU would wait for it, or end the first
      answer busy
      return 1
    fi
    rm -f "$STATE/status"
    setsid nohup bash "$0" supervise "$@" </dev/null >>"$STATE/log" 2>&1 &
    echo $! >"$STATE/pid"
  fi
  exec 9>&- # what was started holds the lock now
  status
}

supervise() {
  local status=0 variables=()
  while [[ $1 =~ ^[A-Z_]+= ]]; do
    variables+=("$1")
    shift
  done
  trap : TERM # `stop` means `sami`; its status is still to be written
  env "${variables[@]}" "$HOME/sami/bin/sami" "$@" 9>&- || status=$?
  echo "$status" >"$STATE/status"
}

# Ends what runs: a minute to leave, then by force. What has ended by itself keeps its status.
stop() {
  if is_running; then
    local pid looks=0
    pid=$(<"$STATE/pid")
    kill -TERM -- "-$pid" 2>/dev/null || true # setsid made it the leader of a group of its own
    while is_running && [[ $looks -lt 300 ]]; do
      sleep 0.2
      looks=$((looks + 1))
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    echo 130 >"$STATE/status"
  fi
  status
}

is_running() { [[ -f $STATE/lock ]] && ! flock --shared --nonblock "$STATE/lock" true; }

# Whether a process that `run` did not start, another user's for example, has the TPU open.
held_by_another() {
  [[ -n $(sudo -n find /proc -maxdepth 3 -path '/proc/[0-9]*/fd/*' \( -lname '/dev/accel*' -o -lname '/dev/vfio/[0-9]*' \) 2>/dev/null) ]]
}

# Lines that tpu_pod.sh reads.
status() {
  if is_running; then
    answer running
  elif [[ -f $STATE/status ]]; then
    answer "ended $(<"$STATE/status")"
  elif held_by_another; then
    answer busy
  elif [[ -f $STATE/pid ]]; then
    answer lost # the host was started anew under it
  else
    answer 'not started'
  fi
}

# How the run stands here, and how many hosts the slice has, by its metadata: where they tell nothing, nobody is missed.
answer() {
  local others metadata=http://metadata.google.internal/computeMetadata/v1
  echo "sami run: $1"
  others=$(curl -fs --max-time 5 -H 'Metadata-Flavor: Google' "$metadata/instance/attributes/worker-network-endpoints" || true)
  [[ -z $others ]] || echo "sami hosts: $(tr -s ',' '\n' <<<"$others" | grep -c .)"
}

tail_log() {
  exec tail -n 100 -F "$STATE/log"
}

"$@"
