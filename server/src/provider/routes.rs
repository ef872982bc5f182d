//! Which of several routes to take: the first in order that is ready, whose breaker lets something through, and that no
//! operator has stopped.

use std::sync::Arc;

use super::{LoadedProvider, ProviderShelf, Standing};
use crate::catalog::Registry;
use crate::clock::Micros;
use crate::generation::Route;
use crate::pause::{Mode, Pauses};

/// A route that can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its place among those that were looked at.
    pub index: usize,
    /// What keeps a job there from beginning at once.
    pub obstacle: Obstacle,
}

/// What keeps a job from beginning, the worse the later: a breaker closes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Nothing.
    None,
    /// The breaker is open.
    Open,
    /// An operator lets nothing begin.
    Paused,
    /// An operator lets nothing new in.
    Draining,
}

/// Routes in the order to try them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arranged {
    /// The one to take in front.
    pub routes: Vec<Route>,
    /// Of that one.
    pub obstacle: Obstacle,
}

/// The provider of this name, if it is switched on and can be used.
pub fn ready(registry: &Registry, providers: &ProviderShelf, name: &str) -> Option<Arc<LoadedProvider>> {
    let switched_on = registry.is_enabled(name);
    let provider = providers.get(name).filter(|_| switched_on)?;
    provider.not_ready.is_none().then_some(provider)
}

/// The route to take now: of those that are ready, the first with the least in its way; `None` when none is ready.
pub fn pick<'r>(
    registry: &Registry,
    providers: &ProviderShelf,
    pauses: &Pauses,
    routes: impl IntoIterator<Item = &'r Route>,
    now: Micros,
) -> Option<Pick> {
    let mut best: Option<Pick> = None;
    for (index, route) in routes.into_iter().enumerate() {
        let Some(provider) = ready(registry, providers, &route.provider) else {
            continue;
        };
        let obstacle = match pauses.provider(&route.provider) {
            Mode::Draining => Obstacle::Draining,
            Mode::Paused => Obstacle::Paused,
            Mode::Running if matches!(provider.health.standing(now), Standing::Open { .. }) => Obstacle::Open,
            Mode::Running => {
                return Some(Pick {
                    index,
                    obstacle: Obstacle::None,
                });
            }
        };
        if best.is_none_or(|best| obstacle < best.obstacle) {
            best = Some(Pick { index, obstacle });
        }
    }
    best
}

/// The routes with the one to take in front. Those that were passed over come last: they may serve later. `None` when none
/// is ready.
pub fn arrange(
    registry: &Registry,
    providers: &ProviderShelf,
    pauses: &Pauses,
    mut routes: Vec<Route>,
    now: Micros,
) -> Option<Arranged> {
    let Pick { index, obstacle } = pick(registry, providers, pauses, &routes, now)?;
    routes.rotate_left(index);
    Some(Arranged { routes, obstacle })
}
