#!/bin/sh
# Every node runs this; its options go to ray-bootstrap. 2000 texts, half of them too short.
cd "$(dirname "$0")" || exit
exec ray-bootstrap "$@" --num-cpus=2 -- sh -ec '
mkdir -p /shared/data-juicer
python -c "for n in range(2000): print({\"text\": \"a\" * n})" | tr "'\''" "\"" >/shared/data-juicer/texts.jsonl
python -m data_juicer.tools.process_data --config recipe.yaml
cat /shared/data-juicer/kept.jsonl/* | grep -o "\"host\":\"[^\"]*\"" | sort | uniq -c'
