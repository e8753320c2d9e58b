#!/usr/bin/env bash
# A run on the GPUs of a Slurm cluster: slurm.sh SETTINGS [--dry_run] [--config.FIELD=VALUE ...]
#
# Submits a job; --dry_run shows the command and the script. Preempted or out of time, the job queues again by itself, and after
# crashes at most MAX_RESTARTS times; `sami run` goes on where it was. `squeue`, `scancel` and the log do the rest.
#
# One task a GPU: JAX, finding itself in Slurm, takes for each process the one GPU that has its number on the node
# (SLURM_LOCALID), so a single task a node would leave all but the first idle. For the same reason each task must see all of
# the node's GPUs: they are asked for by node and not bound to tasks.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
  [[ $# -ge 1 ]] || refuse "usage: $0 SETTINGS [--dry_run] [--config.FIELD=VALUE ...]"
  local settings=$1
  shift
  take_arguments "$@"
  read_settings "$settings" NAME NODES GPUS_PER_NODE TIME VENV CONFIG WORKDIR LOGS -- \
    CPUS_PER_GPU=8 GRES= MEMORY= PARTITION= ACCOUNT= MODEL= QUERIES= MAX_RESTARTS=10 COORDINATOR_PORT= LOST_AFTER= START_WITHIN= \
    SBATCH_OPTIONS=
  check_settings
  local gpus="--gpus-per-node=$GPUS_PER_NODE"
  [[ -z $GRES ]] || gpus="--gres=$GRES"
  local options=("--job-name=$NAME" "--nodes=$NODES" "--ntasks-per-node=$GPUS_PER_NODE" "$gpus"
    "--cpus-per-task=$CPUS_PER_GPU" "--time=$TIME" --requeue --signal=B:TERM@120
    "--output=$LOGS/%x-%j.log" --open-mode=append)
  [[ -z $PARTITION ]] || options+=("--partition=$PARTITION")
  [[ -z $MEMORY ]] || options+=("--mem=$MEMORY")
  [[ -z $ACCOUNT ]] || options+=("--account=$ACCOUNT")
  local more
  read -ra more <<<"$SBATCH_OPTIONS"
  perform mkdir -p "$LOGS" # Slurm does not make it, and without it the job fails in silence
  perform_with "$(job_script)" sbatch "${options[@]}" "${more[@]}"
}

check_settings() {
  check_setting NAME '[A-Za-z0-9._-]+' 'of letters, digits, dots, hyphens and underscores'
  check_setting NODES '[1-9][0-9]*' 'a whole number from 1'
  check_setting GPUS_PER_NODE '[1-9][0-9]*' 'a whole number from 1'
  check_setting CPUS_PER_GPU '[1-9][0-9]*' 'a whole number from 1'
  check_setting MAX_RESTARTS '[0-9]+' 'a whole number from 0'
  check_setting GRES '(gpu(:[^:,]+)?:[1-9][0-9]*)?' 'of the form gpu:N or gpu:KIND:N'
  check_setting MEMORY '([0-9]+[KMGT]?)?' 'a size such as 900G, or 0 for all of a node'
  check_processes
  check_setting VENV '/.+' 'an absolute path, to a virtual environment that all nodes see'
  check_setting WORKDIR '/.+' 'an absolute path, to a folder that all nodes see'
  check_setting LOGS '/.+' 'an absolute path, to a folder that all nodes see'
}

# What runs on the job's first node.
job_script() {
  sami_command "$VENV/bin/sami"
  cat <<END_OF_SCRIPT
#!/usr/bin/env bash
# A job of sami_jax; made by launch/slurm.sh.
max_restarts=$MAX_RESTARTS
crashes=$(quoted "$LOGS/$NAME")-\$SLURM_JOB_ID.crashes # one byte each: Slurm's own count has preemptions in it
# NCCL says why it hangs or fails, and over which network it goes, here and not among the run's own lines.
export NCCL_DEBUG=\${NCCL_DEBUG:-WARN} NCCL_DEBUG_FILE=\${NCCL_DEBUG_FILE:-$(quoted "$LOGS/$NAME")-\$SLURM_JOB_ID.nccl.%h.%p}
${COORDINATOR_PORT:+export JAX_COORDINATOR_PORT=$COORDINATOR_PORT}
# A task that loses another ends by itself, with its own exit status.
step=(srun --cpus-per-task=$CPUS_PER_GPU --gpu-bind=none --kill-on-bad-exit=0 $(quoted "${COMMAND[@]}"))
END_OF_SCRIPT
  cat <<'END_OF_SCRIPT'

# Slurm tells this shell alone, before it takes the nodes away. On to the tasks by scancel, which signals all but this shell:
# srun, sent a TERM, would not pass it on but end them by force.
stopping=no
signalled=no
pass_on() {
  stopping=yes
  signalled=yes
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap pass_on TERM

"${step[@]}" &
tasks=$!
while true; do
  wait "$tasks"
  status=$?
  [[ $signalled == yes ]] || break # a signal ends `wait` early, and then the status is the signal's
  signalled=no
done

case $status in
  0) exit 0 ;;
  2 | 3 | 5) exit "$status" ;; # bad input; stopped by canaries; numbers that are none: starting again is of no use
  130) [[ $stopping == yes ]] || exit "$status" ;; # interrupted, and not by Slurm
esac
if [[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=CANCELLED* ]]; then
  exit "$status" # somebody wanted it to end
fi
if [[ $stopping == no ]]; then
  if [[ $(wc -c 2>/dev/null <"$crashes" || echo 0) -ge $max_restarts ]]; then
    echo "exit status $status after $max_restarts restarts; no more" >&2
    exit "$status"
  fi
  printf . >>"$crashes"
fi
echo "exit status $status; the job queues again, to continue" >&2
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
END_OF_SCRIPT
}

main "$@"
