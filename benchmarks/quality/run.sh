#!/usr/bin/env bash
# The quality tables, one part at a time: bash benchmarks/quality/run.sh PART OUT [SEED]
#   b     Online Retail, UK -> other markets, fixed negatives   (RETAIL = folder of the protocol files)
#   a     Online Retail, basket completion, full ranking         (RETAIL)
#   new   Complete Journey, users new to a department: auto on every fold
#   warm  Complete Journey, first purchases of users who are known there
#   small what compress makes of the models of b and warm (run those first), at two budgets
set -euo pipefail
part=${1:?which part: b, a, new, warm or small} out=${2:?a folder to write to} seed=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
tlrec=${TLREC:-tlrec-edge}
mkdir -p "$out"

retail_b() {
    printf '[domains]\n"United Kingdom" = "uk"\n"*" = "non_uk"\n' >"$out/markets.toml"
    "$tlrec" prepare --interactions "$RETAIL/protocol_b_source_uk.tsv.gz" \
        --interactions "$RETAIL/protocol_b_non_uk_train.tsv.gz" --items "$RETAIL/items.tsv.gz" \
        --schema "$out/markets.toml" --candidates "$RETAIL/protocol_b_non_uk_test.tsv.gz" --out "$out/b"
    "$tlrec" pretrain "$out/b" --domains uk --seed "$seed" --out "$out/b-source"
    "$tlrec" adapt "$out/b" --domain non_uk --from "$out/b-source" --mode finetune --out "$out/b-model"
    "$tlrec" evaluate "$out/b-model" "$out/b" --domain non_uk --ease-penalty 100 --ease-penalty 200
}

retail_a() {
    python3 "$here/baskets.py" "$RETAIL/protocol_a_sequences.tsv.gz" "$out/baskets.csv"
    printf '[clean]\nduplicates = "keep"\n' >"$out/keep.toml"
    for seen in rank mask; do
        "$tlrec" prepare --interactions "$out/baskets.csv" --schema "$out/keep.toml" --split leave-one-out \
            --negatives 0 "--$seen-seen" --no-refit --out "$out/a-$seen"
        # What a bundle can serve of EASE alone, tuned on the same rows.
        "$tlrec" adapt "$out/a-$seen" --domain all --mode scratch --without deep,counts --wide-rank 0 --out "$out/a-$seen-ease"
        "$tlrec" evaluate "$out/a-$seen-ease" "$out/a-$seen" --domain all --per-user "$out/a-$seen-ease.parquet"
        # Chosen on validation: among items not seen the many small weights matter.
        "$tlrec" adapt "$out/a-$seen" --domain all --mode scratch --seed "$seed" --wide-weights 100 --wide-rank 64 \
            --out "$out/a-$seen-model"
        "$tlrec" evaluate "$out/a-$seen-model" "$out/a-$seen" --domain all --against "$out/a-$seen-ease.parquet"
    done
}

journey() { # folder, buyers a candidate needs
    test -d "$1" || "$tlrec" prepare --preset complete-journey --min-buyers "$2" --out "$1"
}

new_users() {
    journey "$out/journey" 5
    journey "$out/journey-2" 2
    for target in NUTRITION PASTRY DELI COSMETICS; do
        data=$out/journey
        test $target = COSMETICS && data=$out/journey-2
        # Chosen on the validation rows of three folds: .3127 -> .3141 (paired SE .0011).
        more=()
        test $target != DELI || more=(--wide-weights 200 --wide-rank 96)
        "$tlrec" pretrain "$data" --domains "!$target" --min-buyers 10 --seed "$seed" "${more[@]}" --out "$out/source-$target"
        "$tlrec" crossval "$data" --domain $target --from "$out/source-$target" --mode auto --mode finetune
    done
}

warm_users() {
    journey "$out/journey" 5
    for target in NUTRITION DELI; do
        "$tlrec" pretrain "$out/journey" --domains "!$target" --min-buyers 10 --seed "$seed" --out "$out/source-$target"
        "$tlrec" adapt "$out/journey" --domain $target --from "$out/source-$target" --mode finetune --out "$out/warm-$target"
        "$tlrec" evaluate "$out/warm-$target" "$out/journey" --domain $target
    done
}

small() {
    for given in "b-model $out/b non_uk" "warm-NUTRITION $out/journey NUTRITION"; do
        read -r name data target <<<"$given"
        test -d "$out/$name" || continue
        for budget in 99.5% 98.5%; do
            "$tlrec" compress "$out/$name" "$data" --domain "$target" --budget "ndcg@10>=$budget" --seed "$seed" \
                --checkpoint "$out/$name-search" --out "$out/$name-$budget"
            "$tlrec" evaluate "$out/$name-$budget" "$data" --domain "$target"
        done
    done
}

case $part in
    b) retail_b ;;
    a) retail_a ;;
    new) new_users ;;
    warm) warm_users ;;
    small) small ;;
    *) echo "unknown part $part: b, a, new, warm or small" >&2; exit 2 ;;
esac
