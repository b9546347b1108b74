"""Make a language model of 30 kB with its tokenizer, and 32 conversations, in the folder that is the argument."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

folder = Path(sys.argv[1])
words = ["<pad>", "<end>", "user", "assistant", "what", "is", "plus", *map(str, range(40))]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
fast.chat_template = (
    "{% for message in messages %}{{ message.role }} {{ message.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
fast.save_pretrained(folder / "model")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
config = Qwen2Config(vocab_size=len(words), pad_token_id=0, eos_token_id=1, bos_token_id=1, **sizes, **heads)
Qwen2ForCausalLM(config).save_pretrained(folder / "model")


def conversation(a: int, b: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"what is {a} plus {b}"}, {"role": "assistant", "content": str(a + b)}]


rows = [conversation(a, b) for a in range(8) for b in range(4)]
pandas.DataFrame({"messages": rows}).to_parquet(folder / "train.parquet")
