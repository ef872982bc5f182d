//! Threads for the code of a library. A call that does not return costs one of them and a fault, never a thread of the
//! runtime; and the process can end without waiting for it.

use ::velro_plugin::{Fault, FaultCode};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

type Task = Box<dyn FnOnce() + Send>;

/// A few threads that run the calls of one instance.
pub(super) struct Lane {
    tasks: Sender<Task>,
    threads: usize,
    /// Calls that were given up on and have not returned.
    stuck: Arc<AtomicUsize>,
}

impl Lane {
    /// Starts the threads; they end when the lane is dropped and its last task is done.
    pub(super) fn new(name: &str, threads: usize) -> std::io::Result<Lane> {
        let (tasks, waiting) = unbounded::<Task>();
        for _ in 0..threads {
            let waiting = waiting.clone();
            // The kernel keeps fifteen bytes of a thread's name.
            let short: String = format!("p-{name}").chars().take(15).collect();
            thread::Builder::new().name(short).spawn(move || work(&waiting))?;
        }
        Ok(Lane {
            tasks,
            threads,
            stuck: Arc::default(),
        })
    }

    /// Runs a call and waits for it. It may take `limit` from the moment it begins; one that has not begun after ten times
    /// as long is not run at all.
    pub(super) fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        aside(|| self.wait_for(limit, call))
    }

    fn wait_for<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        if self.stuck.load(Ordering::Acquire) >= self.threads {
            let what = format!("{NO_ANSWER}, and no thread is left for it");
            return Err(Fault::new(FaultCode::Internal, what));
        }
        let (answer, answered) = bounded::<thread::Result<T>>(1);
        let call_is = Arc::new(Mutex::new(Call::Waiting));
        let (seen_by_task, stuck) = (Arc::clone(&call_is), Arc::clone(&self.stuck));
        let task = Box::new(move || {
            match &mut *lock(&seen_by_task) {
                // Nobody wants it any more.
                Call::GivenUp => return,
                waiting => *waiting = Call::Running(Instant::now()),
            }
            let result = catch_unwind(AssertUnwindSafe(call));
            let now = lock(&seen_by_task);
            if matches!(*now, Call::GivenUp) {
                stuck.fetch_sub(1, Ordering::AcqRel);
            }
            // Nobody listens any more when the call was given up.
            drop(answer.send(result));
        });
        let ended = || Fault::new(FaultCode::Internal, "the threads of the library have ended");
        self.tasks.send(task).map_err(|_| ended())?;
        let asked = Instant::now();
        loop {
            match answered.recv_timeout(limit) {
                Ok(result) => return result.map_err(panicked),
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let mut now = lock(&call_is);
            // It may have answered in this very moment.
            if let Ok(result) = answered.try_recv() {
                return result.map_err(panicked);
            }
            let what = match *now {
                Call::Running(since) if since.elapsed() >= limit => {
                    self.stuck.fetch_add(1, Ordering::AcqRel);
                    format!("{NO_ANSWER} within {} ms", limit.as_millis())
                }
                Call::Waiting if asked.elapsed() >= limit * 10 => {
                    "the library is busy with other calls; this one has not been made".to_owned()
                }
                _ => continue,
            };
            *now = Call::GivenUp;
            return Err(Fault::new(FaultCode::Internal, what));
        }
    }

    /// Runs something when a thread is free; nobody waits for it.
    pub(super) fn post(&self, task: impl FnOnce() + Send + 'static) {
        // The threads end after this lane, so that somebody is there to take it.
        drop(self.tasks.send(Box::new(task)));
    }
}

/// Where a call is.
enum Call {
    /// No thread has taken it.
    Waiting,
    /// Since then.
    Running(Instant),
    /// Its caller has gone.
    GivenUp,
}

fn lock(call: &Mutex<Call>) -> MutexGuard<'_, Call> {
    call.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what may take long without holding up the other tasks of the thread it is called on.
pub fn aside<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// How the fault of a call that did not return begins.
pub(super) const NO_ANSWER: &str = "the library does not answer";

/// True for the fault of a call that did not return.
pub fn did_not_return(fault: &Fault) -> bool {
    fault.message.starts_with(NO_ANSWER)
}

/// A panic of our own half of the bridge; the SDK stops those of the library.
fn panicked(payload: Box<dyn Any + Send>) -> Fault {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    Fault::new(FaultCode::Panic, text.unwrap_or_else(|| "panic".into()))
}

fn work(waiting: &Receiver<Task>) {
    // Ends with the lane.
    for task in waiting {
        task();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_that_does_not_return_costs_its_thread_until_it_does() {
        let lane = Lane::new("test", 2).unwrap();
        assert_eq!(lane.run(LONG, || 1).unwrap(), 1);
        let (free, wait) = channel::<()>();
        let fault = lane.run(Duration::from_millis(20), move || wait.recv()).unwrap_err();
        assert!(fault.message.starts_with(NO_ANSWER), "{fault}");
        assert_eq!(lane.run(LONG, || 2).unwrap(), 2, "the other thread goes on");
        let (free_too, wait) = channel::<()>();
        lane.run(Duration::from_millis(20), move || wait.recv()).unwrap_err();
        let fault = lane.run(LONG, || 3).unwrap_err();
        assert!(fault.message.contains("no thread is left"), "{fault}");
        free.send(()).unwrap();
        while lane.stuck.load(Ordering::Acquire) > 1 {
            thread::yield_now();
        }
        assert_eq!(lane.run(LONG, || 4).unwrap(), 4, "it came back");
        drop(free_too);
    }

    #[test]
    fn waiting_for_its_turn_is_not_hanging() {
        let lane = Arc::new(Lane::new("test", 1).unwrap());
        let (limit, (free, wait)) = (Duration::from_millis(50), channel::<()>());
        let (begun, first) = channel::<()>();
        let other = Arc::clone(&lane);
        let slow = thread::spawn(move || {
            other.run(LONG, move || {
                begun.send(()).unwrap();
                wait.recv().unwrap();
            })
        });
        first.recv().unwrap();
        let fault = lane.run(limit, || 1).unwrap_err();
        assert!(
            fault.message.contains("busy") && !fault.message.starts_with(NO_ANSWER),
            "{fault}"
        );
        assert_eq!(lane.stuck.load(Ordering::Acquire), 0);
        free.send(()).unwrap();
        slow.join().unwrap().unwrap();
        assert_eq!(lane.run(LONG, || 2).unwrap(), 2);
    }

    #[test]
    fn a_panic_is_a_fault_and_the_next_call_works() {
        let lane = Lane::new("test", 1).unwrap();
        let fault = lane.run(LONG, || -> u8 { panic!("boom") }).unwrap_err();
        assert_eq!((fault.code, fault.message.as_str()), (FaultCode::Panic, "boom"));
        assert_eq!(lane.run(LONG, || 7).unwrap(), 7);
    }
}
