//! An HTTP load that costs little CPU, because it shares the cores with what it measures: one thread, one plain socket per
//! client, requests that were written beforehand, and of the answer only the status and the end are looked at. A client
//! waits for its answer before it asks again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::phase::{Phase, Tally};

/// Longer heads are not expected.
const MOST_BYTES: usize = 64 * 1024;

/// Makes the load until the phase is over and gives what came of it. Runs a thread of its own.
pub async fn run(address: SocketAddr, clients: usize, requests: Arc<Vec<Vec<u8>>>, phase: Arc<Phase>) -> Result<Tally> {
    let (sender, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tally = match runtime {
            Ok(runtime) => runtime.block_on(all(address, clients, requests, phase)),
            Err(error) => Err(error.into()),
        };
        // An error means that nobody waits any more.
        let _ = sender.send(tally);
    });
    outcome.await.context("the load ended without an outcome")?
}

async fn all(address: SocketAddr, clients: usize, requests: Arc<Vec<Vec<u8>>>, phase: Arc<Phase>) -> Result<Tally> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client(
            address,
            Arc::clone(&requests),
            Arc::clone(&next),
            Arc::clone(&phase),
        ));
    }
    let mut tally = Tally::default();
    while let Some(done) = tasks.join_next().await {
        tally.add(done.context("a client panicked")??);
    }
    Ok(tally)
}

async fn client(
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    phase: Arc<Phase>,
) -> Result<Tally> {
    let mut stream = TcpStream::connect(address).await.context("connect to the server")?;
    stream.set_nodelay(true)?;
    let mut tally = Tally::default();
    let mut buffer = vec![0; MOST_BYTES];
    while !phase.is_over() {
        let request = &requests[next.fetch_add(1, Ordering::Relaxed) % requests.len()];
        let began = Instant::now();
        stream.write_all(request).await.context("send a request")?;
        read_answer(&mut stream, &mut buffer).await?;
        tally.note(&phase, began.elapsed());
    }
    Ok(tally)
}

/// Reads one answer to its end; fails when it is not a 200.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.context("read an answer")?;
        if read == 0 {
            bail!("the server closed the connection in the middle of an answer");
        }
        filled += read;
        let Some(whole) = whole_length(&buffer[..filled])? else {
            continue;
        };
        if filled < whole {
            continue;
        }
        if &buffer[9..12] != b"200" {
            bail!("the server answered {}", String::from_utf8_lossy(&buffer[..filled]));
        }
        return Ok(());
    }
}

/// How long the answer is, head and body, once its head is there.
fn whole_length(bytes: &[u8]) -> Result<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let at = bytes[..head].windows(LENGTH.len()).position(|name| name == LENGTH);
    let at = at.context("an answer without a length")? + LENGTH.len();
    let digits = bytes[at..head].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    Ok(Some(head + 4 + length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_answer_is_known_from_its_head() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nx: y\r\n\r\nhello world!";
        assert_eq!(whole_length(text).unwrap(), Some(text.len()));
        assert_eq!(whole_length(&text[..20]).unwrap(), None);
        assert!(whole_length(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").is_err());
    }
}
