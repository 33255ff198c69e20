#!/usr/bin/env bash
# Makes mini, from data to pack, in WORK; each step that is done is skipped, each training goes on where it stopped.
#
#     bash recipes/mini/make.sh WORK TWEETS.csv[.gz] LABELLED_DIR SEMEVAL_TRAIN.tsv HELD_OUT.tsv [HELD_OUT.csv ...]
#
# TEACHER_ENCODER (a directory or hub name) sets the encoder of the teacher; without it mini is trained without one.
# FROM (scratch by default) is where the encoder starts: scratch or an encoder directory. SAMPLE (a number of rows)
# tries the whole recipe on a few rows.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$1 tweets=$2 labelled=$3 semeval=$4
held_out=("${@:5}")
sample=${SAMPLE:-}
mkdir -p "$work"
settings=(-c "$here/mini.yaml" --set "paths.results_dir=$work/results" --set "paths.data_db=$work/human.db")

# Whether a step is still to do: `todo NAME` once, then `done_with NAME`.
todo() { [[ ! -e $work/.done-$1 ]]; }
done_with() { touch "$work/.done-$1"; }
# A command with --resume if an interrupted run of it can be continued, else anew; other failures end it.
resumable() {
  "$@" --resume 2>&1 | tee "$work/resume.log" || { grep -qE '(there is no|the) unfinished' "$work/resume.log" && "$@"; }
}

if todo data; then
  # The tweets keep version 1 of the split key: what version 1 held out stays held out.
  senthy data -c "$here/tweets.yaml" --source "$tweets" --set "paths.data_db=$work/tweets.db"
  python "$here/prepare.py" "$work/texts" --labelled "$labelled" --semeval "$semeval" --held-out "${held_out[@]}" \
    --database "$work/tweets.db" ${sample:+--made-up "$sample" --tweets "$sample"}
  senthy data "${settings[@]}" --train-source "$work/texts/train.tsv" --valid-source "$work/texts/valid.tsv" \
    --test-source "$work/texts/report.tsv"
  done_with data
fi

few=()
if [[ -n $sample ]]; then
  few=(--sample-size "$sample" --set encoder.scratch.vocab_size=2000)
fi
if todo pretrain; then
  resumable senthy pretrain "${settings[@]}" --from "${FROM:-scratch}" --data "$work/texts/pretrain.tsv" \
    --output "$work/encoder" --set "pretrain.added_tokens=$work/texts/emoji.txt" "${few[@]}"
  done_with pretrain
fi

further=(--set "joint.further_source=$work/texts/tweets_train.tsv")
size=(${sample:+--sample-size "$sample"})

# Train a linear model, a teacher: `teacher NAME ENCODER DATABASE OPTION...`; the first 96 tokens of a text suffice.
teacher() {
  resumable senthy train "${settings[@]}" --model linear --no-test "${size[@]}" --set "paths.data_db=$3" \
    --set "paths.models_dir=$work/$1" --set "encoder.name=$2" --set encoder.max_length=96 --set encoder.max_windows=1 \
    --set linear.train.learning_rate=1e-3 --set linear.train.encoder_learning_rate=1e-4 \
    --set linear.train.batch_size=64 --set linear.train.epochs=1 --set linear.train.warmup_steps=300 "${@:4}"
}

# Train both heads with the encoder, and pack them: `student NAME OPTION...`.
student() {
  local options=("${settings[@]}" --set "paths.models_dir=$work/$1-models" "${further[@]}" "${@:2}")
  resumable senthy train "${options[@]}" --model joint --no-test "${size[@]}"
  senthy export "${options[@]}" --format pack --output "$work/$1"
  python "$here/seen.py" "$work/$1" --databases "$work/human.db" "$work/tweets.db"
}

# The mean answers of two models to all texts, as a teacher's file: `ask NAME MODEL MODEL`.
ask() {
  local model text answers=()
  mkdir -p "$work/$1"
  for model in "${@:2}"; do
    for text in train tweets_train; do
      answers+=("$work/$1/${#answers[@]}.jsonl")
      head -n "${sample:-1000000000}" "$work/texts/$text.tsv" >"$work/$1/$text.tsv"
      senthy predict --input "$work/$1/$text.tsv" --output "${answers[-1]}" --load-model-path "$model" \
        --text-column text --quoting none --resume
    done
  done
  python "$here/teachers.py" "$work/$1" --answers "${answers[@]}" --train "$work/texts/train.tsv" \
    --tweets "$work/texts/tweets_train.tsv"
}

if [[ -z ${TEACHER_ENCODER:-} ]]; then
  if todo student; then
    student pack --set "encoder.name=$work/encoder"
    done_with student
  fi
  exit
fi

# The first teacher knows people's labels alone, and teaches the first student.
if todo teacher; then
  teacher teacher "$TEACHER_ENCODER" "$work/human.db" --set linear.train.label_smoothing=0.05
  done_with teacher
fi
first=$work/teacher/linear_roberta_model_final
if todo student; then
  student pack-1 --set "encoder.name=$work/encoder" --set "distill.teacher=$first"
  done_with student
fi

# The second one learns from both, and from tweets; with the first student it teaches the second one.
if todo teacher-2; then
  ask both "$first" "$work/pack-1/han"
  senthy data "${settings[@]}" --set "paths.data_db=$work/both.db" --train-source "$work/both/rows.tsv" \
    --valid-source "$work/texts/valid.tsv" --test-source "$work/texts/report.tsv"
  teacher teacher-2 "$first/encoder" "$work/both.db" --teacher "$work/both/teacher.jsonl" --set distill.weight=0.5
  done_with teacher-2
fi
if todo student-2; then
  ask better "$work/teacher-2/linear_roberta_model_final" "$work/pack-1/han"
  student pack-2 --set "encoder.name=$work/pack-1/encoder" --set "joint.heads_from=$work/pack-1" \
    --set "distill.teacher=$work/better/teacher.jsonl" --set joint.train.learning_rate=5e-4 \
    --set joint.train.encoder_learning_rate=4e-4 --set joint.train.epochs=2 --set joint.train.label_smoothing=0 \
    --set distill.weight=0.7 --set distill.temperature=2
  done_with student-2
fi
python "$here/mean.py" "$work/pack-1" "$work/pack-2" "$work/pack" --share 0.7 --valid "$work/texts/valid.tsv"
