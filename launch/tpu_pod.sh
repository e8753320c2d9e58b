#!/usr/bin/env bash
# A run on a TPU pod of Google Cloud, of one slice or several: tpu_pod.sh SETTINGS ACTION [--dry_run] [--config.FIELD=VALUE ...]
#
#   create   asks for the machines and waits until they are there
#   install  puts sami_jax and the shared storage on every host
#   run      starts `sami run` on every host, detached
#   up       create, install, run
#   watch    until the run has ended; makes preempted machines anew, starts a crashed run again, at most MAX_RESTARTS times
#   tail     follows the log of host 0
#   status   of the machines and of the run on each host
#   stop     ends the run, keeps the machines
#   delete   gives the machines back
#
# Exit status: 0 done; 2 bad input, of this command or of the run; 3 the run was stopped by its canaries; 5 its numbers
# are none; 130 it was interrupted; 1 all else.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/common.sh
source "$here/common.sh"

readonly ACTIONS='create|install|run|up|watch|tail|status|stop|delete'
readonly PATIENCE=5 # polls for which some hosts may run on after others have crashed

main() {
  [[ $# -ge 2 && $2 =~ ^($ACTIONS)$ ]] ||
    refuse "usage: $0 SETTINGS {$ACTIONS} [--dry_run] [--config.FIELD=VALUE ...]"
  local settings=$1 action=$2
  shift 2
  take_arguments "$@"
  read_settings "$settings" NAME PROJECT ZONE ACCELERATOR RUNTIME PACKAGE CONFIG WORKDIR -- \
    NUM_SLICES=1 QUEUED=no CAPACITY=on_demand BUCKET= NFS= PYTHON=3.12 MAX_RESTARTS=10 POLL_SECONDS=60 CREATE_OPTIONS= SSH_OPTIONS=
  check_settings
  describe_machines
  "$action"
}

check_settings() {
  check_setting NAME '[a-z]([-a-z0-9]*[a-z0-9])?' 'of small letters, digits and hyphens'
  check_setting NUM_SLICES '[1-9][0-9]*' 'a whole number from 1'
  check_setting QUEUED 'yes|no' 'yes or no'
  check_setting CAPACITY 'on_demand|spot|reserved' 'on_demand, spot or reserved'
  check_setting MAX_RESTARTS '[0-9]+' 'a whole number from 0'
  check_setting POLL_SECONDS '[0-9]+' 'a whole number from 0'
  check_setting PACKAGE '.+\.whl|git\+.+' 'a wheel (FILE.whl) or a git revision (git+URL@REVISION)'
  check_storage
}

# Sets the words that differ between a plain TPU and a queued resource, the only way to several slices.
describe_machines() {
  where=("--project=$PROJECT" "--zone=$ZONE")
  read -ra to_connect <<<"$SSH_OPTIONS"
  read -ra to_create <<<"$CREATE_OPTIONS"
  [[ $CAPACITY == on_demand ]] || to_create=("--$CAPACITY" "${to_create[@]}")
  if [[ $QUEUED == no && $NUM_SLICES -eq 1 ]]; then
    machines=(gcloud compute tpus tpu-vm)
    to_create=("--accelerator-type=$ACCELERATOR" "--version=$RUNTIME" "${to_create[@]}")
    to_delete=()
    all_hosts=(--worker=all)
    first_host=(--worker=0)
    state_field='value(state)'
    ready=READY
    return
  fi
  local nodes=("--node-id=$NAME")
  [[ $NUM_SLICES -eq 1 ]] || nodes=("--node-count=$NUM_SLICES" "--node-prefix=$NAME")
  machines=(gcloud compute tpus queued-resources)
  to_create=("--accelerator-type=$ACCELERATOR" "--runtime-version=$RUNTIME" "${nodes[@]}" "${to_create[@]}")
  to_delete=(--force) # with its nodes
  all_hosts=(--node=all --worker=all)
  first_host=(--node=0 --worker=0)
  state_field='value(state.state)'
  ready=ACTIVE
}

# The machines' state in Google's words, or NOT_FOUND, or UNREACHABLE where no answer came. Never fails.
state() {
  local answer
  answer=$(ask "$ready" "${machines[@]}" describe "$NAME" "${where[@]}" "--format=$state_field" 2>&1) ||
    case $answer in
      *NOT_FOUND*) answer=NOT_FOUND ;;
      *) answer=UNREACHABLE ;;
    esac
  grep -Em1 '^[A-Z_]+$' <<<"$answer" || echo UNREACHABLE # gcloud may say more than it was asked
}

# remote {all|first} WORD...: sets REMOTE to the command that has tpu_host.sh do this on all hosts, or on the first. gcloud
# gives --command to the shell over there, so its words are quoted for that shell.
remote() {
  local hosts=("${first_host[@]}")
  [[ $1 == first ]] || hosts=("${all_hosts[@]}")
  shift
  REMOTE=("${machines[@]}" ssh "$NAME" "${where[@]}" "${hosts[@]}" "${to_connect[@]}" "--command=$(quoted bash tpu_host.sh "$@")")
}

