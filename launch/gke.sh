#!/usr/bin/env bash
# A run on TPUs of a GKE cluster, as a JobSet: gke.sh SETTINGS ACTION [--dry_run] [--config.FIELD=VALUE ...]
#
#   run      applies the manifest, jobset.yaml filled in; --dry_run shows it
#   tail     follows the log of the first pod
#   status   of the JobSet and its pods
#   delete   takes it away; the run's folder stays, and `run` continues there
#
# Preempted, the JobSet starts again by itself, and crashed at most MAX_RESTARTS times; `sami run` goes on where it was.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=launch/common.sh
source "$here/common.sh"

readonly ACTIONS='run|tail|status|delete'

main() {
  [[ $# -ge 2 && $2 =~ ^($ACTIONS)$ ]] ||
    refuse "usage: $0 SETTINGS {$ACTIONS} [--dry_run] [--config.FIELD=VALUE ...]"
  local settings=$1 action=$2
  shift 2
  take_arguments "$@"
  read_settings "$settings" NAME IMAGE TPU_TYPE TOPOLOGY CHIPS_PER_HOST SERVICE_ACCOUNT CONFIG WORKDIR -- \
    CONTEXT= NAMESPACE=default NUM_SLICES=1 CAPACITY=on_demand MODEL= QUERIES= BUCKET= NFS= MAX_RESTARTS=10 \
    QUEUE= PRIORITY_CLASS= LABELS= NODE_LABELS= COORDINATOR_PORT=8476 LOST_AFTER= START_WITHIN=
  check_settings
  cluster=(kubectl "--namespace=$NAMESPACE")
  [[ -z $CONTEXT ]] || cluster+=("--context=$CONTEXT")
  pods="--selector=jobset.sigs.k8s.io/jobset-name=$NAME"
  "$action"
}

check_settings() {
  # The pods' host names, which Kubernetes makes from it, may have 63 letters.
  check_setting NAME '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' 'of at most 40 small letters, digits and hyphens'
  check_setting NUM_SLICES '[1-9][0-9]*' 'a whole number from 1'
  check_setting CHIPS_PER_HOST '[1-9][0-9]*' 'a whole number from 1'
  check_setting TOPOLOGY '[1-9][0-9]*(x[1-9][0-9]*)+' 'chips along each side, like 4x4'
  check_setting CAPACITY 'on_demand|spot' 'on_demand or spot'
  check_setting MAX_RESTARTS '[0-9]+' 'a whole number from 0'
  check_setting QUEUE '([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?' "a queue's name"
  check_setting PRIORITY_CLASS '([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?' "a priority class's name"
  check_setting LABELS '([^=,]+=[^=,]*(,[^=,]+=[^=,]*)*)?' 'of the form NAME=VALUE,NAME=VALUE'
  check_setting NODE_LABELS '([^=,]+=[^=,]*(,[^=,]+=[^=,]*)*)?' 'of the form NAME=VALUE,NAME=VALUE'
  check_processes
  check_storage
  chips=$((${TOPOLOGY//x/*}))
  [[ $((chips % CHIPS_PER_HOST)) -eq 0 ]] ||
    refuse "$SETTINGS: CHIPS_PER_HOST=$CHIPS_PER_HOST does not divide the $chips chips of TOPOLOGY=$TOPOLOGY"
}

run() {
  local manifest
  sami_command sami
  manifest=$(python3 "$here/fill_in.py" "$here/jobset.yaml" \
    "NAME=$NAME" "IMAGE=$IMAGE" "TPU_TYPE=$TPU_TYPE" "TOPOLOGY=$TOPOLOGY" "CHIPS_PER_HOST=$CHIPS_PER_HOST" \
    "SERVICE_ACCOUNT=$SERVICE_ACCOUNT" "MOUNT=$MOUNT" "BUCKET=$BUCKET" "NFS=$NFS" "CAPACITY=$CAPACITY" \
    "QUEUE=$QUEUE" "PRIORITY_CLASS=$PRIORITY_CLASS" "LABELS=$LABELS" "NODE_LABELS=$NODE_LABELS" "COORDINATOR_PORT=$COORDINATOR_PORT" \
    "HOSTS:=$((chips / CHIPS_PER_HOST))" "NUM_SLICES:=$NUM_SLICES" "MAX_RESTARTS:=$MAX_RESTARTS" \
    -- "${COMMAND[@]}")
  perform_with "$manifest" "${cluster[@]}" apply --filename=-
}

tail() {
  perform "${cluster[@]}" logs --follow --tail=100 --container=sami \
    "$pods,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

status() {
  perform "${cluster[@]}" get jobset "$NAME"
  perform "${cluster[@]}" get pods "$pods" --output=wide
}

delete() { perform "${cluster[@]}" delete jobset "$NAME"; }

main "$@"
