//! Server-sent events as a careful client reads them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::SOON;

/// One frame with data.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The `id:` line.
    pub id: Option<String>,
    /// Parsed from the `data:` line: `{"event": .., "data": {..}}`.
    pub body: Value,
}

impl Frame {
    /// The contract's event name.
    #[must_use]
    pub fn event(&self) -> &str {
        self.body["event"].as_str().unwrap_or_default()
    }

    /// The contract's data object.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// True when the server closes after it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.event(), "completed" | "error" | "cancelled")
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// Comment lines seen so far: heartbeats.
    pub comments: usize,
}

impl Stream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            comments: 0,
        }
    }

    /// A response header.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.response.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The next frame; `None` once the server has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        self.try_next(SOON).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The next frame, where the connection may break.
    ///
    /// # Errors
    /// After `patience`, when the connection breaks, or on a line that no stream of ours has.
    pub async fn try_next(&mut self, patience: Duration) -> Result<Option<Frame>> {
        tokio::time::timeout(patience, self.read(false))
            .await
            .with_context(|| format!("no frame within {patience:?}"))?
    }

    /// Waits for a comment line.
    pub async fn heartbeat(&mut self, patience: Duration) {
        let before = self.comments;
        let beat = async {
            while self.comments == before {
                let frame = self.read(true).await.unwrap_or_else(|error| panic!("{error:#}"));
                assert!(
                    frame.is_some() || self.comments > before,
                    "the stream ended without a heartbeat"
                );
            }
        };
        let in_time = tokio::time::timeout(patience, beat).await.is_ok();
        assert!(in_time, "no heartbeat within {patience:?}");
    }

    /// Frames up to and with the first that is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let found = wanted(&frame);
            frames.push(frame);
            if found {
                return frames;
            }
        }
        panic!("the stream ended without {what}: {frames:#?}");
    }

    /// All frames up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Reads blocks until one has data. With `stop_at_comment`, a block of comments alone ends the search.
    async fn read(&mut self, stop_at_comment: bool) -> Result<Option<Frame>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let (frame, comments) = parse(&String::from_utf8(block)?)?;
                self.comments += comments;
                if frame.is_some() || (stop_at_comment && comments > 0) {
                    return Ok(frame);
                }
            }
            match self.response.chunk().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => bail!(
                    "the stream ends in the middle of a frame: {}",
                    String::from_utf8_lossy(&self.buffer)
                ),
            }
        }
    }
}

/// One block of lines: its frame, if it has data, and its number of comments.
fn parse(block: &str) -> Result<(Option<Frame>, usize)> {
    let (mut id, mut data, mut comments) = (None, None, 0);
    for line in block.lines().filter(|line| !line.is_empty()) {
        if line.starts_with(':') {
            comments += 1;
        } else if let Some(value) = line.strip_prefix("id:") {
            id = Some(value.trim().to_owned());
        } else if let Some(value) = line.strip_prefix("data: ") {
            // Naive readers look for `data: ` and take the rest of the line: everything must be on one.
            if data.replace(value).is_some() {
                bail!("two data lines in one frame: {block}");
            }
        } else if !line.starts_with("retry:") {
            bail!("a line that the contract does not know: {line}");
        }
    }
    let frame = match data {
        Some(text) => Some(Frame {
            id,
            body: serde_json::from_str(text).with_context(|| format!("data is no JSON: {text}"))?,
        }),
        None => None,
    };
    Ok((frame, comments))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_frames_and_counts_comments() {
        let (frame, comments) =
            parse(": hi\nid: 7\ndata: {\"event\": \"queued\", \"data\": {\"position\": 1}}\n\n").unwrap();
        let frame = frame.unwrap();
        assert_eq!((frame.id.as_deref(), frame.event(), comments), (Some("7"), "queued", 1));
        assert_eq!(frame.data()["position"], 1);
        assert_eq!(parse(":\n\n").unwrap(), (None, 1));
        assert!(parse("event: queued\n\n").is_err());
        assert!(parse("data: {}\ndata: {}\n\n").is_err());
    }
}
