"""Rows whose plain prompt is above the limit: the recipe's config leaves them out, by verl's own filter."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hdpo.composed_config import composed


def test_the_recipes_config_leaves_prompts_above_the_limit_out_and_verls_default_does_not(
    chat_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    messages = [[{"role": "user", "content": "x" * n}] for n in (3, 4, 5)]
    ids = tokenizer.apply_chat_template(messages[1], add_generation_prompt=True, tokenize=True, return_dict=False)
    pq.write_table(
        pa.Table.from_pylist([{"prompt": m, "data_source": "d"} for m in messages]), tmp_path / "rows.parquet"
    )
    limit = f"data.max_prompt_length={len(ids)}"
    for overrides, kept in (([], 2), (["data.filter_overlong_prompts=false"], 3)):
        config = composed(limit, *overrides).data
        rows = RLHFDataset(data_files=str(tmp_path / "rows.parquet"), tokenizer=tokenizer, config=config)
        assert [row["prompt"] for row in rows.dataframe] == messages[:kept]
