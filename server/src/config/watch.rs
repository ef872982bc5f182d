//! Keeps the registry as the file says: a valid edit of `providers.toml` is applied within two seconds, an invalid one
//! changes nothing and is shown.
//!
//! Editors replace a file by renaming another one onto it, and Kubernetes swaps a symlink two folders up, so that a
//! watch on the file itself loses sight of it. The folder is watched instead, and once a second the file is read
//! anyway: notifications only make it quicker. Whether anything changed is decided by the content's hash alone.

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Registry, RegistryErrors, Shelf, file};
use crate::clock::{self, Micros};

/// How often the file is read without a notification.
const POLL: Duration = Duration::from_secs(1);
/// How long a notified change may settle: an editor that truncates and then writes is seen once, complete.
const SETTLE: Duration = Duration::from_millis(100);

/// How the registry's file is doing; shared with `/health` and the metrics.
#[derive(Debug, Default)]
pub struct RegistryHealth {
    ok: AtomicU64,
    failed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: String,
    applied_at: Micros,
    error: Option<ReloadError>,
}

/// An edit that was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadError {
    /// Every fault with its line, for operators only.
    pub text: String,
    /// When it was found.
    pub at: Micros,
}

/// What [`RegistryHealth`] knows at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// Reloads that were applied since the start.
    pub reloads_ok: u64,
    /// Edits that were refused since the start.
    pub reloads_failed: u64,
    /// Revision of the registry in use.
    pub revision: String,
    /// When it was applied.
    pub applied_at: Micros,
    /// Why the file as it is now is not in use; `None` when it is.
    pub error: Option<ReloadError>,
}

impl RegistryHealth {
    /// Health of a registry that was loaded at start.
    pub fn new(registry: &Registry) -> Self {
        let health = RegistryHealth::default();
        health.with_state(|state| {
            state.revision = registry.revision.clone();
            state.applied_at = registry.loaded_at;
        });
        health
    }

    /// Everything at once.
    pub fn snapshot(&self) -> HealthSnapshot {
        self.with_state(|state| HealthSnapshot {
            reloads_ok: self.ok.load(Ordering::Relaxed),
            reloads_failed: self.failed.load(Ordering::Relaxed),
            revision: state.revision.clone(),
            applied_at: state.applied_at,
            error: state.error.clone(),
        })
    }

    fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Every change below leaves a whole state, so that one of a thread that died is as good as any.
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn applied(&self, registry: &Registry) {
        self.ok.fetch_add(1, Ordering::Relaxed);
        self.with_state(|state| {
            *state = State {
                revision: registry.revision.clone(),
                applied_at: registry.loaded_at,
                error: None,
            };
        });
    }

    fn refused(&self, text: String, at: Micros) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.with_state(|state| state.error = Some(ReloadError { text, at }));
    }

    /// The file is what is in use (again).
    fn in_step(&self) {
        self.with_state(|state| state.error = None);
    }
}

/// Called with a valid registry before it is put on the shelf, so that what it needs (provider code) is ready first.
/// An `Err` keeps the registry off the shelf and is shown like a fault of the file.
pub type OnChange = Box<dyn Fn(&Registry) -> Result<(), String> + Send + Sync>;

/// Watches one `providers.toml`.
pub struct Watcher {
    path: PathBuf,
    shelf: Arc<Shelf>,
    health: Arc<RegistryHealth>,
    on_change: OnChange,
    /// What was seen last and not applied, so that it is reported once and not every second.
    refused: Option<Seen>,
}

/// What a look at the file gave.
#[derive(PartialEq, Eq)]
enum Seen {
    Revision(String),
    Unreadable(String),
}

impl Seen {
    fn of(read: &Result<String, RegistryErrors>) -> Seen {
        match read {
            Ok(text) => Seen::Revision(file::revision(text)),
            Err(errors) => Seen::Unreadable(errors.to_string()),
        }
    }
}

impl Watcher {
    /// A watcher of the file that the registry on the shelf was read from.
    pub fn new(path: impl Into<PathBuf>, shelf: Arc<Shelf>, health: Arc<RegistryHealth>, on_change: OnChange) -> Self {
        Watcher {
            path: path.into(),
            shelf,
            health,
            on_change,
            refused: None,
        }
    }

