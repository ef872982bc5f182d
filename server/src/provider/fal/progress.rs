//! What FAL's status says about the progress of a job, in a form that can be shown to its owner.

use velro_plugin::{Progress, Value};

use crate::provider::reading;

/// Reads queue position, newest log line and percentage. `permille` is the largest seen so far.
pub(super) fn read(status: &Value, permille: &mut Option<u16>) -> Progress {
    let lines = status["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let newest = lines.iter().rev().filter_map(|line| line["message"].as_str());
    let (message, seen) = reading::log(newest);
    // `None` is smaller than any number.
    *permille = (*permille).max(seen);
    Progress {
        permille: *permille,
        queue_position: status["queue_position"]
            .as_u64()
            .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn newest_line_and_percentage() {
        let mut permille = None;
        let status = json!({"logs": [
            {"message": "loading"}, {"message": "step \u{1b}[31mtwo\u{1b}[0m at https://internal/x 45%"},
            {"message": " 50%|#####     | 5/10 [00:01<00:01]"}]});
        let progress = read(&status, &mut permille);
        assert_eq!(progress.permille, Some(500));
        assert_eq!(progress.message.as_deref(), Some("step two at [link] 45%"));
        // It never goes backwards, and nonsense is not progress.
        let progress = read(
            &json!({"logs": [{"message": "20% of 900%"}], "queue_position": 3}),
            &mut permille,
        );
        assert_eq!(progress.permille, Some(500));
        assert_eq!(progress.queue_position, Some(3));
        assert_eq!(read(&json!({"logs": null}), &mut None), Progress::default());
    }
}
