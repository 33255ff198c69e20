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
distill=()
if [[ -n ${TEACHER_ENCODER:-} ]]; then
  if todo teacher; then
    # People's labels alone; the first 96 tokens of a text suffice. Half an hour on 2 cores with bf16.
    resumable senthy train "${settings[@]}" --model linear --no-test "${size[@]}" \
      --set "paths.models_dir=$work/teacher" --set "encoder.name=$TEACHER_ENCODER" \
      --set encoder.max_length=96 --set encoder.max_windows=1 --set linear.train.learning_rate=1e-3 \
      --set linear.train.encoder_learning_rate=1e-4 --set linear.train.batch_size=64 --set linear.train.epochs=1 \
      --set linear.train.warmup_steps=300 --set linear.train.label_smoothing=0.05
    done_with teacher
  fi
  distill=(--teacher "$work/teacher/linear_roberta_model_final")
fi

if todo student; then
  resumable senthy train "${settings[@]}" --model joint --no-test "${further[@]}" "${size[@]}" "${distill[@]}" \
    --set "paths.models_dir=$work/models" --set "encoder.name=$work/encoder"
  done_with student
fi

senthy export "${settings[@]}" --set "paths.models_dir=$work/models" --set "encoder.name=$work/encoder" "${further[@]}" \
  --format pack --output "$work/pack"
python "$here/seen.py" "$work/pack" --databases "$work/human.db" "$work/tweets.db"
