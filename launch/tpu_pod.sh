#!/usr/bin/env bash
# A run on a TPU pod of Google Cloud, of one slice or several: tpu_pod.sh SETTINGS ACTION [--dry_run] [--config.FIELD=VALUE ...]
#
#   create   asks for the machines and waits until they are there
#   install  puts sami_jax and the shared storage on every host
#   run      starts `sami run` on every host, detached
#   up       create, install, run
#   watch    until the run has ended; makes preempted machines anew, starts a crashed run again
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
readonly PATIENCE=5 # polls for which some hosts may run on after others have crashed, or not answer
readonly STEADY=60  # polls of a run that goes on, after which its crashes before are forgotten

main() {
  [[ $# -ge 2 && $2 =~ ^($ACTIONS)$ ]] ||
    refuse "usage: $0 SETTINGS {$ACTIONS} [--dry_run] [--config.FIELD=VALUE ...]"
  local settings=$1 action=$2
  shift 2
  take_arguments "$@"
  read_settings "$settings" NAME PROJECT ZONE ACCELERATOR RUNTIME PACKAGE CONFIG WORKDIR -- \
    NUM_SLICES=1 QUEUED=no CAPACITY=on_demand MODEL= QUERIES= BUCKET= NFS= PYTHON=3.12 MAX_RESTARTS=10 POLL_SECONDS=60 \
    COORDINATOR_PORT=8476 LOST_AFTER= START_WITHIN= CREATE_OPTIONS= SSH_OPTIONS=
  check_settings
  describe_machines
  [[ ! $action =~ ^(create|up)$ ]] || check_before
  "$action"
}

check_settings() {
  check_setting NAME '[a-z]([-a-z0-9]*[a-z0-9])?' 'of small letters, digits and hyphens'
  [[ ! $ACCELERATOR =~ ^(tpu|v)7 ]] ||
    refuse "$SETTINGS: ACCELERATOR=$ACCELERATOR: the Cloud TPU API, which gcloud compute tpus asks, does not know TPU7x; use gke.sh"
  check_setting NUM_SLICES '[1-9][0-9]*' 'a whole number from 1'
  check_setting QUEUED 'yes|no' 'yes or no'
  check_setting CAPACITY 'on_demand|spot|reserved' 'on_demand, spot or reserved'
  check_setting MAX_RESTARTS '[0-9]+' 'a whole number from 0'
  check_setting POLL_SECONDS '[0-9]+' 'a whole number from 0'
  check_setting PACKAGE '.+\.whl|git\+.+' 'a wheel (FILE.whl) or a git revision (git+URL@REVISION)'
  check_processes
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

# How many hosts are missing from answers: each host says how it stands, and how many its slice has. Of a queued resource,
# gcloud leaves out a node that it cannot reach, and ends with 0.
missing_from() {
  local answers here a_slice
  here=$(grep -c '^sami run: ' <<<"$1" || true)
  a_slice=$(sed -n 's/^sami hosts: //p' <<<"$1" | sort -n | command tail -n 1)
  echo $((${a_slice:-0} * NUM_SLICES > here ? ${a_slice:-0} * NUM_SLICES - here : 0))
}

# on_all: runs REMOTE, which all hosts must answer.
on_all() {
  local answers missing
  if [[ -n $DRY_RUN ]]; then
    perform "${REMOTE[@]}"
    return
  fi
  answers=$(perform "${REMOTE[@]}") || {
    local failed=$?
    printf '%s\n' "$answers"
    return "$failed"
  }
  printf '%s\n' "$answers"
  missing=$(missing_from "$answers")
  [[ $missing -eq 0 ]] || {
    say "$missing host(s) did not answer"
    return 1
  }
}

# The steps ask for success one by one: where watch calls them, `set -e` does not hold.
create() {
  perform "${machines[@]}" create "$NAME" "${where[@]}" "${to_create[@]}" || return
  local now before=
  while true; do
    now=$(state)
    case $now in
      "$ready") return ;;
      FAILED | SUSPENDING | SUSPENDED | PREEMPTED | TERMINATED | STOPPED)
        say "could not be had: $now; given back, since it would keep its name and its quota"
        delete || say 'not given back: the action delete does'
        return 1
        ;;
      NOT_FOUND) say 'could not be had: it is gone' && return 1 ;;
    esac
    [[ $now == "$before" ]] || say "$now; waiting"
    before=$now
    sleep "$POLL_SECONDS"
  done
}

