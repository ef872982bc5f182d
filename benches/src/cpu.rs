//! CPU time and memory of processes, as the kernel counts them.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Linux counts CPU time for programs in hundredths of a second, whatever its own tick is.
const TICK: Duration = Duration::from_millis(10);

/// Whose CPU time is of interest.
#[derive(Debug, Clone, Copy)]
pub enum Whose {
    /// One process with all its threads.
    Process(u32),
    /// A process, its children, and those of them that have ended: PostgreSQL has one per connection.
    Family(u32),
    /// This process.
    Own,
    /// Programs that this process has started and that have ended.
    Ended,
}

/// CPU time used so far.
///
/// # Errors
/// If the process is gone.
pub fn time(whose: Whose) -> Result<Duration> {
    match whose {
        Whose::Process(pid) => Ok(Stat::of(pid)?.own),
        Whose::Own => Ok(Stat::of(std::process::id())?.own),
        Whose::Ended => Ok(Stat::of(std::process::id())?.ended_children),
        Whose::Family(pid) => {
            let head = Stat::of(pid)?;
            let children: Duration = children_of(pid).map(|child| child.own).sum();
            Ok(head.own + head.ended_children + children)
        }
    }
}

struct Stat {
    parent: u32,
    own: Duration,
    ended_children: Duration,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
        Self::parse(&text).with_context(|| format!("cannot read the statistics of process {pid}: {text}"))
    }

    /// `pid (name) state ppid ...`; a name may have spaces and brackets.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: TICK * (ticks(11)? + ticks(12)?),
            ended_children: TICK * (ticks(13)? + ticks(14)?),
        })
    }
}

fn children_of(parent: u32) -> impl Iterator<Item = Stat> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Stat::of(pid).ok())
        .filter(move |stat| stat.parent == parent)
}

/// Memory of a process that is really there, in bytes.
///
/// # Errors
/// If the process is gone.
pub fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the process has no memory")? * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "12 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 10 20 3 4 20 0 1 0 100 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.parent, 7);
        assert_eq!(stat.own, Duration::from_millis(300));
        assert_eq!(stat.ended_children, Duration::from_millis(70));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
        time(Whose::Own).unwrap();
    }
}
