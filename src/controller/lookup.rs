//! Which function a caller means, and its current version: a bounded cache in front of the registry, cleared by news of a change.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::domain::function::{Function, Version};
use crate::domain::ids::{FunctionId, Owner, VersionKey};
use crate::ports::registry::Registry;

use super::auth::Caller;
use super::error::{ApiError, Code, function_not_found};

/// Functions remembered; the next one empties the cache.
const FUNCTIONS_MAX: usize = 20_000;
/// Functions remembered up to which one that changed is read ahead of its call: ten thousand deployed in a row are not to fill the memory.
const AHEAD_MAX: usize = 1000;
/// Read again after this, where news of a change can be lost.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// An admin's look for somebody's function by name reads pages of this size …
const SEARCH_PAGE: usize = 1000;
/// … and at most so many.
const SEARCH_PAGES_MAX: usize = 100;

/// A function and the version that new calls run.
#[derive(Clone, Debug)]
pub struct Current {
    pub function: Function,
    pub version: Arc<Version>,
}

#[derive(Default)]
struct Cache {
    /// Counts invalidations: what was read before one must not be remembered after it.
    generation: u64,
    by_id: HashMap<FunctionId, (Arc<Current>, Duration)>,
    /// By owner, then by name.
    by_name: HashMap<Owner, HashMap<Box<str>, FunctionId>>,
    names: usize,
    /// By who asks, an admin, then by name: somebody else's functions. A new function may take such a name.
    foreign: HashMap<Owner, HashMap<Box<str>, FunctionId>>,
}

pub struct Functions {
    registry: Arc<dyn Registry>,
    cache: RwLock<Cache>,
    fresh_for: Duration,
}

impl Functions {
    /// `hears_all`: every change is told, or it is told that some may not have been.
    pub fn new(registry: Arc<dyn Registry>, hears_all: bool) -> Self {
        let fresh_for = if hears_all { Duration::MAX } else { FRESH_FOR };
        Self { registry, cache: RwLock::default(), fresh_for }
    }

    pub fn registry(&self) -> &dyn Registry {
        &*self.registry
    }

    /// The function of this id or name that `caller` may see.
    pub async fn find(&self, caller: &Caller, id_or_name: &str, now: Duration) -> Result<Arc<Current>, ApiError> {
        let current = match id_or_name.parse::<FunctionId>() {
            Ok(id) => self.by_id(id, now).await?,
            Err(_) => self.by_name(caller, id_or_name, now).await?,
        };
        current
            .filter(|current| caller.sees(&current.function.owner, current.function.id))
            .ok_or_else(function_not_found)
    }

    pub async fn by_id(&self, id: FunctionId, now: Duration) -> Result<Option<Arc<Current>>, ApiError> {
        if let Some(current) = self.read().fresh(id, now, self.fresh_for) {
            return Ok(Some(current));
        }
        let generation = self.read().generation;
        let Some(function) = self.registry.function(id).await? else { return Ok(None) };
        self.load(function, generation, now).await
    }

    async fn by_name(&self, caller: &Caller, name: &str, now: Duration) -> Result<Option<Arc<Current>>, ApiError> {
        if let Some(current) = self.read().fresh_named(caller.owner(), name, now, self.fresh_for) {
            return Ok(Some(current));
        }
        let generation = self.read().generation;
        let mut function = self.registry.function_named(caller.owner(), name).await?;
        if function.is_none() && caller.principal.is_admin() {
            function = self.search(name).await?;
        }
        let Some(function) = function else { return Ok(None) };
        let current = self.load(function, generation, now).await?;
        if let Some(current) = &current {
            self.remember_name(caller.owner(), name, &current.function, generation);
        }
        Ok(current)
    }

    /// Anybody's function of this name, if only one owner has one.
    async fn search(&self, name: &str) -> Result<Option<Function>, ApiError> {
        let (mut found, mut cursor): (Option<Function>, Option<String>) = (None, None);
        for _ in 0..SEARCH_PAGES_MAX {
            let page = self.registry.list(None, SEARCH_PAGE, cursor.as_deref()).await?;
            for (function, _) in page.items {
                if &*function.name != name {
                    continue;
                }
                if found.is_some() {
                    let sentence = format!("several owners have a function named {name}; use the function's id");
                    return Err(ApiError::new(Code::AmbiguousName, sentence));
                }
                found = Some(function);
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn load(&self, function: Function, generation: u64, now: Duration) -> Result<Option<Arc<Current>>, ApiError> {
        let key = VersionKey { function: function.id, number: function.current };
        let Some(version) = self.registry.version(key).await? else { return Ok(None) };
        let current = Arc::new(Current { function, version });
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.generation == generation {
            if cache.by_id.len() >= FUNCTIONS_MAX {
                cache.clear();
            }
            cache.by_id.insert(key.function, (current.clone(), now));
        }
        Ok(Some(current))
    }

    fn remember_name(&self, asks: &Owner, name: &str, function: &Function, generation: u64) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.generation != generation {
            return;
        }
        if cache.names >= FUNCTIONS_MAX {
            cache.forget_names();
        }
        let Cache { by_name, foreign, names, .. } = &mut *cache;
        let (place, other) = if function.owner == *asks { (by_name, foreign) } else { (foreign, by_name) };
        if place.entry(asks.clone()).or_default().insert(name.into(), function.id).is_none() {
            *names += 1;
        }
        if other.get_mut(asks).and_then(|names| names.remove(name)).is_some() {
            *names -= 1;
        }
    }

    /// Forgets one function. A name of its owner's leads to its id, which is read again, and with it whether the name still does.
    /// What an admin's name means may have changed by it, whichever name that was.
    pub fn forget(&self, id: FunctionId) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.generation += 1;
        cache.by_id.remove(&id);
        cache.names -= cache.foreign.drain().map(|(_, names)| names.len()).sum::<usize>();
    }

    /// Forgets one function, and reads it anew ahead of its next call, if it is still there and few are remembered.
    pub async fn reload(&self, id: FunctionId, now: Duration) {
        self.forget(id);
        let generation = {
            let cache = self.read();
            if cache.by_id.len() >= AHEAD_MAX {
                return;
            }
            cache.generation
        };
        // Whoever calls it would be told what is wrong with the registry.
        if let Ok(Some(current)) = self.by_id(id, now).await {
            let Function { owner, name, .. } = &current.function;
            self.remember_name(owner, name, &current.function, generation);
        }
    }

    pub fn forget_all(&self) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.generation += 1;
        cache.clear();
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn fresh(&self, id: FunctionId, now: Duration, fresh_for: Duration) -> Option<Arc<Current>> {
        let (current, read_at) = self.by_id.get(&id)?;
        (now.saturating_sub(*read_at) < fresh_for).then(|| current.clone())
    }

    fn fresh_named(&self, owner: &Owner, name: &str, now: Duration, fresh_for: Duration) -> Option<Arc<Current>> {
        let of = |names: &HashMap<Owner, HashMap<Box<str>, FunctionId>>| names.get(owner)?.get(name).copied();
        self.fresh(of(&self.by_name).or_else(|| of(&self.foreign))?, now, fresh_for)
    }

    fn forget_names(&mut self) {
        self.by_name.clear();
        self.foreign.clear();
        self.names = 0;
    }

    fn clear(&mut self) {
        self.by_id.clear();
        self.forget_names();
    }
}
