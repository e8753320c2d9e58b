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
  # Hosts must see each other's files at once, and models are written beside and then renamed, folders and all.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --rename-dir-limit=100000 "$bucket" "$MOUNT"
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

# run WORD...: starts `sami WORD...`, which goes on when the connection ends. Where it runs already, it is left alone.
run() {
  mkdir -p "$STATE"
  exec 9>"$STATE/lock"
  if flock --timeout 2 9; then # longer than `status` holds it
    rm -f "$STATE/status"
    setsid nohup bash "$0" supervise "$@" </dev/null >>"$STATE/log" 2>&1 &
    echo $! >"$STATE/pid"
  fi
  exec 9>&- # what was started holds the lock now
  status
}

supervise() {
  local status=0
  trap : TERM # `stop` means `sami`; its status is still to be written
  "$HOME/sami/bin/sami" "$@" 9>&- || status=$?
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

# One line, which tpu_pod.sh reads.
status() {
  if is_running; then
    echo 'sami run: running'
  elif [[ -f $STATE/status ]]; then
    echo "sami run: ended $(<"$STATE/status")"
  elif [[ -f $STATE/pid ]]; then
    echo 'sami run: lost' # the host was started anew under it
  else
    echo 'sami run: not started'
  fi
}

tail_log() {
  exec tail -n 100 -F "$STATE/log"
}

"$@"
