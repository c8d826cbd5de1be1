#!/usr/bin/env bash
# From two CSV files to recommendations: bash examples/two_csv/run.sh [FOLDER]
# Needs tlrec-edge[build] on the PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-two-csv-out}
python=${PYTHON:-python3}

echo "1. Interactions by category, Chinese columns: transfer to items that were never sold"
work=$out/by-category
"$python" "$here/make_tables.py" --by category --headers zh --out "$work"
tlrec-edge prepare --interactions "$work/user_behavior.csv" --items "$work/goods_features.csv" --out "$work/dataset"
# Rows of categories become the domain `categories`, items the domain `all`.
tlrec-edge pretrain "$work/dataset" --domains categories --out "$work/source"
tlrec-edge adapt "$work/dataset" --domain all --from "$work/source" --mode zero-shot --out "$work/model"
tlrec-edge export "$work/model" "$work/dataset" --domain all --out "$work/bundle"
tlrec-edge recommend "$work/bundle" --history category:咖啡,category:书 -k 5
tlrec-edge recommend "$work/bundle" --users "$work/user_behavior.csv" --interactions "$work/user_behavior.csv" -k 10 \
  --out "$work/recommendations.csv"

echo "2. Interactions by item, English columns: one domain, without transfer"
work=$out/by-item
"$python" "$here/make_tables.py" --by item --headers en --out "$work"
tlrec-edge prepare --interactions "$work/user_behavior.csv" --items "$work/goods_features.csv" --out "$work/dataset"
tlrec-edge adapt "$work/dataset" --domain all --mode scratch --out "$work/model"
tlrec-edge evaluate "$work/model" "$work/dataset" --domain all
tlrec-edge export "$work/model" "$work/dataset" --domain all --out "$work/bundle"
tlrec-edge recommend "$work/bundle" --history G000,G003 -k 5
tlrec-edge recommend "$work/bundle" --users "$work/user_behavior.csv" --interactions "$work/user_behavior.csv" -k 10 \
  --out "$work/recommendations.csv"

echo "recommendations: $out/by-category/recommendations.csv and $out/by-item/recommendations.csv"