    /// Watches until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        // Kept alive until the end; without it the poll still sees every change.
        let _folder_watch = match watch_folder(&self.path, Arc::clone(&changed)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the folder of the registry cannot be watched; it is read every second");
                None
            }
        };
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = poll.tick() => {}
                () = changed.notified() => sleep(SETTLE).await,
            }
            let read = self.read().await;
            if self.is_news(&Seen::of(&read)) {
                // Believed when it says the same twice: a file that is being written is left alone until it is whole.
                sleep(SETTLE).await;
                if self.read().await != read {
                    changed.notify_one();
                    continue;
                }
            }
            self.look(read, clock::now());
        }
    }

    async fn read(&self) -> Result<String, RegistryErrors> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || file::read(&path)).await;
        // The task can only fail when the runtime is going down; an empty text is then as good as any.
        read.unwrap_or_else(|_| Ok(String::new()))
    }

    fn is_news(&self, seen: &Seen) -> bool {
        *seen != Seen::Revision(self.shelf.get().revision.clone()) && self.refused.as_ref() != Some(seen)
    }

    /// Takes note of the file's content as it is now.
    fn look(&mut self, read: Result<String, RegistryErrors>, now: Micros) {
        let seen = Seen::of(&read);
        if seen == Seen::Revision(self.shelf.get().revision.clone()) {
            if self.refused.take().is_some() {
                tracing::info!(path = %self.path.display(), "the registry is back to the revision in use");
            }
            self.health.in_step();
            return;
        }
        if !self.is_news(&seen) {
            return;
        }
        let began = Instant::now();
        let registry = read.and_then(|text| Registry::from_toml(&text, &self.path, now));
        let registry = registry.map_err(|errors| errors.to_string());
        let ready = registry.and_then(|registry| (self.on_change)(&registry).map(|()| registry));
        match ready {
            Ok(registry) => {
                self.refused = None;
                self.health.applied(&registry);
                tracing::info!(
                    revision = registry.revision,
                    models = registry.models.len(),
                    providers = registry.providers.len(),
                    took_ms = began.elapsed().as_millis() as u64,
                    "the registry was reloaded"
                );
                self.shelf.set(registry);
            }
            Err(text) => {
                tracing::error!(
                    faults = text,
                    "the registry was changed and is not valid; the old one stays in use"
                );
                self.health.refused(text, now);
                self.refused = Some(seen);
            }
        }
    }
}

