//! Damage done to the books behind a store's back, and what `verify_ledger` must say about each.

/// A statement, and sentences (parts of them) that must be said after it.
pub type Damage = (String, &'static [&'static str]);

/// Every kind of drift, for a database in which [`super::fixtures::lived_in`] has been, once constraints and triggers are
/// out of the way. Each damages a database of its own.
pub fn damages() -> Vec<Damage> {
    const COMPLETED: &str = "(SELECT id FROM generations WHERE status = 'completed')";
    const FAILED: &str = "(SELECT id FROM generations WHERE status = 'failed')";
    vec![
        (
            "UPDATE accounts SET balance = balance + 5 WHERE user_id IS NOT NULL".into(),
            &[
                "its balance is 975, but its transfers sum to 970",
                "All balances together are 5",
                "the statement sums to",
            ],
        ),
        (
            "UPDATE accounts SET balance = balance - 5 WHERE id = 'platform:revenue'".into(),
            &[
                "Account platform:revenue: its balance is 25, but its transfers sum to 30",
                "All balances together are -5",
            ],
        ),
        (
            "UPDATE accounts SET held = held + 1 WHERE user_id IS NOT NULL".into(),
            &["it holds 131, but its unsettled holds sum to 130"],
        ),
        (
            "UPDATE accounts SET held = 5000 WHERE user_id IS NOT NULL".into(),
            &["its balance of 970 does not cover the 5000 it holds"],
        ),
        (
            "DELETE FROM accounts WHERE user_id IS NOT NULL".into(),
            &["has 0 accounts, but must have 1"],
        ),
        (
            "DELETE FROM accounts WHERE id = 'platform:refunds'".into(),
            &["account platform:refunds exists 0 times, but must exist once"],
        ),
        (
            "UPDATE transfers SET amount = amount + 1 WHERE kind = 'grant'".into(),
            &[
                "its balance is 970, but its transfers sum to 971",
                "Account platform:grants: its balance is -1000",
            ],
        ),
        (
            "DELETE FROM transfers WHERE kind = 'capture'".into(),
            &["captured 30, but 0 was transferred", "its transfers sum to 1000"],
        ),
        (
            "UPDATE transfers SET amount = 29 WHERE kind = 'capture'".into(),
            &["captured 30, but 29 was transferred"],
        ),
        (
            "UPDATE statement_lines SET amount = amount - 1 WHERE seq = 2".into(),
            &[
                "the available balance is 840, but the statement sums to 839",
                "was held for 40, but its usage lines sum to -41",
                "says 960 is left, but the lines up to it sum to 959",
            ],
        ),
        (
            "UPDATE statement_lines SET balance_after = 1 WHERE seq = 1".into(),
            &["says 1 is left, but the lines up to it sum to 1000"],
        ),
        (
            "DELETE FROM statement_lines WHERE line_type = 'refund' AND amount = 50".into(),
            &[
                "released 50 and refunded 0, but its refund lines sum to 0",
                "the available balance is 840, but the statement sums to 790",
            ],
        ),
        (
            format!("DELETE FROM settlements WHERE generation_id = {COMPLETED}"),
            &[
                "is completed and has 0 settlements, but must have 1",
                "which has 0 settlements",
                "it holds 130, but its unsettled holds sum to 170",
            ],
        ),
        (
            "INSERT INTO settlements SELECT h.generation_id, h.account_id, 0, h.amount, 'thief', h.created_at FROM holds AS h \
          JOIN generations AS g ON g.id = h.generation_id WHERE g.status = 'queued'"
                .into(),
            &[
                "is queued and has 1 settlement, but must have 0",
                "it holds 130, but its unsettled holds sum to 60",
            ],
        ),
        (
            format!("UPDATE settlements SET released = released + 1 WHERE generation_id = {COMPLETED}"),
            &["30 captured and 11 released are not the 40 that were held"],
        ),
        (
            format!("UPDATE settlements SET captured = 1, released = 49 WHERE generation_id = {FAILED}"),
            &[
                "is failed, but 1 was captured instead of 0",
                "is failed and shows 0 as charged, but its settlement captured 1",
            ],
        ),
        (
            "UPDATE generations SET captured = 3 WHERE status = 'completed'".into(),
            &["is completed and shows 3 as charged, but its settlement captured 30"],
        ),
        (
            "UPDATE generations SET price = 41 WHERE status = 'completed'".into(),
            &["costs 41, but account"],
        ),
        (
            "DELETE FROM holds WHERE amount = 70".into(),
            &[
                "has a price of 70 and no hold",
                "it holds 130, but its unsettled holds sum to 60",
            ],
        ),
        (
            "UPDATE holds SET amount = 71 WHERE amount = 70".into(),
            &[
                "costs 70, but account",
                "was held for 71, but its usage lines sum to -70",
            ],
        ),
        (
            "DELETE FROM attempts WHERE state = 'unknown'".into(),
            &["is processing with 60 held, but has 0 attempts that go on"],
        ),
        (
            "UPDATE attempts SET state = 'accepted' WHERE state = 'finished'".into(),
            &["is accepted, but its generation"],
        ),
        ]
}
