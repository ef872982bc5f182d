//! Answers that are rendered once per revision of the registry and then sent as they are.
//!
//! A listing of the shipped models takes 104 µs to build and write, ten times as much as the rest of a request: its
//! parameters are trees. What is kept holds the registry it was made from, so another registry, and nothing else, makes
//! a new one. Answers about a person are not kept: they are small, and must be fresh.

use bytes::Bytes;
use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::{Components, EndpointOutRegister, Operation, ToSchema};
use salvo::prelude::Json;
use salvo::{Response, Scribe};
use serde::Serialize;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::{Problem, Result};
use crate::catalog::Registry;
use crate::generation::MediaType;

/// The JSON of a `T`.
pub(super) struct Rendered<T>(Bytes, PhantomData<fn() -> T>);

impl<T: Serialize> Rendered<T> {
    /// Renders a value, to be sent once.
    pub(super) fn of(value: &T) -> Result<Rendered<T>> {
        let bytes = serde_json::to_vec(value).map_err(Problem::internal)?;
        Ok(Rendered(bytes.into(), PhantomData))
    }
}

impl<T> Scribe for Rendered<T> {
    fn render(self, res: &mut Response) {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        res.headers_mut().insert(CONTENT_TYPE, json);
        res.replace_body(self.0.into());
    }
}

impl<T: ToSchema + 'static> EndpointOutRegister for Rendered<T>
where
    Json<T>: EndpointOutRegister,
{
    fn register(components: &mut Components, operation: &mut Operation) {
        Json::<T>::register(components, operation);
    }
}

/// What a listing is called, and the type it is limited to. There are few of them, so what is kept is bounded.
type Name = (&'static str, Option<MediaType>);

/// The kept answers.
#[derive(Default)]
pub struct Listings(Mutex<HashMap<Name, (Arc<Registry>, Bytes)>>);

impl Listings {
    /// The answer of this name for this registry; made by `make` if it is not kept.
    pub(super) fn get<T: Serialize>(
        &self,
        name: Name,
        registry: &Arc<Registry>,
        make: impl FnOnce(&Registry) -> T,
    ) -> Result<Rendered<T>> {
        let kept = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name)
            .cloned();
        if let Some((of, bytes)) = kept
            && Arc::ptr_eq(&of, registry)
        {
            return Ok(Rendered(bytes, PhantomData));
        }
        // Outside the lock: two who come at once render the same.
        let made = Rendered::of(&make(registry))?;
        let kept = (Arc::clone(registry), made.0.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, kept);
        Ok(made)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use std::collections::BTreeMap;

    #[test]
    fn a_listing_is_made_once_for_each_registry() {
        let registry =
            |revision: &str| Arc::new(Registry::new(BTreeMap::new(), Vec::new(), revision.into(), Micros(0)));
        let (old, new) = (registry("same"), registry("same"));
        let listings = Listings::default();
        let get = |name, registry: &Arc<Registry>, made: u32| listings.get(name, registry, |_| made).ok().unwrap().0;
        assert_eq!(get(("a", None), &old, 1), "1");
        assert_eq!(get(("a", None), &old, 2), "1", "it is kept");
        assert_eq!(get(("a", Some(MediaType::Image)), &old, 3), "3", "another listing");
        assert_eq!(
            get(("a", None), &new, 4),
            "4",
            "another registry, whatever its revision is called"
        );
        assert_eq!(get(("a", None), &old, 5), "5", "one is kept of each");
    }
}
