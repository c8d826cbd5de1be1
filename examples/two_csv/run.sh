#!/usr/bin/env bash
# The plainest case, whole: two CSV files in, the goods each user may like out.
#   bash examples/two_csv/run.sh [FOLDER]       needs tlrec-edge with its extra [build] on the PATH
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-two-csv-out}
python=${PYTHON:-python3}

echo "1. Behaviour by category, Chinese headers: what users like of a category, carried over to goods never sold"
work=$out/by-category
"$python" "$here/make_tables.py" --by category --headers zh --out "$work"
tlrec-edge prepare --interactions "$work/user_behavior.csv" --items "$work/goods_features.csv" --out "$work/dataset"
# Category rows are a domain of their own, `categories`; the goods are the domain `all`.
tlrec-edge pretrain "$work/dataset" --domains categories --out "$work/source"
tlrec-edge adapt "$work/dataset" --domain all --from "$work/source" --mode zero-shot --out "$work/model"
tlrec-edge export "$work/model" "$work/dataset" --domain all --out "$work/bundle"
tlrec-edge recommend "$work/bundle" --history category:咖啡,category:书 -k 5
tlrec-edge recommend "$work/bundle" --users "$work/user_behavior.csv" --interactions "$work/user_behavior.csv" -k 10 \
  --out "$work/recommendations.csv"

echo "2. Behaviour by item, English headers: one domain, learned from itself"
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