fn watch_folder(path: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too; reacting to it would never end.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    const SHIPPED: &str = include_str!("../../../providers.toml");

    struct Watched {
        folder: tempfile::TempDir,
        path: PathBuf,
        shelf: Arc<Shelf>,
        health: Arc<RegistryHealth>,
        seen_by_hook: Arc<Mutex<Vec<String>>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn watch(folder: tempfile::TempDir, path: PathBuf) -> Watched {
        let registry = Registry::from_file(&path, Micros(1)).unwrap();
        let health = Arc::new(RegistryHealth::new(&registry));
        let shelf = Arc::new(Shelf::new(registry));
        let seen_by_hook = Arc::new(Mutex::new(Vec::new()));
        let (seen, old) = (Arc::clone(&seen_by_hook), Arc::clone(&shelf));
        let on_change: OnChange = Box::new(move |registry| {
            assert_ne!(old.get().revision, registry.revision, "the hook comes first");
            if registry.model("sandbox/refused").is_some() {
                return Err("no code for it".into());
            }
            seen.lock().unwrap().push(registry.revision.clone());
            Ok(())
        });
        let stop = CancellationToken::new();
        let watcher = Watcher::new(&path, Arc::clone(&shelf), Arc::clone(&health), on_change);
        let task = tokio::spawn(watcher.run(stop.clone()));
        Watched {
            folder,
            path,
            shelf,
            health,
            seen_by_hook,
            stop,
            task,
        }
    }

    fn in_folder() -> Watched {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers.toml");
        fs::write(&path, SHIPPED).unwrap();
        watch(folder, path)
    }

    impl Watched {
        /// Waits for the two seconds that are promised, not longer.
        async fn until(&self, what: &str, reached: impl Fn(&HealthSnapshot) -> bool) {
            let began = Instant::now();
            while !reached(&self.health.snapshot()) {
                assert!(
                    began.elapsed() < Duration::from_secs(2),
                    "{what}: {:?}",
                    self.health.snapshot()
                );
                sleep(Duration::from_millis(10)).await;
            }
        }

        async fn end(self) {
            self.stop.cancel();
            self.task.await.unwrap();
            drop(self.folder);
        }
    }

    fn renamed(id: &str) -> String {
        SHIPPED.replacen("sandbox/image", id, 1)
    }

    #[tokio::test]
    async fn a_valid_edit_is_applied_and_a_broken_one_is_not() {
        let w = in_folder();
        fs::write(&w.path, renamed("sandbox/photo")).unwrap();
        w.until("applied", |h| h.reloads_ok == 1).await;
        assert!(w.shelf.get().model("sandbox/photo").is_some());
        assert_eq!(*w.seen_by_hook.lock().unwrap(), [w.shelf.get().revision.clone()]);

        let good = w.shelf.get().revision.clone();
        fs::write(
            &w.path,
            renamed("sandbox/photo").replacen("credits = 5", "credits = -5", 1),
        )
        .unwrap();
        w.until("refused", |h| h.error.is_some()).await;
        let health = w.health.snapshot();
        let text = health.error.unwrap().text;
        assert!(
            text.contains("`credits` is -5") && text.contains("providers.toml:"),
            "{text}"
        );
        assert_eq!(
            (health.revision, w.shelf.get().revision.clone()),
            (good.clone(), good.clone())
        );

        // A fault is counted once, however often the file is looked at; and it goes when the edit is taken back.
        sleep(POLL + SETTLE * 2).await;
        assert_eq!(w.health.snapshot().reloads_failed, 1);
        fs::write(&w.path, renamed("sandbox/photo")).unwrap();
        w.until("in step again", |h| h.error.is_none()).await;
        let health = w.health.snapshot();
        assert_eq!(
            (health.reloads_ok, health.reloads_failed, health.revision),
            (1, 1, good)
        );
        w.end().await;
    }

    #[tokio::test]
    async fn a_file_that_goes_and_comes_back_changes_nothing_in_between() {
        let w = in_folder();
        let before = w.shelf.get().revision.clone();
        fs::remove_file(&w.path).unwrap();
        w.until("missing", |h| {
            h.error.as_ref().is_some_and(|e| e.text.contains("cannot be read"))
        })
        .await;
        assert_eq!(w.shelf.get().revision, before);
        // As editors do it: written aside, then renamed onto the old name.
        let aside = w.folder.path().join("providers.toml~");
        fs::write(&aside, renamed("sandbox/photo")).unwrap();
        fs::rename(&aside, &w.path).unwrap();
        w.until("applied", |h| h.reloads_ok == 1 && h.error.is_none()).await;
        w.end().await;
    }

    #[tokio::test]
    async fn what_the_app_refuses_stays_off_the_shelf() {
        let w = in_folder();
        fs::write(&w.path, renamed("sandbox/refused")).unwrap();
        w.until("refused", |h| {
            h.error.as_ref().is_some_and(|e| e.text == "no code for it")
        })
        .await;
        assert!(w.shelf.get().model("sandbox/refused").is_none());
        w.end().await;
    }

    /// Kubernetes mounts a ConfigMap as `providers.toml -> ..data/providers.toml`, `..data -> ..1`, and swaps `..data`.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_config_map_is_swapped_by_symlink() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..1", SHIPPED.to_owned()), ("..2", renamed("sandbox/photo"))] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("providers.toml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/providers.toml", at("providers.toml")).unwrap();
        let path = at("providers.toml");
        let (next, data) = (at("..data_tmp"), at("..data"));
        let w = watch(folder, path);
        symlink("..2", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        w.until("applied", |h| h.reloads_ok == 1).await;
        assert!(w.shelf.get().model("sandbox/photo").is_some());
        w.end().await;
    }
}