# The steps ask for success one by one: where watch calls them, `set -e` does not hold.
create() {
  perform "${machines[@]}" create "$NAME" "${where[@]}" "${to_create[@]}" || return
  local now before=
  while true; do
    now=$(state)
    case $now in
      "$ready") return ;;
      FAILED | SUSPENDING | SUSPENDED | PREEMPTED | TERMINATED | STOPPED | NOT_FOUND)
        say "could not be had: $now"
        return 1
        ;;
    esac
    [[ $now == "$before" ]] || say "$now; waiting"
    before=$now
    sleep "$POLL_SECONDS"
  done
}

install() {
  local files=("$here/tpu_host.sh") source=$PACKAGE
  if [[ $source == *.whl ]]; then
    [[ -f $source ]] || refuse "$SETTINGS: PACKAGE=$source: no such file; make it with: pip wheel --no-deps --wheel-dir dist ."
    files+=("$source")
    source=$(basename "$source")
  fi
  perform "${machines[@]}" scp "${files[@]}" "$NAME:" "${where[@]}" "${all_hosts[@]}" "${to_connect[@]}" || return
  remote all install "$source" "$PYTHON" "$BUCKET" "$NFS"
  perform "${REMOTE[@]}"
}

run() {
  sami_command sami
  remote all run "${COMMAND[@]:1}"
  perform "${REMOTE[@]}"
}

up() {
  create
  install
  run
}

tail() {
  remote first tail_log
  perform "${REMOTE[@]}"
}

stop() {
  remote all stop
  perform "${REMOTE[@]}"
}

delete() { perform "${machines[@]}" delete "$NAME" "${where[@]}" "${to_delete[@]}" --quiet; }

status() {
  local now
  now=$(state)
  say "$now"
  [[ $now == "$ready" ]] || return 0
  remote all status
  perform "${REMOTE[@]}"
}

watch() {
  local restarts=0 partial=0 in_pieces=no verdict before=
  while true; do
    verdict=$(judge)
    [[ $verdict == "$before" ]] || say "$verdict"
    before=$verdict
    # Gone, but not by another's hand: an attempt of ours to make it anew got no further.
    [[ $verdict != NOT_FOUND || $in_pieces == no ]] || verdict=FAILED
    [[ $verdict == partial ]] || partial=0
    [[ $verdict != partial || $((partial += 1)) -lt $PATIENCE ]] || verdict=crashed
    case $verdict in
      finished) return ;;
      "ended $BAD_INPUT") leave "$BAD_INPUT" 'the run refused its input; its log says why' ;;
      "ended $STOPPED_BY_CANARIES") leave "$STOPPED_BY_CANARIES" 'the run was stopped by its canaries' ;;
      "ended $NOT_FINITE") leave "$NOT_FINITE" 'weights, losses or log-likelihoods are no numbers; its log says which' ;;
      "ended $INTERRUPTED") leave "$INTERRUPTED" 'the run was interrupted; the action run continues it' ;;
      NOT_FOUND | STOPPED | STOPPING | DELETING) leave 1 "$verdict, by another's hand; the action up starts anew" ;;
      crashed | FAILED | SUSPENDED | PREEMPTED | TERMINATED)
        [[ $restarts -lt $MAX_RESTARTS ]] || leave 1 "$verdict, after $restarts restarts (MAX_RESTARTS in $SETTINGS)"
        restarts=$((restarts + 1))
        partial=0
        say "restart $restarts of $MAX_RESTARTS"
        in_pieces=yes
        ! restart "$verdict" || in_pieces=no
        ;;
    esac
    sleep "$POLL_SECONDS"
  done
}

# restart VERDICT: a crashed run on the machines it has, all else on new ones.
restart() {
  if [[ $1 != crashed ]]; then
    [[ $(state) == NOT_FOUND ]] || delete || return
    create || return
  fi
  install && stop && run
}

leave() {
  say "$2"
  exit "$1"
}

# What the machines and the run on all their hosts add up to: a state of the machines other than ready, or finished, running,
# partial (on some hosts it runs, on some it has crashed), crashed, "ended N" where starting again is of no use, UNREACHABLE.
judge() {
  local now answers line failed=0 running=no crashed=no finished=no
  now=$(state)
  if [[ $now != "$ready" ]]; then
    echo "$now"
    return
  fi
  remote all status
  answers=$(ask 'sami run: ended 0' "${REMOTE[@]}") || failed=$?
  case $failed in
    0) ;;
    127) echo crashed && return ;; # new machines, without so much as tpu_host.sh
    *) echo UNREACHABLE && return ;;
  esac
  while IFS= read -r line; do # one for each host, in any order
    case $line in
      "sami run: ended $BAD_INPUT" | "sami run: ended $STOPPED_BY_CANARIES" | "sami run: ended $NOT_FINITE" | "sami run: ended $INTERRUPTED")
        echo "${line#*: }"
        return
        ;;
      'sami run: running') running=yes ;;
      'sami run: ended 0') finished=yes ;;
      'sami run: '*) crashed=yes ;;
    esac
  done <<<"$answers"
  case $running,$crashed,$finished in
    yes,yes,*) echo partial ;;
    yes,*) echo running ;;
    *,yes,*) echo crashed ;;
    *,yes) echo finished ;;
    *) echo UNREACHABLE ;;
  esac
}

main "$@"
