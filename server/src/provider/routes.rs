//! Which of several routes to take: the first in order that is ready and whose breaker lets something through.

use std::sync::Arc;

use super::{LoadedProvider, ProviderShelf, Standing};
use crate::catalog::Registry;
use crate::clock::Micros;
use crate::generation::Route;

/// A route that can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its place among those that were looked at.
    pub index: usize,
    /// Its breaker is open, as are those of all others that are ready.
    pub is_open: bool,
}

/// The provider of this name, if it is switched on and can be used.
pub fn ready(registry: &Registry, providers: &ProviderShelf, name: &str) -> Option<Arc<LoadedProvider>> {
    let switched_on = registry.is_enabled(name);
    let provider = providers.get(name).filter(|_| switched_on)?;
    provider.not_ready.is_none().then_some(provider)
}

/// The route to take now: the first that is ready and not open, else the first that is ready; `None` when none is.
pub fn pick<'r>(
    registry: &Registry,
    providers: &ProviderShelf,
    routes: impl IntoIterator<Item = &'r Route>,
    now: Micros,
) -> Option<Pick> {
    let mut first = None;
    for (index, route) in routes.into_iter().enumerate() {
        let Some(provider) = ready(registry, providers, &route.provider) else {
            continue;
        };
        if !matches!(provider.health.standing(now), Standing::Open { .. }) {
            return Some(Pick { index, is_open: false });
        }
        first = first.or(Some(Pick { index, is_open: true }));
    }
    first
}

/// The routes with the one to take in front. Those that were passed over come last: they may serve later. `None` when none
/// is ready.
pub fn arrange(
    registry: &Registry,
    providers: &ProviderShelf,
    mut routes: Vec<Route>,
    now: Micros,
) -> Option<Vec<Route>> {
    let pick = pick(registry, providers, &routes, now)?;
    routes.rotate_left(pick.index);
    Some(routes)
}
