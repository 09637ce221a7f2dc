"""What stands in TransferQueue."""

import json

from recipe.hdpo import transfer
from recipe.hdpo.algorithm.cliff import GroupRecord


def test_records_survive_their_tag_and_rows_have_none() -> None:
    record = GroupRecord("a", True, False, 0, 2, solved_privileged=1, kept=1, kept_tokens=7, settled_at=10.5)
    assert transfer.record_of(json.loads(json.dumps(transfer.record_tag(record)))) == record
    assert transfer.record_of({"status": "success"}) is None


def test_a_kept_trajectory_counts_the_tokens_of_both_forwards() -> None:
    tag = transfer.privileged_tag([1, 2], [1, 2, 3], [7, 8, 9, 10])
    assert tag == {"status": "success", transfer.PRIVILEGED_TAG: True, "seq_len": 2 + 3 + 2 * 4}


def test_a_kept_trajectory_has_its_three_sequences_in_its_fields() -> None:
    fields = transfer.privileged_fields([1, 2], [1, 2, 3], [7])
    assert {name: fields[name][0].tolist() for name in transfer.FIELDS} == {
        transfer.STUDENT_PROMPT: [1, 2],
        transfer.TEACHER_PROMPT: [1, 2, 3],
        transfer.RESPONSE: [7],
    }
