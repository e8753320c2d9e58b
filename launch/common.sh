# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source this
# What the launchers share: their command line, their settings, dry runs. Sourced, never run.

# Exit statuses as of `sami` itself (sami_jax/errors.py). After these starting again is of no use, after all others but 0 it is.
readonly BAD_INPUT=2           # something that the user must change
readonly STOPPED_BY_CANARIES=3 # `sami run` ended by its own rules
readonly NOT_FINITE=5          # its numbers are none
readonly INTERRUPTED=130       # somebody stopped it
readonly MOUNT=/mnt/sami       # where hosts in the cloud see the storage that they share

exec 3>&1 # dry runs print here, also from within $(...)

# Ends the launcher for bad input: one line that says what, where, what to do.
refuse() {
  printf '%s\n' "$1" >&2
  exit "$BAD_INPUT"
}

# take_arguments ARGUMENT...: sets DRY_RUN (yes or empty) and the array OVERRIDES, each kept to the letter.
take_arguments() {
  DRY_RUN=
  OVERRIDES=()
  local argument
  for argument in "$@"; do
    case $argument in
      --dry_run) DRY_RUN=yes ;;
      --config.?*=*) OVERRIDES+=("$argument") ;;
      *) refuse "$0: $argument: no such argument; there are --dry_run and --config.FIELD=VALUE" ;;
    esac
  done
}

# read_settings FILE REQUIRED... -- NAME=DEFAULT...: sets a variable for each from lines KEY=VALUE. The file is read, never
# executed; the value is the rest of the line, less a pair of quotes around it. An empty value is no value.
read_settings() {
  SETTINGS=$1
  shift
  local known=' ' required=() key line number=0 value
  while [[ $# -gt 0 && $1 != -- ]]; do
    required+=("$1")
    known+="$1 "
    printf -v "$1" '%s' ''
    shift
  done
  shift
  for line in "$@"; do
    known+="${line%%=*} "
    printf -v "${line%%=*}" '%s' "${line#*=}"
  done
  [[ -f $SETTINGS && -r $SETTINGS ]] || refuse "$SETTINGS: no such file; copy one of ${BASH_SOURCE[0]%/*}/settings/*.env"
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    [[ $line =~ ^([A-Z][A-Z0-9_]*)=(.*[^[:space:]])?[[:space:]]*$ ]] ||
      refuse "$SETTINGS:$number: not a line KEY=VALUE; put # before a comment"
    key=${BASH_REMATCH[1]}
    value=${BASH_REMATCH[2]}
    [[ $known == *" $key "* ]] || refuse "$SETTINGS:$number: $key: no such setting; there are$known"
    [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]] && value=${BASH_REMATCH[1]}
    [[ -n $value ]] && printf -v "$key" '%s' "$value"
  done <"$SETTINGS"
  for key in "${required[@]}"; do
    [[ -n ${!key} ]] || refuse "$SETTINGS: $key is not set; add a line $key=..."
  done
}

# check_setting NAME PATTERN MEANING: refuses a value that the whole of the extended regular expression does not match.
check_setting() {
  [[ ${!1} =~ ^($2)$ ]] || refuse "$SETTINGS: $1=${!1} is not $3"
}

# Exactly one of BUCKET and NFS says what all hosts share, and the run's folder lies on it.
check_storage() {
  [[ -n $BUCKET || -n $NFS ]] || refuse "$SETTINGS: BUCKET is not set, nor is NFS; all hosts need storage that they share: set one"
  [[ -z $BUCKET || -z $NFS ]] || refuse "$SETTINGS: BUCKET and NFS are both set; keep one"
  check_setting BUCKET '([a-z0-9][a-z0-9._-]*)?' "a bucket's name (without gs://)"
  check_setting NFS '([^:/]+:/.*)?' 'of the form HOST:/PATH'
  check_setting WORKDIR "$MOUNT/.+" "a folder under $MOUNT, where the hosts see their storage"
}

# How the processes come together, and where the config's model and queries are.
check_processes() {
  check_setting COORDINATOR_PORT '([1-9][0-9]{0,4})?' "a port's number"
  check_setting LOST_AFTER '([0-9]+)?' 'a whole number of seconds'
  check_setting START_WITHIN '([0-9]+)?' 'a whole number of seconds'
  check_setting MODEL '(/.+)?' 'an absolute path, to a folder that all hosts see'
  check_setting QUERIES '(/.+)?' 'an absolute path, to a file that all hosts see'
}

# sami_command PROGRAM: sets the array COMMAND, what every process runs.
sami_command() {
  COMMAND=("$1" run --distributed ${LOST_AFTER:+"--lost_after=$LOST_AFTER"} ${START_WITHIN:+"--start_within=$START_WITHIN"}
    "--config=$CONFIG" ${MODEL:+"--config.model.path=$MODEL"} ${QUERIES:+"--config.data.queries=$QUERIES"}
    "--workdir=$WORKDIR" "${OVERRIDES[@]}")
}

say() { printf '%s\n' "$NAME: $1" >&2; }

# One line that a shell reads back as exactly these words.
quoted() {
  printf '%q' "$1"
  shift
  [[ $# -eq 0 ]] || printf ' %q' "$@"
}

# perform COMMAND...: runs it, or in a dry run prints it.
perform() {
  if [[ -n $DRY_RUN ]]; then
    printf '%s\n' "$(quoted "$@")" >&3
  else
    printf '+ %s\n' "$(quoted "$@")" >&2
    "$@"
  fi
}

# perform_with TEXT COMMAND...: the same with a text on standard input.
perform_with() {
  local text=$1
  shift
  if [[ -n $DRY_RUN ]]; then
    printf "%s <<'END_OF_INPUT'\n%s\nEND_OF_INPUT\n" "$(quoted "$@")" "$text" >&3
  else
    printf '+ %s\n' "$(quoted "$@")" >&2
    "$@" <<<"$text"
  fi
}

# ask ANSWER COMMAND...: the command's output; a dry run prints the command and goes on as if it had given ANSWER.
ask() {
  local answer=$1
  shift
  if [[ -n $DRY_RUN ]]; then
    printf '%s\n' "$(quoted "$@")" >&3
    printf '%s\n' "$answer"
  else
    "$@"
  fi
}
