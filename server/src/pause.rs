//! What an operator has stopped: the whole queue, or one provider.
//!
//! The truth is in the database; [`Pauses`] is what this process knows of it, so that a submit and a claim ask nobody. It is
//! read again every few seconds, and at once where it was changed. While the database is away, what is known stays.

use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::clock::Micros;

/// What a scope may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Everything.
    Running,
    /// Nothing begins. What comes is accepted and waits; what runs goes on.
    Paused,
    /// Nothing new is taken. What was taken is worked off.
    Draining,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Running, Mode::Paused, Mode::Draining];

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Running => "running",
            Mode::Paused => "paused",
            Mode::Draining => "draining",
        }
    }

    /// Parses it.
    pub fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What is stopped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of it.
    Queue,
    /// One provider, by the name of its entry.
    Provider(String),
}

impl Scope {
    /// Parses the database form: `queue` or `provider:NAME`.
    pub fn parse(text: &str) -> Option<Scope> {
        match text.split_once(':') {
            None if text == "queue" => Some(Scope::Queue),
            Some(("provider", name)) if !name.is_empty() => Some(Scope::Provider(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Queue => f.write_str("queue"),
            Scope::Provider(name) => write!(f, "provider:{name}"),
        }
    }
}

/// What an operator said of a scope last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Of what.
    pub scope: Scope,
    /// What it may do.
    pub mode: Mode,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub actor: String,
    /// When.
    pub created_at: Micros,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    queue: Option<Pause>,
    /// Those that are not running.
    providers: BTreeMap<String, Pause>,
}

/// What this process knows; cheap to ask.
#[derive(Debug, Default)]
pub struct Pauses(ArcSwap<Known>);

impl Pauses {
    /// Takes what is stored. True when that changed anything.
    pub fn set(&self, pauses: impl IntoIterator<Item = Pause>) -> bool {
        let mut known = Known::default();
        for pause in pauses.into_iter().filter(|pause| pause.mode != Mode::Running) {
            match &pause.scope {
                Scope::Queue => known.queue = Some(pause),
                Scope::Provider(name) => drop(known.providers.insert(name.clone(), pause)),
            }
        }
        let changed = **self.0.load() != known;
        if changed {
            self.0.store(Arc::new(known));
        }
        changed
    }

    /// What the queue as a whole may do.
    pub fn queue(&self) -> Mode {
        self.0.load().queue.as_ref().map_or(Mode::Running, |pause| pause.mode)
    }

    /// What a provider may do by itself, whatever the queue may.
    pub fn provider(&self, name: &str) -> Mode {
        self.0
            .load()
            .providers
            .get(name)
            .map_or(Mode::Running, |pause| pause.mode)
    }

    /// True when jobs of a provider may begin.
    pub fn may_begin(&self, provider: &str) -> bool {
        let known = self.0.load();
        let is_paused = |pause: Option<&Pause>| pause.is_some_and(|pause| pause.mode == Mode::Paused);
        !is_paused(known.queue.as_ref()) && !is_paused(known.providers.get(provider))
    }

    /// All that are not running, the queue first.
    pub fn all(&self) -> Vec<Pause> {
        let known = self.0.load();
        known.queue.iter().chain(known.providers.values()).cloned().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pause(scope: &str, mode: Mode) -> Pause {
        Pause {
            scope: Scope::parse(scope).unwrap(),
            mode,
            reason: "maintenance".into(),
            actor: "cli".into(),
            created_at: Micros(1),
        }
    }

    #[test]
    fn paused_begins_nothing_and_draining_goes_on() {
        let pauses = Pauses::default();
        assert!(pauses.may_begin("fal"));
        assert!(pauses.set([pause("provider:fal", Mode::Paused), pause("queue", Mode::Running)]));
        assert!(!pauses.may_begin("fal") && pauses.may_begin("sandbox"));
        assert_eq!((pauses.queue(), pauses.provider("fal")), (Mode::Running, Mode::Paused));
        assert!(!pauses.set([pause("provider:fal", Mode::Paused)]), "no news");
        assert!(pauses.set([pause("provider:fal", Mode::Draining)]));
        assert!(pauses.may_begin("fal"));
        assert!(pauses.set([pause("queue", Mode::Paused)]));
        assert!(!pauses.may_begin("fal") && !pauses.may_begin("sandbox"));
        assert_eq!(pauses.all().len(), 1);
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["queue", "provider:fal", "provider:a:b"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "provider", "provider:", "queue:x", "fal"] {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
    }
}