# What can be known before machines are paid for: the package, and what the run reads from the bucket.
check_before() {
  find_package
  [[ -n $BUCKET ]] || return 0
  local path
  for path in ${MODEL:+"$MODEL/config.json"} ${QUERIES:+"$QUERIES"}; do
    [[ $path == "$MOUNT"/* ]] || continue
    perform gcloud storage ls "gs://$BUCKET${path#"$MOUNT"}" "--project=$PROJECT" >/dev/null ||
      refuse "$SETTINGS: gs://$BUCKET${path#"$MOUNT"}: not there, or not to be read; put it there, see launch/README.md"
  done
}

# Sets WHEEL to the newest file that PACKAGE names or matches; empty where it is a git revision.
find_package() {
  WHEEL=
  [[ $PACKAGE == *.whl ]] || return 0
  local file
  while IFS= read -r file; do
    [[ -f $file && (-z $WHEEL || $file -nt $WHEEL) ]] && WHEEL=$file
  done < <(compgen -G "$PACKAGE" || printf '%s\n' "$PACKAGE")
  [[ -n $WHEEL ]] || refuse "$SETTINGS: PACKAGE=$PACKAGE: no such file; make it with: pip wheel --no-deps --wheel-dir dist ."
}

install() {
  find_package
  local files=("$here/tpu_host.sh") source=$PACKAGE
  if [[ -n $WHEEL ]]; then
    files+=("$WHEEL")
    source=$(basename "$WHEEL")
  fi
  perform "${machines[@]}" scp "${files[@]}" "$NAME:" "${where[@]}" "${all_hosts[@]}" "${to_connect[@]}" || return
  remote all install "$source" "$PYTHON" "$BUCKET" "$NFS"
  on_all
}

run() {
  sami_command sami
  # The port is one of those that Google's own rule for TPUs opens; jax's default is not (jax#35905). Programs are kept with
  # the run's storage: machines that are made anew do not compile again.
  remote all run "JAX_COORDINATOR_PORT=$COORDINATOR_PORT" "JAX_COMPILATION_CACHE_DIR=$MOUNT/compiled" "${COMMAND[@]:1}"
  on_all
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
  on_all
}

delete() { perform "${machines[@]}" delete "$NAME" "${where[@]}" "${to_delete[@]}" --quiet; }

status() {
  local now
  now=$(state)
  say "$now"
  [[ $now == "$ready" ]] || return 0
  remote all status
  on_all
}

watch() {
  local crashes=0 partial=0 steady=0 in_pieces=no verdict before=
  while true; do
    verdict=$(judge)
    [[ $verdict == "$before" ]] || say "$verdict"
    before=$verdict
    # Gone, but not by another's hand: an attempt of ours to make it anew got no further.
    [[ $verdict != NOT_FOUND || $in_pieces == no ]] || verdict=FAILED
    [[ $CAPACITY != spot || ! $verdict =~ ^(STOPPED|STOPPING)$ ]] || verdict=PREEMPTED # which Google does not always say
    case $verdict in
      partial | *missing) partial=$((partial + 1)) ;;
      *) partial=0 ;;
    esac
    [[ $partial -lt $PATIENCE ]] || verdict=${verdict/*missing/PREEMPTED}
    [[ $partial -lt $PATIENCE ]] || verdict=${verdict/partial/crashed}
    steady=$((steady + 1))
    [[ $verdict == running ]] || steady=0
    [[ $steady -lt $STEADY ]] || crashes=0
    case $verdict in
      finished) return ;;
      "ended $BAD_INPUT") leave "$BAD_INPUT" 'the run refused its input; its log says why' ;;
      "ended $STOPPED_BY_CANARIES") leave "$STOPPED_BY_CANARIES" 'the run was stopped by its canaries' ;;
      "ended $NOT_FINITE") leave "$NOT_FINITE" 'weights, losses or log-likelihoods are no numbers; its log says which' ;;
      "ended $INTERRUPTED") leave "$INTERRUPTED" 'the run was interrupted; the action run continues it' ;;
      busy) leave 1 "a process that is not this run's holds the TPU; end it there, or use another NAME" ;;
      NOT_FOUND | STOPPED | STOPPING | DELETING) leave 1 "$verdict, by another's hand; the action up starts anew" ;;
      crashed | FAILED | SUSPENDED | PREEMPTED | TERMINATED)
        # Capacity that is taken away costs no restart; what does not work when it is there, does.
        if [[ $verdict =~ ^(crashed|FAILED)$ || $in_pieces == yes ]]; then
          [[ $crashes -lt $MAX_RESTARTS ]] || leave 1 "$verdict, after $crashes restarts (MAX_RESTARTS in $SETTINGS)"
          crashes=$((crashes + 1))
          say "restart $crashes of $MAX_RESTARTS"
        else
          say 'made anew'
        fi
        partial=0
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
# partial (on some hosts it runs, on some it has crashed), "N missing" (hosts that do not answer, where others do), crashed,
# busy, "ended N" where starting again is of no use, UNREACHABLE.
judge() {
  local now answers line missing failed=0 running=no crashed=no finished=no
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
  missing=$(missing_from "$answers")
  while IFS= read -r line; do # one for each host, in any order
    case $line in
      "sami run: ended $BAD_INPUT" | "sami run: ended $STOPPED_BY_CANARIES" | "sami run: ended $NOT_FINITE" | "sami run: ended $INTERRUPTED")
        echo "${line#*: }"
        return
        ;;
      'sami run: running') running=yes ;;
      'sami run: ended 0') finished=yes ;;
      'sami run: busy') echo busy && return ;;
      'sami run: '*) crashed=yes ;;
    esac
  done <<<"$answers"
  # A process ends with 0 once all have come to the end: then it does not matter that a machine has gone since.
  case $running,$crashed,$finished in
    no,no,yes) echo finished && return ;;
  esac
  if [[ $missing -gt 0 ]]; then
    echo "$missing missing"
    return
  fi
  case $running,$crashed,$finished in
    yes,yes,*) echo partial ;;
    yes,*) echo running ;;
    *,yes,*) echo crashed ;;
    *) echo UNREACHABLE ;;
  esac
}

main "$@"
