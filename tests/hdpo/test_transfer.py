"""What stands in TransferQueue."""

import json
import pickle

from tensordict import TensorDict
from transfer_queue import BatchMeta, KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.transferqueue_utils import _meta_to_realdata

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord


def test_records_survive_their_tag_and_rows_have_none() -> None:
    record = GroupRecord("a", True, False, 0, 2, solved_privileged=1, kept=1, kept_tokens=7, settled_at=10.5)
    assert transfer.record_of(json.loads(json.dumps(transfer.record_tag(record)))) == record
    assert transfer.record_of({"status": "success"}) is None


def test_a_kept_trajectory_counts_the_tokens_of_both_forwards() -> None:
    tag = transfer.privileged_tag([1, 2], [1, 2, 3], [7, 8, 9, 10])
    assert tag == {"status": "success", transfer.PRIVILEGED_TAG: True, "seq_len": 2 + 3 + 2 * 4, "num_distilled": 4}


def test_a_kept_trajectory_has_its_three_sequences_and_its_mask_in_its_fields() -> None:
    fields = transfer.privileged_fields([1, 2], [1, 2, 3], [7, 8], [1, 0])
    assert {name: fields[name][0].tolist() for name in transfer.FIELDS} == {
        transfer.STUDENT_PROMPT: [1, 2],
        transfer.TEACHER_PROMPT: [1, 2, 3],
        transfer.RESPONSE: [7, 8],
        transfer.RESPONSE_MASK: [1, 0],
    }


def test_kept_rows_reach_every_rank_as_they_were_handed_over() -> None:
    """By verl's own steps: extra info is copied to a part for each rank, pickled by Ray, and put beside the tensors."""
    kept = transfer.KeptRows(["b_8_0", "a_8_0"], [9, 6], measure_gradients=True, partition=transfer.CLIFFS)
    batch = KVBatchMeta(["a_0_0", "b_0_0"], [{}, {}], "train", extra_info={transfer.KEPT: kept, "temperature": 1.0})
    for part in pickle.loads(pickle.dumps(batch.chunk(2))):
        data = TensorDict({}, batch_size=[1])
        tu.assign_non_tensor_data(data, transfer.KEPT, part.extra_info[transfer.KEPT])
        without_rows = _meta_to_realdata(BatchMeta([], [], extra_info=part.extra_info))
        assert tu.pop(data, transfer.KEPT) == tu.pop(without_rows, transfer.KEPT) == kept
